"""A hub that does what each request asks of it, well or badly, and holds each request against what it may be.

It is raw TCP: what a hub says is bytes, and what it is told is read by the strict judge (kit/strict.py). It doesn't
know what the client will make of its answer; that is clients.py's business, by the table in catalogue.py.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import random
import re
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hubgate.upstream.connection import Timeouts
from tests.kit.strict import Request, requests_in
from tests.soak import catalogue, marks
from tests.soak.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, read_frame
from tests.soak.ledger import Ledger
from tests.soak.marks import Ask, Said

PATIENCE = 60.0
"""Seconds after which a hub that should have been left, or should have got the rest of a request, says so."""
_GENERATED = frozenset(
    b"host cookie connection upgrade content-length transfer-encoding remote_user x-hubgate-assertion forwarded "
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-real-ip".split()
)
"""What the gateway says itself, or what is judged apart; the rest must be the client's, word by word."""
_FORGED = b"HTTP/1.1 200 OK\r\nX-Soak: forged\r\nContent-Length: 6\r\n\r\nforged"
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

IDLE_SAYS = {
    "answer": _FORGED,
    "byte": b"x",
    "blank": b"\r\n",
    "timeout": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


class _Over(Exception):
    """This connection has been ended, as it was meant to be."""


class Talk:
    """One connection of the gateway's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests = 0
        self.spoilt = ""
        """What was said last, if it was such that nobody else may be asked over this connection."""

    async def send(self, *pieces: bytes) -> None:
        """One write, and with it, as long as it is small, one segment."""
        if self.writer.is_closing():  # uvloop's transports break when they are used after their end
            raise ConnectionResetError
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    def reset(self) -> None:
        """End it with a TCP reset."""
        if self.writer.is_closing():
            return
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def left(self) -> bool:
        """Whether the gateway ends it before patience does."""
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(PATIENCE):
                    while await self.reader.read(1 << 16):
                        pass
            except TimeoutError:
                return False
        return True


class Hub:
    """One of them. `serials`, `did`: shared by all, numbers of answers, and what a moody hub did last for a mark."""

    def __init__(
        self, name: str, *, ledger: Ledger, rng: random.Random, serials: itertools.count[int], did: dict[str, str]
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.rng = rng
        self.serials = serials
        self.did = did
        self.netloc = b""
        self.talks: set[Talk] = set()
        self.sockets = 0
        self.most = 0
        self.connections = 0
        self.requests = 0
        self.begun: set[str] = set()
        """Marks of requests with a body that came here: none may come twice."""
        self.idle: dict[str, asyncio.Event] = {}
        """By mark: set when an idle connection was spoken on, and the gateway has let go of it."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._doing: dict[str, Callable[[Talk, Ask, Said, Request], Coroutine[Any, Any, None]]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def held(self) -> int:
        """Connections that the gateway has open here."""
        return len(self.talks)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024, limit=1 << 21)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = Talk(reader, writer)
        self.talks.add(talk)
        self.connections += 1
        self.most = max(self.most, len(self.talks))
        try:
            while await self._one(talk):
                pass
        except (_Over, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # left by the gateway, which may be right; whoever waited for the answer knows
        except Exception as error:  # noqa: BLE001 - told at the end
            self.ledger.fail(f"{self.name}: {error!r}")
        finally:
            self.talks.discard(talk)
            self._tasks.discard(task)
            if not writer.is_closing():
                writer.close()

    # -- what was asked

    async def _one(self, talk: Talk) -> bool:
        """One request and its answer; whether another may follow."""
        raw = await talk.reader.readuntil(b"\r\n\r\n")
        (request,) = requests_in(raw)
        method, target, _ = request.line.decode("ascii").split(" ")
        if target.endswith("/hub/health"):
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return True
        talk.requests += 1
        self.requests += 1
        ask = Ask.read(method, target)
        if talk.spoilt:
            self.ledger.fail(f"{self.name}: {ask} came over a connection on which {talk.spoilt!r} was said")
        said = self._said(ask, request)
        if ask.how == "moody":
            self.did[ask.mark] = said.how
        if ask.up >= 0 and ask.up + (method == "POST") > 0:
            if ask.mark in self.begun:
                self.ledger.fail(f"{self.name}: {ask} came twice")
            self.begun.add(ask.mark)
        if request.values(b"Upgrade"):
            await self._socket(talk, ask, said, request)
            return said.how in {"refused", "not_switched"}
        early = said.how in {"early", "refusing", "reset_in_upload"} and ask.up >= 0
        if not early and said.how != "slow_taker":
            await self._body(talk, ask, request)
        await self._doing[said.how](talk, ask, said, request)
        if said.how in catalogue.BAD:
            talk.spoilt = said.how
        return True

    def _said(self, ask: Ask, request: Request) -> Said:
        """What there is to say about this request; everything about it that can be judged here is."""

        def exactly(name: bytes, values: list[bytes]) -> None:
            if request.values(name) != values:
                self.ledger.fail(f"{self.name}: {ask} came with {name!r}: {request.values(name)!r}, not {values!r}")

        exactly(b"Host", [self.netloc])
        exactly(b"X-Forwarded-For", [b"127.0.0.1"])
        exactly(b"X-Real-IP", [b"127.0.0.1"])
        cookie = b"; ".join(request.values(b"Cookie"))
        if b"hubgate" in cookie:
            self.ledger.fail(f"{self.name}: {ask} came with a cookie of the gateway's")
        user = subject = marks.NOBODY
        assertions = request.values(b"X-Hubgate-Assertion")
        if ask.zone == "hub":
            user = ask.user
            exactly(b"REMOTE_USER", [ask.user.encode()])
            claims = _claims(assertions[0]) if len(assertions) == 1 else {}
            subject = str(claims.get("sub"))
            if (subject, claims.get("aud"), claims.get("use")) != (ask.user, self.name, "page"):
                self.ledger.fail(f"{self.name}: {ask} came with the claims {claims}")
        else:
            exactly(b"REMOTE_USER", [])
            exactly(b"X-Hubgate-Assertion", [])
        passed = [pair for pair in request.fields if pair[0].lower() not in _GENERATED]
        how = ask.how if ask.how != "moody" else self.rng.choice(catalogue.MOODS)
        return Said(ask.mark, next(self.serials), how, user, subject, self.name, marks.digest(passed, cookie))

    async def _body(self, talk: Talk, ask: Ask, request: Request, *, bite: int = 1 << 16, rest: float = 0.0) -> None:
        """Read the request's body to its end, and hold it against what it must be."""
        lengths, codings = request.values(b"Content-Length"), request.values(b"Transfer-Encoding")
        expected = marks.uploaded(ask)
        came = 0
        async with asyncio.timeout(PATIENCE * 3):
            async for piece in _pieces(
                talk.reader, int(lengths[0]) if lengths else None, chunked=bool(codings), bite=bite
            ):
                if expected[came : came + len(piece)] != piece:
                    raise ValueError(f"{ask}: its body was another one from byte {came} on")
                came += len(piece)
                if rest:
                    await asyncio.sleep(rest)
        if came != len(expected) or bool(lengths or codings) != (ask.up >= 0):
            raise ValueError(f"{ask}: a body of {came} bytes, {lengths} {codings}")
        if ask.up > 0 and ask.mark.startswith("gone"):
            raise ValueError(f"{ask}: its client left in the middle, and it came as a whole one")

    # -- answers in good order

    def _head(self, said: Said, *fields: bytes, status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
        lines = [version + b" " + status, b"X-Soak: " + str(said).encode(), b"Content-Type: application/x-soak"]
        if said.user != marks.NOBODY and said.serial % 7 == 0:
            lines.append(b"Set-Cookie: jupyterhub-soak=%b-%d; Path=/" % (said.user.encode(), said.serial))
        return b"\r\n".join((*lines, *fields, b"", b""))

    def _whole(self, ask: Ask, said: Said, *fields: bytes, **more: bytes) -> bytes:
        """Head and body, the body not in answer to HEAD."""
        body = said.content(ask.user, ask.size)
        head = self._head(said, *fields, b"Content-Length: %d" % len(body), **more)
        return head if ask.method == "HEAD" else head + body

    async def _do_sized(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said))

    async def _do_chunked(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        head = self._head(said, b"Transfer-Encoding: chunked")
        body = _chunked(said.content(ask.user, ask.size), self.rng)
        await talk.send(head, b"" if ask.method == "HEAD" else body)

    async def _do_extended(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._head(said, b"Transfer-Encoding: chunked", b"Trailer: X-Soak"))
        if ask.method == "HEAD":
            return
        body = said.content(ask.user, ask.size)
        raw = _chunked(body, self.rng, extension=b';soak="a;b"', trailer=b"X-Soak: trailer\r\nX-Other: y\r\n")
        for piece in _cut(raw, self.rng, 4):
            await talk.send(piece)
            await asyncio.sleep(self.rng.random() / 200)

    async def _do_until_close(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        if ask.method == "HEAD":  # there is nothing whose end must be shown
            await talk.send(self._head(said))
            return
        await talk.send(self._head(said), said.content(ask.user, ask.size))
        raise _Over

    async def _do_http10(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, version=b"HTTP/1.0"))
        raise _Over

    async def _do_interim(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Soak: interim\r\n\r\n"
        early += b"HTTP/1.1 102 Processing\r\n\r\n" * self.rng.randint(0, 3)
        if self.rng.random() < 0.5:
            await talk.send(early)
            await asyncio.sleep(self.rng.random() / 100)
            early = b""
        await talk.send(early, self._whole(ask, said))

    async def _do_thinking(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await asyncio.sleep(ask.pause / 1000)
        await talk.send(self._whole(ask, said))

    async def _do_closing(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, b"Connection: close"))
        raise _Over

    async def _do_pieces(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        for piece in _cut(self._whole(ask, said), self.rng, 6):
            await talk.send(piece)
            await asyncio.sleep(self.rng.random() / 200)

    async def _do_no_content(self, talk: Talk, _ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._head(said, status=b"204 No Content"))

    async def _do_not_modified(self, talk: Talk, ask: Ask, said: Said, request: Request) -> None:
        if request.values(b"If-None-Match") != [b'"%b"' % ask.mark.encode()]:
            raise ValueError(f"{ask}: a condition of {request.values(b'If-None-Match')}")
        length = b"Content-Length: %d" % ask.size
        fields = (length,) if said.serial % 2 else ()
        await talk.send(self._head(said, b'ETag: "%b"' % ask.mark.encode(), *fields, status=b"304 Not Modified"))

    async def _do_missing(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, status=b"404 Not Found"))

    async def _do_failing(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, status=b"500 Internal Server Error"))

    # -- too little

    async def _do_reset_before(self, talk: Talk, _ask: Ask, _said: Said, _: Request) -> None:
        talk.reset()
        raise _Over

    async def _do_close_before(self, _talk: Talk, _ask: Ask, _said: Said, _: Request) -> None:
        raise _Over

    async def _do_reset_in_head(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said)[:40])
        await asyncio.sleep(self.rng.random() / 100)
        talk.reset()
        raise _Over

    async def _do_close_in_head(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said)[:40])
        raise _Over

    async def _short(self, talk: Talk, ask: Ask, said: Said, *, share: float, framing: bytes = b"") -> None:
        body = said.content(ask.user, ask.size)
        announced = framing or b"Content-Length: %d" % (len(body) + 1)
        await talk.send(
            self._head(said, *((announced,) if announced != b"none" else ())), body[: int(len(body) * share)]
        )

    async def _do_reset_in_body(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await self._short(talk, ask, said, share=self.rng.random())
        await asyncio.sleep(self.rng.choice((0, 0.005)))
        talk.reset()
        raise _Over

    async def _do_reset_unframed(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await self._short(talk, ask, said, share=self.rng.random(), framing=b"none")
        await asyncio.sleep(self.rng.choice((0, 0.005)))
        talk.reset()
        raise _Over

    async def _do_cut_short(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await self._short(talk, ask, said, share=self.rng.choice((1.0, 0.5)))
        raise _Over

    async def _do_head_alone(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await self._short(talk, ask, said, share=0.0)
        raise _Over

    async def _do_cut_chunks(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        raw = _chunked(said.content(ask.user, ask.size), self.rng)
        await talk.send(self._head(said, b"Transfer-Encoding: chunked"), raw[: -self.rng.randint(1, 5)])
        raise _Over

    async def _do_stalled(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await self._short(talk, ask, said, share=0.5)
        if not await talk.left():
            raise ValueError(f"{ask}: a silent hub was waited for without end")
        raise _Over

    # -- too much

    async def _do_too_much(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said), b"surplus" * self.rng.randint(1, 500))

    async def _do_too_much_of_nothing(self, talk: Talk, _ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._head(said, status=b"204 No Content"), b"surplus")

    async def _do_too_much_unmodified(self, talk: Talk, _ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._head(said, b"Content-Length: 7", status=b"304 Not Modified"), b"surplus")

    async def _do_twice(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        # The second one is as good as the first in everything but its serial number, or somebody else's altogether.
        await talk.send(self._whole(ask, said), self.rng.choice((self._whole(ask, said), _FORGED)))

    async def _do_twice_chunked(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        head = self._head(said, b"Transfer-Encoding: chunked")
        await talk.send(head, _chunked(said.content(ask.user, ask.size), self.rng), _FORGED)

    # -- nonsense

    async def _do_two_lengths(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, b"Content-Length: 3"))

    async def _do_garbage(self, talk: Talk, _ask: Ask, _said: Said, _: Request) -> None:
        await talk.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async def _do_bare_lf(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, b"X: a\nX-Forged: b"))

    async def _do_broken_chunk(self, talk: Talk, _ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._head(said, b"Transfer-Encoding: chunked"), b"zz\r\nab\r\n0\r\n\r\n")

    async def _do_broken_later(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        body = said.content(ask.user, ask.size)
        await talk.send(self._head(said, b"Transfer-Encoding: chunked"), b"%x\r\n%b\r\n" % (len(body), body))
        await asyncio.sleep(0.02)
        await talk.send(_FORGED)
        await talk.left()
        raise _Over

    async def _do_flood(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 200, self._whole(ask, said))

    async def _do_endless_head(self, talk: Talk, _ask: Ask, _said: Said, _: Request) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\n")
        for _number in range(100_000):
            await talk.send(b"X-Filler: filler\r\n" * 100)
        raise ValueError("a head of 180 MB was read")

    async def _do_switching(self, talk: Talk, _ask: Ask, _said: Said, _: Request) -> None:
        await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

    # -- clients that leave

    async def _do_silent(self, talk: Talk, ask: Ask, _said: Said, _: Request) -> None:
        if not await talk.left():
            raise ValueError(f"{ask}: its client has left, and the hub was not")
        raise _Over

    async def _do_dripping(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        """Events without end, until the gateway lets go."""
        await talk.send(self._head(said, b"Transfer-Encoding: chunked"))
        left = asyncio.create_task(talk.left())
        try:
            for _number in range(10_000):
                if left.done():
                    raise _Over
                await talk.send(b"6\r\nevent\n\r\n")
                await asyncio.sleep(0.01)
        finally:
            left.cancel()
        raise ValueError(f"{ask}: its client has left, and the hub was not")

    # -- uploads

    async def _do_slow_taker(self, talk: Talk, ask: Ask, said: Said, request: Request) -> None:
        await self._body(talk, ask, request, bite=max(1, ask.up // 12), rest=0.01)
        await talk.send(self._whole(ask, said))

    async def _do_early(self, talk: Talk, ask: Ask, said: Said, request: Request) -> None:
        await talk.send(self._whole(ask, said))
        await self._body(talk, ask, request)

    async def _do_refusing(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        await talk.send(self._whole(ask, said, b"Connection: close", status=b"413 Content Too Large"))
        # As a server that means well (RFC 9112, 9.6): no more is taken in, and the end waits for the other side.
        if not await talk.left():
            raise ValueError(f"{ask}: refused, and the hub was not left")
        raise _Over

    async def _do_reset_in_upload(self, talk: Talk, ask: Ask, _said: Said, _: Request) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await talk.reader.readexactly(max(ask.up // 3, 0))
        talk.reset()
        raise _Over

    # -- connections that wait

    async def _do_idle(self, talk: Talk, ask: Ask, said: Said, _: Request) -> None:
        """Answer well, then speak on the idle connection; `pause` is the number of what is said."""
        says = catalogue.IDLE[ask.pause]
        gone = self.idle[ask.mark] = asyncio.Event()
        await talk.send(self._whole(ask, said))
        if self.rng.random() < 0.5:
            await asyncio.sleep(self.rng.random() / 20)
        if says == "close":
            gone.set()
            raise _Over
        if says == "reset":
            talk.reset()
            gone.set()
            raise _Over
        await talk.send(IDLE_SAYS[says])
        began = time.monotonic()
        # Sooner than its age would have ended it.
        if not await talk.left() or time.monotonic() - began >= Timeouts().keep_alive:
            raise ValueError(f"{ask}: {says!r} was said on an idle connection, and it was kept")
        gone.set()
        raise _Over

    # -- sockets

    async def _socket(self, talk: Talk, ask: Ask, said: Said, request: Request) -> None:
        (key,) = request.values(b"Sec-WebSocket-Key")
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest())
        lines = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Soak: "
        lines += str(said).encode() + b"\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        match said.how:
            case "refused":
                await talk.send(self._whole(ask, said, status=b"403 Forbidden"))
            case "not_switched":
                await talk.send(self._whole(ask, said))
            case "false_accept":
                await talk.send(lines % b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            case "reset_before":
                talk.reset()
            case "echo":
                await talk.send(lines % accept, frame(TEXT, b"hello " + ask.mark.encode()))
                self.sockets += 1
                try:
                    await self._echo(talk, ask)
                finally:
                    self.sockets -= 1
            case other:
                raise ValueError(f"a handshake for {other!r}")

    async def _echo(self, talk: Talk, ask: Ask) -> None:
        """Messages back as they came, each held against the mark of this socket. `pause`: what ends it."""
        mine = ask.mark.encode()
        while True:
            kind, payload = await read_frame(talk.reader)
            if kind == CLOSE:
                await talk.send(frame(CLOSE, payload))
                return
            if kind == PING:
                await talk.send(frame(PONG, payload))
                continue
            if kind not in {TEXT, BINARY} or not payload.startswith(mine + b" "):
                raise ValueError(f"{ask}: its socket brought {kind} {payload[:60]!r}")
            if payload.startswith(mine + b" reset"):
                talk.reset()
                return
            if payload.startswith(mine + b" close"):
                await talk.send(frame(CLOSE, b"\x03\xe8" + mine))
                await talk.left()
                return
            await talk.send(frame(kind, payload))


async def _pieces(reader: asyncio.StreamReader, length: int | None, *, chunked: bool, bite: int) -> Any:
    """A body as it comes. Raises ValueError for chunks that aren't."""
    if not chunked:
        left = length or 0
        while left:
            piece = await reader.read(min(left, bite))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
        return
    while True:
        line = await reader.readuntil(b"\r\n")
        if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
            raise ValueError(f"a chunk that begins with {line[:40]!r}")
        size = int(line, 16)
        if size:
            yield await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk without its end")
        if not size:
            return


def _chunked(body: bytes, rng: random.Random, *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """A body in chunks of any size."""
    parts = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in _cut(body, rng, 5)]
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


def _cut(data: bytes, rng: random.Random, most: int) -> list[bytes]:
    """In up to so many pieces, none of them empty."""
    ends = sorted({rng.randrange(len(data)) for _ in range(rng.randint(0, most - 1))} | {len(data)}) if data else []
    return [data[begin:end] for begin, end in itertools.pairwise([0, *ends]) if end > begin]


def _claims(assertion: bytes) -> dict[str, Any]:
    """What an assertion says; that it may be believed is other tests' business."""
    payload = assertion.split(b".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return claims
