"""The same plain GET again and again, and something bad at the first, the second or the third of them.

A gateway may send a request that it knows on a shorter way than one that it sees for the first time; what is bad must
end the same on both. So the whole gateway stands between two raw ends here: a hub that answers well until it is told
otherwise for one request, and clients who ask in the same words. Every place is a pool of its own, where no session has
been before. Each good answer names the user and has a number, so that nobody's answer can pass for another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.kit.raw import PATIENCE, Peer, RawUpstream, Reply
from tests.kit.stand import Stand, stand
from tests.kit.strict import Request, requests_in

Act = Callable[[Peer, bytes], Awaitable[None]]
"""What a hub does instead of a good answer: (its end of the connection, the head that came). It closes afterwards if it
raises EOFError, and waits for the next request if it returns."""

TURNS = {"first": 0, "third": 2, "fourth": 3}
"""How many requests went well before. The first answer brings a cookie, so the third request is the first that repeats
the one before it word by word."""
BROWSER = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
    b"Accept: */*",
    b"Accept-Language: en-GB,en;q=0.9",
    b"Sec-Fetch-Mode: cors",
)


class Lane:
    """`hub`: what is behind; `acts`: what it does at the next requests, each once, before it is good again."""

    def __init__(self, hub: RawUpstream, places: int) -> None:
        self.hub = hub
        self.acts: deque[Act] = deque()
        self.requests: list[bytes] = []
        self.speakers: list[Peer] = []
        """The hub's ends over which `requests` came."""
        self.cookies: dict[str, bytes] = {}
        self.bindings: dict[tuple[str, bytes], bytes] = {}
        self.clients: list[Peer] = []
        self._site: Stand | None = None
        self._numbers = itertools.count(1)
        self._places = iter(range(places))

    @property
    def site(self) -> Stand:
        assert self._site is not None
        return self._site

    @property
    def netloc(self) -> bytes:
        return urlsplit(self.site.url).netloc.encode()

    def place(self) -> bytes:
        """A target at which nobody has been."""
        return b"/p%d/hub/file.js" % next(self._places)

    async def script(self, peer: Peer) -> None:
        """One connection of the gateway's."""
        while True:
            head = await peer.request()
            if b"/hub/health HTTP/" in head.partition(b"\r\n")[0]:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            self.requests.append(head)
            self.speakers.append(peer)
            if self.acts:
                await self.acts.popleft()(peer, head)
            else:
                if length := re.search(rb"(?i)\r\ncontent-length: ([0-9]+)\r\n", head):
                    await peer.exactly(int(length[1]))
                elif re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", head):
                    await peer.until(b"0\r\n\r\n")
                await peer.send(self.good(head))

    def good(self, head: bytes) -> bytes:
        """An answer that is the asker's alone."""
        (request,) = requests_in(head)
        words = b"%d for %b" % (next(self._numbers), b",".join(request.values(b"REMOTE_USER")))
        body = b"" if head.startswith(b"HEAD ") else words
        return b"HTTP/1.1 200 OK\r\nX-Soon: y\r\nContent-Length: %d\r\n\r\n%b" % (len(words), body)

    def get(self, place: bytes, *fields: bytes, user: str = "alice", line: bytes = b"GET %b HTTP/1.1") -> bytes:
        """The plain GET of a browser. `line`: the request line, with the place in it."""
        cookie = self.cookies[user] + self.bindings.get((user, place), b"")
        lines = (line % place, b"Host: " + self.netloc, *BROWSER, *fields, b"Cookie: " + cookie)
        return b"\r\n".join((*lines, b"", b""))

    async def client(self, *, receive_buffer: int = 0) -> Peer:
        """A new connection; `receive_buffer`: bytes that its kernel takes while nobody reads."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(self.netloc.partition(b":")[2])))
        self.clients.append(Peer(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 18)))
        return self.clients[-1]

    async def goes_well(self, client: Peer, place: bytes, count: int = 1, *, user: str = "alice") -> None:
        """The same request, several times, and each time an answer that is new and the user's own."""
        for _ in range(count):
            await client.send(self.get(place, user=user))
            reply = await self.is_good(client, user=user)
            for cookie in reply.fields("Set-Cookie"):
                self.bindings[user, place] = b"; " + cookie.partition(b";")[0]

    async def is_good(self, client: Peer, *, user: str = "alice") -> Reply:
        """The next answer is a good one, and has not been given before."""
        reply = await client.reply()
        assert reply.status == 200, reply
        number, word, name = reply.body.split(b" ")
        assert (word, name) == (b"for", user.encode()), reply
        assert int(number) > getattr(client, "last", 0), reply
        client.last = int(number)  # type: ignore[attr-defined]
        return reply

    async def others_go_on(self, place: bytes, client: Peer | None = None) -> None:
        """Nobody pays for what happened: the client itself, where its connection is kept, and two others."""
        if client is not None:
            await self.goes_well(client, place, 3)
        for user in ("alice", "bob"):
            other = await self.client()
            await self.goes_well(other, place, 3, user=user)
            assert other.unread == b""
            other.close()

    async def last_request(self, count: int) -> Request:
        """What the hub got as the `count`-th request of all."""
        async with asyncio.timeout(PATIENCE):
            while len(self.requests) < count:
                await asyncio.sleep(0.001)
        (request,) = requests_in(self.requests[count - 1])
        return request


@contextlib.asynccontextmanager
async def lane(
    places: int = 40, *, limits: Mapping[str, str] | None = None, pool: Mapping[str, Any] | None = None
) -> AsyncIterator[Lane]:
    """Bring it up, with alice and bob logged in. `limits`: of the configuration; `pool`: further keys of each pool."""
    upstream = RawUpstream(Peer.gone)
    made = Lane(upstream, places)
    upstream.script = made.script

    def adapt(document: dict[str, Any]) -> None:
        document["health"] = {"interval": "1h"}
        document["limits"] = dict(limits or {})
        document["pools"] = [
            {
                "name": f"p{number}",
                "path": f"/p{number}/",
                "hubs": [{"name": f"h{number}", "url": upstream.url}],
                **(pool or {}),
            }
            for number in range(places)
        ]

    async with upstream, stand(adapt) as site:
        made._site = site
        for name in ("alice", "bob"):
            async with await site.logged_in(name) as person:
                made.cookies[name] = f"hubgate={person.cookies(site.url)['hubgate']}".encode()
        yield made
        for client in made.clients:
            client.drop()
