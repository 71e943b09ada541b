"""The client before everybody, in a process of its own.

    python -m tests.bench.load

It is told what to do by lines of JSON on its standard input, and answers by lines on its standard output:

    <- a Plan           -> {"ready": true}       all connections are open, and each has done its thing once
    <- "go"             -> an Outcome            the work is done; everything stays open
    <- "release"        -> {"released": true}    nothing was lost meanwhile, and all is closed

so that whoever drives it can look at the proxy's account right before and right after the work, with connections that
are open and warm. It is a closed loop of raw protocols on uvloop (each connection sends its next request when it has
the whole answer to the last one), quick enough to keep nginx busy, and it believes nobody: status and length of every
answer are checked, and one that is wrong ends it with `{"fault": ...}`. It doesn't know what it talks to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import socket
import ssl
import sys
import time
from array import array
from dataclasses import dataclass
from typing import Any, Literal, cast

import uvloop

from tests.bench.backend import BIG, accept_of, frame

Kind = Literal["get", "socket", "down", "up"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = accept_of(_KEY)
_AT_ONCE = 64  # connections that are opened side by side
_BUFFER = 1 << 20
_MOST_SAID = 2000  # characters of a fault, which quotes what came
_DISCARD = getattr(socket, "MSG_TRUNC", 0)  # tcp(7): bytes are counted and not copied, which leaves CPU to the proxy


class Fault(Exception):
    """Somebody answered what they should not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`head`: the request's head without its last empty line, latin-1; for a `socket`, without the handshake's fields.

    `get`: `count` requests over `connections`, with answers of `size` bytes. `socket`: `count` messages of `size` bytes
    there and back, each connection with one under way (0: they only stay open). `down`, `up`: one large transfer.
    `ca`: a PEM file, "" for plain TCP. `seconds`: how long any of the steps may take.
    """

    kind: Kind
    port: int
    head: str
    connections: int = 1
    count: int = 1
    size: int = 0
    ca: str = ""
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`count`: done and found to be right; `seconds`: from the first byte to the last; medians and so on in seconds."""

    count: int
    seconds: float
    p50: float = 0.0
    p99: float = 0.0


class Work:
    """What the connections of one plan share: requests that are left to send, answers that are due, and their times."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.due = count
        self.took = array("d")
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, what: str) -> None:
        """It is over, and was for nothing."""
        if not self.over.done():
            self.over.set_exception(Fault(what))


class Client(asyncio.Protocol):
    """One connection in a closed loop. A subclass says when an answer is complete (`_done`).

    `opened` is done when the first exchange was; `lost`: the other side ended it. From `go` on each answer is followed
    by the next request, while some are left.
    """

    def __init__(self, work: Work, request: bytes) -> None:
        self._work = work
        self._request = request
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.lost = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:  # not by us
            self.lost = True
            self._fail(f"the connection was closed: {exc!r}")

    def close(self) -> None:
        """Ends it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def go(self) -> None:
        """Sends the next request, if one is left."""
        work = self._work
        if work.left and self._transport is not None:
            work.left -= 1
            self._began = time.perf_counter()
            self._transport.write(self._request)

    def _done(self) -> None:
        work = self._work
        if not self.opened.done():
            self.opened.set_result(None)
            return
        work.took.append(time.perf_counter() - self._began)
        work.due -= 1
        if work.left:
            self.go()
        elif not work.due and not work.over.done():
            work.over.set_result(None)

    def _fail(self, what: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(Fault(what))
        self._work.fail(what)


class Getter(Client):
    """GETs that are answered with 200 and `size` bytes."""

    def __init__(self, work: Work, request: bytes, size: int) -> None:
        super().__init__(work, request)
        self._size = size
        self._part = b""
        self._rest = 0  # bytes of the body that still come

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest -= len(data)
        else:
            if self._part:
                data, self._part = self._part + data, b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._part = data
                return
            length = _LENGTH.search(data, 0, end + 2)
            if not data.startswith(b"HTTP/1.1 200 ") or length is None or int(length[1]) != self._size:
                self._fail(f"not an answer of 200 with {self._size} bytes: {data[:600]!r}")
                return
            self._rest = end + 4 + self._size - len(data)
        if self._rest < 0:
            self._fail(f"{-self._rest} bytes more than the answer has: {data[-200:]!r}")
        elif not self._rest:
            self._done()


class Talker(Client):
    """A WebSocket on which messages of `size` bytes come back as they went."""

    def __init__(self, work: Work, handshake: bytes, size: int) -> None:
        super().__init__(work, handshake)
        payload = b"m" * size
        self._message = frame(payload, masked=True)
        self._echo = frame(payload, masked=False)
        self._up = False
        self._part = b""
        self._came = 0

    def data_received(self, data: bytes) -> None:
        if not self._up:
            self._part += data
            if b"\r\n\r\n" not in self._part:
                return
            head, _, data = self._part.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head or data:
                self._fail(f"not a WebSocket: {self._part[:600]!r}")
                return
            self._up = True
            self._request = self._message
            assert self._transport is not None
            self._transport.write(self._message)
            return
        # A part is compared where it belongs; a large message comes in many.
        if data != self._echo[self._came : self._came + len(data)]:
            self._fail(f"not the message that was sent: {data[:100]!r}")
            return
        self._came += len(data)
        if self._came == len(self._echo):
            self._came = 0
            self._done()


def outcome(work: Work, seconds: float) -> Outcome:
    """Of work that is over."""
    took = sorted(work.took)
    if not took:
        return Outcome(0, seconds)
    return Outcome(len(took), seconds, took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))])


def trusting(ca: str) -> ssl.SSLContext | None:
    """For a client that trusts this authority; None for plain TCP."""
    return ssl.create_default_context(cafile=ca) if ca else None


class Loop:
    """A plan of kind `get` or `socket`: many connections."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._work = Work(plan.count)
        self._clients: list[Client] = []
        self._tls = trusting(plan.ca)

    async def open(self) -> None:
        """Connects, some side by side, and has each connection do its thing once."""
        waiting = [self._client() for _ in range(self._plan.connections)]
        self._clients = waiting
        for at in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*map(self._connect, waiting[at : at + _AT_ONCE]))

    def _client(self) -> Client:
        head, size = self._plan.head.encode("latin-1"), self._plan.size
        if self._plan.kind == "get":
            return Getter(self._work, head + b"\r\n", size)
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        return Talker(self._work, head + fields + _KEY + b"\r\n\r\n", size)

    async def _connect(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        name = "localhost" if self._tls else None
        await loop.create_connection(lambda: client, "127.0.0.1", self._plan.port, ssl=self._tls, server_hostname=name)
        await client.opened

    async def go(self) -> Outcome:
        """Does the work."""
        began = time.perf_counter()
        if self._plan.count:
            for client in self._clients:
                client.go()
            await self._work.over
        elif self._work.over.done():
            self._work.over.result()
        return outcome(self._work, time.perf_counter() - began)

    def check(self) -> None:
        """Raises `Fault` when a connection was lost, while it was idle too."""
        lost = sum(client.lost for client in self._clients)
        if lost:
            raise Fault(f"{lost} of {len(self._clients)} connections were lost")

    def close(self) -> None:
        """Ends all connections."""
        for client in self._clients:
            client.close()
        if self._work.over.done():
            self._work.over.exception()  # was told already, or doesn't matter any more


class Transfer:
    """A plan of kind `down` or `up`: blocking calls in a thread, which cost the machine least."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wire: socket.socket | None = None

    async def open(self) -> None:
        """Connects."""
        self._wire = await asyncio.to_thread(self._connect)

    def _connect(self) -> socket.socket:
        wire = socket.create_connection(("127.0.0.1", self._plan.port), timeout=self._plan.seconds)
        tls = trusting(self._plan.ca)
        return tls.wrap_socket(wire, server_hostname="localhost") if tls else wire

    async def go(self) -> Outcome:
        """The transfer."""
        return await asyncio.to_thread(self._download if self._plan.kind == "down" else self._upload)

    def _download(self) -> Outcome:
        wire, began = self._told(), time.perf_counter()
        wire.sendall(self._plan.head.encode("latin-1") + b"\r\n")
        head, rest = self._head(wire)
        found = _LENGTH.search(head)
        if found is None or int(found[1]) != BIG:
            raise Fault(f"not {BIG} bytes: {head!r}")
        left = BIG - len(rest)
        buffer = memoryview(bytearray(_BUFFER))
        flags = 0 if self._plan.ca else _DISCARD
        while left:
            came = wire.recv_into(buffer, min(left, _BUFFER), flags)
            if not came:
                raise Fault(f"{left} bytes too few")
            left -= came
        return Outcome(BIG, time.perf_counter() - began)

    def _upload(self) -> Outcome:
        wire, began = self._told(), time.perf_counter()
        wire.sendall(self._plan.head.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % BIG)
        chunk = bytes(_BUFFER)
        for _ in range(BIG // _BUFFER):
            wire.sendall(chunk)
        head, rest = self._head(wire)
        seconds = time.perf_counter() - began
        told = b"%d" % BIG
        while len(rest) < len(told) and (more := wire.recv(_BUFFER)):
            rest += more
        if rest != told:
            raise Fault(f"the backend did not get {BIG} bytes: {head + rest!r}")
        return Outcome(BIG, seconds)

    def _told(self) -> socket.socket:
        assert self._wire is not None
        return self._wire

    def _head(self, wire: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = wire.recv(_BUFFER)
            if not more:
                raise Fault(f"the connection was closed after {data!r}")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Fault(f"not an answer of 200: {data[:600]!r}")
        return head + b"\r\n", rest

    def check(self) -> None:
        """Nothing that `go` has not seen."""

    def close(self) -> None:
        """Ends the connection."""
        if self._wire is not None:
            self._wire.close()


async def _commands() -> None:
    """Until standard input ends."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        plan = Plan(**json.loads(line))
        doing = Loop(plan) if plan.kind in {"get", "socket"} else Transfer(plan)
        try:
            async with asyncio.timeout(plan.seconds):
                await doing.open()
            _say(ready=True)
            await _expect(lines, b"go")
            async with asyncio.timeout(plan.seconds):
                done = await doing.go()
            _say(**dataclasses.asdict(done))
            await _expect(lines, b"release")
            doing.check()
            doing.close()
            _say(released=True)
        except (Fault, OSError) as fault:
            doing.close()
            _say(fault=f"{type(fault).__name__}: {fault}"[:_MOST_SAID])


async def _expect(lines: asyncio.StreamReader, word: bytes) -> None:
    line = (await lines.readline()).strip()
    if line != word:
        raise Fault(f"expected {word!r}, was told {line!r}")


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    uvloop.run(_commands())
