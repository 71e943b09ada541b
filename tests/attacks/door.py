"""An attacker's place to stand: the whole gateway between a raw socket and hubs that keep every byte.

What a hub got is read by the strict judge (`kit/strict.py`), so that a request with two readings fails by itself; what
the client got is read as strictly. Requests that ask for the end of their connection are answered and over: no test in
here waits for a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.kit.raw import WEBSOCKET_KEY, Peer, RawUpstream, Reply, switched
from tests.kit.stand import Stand, stand
from tests.kit.strict import Request, requests_in

Adapt = Callable[[dict[str, Any]], None]

HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + WEBSOCKET_KEY,
)


@dataclass(eq=False)
class Hub:
    """A hub that keeps each request as it stood on the wire, health probes apart, and answers with what it made of it.

    `raw`: the bytes of each request; `answer`: what it answers, instead of its own words.
    """

    name: str
    raw: list[bytes] = field(default_factory=list)
    answer: Callable[[Request], bytes] | None = None
    url: str = ""

    @property
    def requests(self) -> list[Request]:
        """What it got, as a strict reader has it."""
        found = [requests_in(raw) for raw in self.raw]
        assert all(len(each) == 1 for each in found), self.raw
        return [request for (request,) in found]

    async def script(self, peer: Peer) -> None:
        """One connection of the gateway's."""
        while True:
            raw = await peer.request()
            if coding := re.search(rb"(?i)\r\ntransfer-encoding: *chunked\r\n", raw):
                raw += await self._chunks(peer)
            if length := re.search(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n", raw):
                assert not coding, raw
                raw += await peer.exactly(int(length[1]))
            if b"/hub/health HTTP/" in raw.partition(b"\r\n")[0]:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            self.raw.append(raw)
            (request,) = requests_in(raw)
            if request.values(b"Upgrade"):
                await peer.send(switched())
                await peer.send(await peer.until(b"\n"))
                return
            await peer.send(self.answer(request) if self.answer else self._words(request))

    async def _chunks(self, peer: Peer) -> bytes:
        read = b""
        while True:
            line = await peer.until(b"\r\n")
            read += line
            size = int(line, 16)
            if not size:
                return read + await peer.until(b"\r\n")
            read += await peer.exactly(size + 2)

    def _words(self, request: Request) -> bytes:
        users = [value.decode("latin-1") for value in request.values(b"REMOTE_USER")]
        told = {"hub": self.name, "users": users, "line": request.line.decode("latin-1")}
        body = b"" if request.line.startswith(b"HEAD") else json.dumps(told).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass(eq=False)
class Door:
    """`site`: the gateway, its provider and people; `hubs`: what is behind it; `cookies`: Cookie fields by person."""

    site: Stand
    hubs: dict[str, Hub]
    cookies: dict[str, bytes] = field(default_factory=dict)

    @property
    def netloc(self) -> bytes:
        return urlsplit(self.site.url).netloc.encode()

    @property
    def port(self) -> int:
        return urlsplit(self.site.url).port or 80

    def request(
        self,
        target: bytes,
        *fields: bytes,
        method: bytes = b"GET",
        user: str = "",
        host: bytes | None = None,
        body: bytes = b"",
        close: bool = True,
    ) -> bytes:
        """A request whose lines are joined by hand. `host`: instead of the site's own; `user`: who is logged in."""
        lines = [
            b"%b %b HTTP/1.1" % (method, target),
            b"Host: " + (self.netloc if host is None else host),
            *((b"Cookie: " + self.cookies[user],) if user else ()),
            *fields,
            *((b"Content-Length: %d" % len(body),) if body else ()),
            *((b"Connection: close",) if close else ()),
        ]
        return b"\r\n".join((*lines, b"", body))

    async def told(self, data: bytes, *methods: str) -> list[Reply]:
        """Send bytes on a new connection, and read answers to its end. `methods`: of the requests, for the framing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        peer = Peer(reader, writer)
        replies: list[Reply] = []
        expected = iter(methods)
        try:
            await peer.send(data)
            with contextlib.suppress(EOFError, ConnectionResetError):
                while True:
                    replies.append(await peer.reply(next(expected, "GET")))
            rest = await peer.rest()
        finally:
            writer.transport.abort()
        if replies and replies[-1].status == 101:
            replies[-1].body = rest
        else:
            assert rest == b"", rest
        return replies

    async def ask(self, target: bytes, *fields: bytes, method: bytes = b"GET", **more: Any) -> Reply:
        """One request on a connection of its own, and its one answer."""
        (reply,) = await self.told(self.request(target, *fields, method=method, **more), method.decode())
        return reply

    def received(self) -> list[Request]:
        """What all hubs got since the last time this was asked."""
        found = [request for hub in self.hubs.values() for request in hub.requests]
        for hub in self.hubs.values():
            hub.raw.clear()
        return found

    async def login(self, *names: str) -> None:
        """Have these people log in, each with a browser of their own, and keep their cookies."""
        for name in names:
            async with await self.site.logged_in(name) as person:
                cookies = person.cookies(self.site.url)
                self.cookies[name] = f"hubgate={cookies['hubgate']}".encode()


@contextlib.asynccontextmanager
async def door(
    adapt: Adapt = lambda _: None, *, disclose: str = "hub", login: Iterable[str] = ("alice",)
) -> AsyncIterator[Door]:
    """Bring it all up, with people who have logged in."""
    async with contextlib.AsyncExitStack() as stack:
        hubs = {name: Hub(name) for name in ("htc01", "htc02", "hpc01")}
        for hub in hubs.values():
            upstream = await stack.enter_async_context(RawUpstream(hub.script))
            hub.url = upstream.url

        def with_raw_hubs(document: dict[str, Any]) -> None:
            for pool in document["pools"]:
                for each in pool["hubs"]:
                    each["url"] = hubs[each["name"]].url
            adapt(document)

        site = await stack.enter_async_context(stand(with_raw_hubs, disclose=disclose))
        made = Door(site, hubs)
        await made.login(*login)
        yield made


def letters(name: bytes) -> bytes:
    """A name by its letters and digits alone, without what CGI puts in front: how the most careless reader has it."""
    folded = re.sub(rb"[^a-z0-9]", b"", name.lower())
    return folded.removeprefix(b"http") or folded
