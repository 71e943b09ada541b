"""Raw bytes at both ends of a gateway: an upstream that says exactly what a test tells it to, and a client likewise."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

PATIENCE = 60.0
"""Seconds until a test that waits for something that never comes fails; nothing is ever asserted about time."""


@dataclass
class Reply:
    """One HTTP answer as it came over the wire."""

    status: int
    head: bytes
    body: bytes

    def fields(self, name: str) -> list[bytes]:
        """The values of all fields of this name, in order."""
        wanted = name.lower().encode()
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [value.strip() for key, _, value in pairs if key.lower() == wanted]

    def field(self, name: str) -> bytes | None:
        """The value of a field that may be there once."""
        values = self.fields(name)
        assert len(values) <= 1, values
        return values[0] if values else None


class Peer:
    """One end of a TCP connection, spoken to in bytes. `received` is everything that ever came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""
        self._taken = 0
        self._reading = asyncio.Lock()
        self._cues = asyncio.Semaphore(0)

    def cue(self) -> None:
        """Let this end's script go on, which waits for it."""
        self._cues.release()

    async def cued(self) -> None:
        """Wait for the test's word."""
        async with asyncio.timeout(PATIENCE):
            await self._cues.acquire()

    async def send(self, data: bytes) -> None:
        """Write and wait until the socket took it. ConnectionResetError when the other end is gone."""
        if self.writer.is_closing():  # uvloop's transports say so in their own way
            raise ConnectionResetError("the other end is gone")
        self.writer.write(data)
        await self.writer.drain()

    def finish(self) -> None:
        """Half-close: no more will be sent."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close in an orderly way."""
        self.writer.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    def drop(self) -> None:
        """End it, if it has not ended yet (aborting an asyncio transport after its end breaks it)."""
        if not self.writer.is_closing():
            self.writer.transport.abort()

    async def _more(self) -> bool:
        before = len(self.received)
        async with asyncio.timeout(PATIENCE), self._reading:  # a script and a test may wait for the same end
            if len(self.received) > before:
                return True
            data = await self.reader.read(1 << 18)
            self.received += data
            return bool(data)

    @property
    def unread(self) -> bytes:
        """What came and was not taken yet."""
        return self.received[self._taken :]

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while (end := self.received.find(mark, self._taken)) < 0:
            if not await self._more():
                raise EOFError(f"{mark!r} never came, only {self.unread!r}")
        start, self._taken = self._taken, end + len(mark)
        return self.received[start : self._taken]

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.received) - self._taken < size:
            if not await self._more():
                raise EOFError(f"{size} bytes never came, only {len(self.unread)}")
        start, self._taken = self._taken, self._taken + size
        return self.received[start : self._taken]

    async def saw(self, mark: bytes) -> None:
        """Wait until `mark` has come, and take nothing."""
        while mark not in self.received:
            if not await self._more():
                raise EOFError(f"{mark!r} never came")

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, orderly or not."""
        with contextlib.suppress(ConnectionError):
            while await self._more():
                pass
        start, self._taken = self._taken, len(self.received)
        return self.received[start:]

    async def gone(self) -> None:
        """Wait until the other side has ended the connection."""
        await self.rest()

    async def request(self) -> bytes:
        """One request head (an upstream's view)."""
        return await self.until(b"\r\n\r\n")

    async def reply(self, method: str = "GET") -> Reply:
        """One answer, read as strictly as a client may (a client's view). 1xx answers are answers here."""
        head = await self.until(b"\r\n\r\n")
        status = int(head[9:12])
        reply = Reply(status, head[:-4], b"")
        length = reply.field("Content-Length")
        coding = reply.field("Transfer-Encoding")
        assert length is None or coding is None, head
        if method == "HEAD" or status in {204, 304} or status < 200:
            return reply
        if coding is not None:
            assert coding == b"chunked", head
            while size := int((await self.until(b"\r\n"))[:-2], 16):
                reply.body += await self.exactly(size)
                assert await self.exactly(2) == b"\r\n"
            assert await self.exactly(2) == b"\r\n"
        elif length is not None:
            reply.body = await self.exactly(int(length))
        else:
            assert reply.field("Connection") == b"close", head
            reply.body = await self.rest()
        return reply


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class RawUpstream:
    """A hub whose every connection runs a script. `peers` are its connections in the order in which they came."""

    script: Script
    tls: ssl.SSLContext | None = None
    peers: list[Peer] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.drop()
        # A script's own assertion must not be lost behind the gateway's 502.
        assert not self.failures, self.failures

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._came.set()
        try:
            await self.script(peer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass  # the other side left: what tests of leaving are about
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.failures.append(error)
        finally:
            writer.close()

    async def peer(self, index: int = 0) -> Peer:
        """The connection with this number, when it has come."""
        async with asyncio.timeout(PATIENCE):
            while len(self.peers) <= index:
                self._came.clear()
                await self._came.wait()
        return self.peers[index]

    @property
    def received(self) -> bytes:
        """Everything that came over all connections."""
        return b"".join(peer.received for peer in self.peers)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"


def answering(*answers: bytes) -> Script:
    """Answer one request after the other with these bytes, then wait for the end."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.gone()

    return script


def always(answer: bytes) -> Script:
    """Answer every request with these bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def ok(body: bytes = b"ok", *fields: bytes) -> bytes:
    """An ordinary answer."""
    return b"\r\n".join((b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(body), b"", body))


def get(path: str = "/", *fields: bytes) -> bytes:
    """A GET as a browser sends it, with further fields."""
    return b"\r\n".join((f"GET {path} HTTP/1.1".encode(), b"Host: h", *fields, b"", b""))


def post(body: bytes = b"", *fields: bytes, framing: bytes | None = None) -> bytes:
    """A POST with this body; `framing` in place of its Content-Length."""
    frame = b"Content-Length: %d" % len(body) if framing is None else framing
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: h", *fields, frame, b"", body))


WEBSOCKET_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455, 1.3
WEBSOCKET_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def handshake(*fields: bytes) -> bytes:
    """A browser's WebSocket handshake."""
    return get(
        "/ws",
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + WEBSOCKET_KEY,
        *fields,
    )


def switched(*fields: Sequence[bytes] | bytes, accept: bytes = WEBSOCKET_ACCEPT) -> bytes:
    """A hub's consent to it."""
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    if accept:
        lines.append(b"Sec-WebSocket-Accept: " + accept)
    return b"\r\n".join((*lines, *(bytes(value) for value in fields), b"", b""))
