"""The transport for TLS, over real sockets and on both loops: what comes, what is sent, each way in which it ends."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import random
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hubgate.web import tls
from tests.kit.certificates import Authority

BOTH_LOOPS = True
PATIENCE = 60.0
BIG = bytes(range(256)) * 4096 * 6  # 6 MiB, of which no two records are told apart by their ends alone


class App(asyncio.Protocol):
    """Keeps what it is told; `answer` is called with what comes."""

    def __init__(self, answer: Callable[[App, bytes], None] | None = None) -> None:
        self.answer = answer
        self.transport: asyncio.Transport
        self.got = bytearray()
        self.told: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.held = 0
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.got += data
        self.came.set()
        if self.answer:
            self.answer(self, data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.held = self.transport.get_write_buffer_size()
        self.paused.set()

    def resume_writing(self) -> None:
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)

    async def end(self) -> Exception | None:
        async with asyncio.timeout(PATIENCE):
            return await self.lost

    async def until(self, size: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.got) < size:
                self.came.clear()
                await self.came.wait()


class Client:
    """TLS in its own hands, so that it can misbehave on either layer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self.reader = reader
        self.writer = writer
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.ended = ""

    async def _more(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                data = await self.reader.read(1 << 16)
        except ConnectionError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "tcp"
            return False
        self.incoming.write(data)
        return True

    async def handshake(self, *, with_data: bytes = b"") -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not await self._more():
                    raise EOFError("no handshake") from None
            else:
                break
        if with_data:
            self.tls.write(with_data)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.outgoing.read())

    def records(self, data: bytes) -> bytes:
        """Encrypted, and kept back."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        self.writer.write(self.records(data))
        await self.writer.drain()

    async def receive(self, size: int | None = None) -> bytes:
        """So much, or all to the end, of which `ended` tells: `close_notify`, `tcp`, `reset` or `alert`."""
        got = bytearray()
        while size is None or len(got) < size:
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if not await self._more():
                    break
            except ssl.SSLZeroReturnError:  # after our own
                self.ended = "close_notify"
                break
            except ssl.SSLError:
                self.ended = "alert"
                break
            else:
                if not data:
                    self.ended = "close_notify"
                    break
                got += data
        return bytes(got)

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()


class Server:
    """Listens; `apps` are those that a handshake has led to."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.answer: Callable[[App, bytes], None] | None = None
        self.apps: list[App] = []
        self.context = authority.serving()
        self.port = 0
        self.server: asyncio.Server
        self.clients: list[Client] = []

    def make(self) -> App:
        self.apps.append(App(self.answer))
        return self.apps[-1]

    async def start(self, **options: Any) -> None:
        sock = socket.socket()
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # else the kernel may take all that a test writes
            sock.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.server = await tls.serve_tls(self.make, sock, self.context, **options)

    async def tcp(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(Client(reader, writer, self.authority.trusting()))
        return self.clients[-1]

    async def client(self, *, with_data: bytes = b"") -> tuple[Client, App]:
        client = await self.tcp()
        await client.handshake(with_data=with_data)
        await client.send(b"!")  # with TLS 1.3 the client is ready first
        async with asyncio.timeout(PATIENCE):
            while not self.apps:
                await asyncio.sleep(0.005)
        await self.apps[-1].until(1)
        self.apps[-1].got.clear()
        return client, self.apps[-1]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(Authority(tmp_path))
    made.context.maximum_version = request.param
    yield made
    for client in made.clients:
        if not client.writer.is_closing():
            client.writer.transport.abort()
    made.server.close()
    for app in made.apps:
        await app.end()


def echo(app: App, data: bytes) -> None:
    app.transport.write(data)


async def test_what_it_knows(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    ask = app.transport.get_extra_info
    assert ask("peername") == client.writer.get_extra_info("sockname")
    assert ask("sockname")[1] == server.port
    assert ask("socket").family == socket.AF_INET
    assert ask("sslcontext") is server.context
    assert ask("ssl_object").version() == client.tls.version()
    assert ask("cipher") == client.tls.cipher()
    assert ask("peercert") is None
    assert ask("compression") is None
    assert ask("nothing of the kind", 7) == 7
    assert not app.transport.can_write_eof()
    assert app.transport.is_reading()
    assert app.transport.get_protocol() is app
    assert app.transport.get_write_buffer_size() == 0


async def test_data_on_the_heels_of_the_handshake(server: Server) -> None:
    server.answer = echo
    await server.start()
    client = await server.tcp()
    await client.handshake(with_data=b"at once")
    assert await client.receive(7) == b"at once"
    assert server.apps[0].told == ["made"]


@pytest.mark.parametrize("cut", [1, 7, 22, 100, tls.RECORD - 1, tls.RECORD + 21])
async def test_records_in_other_pieces_than_they_were_made_in(server: Server, cut: int) -> None:
    """The end of a long record may come in a piece that is shorter than what is read from it."""
    await server.start()
    client, app = await server.client()
    size = 50_000 if cut > 1 else 300
    records = client.records(BIG[:size]) + b"".join(client.records(b"%d," % number) for number in range(10))
    assert isinstance(app.transport, tls.TlsTransport)
    for at in range(0, len(records), cut):
        app.transport.data_received(records[at : at + cut])
    assert app.got == BIG[:size] + b"0,1,2,3,4,5,6,7,8,9,"


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_that_came_whole_is_kept_back(server: Server, seed: int) -> None:
    """However records are cut and gathered, each is delivered in the call that brought its last byte."""
    chance = random.Random(seed)
    await server.start()
    client, app = await server.client()
    records = [
        client.records(bytes([number % 251]) * chance.choice((1, 2, 22, 23, 100, 3000))) for number in range(300)
    ]
    ends = list(itertools.accumulate(map(len, records)))
    stream = b"".join(records)
    sent = whole = 0
    assert isinstance(app.transport, tls.TlsTransport)
    while sent < len(stream):
        # Mostly whole records, at times with a part of the next one, or the rest of one.
        upto = chance.choice((ends[whole], ends[min(whole + 2, 299)], sent + chance.randint(1, 150), sent + 1))
        app.transport.data_received(stream[sent : max(upto, sent + 1)])
        sent = min(max(upto, sent + 1), len(stream))
        whole = bisect.bisect_right(ends, sent)
        assert [key for key, _ in itertools.groupby(app.got)] == [number % 251 for number in range(whole)]


async def test_a_piece_as_long_as_a_record_that_holds_the_rest_of_one_and_another(server: Server) -> None:
    """By the lengths alone it looks like the one record."""
    await server.start()
    client, app = await server.client()
    assert isinstance(app.transport, tls.TlsTransport)
    app.transport.data_received(client.records(b"-"))
    short = client.records(b"a")
    long = client.records(b"b" * 200)
    last = client.records(b"c")
    begun = len(last)
    app.transport.data_received(short + long[:begun])
    app.transport.data_received(long[begun:] + last)
    assert app.got == b"-a" + b"b" * 200 + b"c"


@pytest.mark.parametrize("size", [1, 512, tls.RECORD, tls.RECORD + 1, 3 * tls.PIECE + 5])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_sizes_and_kinds(server: Server, size: int, kind: type) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.write(b"")
    app.transport.write(kind(BIG[:size]))
    app.transport.writelines([b"a", kind(b"b"), b""])
    assert await client.receive(size + 2) == BIG[:size] + b"ab"


async def test_big_both_ways(server: Server) -> None:
    def echo_with_pressure(app: App, data: bytes) -> None:
        app.transport.write(data)

    class Spliced(App):
        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.pause_reading()

        def resume_writing(self) -> None:
            self.transport.resume_reading()

    def make() -> App:
        server.apps.append(Spliced(echo_with_pressure))
        return server.apps[-1]

    server.make = make  # type: ignore[method-assign]  # another kind of application
    await server.start()
    client, app = await server.client()
    assert await client.receive(1) == b"!"
    sending = asyncio.create_task(client.send(BIG))
    async with asyncio.timeout(PATIENCE):
        await app.paused.wait()  # nobody reads
    assert await client.receive(len(BIG)) == BIG
    await sending
    assert app.got == BIG


async def test_slow_reader(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.set_write_buffer_limits(high=100_000)
    assert app.transport.get_write_buffer_limits()[1] == 100_000
    written = bytearray()
    while not app.paused.is_set():
        piece = BIG[len(written) % 256 :][:50_000]
        app.transport.write(piece)
        written += piece
        await asyncio.sleep(0)
    assert 100_000 <= app.held < 200_000
    assert await client.receive(len(written)) == written
    async with asyncio.timeout(PATIENCE):
        await app.resumed.wait()


async def test_paused(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.pause_reading()
    app.transport.pause_reading()
    assert not app.transport.is_reading()
    sending = asyncio.create_task(client.send(BIG))
    await asyncio.sleep(0.1)
    assert not app.got
    assert not sending.done()  # TCP isn't read either
    app.transport.resume_reading()
    app.transport.resume_reading()
    await sending
    await app.until(len(BIG))
    assert app.got == BIG


async def test_paused_again_at_once(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.pause_reading()
    app.transport.resume_reading()
    assert app.transport.is_reading()
    app.transport.pause_reading()
    assert not app.transport.is_reading()
    await client.send(b"not yet")
    await asyncio.sleep(0.05)
    assert not app.got
    app.transport.resume_reading()
    await app.until(7)


async def test_paused_between_small_records(server: Server) -> None:
    """What came along isn't delivered before it is asked for, and isn't forgotten."""
    server.answer = lambda app, _: app.transport.pause_reading()
    await server.start()
    client, app = await server.client()
    app.transport.resume_reading()
    client.writer.write(b"".join(client.records(b"%d" % number) for number in range(3)))
    for expected in (b"0", b"01", b"012"):
        await app.until(len(expected))
        await asyncio.sleep(0.02)
        assert bytes(app.got) == expected
        assert not app.transport.is_reading()
        app.transport.resume_reading()


async def test_paused_in_between(server: Server) -> None:
    """Each delivery pauses; nothing is delivered until the next turn."""

    def once(app: App, _: bytes) -> None:
        assert app.transport.is_reading()
        app.transport.pause_reading()
        asyncio.get_running_loop().call_soon(app.transport.resume_reading)

    server.answer = once
    await server.start()
    client, app = await server.client()
    await client.send(BIG[: 1 << 20])
    await app.until(1 << 20)
    assert app.got == BIG[: 1 << 20]


@pytest.mark.parametrize("paused", [False, True])
async def test_another_protocol_in_the_middle(server: Server, paused: bool) -> None:
    """A handshake to WebSocket: what came behind it in the same segment is the tunnel's."""
    tunnels: list[App] = []

    def splice(app: App, data: bytes) -> None:
        if data == b"upgrade":
            tunnels.append(App())
            app.transport.set_protocol(tunnels[0])
            if paused:
                app.transport.pause_reading()
                asyncio.get_running_loop().call_later(0.05, app.transport.resume_reading)

    server.answer = splice
    await server.start()
    client, app = await server.client()
    client.writer.write(client.records(b"upgrade") + client.records(b"x" * 10))
    await app.until(7)
    await client.send(BIG[:100_000])
    await tunnels[0].until(100_010)
    assert tunnels[0].got == b"x" * 10 + BIG[:100_000]
    assert app.got == b"upgrade"
    client.writer.transport.abort()
    await tunnels[0].end()
    assert app.told == ["made"]
    app.lost.set_result(None)


async def test_close_sends_all_and_says_so(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.write(BIG)
    app.transport.close()
    app.transport.close()
    assert app.transport.is_closing()
    app.transport.write(b"too late")
    app.transport.writelines([b"too late"])
    app.transport.pause_reading()
    app.transport.resume_reading()
    assert await client.receive() == BIG
    assert client.ended == "close_notify"
    client.writer.close()
    assert await app.end() is None
    app.transport.write(b"much too late")
    app.transport.close()
    app.transport.abort()
    assert app.told == ["made", "lost"]


async def test_the_answer_to_an_upload_that_goes_on(server: Server) -> None:
    """Closed while the client still sends: it gets the answer whole, not a reset."""

    def refuse(app: App, data: bytes) -> None:
        app.transport.write(b"413 " * 1000)
        app.transport.close()

    await server.start()
    client, app = await server.client()
    app.answer = refuse
    with contextlib.suppress(ConnectionError):
        await client.send(BIG)
    assert await client.receive() == b"413 " * 1000
    assert client.ended == "close_notify"
    assert len(app.got) < len(BIG)


async def test_the_clients_goodbye(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    await client.send(b"last words")
    client.say_goodbye()
    assert await app.end() is None
    assert app.told == ["made", "eof", "lost"]
    assert app.got == b"last words"
    assert await client.receive() == b""
    assert client.ended == "close_notify"


async def test_truncated(server: Server) -> None:
    """TCP's end isn't TLS's: somebody else may have sent it."""
    await server.start()
    client, app = await server.client()
    await client.send(b"transfer 100")
    client.writer.write_eof()
    assert isinstance(await app.end(), ConnectionResetError)
    assert app.told == ["made", "lost"]


async def test_truncated_in_a_record(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    client.writer.write(client.records(b"transfer 1000000")[:-3])
    client.writer.write_eof()
    assert isinstance(await app.end(), ConnectionResetError)
    assert not app.got


async def test_reset(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.writer.transport.abort()
    await app.end()
    app.transport.write(b"into the void")
    assert app.transport.is_closing()


async def test_aborted(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    app.transport.write(BIG)
    app.transport.abort()
    assert await app.end() is None
    assert len(await client.receive()) < len(BIG)
    assert client.ended in ("tcp", "reset")


async def test_tampered(server: Server) -> None:
    await server.start()
    client, app = await server.client()
    record = bytearray(client.records(b"pay 1 to Alice") + client.records(b"and this"))
    record[8] ^= 1
    client.writer.write(bytes(record))
    assert isinstance(await app.end(), ssl.SSLError)
    assert not app.got
    await client.receive()
    assert client.ended == "alert"


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"x" * 300_000,
        b"\0" * 1000,
        BIG[:300_000],
    ],
    ids=["http", "handshake", "zeros", "much"],
)
async def test_not_tls(server: Server, first: bytes) -> None:
    await server.start()
    client = await server.tcp()
    client.writer.write(first)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            answer = await client.reader.read()
            assert len(answer) <= 7, answer  # an alert at most
    assert not server.apps


async def test_leaves_in_the_handshake(server: Server) -> None:
    await server.start()
    client = await server.tcp()
    with contextlib.suppress(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.flush()
    await client.reader.read(1)
    client.writer.transport.abort()
    other = await server.tcp()
    other.writer.write_eof()
    assert await other.reader.read() == b""
    assert not server.apps


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handshake_that_never_ends(server: Server, begun: bool) -> None:
    await server.start(handshake_timeout=0.2)
    client = await server.tcp()
    if begun:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.flush()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            await client.reader.read()
    assert not server.apps


async def test_the_handshakes_clock_stops(server: Server) -> None:
    await server.start(handshake_timeout=1.0)
    client, app = await server.client()
    await asyncio.sleep(1.2)
    app.transport.write(b"still here")
    assert await client.receive(10) == b"still here"


@pytest.mark.parametrize("left", [b"bye", BIG], ids=["read", "unread"])
async def test_a_client_that_stays_after_the_end(server: Server, left: bytes) -> None:
    await server.start(shutdown_timeout=0.2)
    _, app = await server.client()
    app.transport.write(left)
    app.transport.close()
    assert await app.end() is None


async def test_what_stays_in_memory_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL's buffers never shrink: they are given little at once, whatever comes and goes."""
    most: list[int] = []
    write = tls.TlsTransport._decrypt
    take = tls.TlsTransport._write_pieces

    def decrypt(self: tls.TlsTransport) -> None:
        most.append(self._incoming.pending)
        write(self)

    class Counted:
        def __init__(self, given: Callable[[int], bytes]) -> None:
            self.given = given

        def __call__(self, size: int = -1, /) -> bytes:
            data = self.given(size)
            most.append(len(data))
            return data

    def pieces(self: tls.TlsTransport, data: memoryview) -> None:
        self._take = Counted(self._outgoing.read)
        take(self, data)

    monkeypatch.setattr(tls.TlsTransport, "_decrypt", decrypt)
    monkeypatch.setattr(tls.TlsTransport, "_write_pieces", pieces)
    await server.start()
    client, app = await server.client()
    assert isinstance(app.transport, tls.TlsTransport)
    feed = app.transport._feed

    def fed(data: Any) -> int:
        most.append(len(data))
        return feed(data)

    app.transport._feed = fed
    app.transport.write(BIG)
    sending = asyncio.create_task(client.send(BIG))
    assert await client.receive(len(BIG)) == BIG
    await sending
    await app.until(len(BIG))
    assert len(most) > len(BIG) // tls.RECORD
    assert tls.RECORD <= max(most) <= tls.PIECE
    assert app.transport._late == b""
    assert not isinstance(app.transport._late, memoryview)


class SClient:
    """OpenSSL's own client, for what Python's can't do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin
        assert process.stdout
        self.stdin, self.stdout = process.stdin, process.stdout

    async def until(self, mark: bytes) -> bytes:
        got = b""
        async with asyncio.timeout(PATIENCE):
            while mark not in got:
                data = await self.stdout.read(1 << 16)
                if not data:
                    raise EOFError(got)
                got += data
        return got


@contextlib.asynccontextmanager
async def s_client(server: Server, *options: str) -> AsyncIterator[SClient]:
    command = shutil.which("openssl")
    assert command, "openssl's command is needed"
    process = await asyncio.create_subprocess_exec(
        command, "s_client", "-connect", f"127.0.0.1:{server.port}", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield SClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_renegotiation_is_refused(tmp_path: Path) -> None:
    server = Server(Authority(tmp_path))
    server.context.options &= ~ssl.OP_NO_RENEGOTIATION
    server.answer = echo
    await server.start()
    async with s_client(server, "-tls1_2") as client:
        await client.until(b"Verify return code")
        client.stdin.write(b"R\n")
        assert b"no renegotiation" in await client.until(b"no renegotiation")
    server.server.close()


async def test_key_updates_are_answered_but_not_floods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "UNASKED", 100)
    server = Server(Authority(tmp_path))
    server.answer = echo
    await server.start()
    async with s_client(server, "-tls1_3", "-msg") as client:
        await client.until(b"Post-Handshake")
        sent = b">>> TLS 1.3, Handshake [length 0005], KeyUpdate"
        for _ in range(2):
            client.stdin.write(b"K\n")
            await client.until(sent)
        client.stdin.write(b"ping after it\n")
        got = await client.until(b"ping after it")
        assert sent.replace(b">", b"<") in got
        with contextlib.suppress(EOFError, ConnectionError):
            for _ in range(10):
                client.stdin.write(b"K\n")
                await client.until(sent)
        assert isinstance(await server.apps[0].end(), ConnectionAbortedError)
    server.server.close()


async def test_a_client_that_wants_short_records(tmp_path: Path) -> None:
    server = Server(Authority(tmp_path))

    def answer(app: App, _: bytes) -> None:
        app.transport.write(b"z" * 10_000)  # less than a record of ours
        app.transport.write(b"z" * 30_000 + b"end of it")

    server.answer = answer
    await server.start()
    async with s_client(server, "-quiet", "-maxfraglen", "512") as client:
        client.stdin.write(b"now\n")
        got = await client.until(b"end of it")
        assert got.count(b"z" * 100) == 400
    server.server.close()
