"""One connection to a hub, and the pool of those that wait for the next request.

A connection reads ahead only a little, says when it is lost, and knows one deadline. The pool hands out what is
certainly unused, counts time once per tick for all of them (a timer per request would cost as much as parsing the
answer), and drops a waiting connection on which the hub says anything: an answer that nobody asked for must not meet
the next user's request. What a message is, and whose request it answers, is http.py's business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from hubgate.core.site import Upstream
from hubgate.errors import OperatorFault, UpstreamFault

READ_AHEAD = 256 * 1024
"""Bytes that may wait for a slow client before the hub's socket is no longer read."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 means no limit.

    `connect`: TCP and TLS. `head`: from the last byte of the request to the head of the answer (a hub may think for
    long about a spawn). `idle`: silence within an answer (none by default: event streams are silent, and a client that
    leaves ends them). `stall`: a client that neither takes nor sends a byte in the middle of a body. `keep_alive`: how
    long an idle connection may be used again; below configurable-http-proxy's 5 s.
    """

    connect: float = 5.0
    head: float = 300.0
    idle: float = 0.0
    stall: float = 120.0
    keep_alive: float = 4.0

    @property
    def tick(self) -> float:
        """How often deadlines are looked at: a limit is kept within a quarter of itself, a second at most."""
        limits = [limit for limit in (self.head, self.idle, self.keep_alive) if limit > 0]
        return min(1.0, max(0.01, min(limits, default=4.0) / 4))


class Connection(asyncio.Protocol):
    """One TCP or TLS connection to a hub. Carries one request at a time.

    `taker`: gets what arrives next, at once and once; `b""` when the connection is lost. Whoever can't act on it there
    and then uses `read` instead.
    """

    __slots__ = (
        "_chunks",
        "_loop",
        "_paused",
        "_pool",
        "_reader",
        "_room",
        "_size",
        "deadline",
        "error",
        "expired",
        "idle_since",
        "lost",
        "reused",
        "taker",
        "transport",
        "waiting",
    )

    transport: asyncio.Transport

    def __init__(self, pool: ConnectionPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop  # asking asyncio for it costs a getpid() each time
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._reader: asyncio.Future[bytes] | None = None
        self.taker: Callable[[bytes], None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.deadline = 0.0
        self.expired = False
        self.lost = False
        self.error: Exception | None = None
        self.reused = False
        self.waiting = False
        self.idle_since = 0.0

    def __repr__(self) -> str:
        state = "lost" if self.lost else "waiting" if self.waiting else "in use"
        return f"Connection({self._pool.upstream.name!r}, {state}, {self._size} bytes unread, error={self.error!r})"

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.watch(self)

    def data_received(self, data: bytes) -> None:
        taker = self.taker
        if taker is not None:
            self.taker = None
            taker(data)
            return
        reader = self._reader
        if reader is not None:
            self._reader = None
            if not reader.done():
                reader.set_result(data)
                return
        if self.waiting:
            self.abort()
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > READ_AHEAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        self._pool.forget(self)
        taker, self.taker = self.taker, None
        if taker is not None:
            taker(b"")
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(b"")
        self.resume_writing()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # What an exchange calls.

    def read(self) -> asyncio.Future[bytes]:
        """Whatever has arrived; `b""` when the connection is lost and everything before that has been read.

        A future and no coroutine, because it is what every request waits for, and just once.
        """
        reader = self._loop.create_future()
        if self._size:
            reader.set_result(self.take())
        elif self.lost:
            reader.set_result(b"")
        else:
            self._reader = reader
        return reader

    def take(self) -> bytes:
        """Whatever has arrived, without waiting."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._size = 0
        self._resume()
        return data

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    @property
    def unread(self) -> bool:
        """Whether bytes have arrived that nobody has read."""
        return self._size > 0

    def write(self, data: bytes) -> None:
        """Send, buffering; silently nothing once the connection is lost."""
        if not self.lost:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the hub takes bytes again, or is gone."""
        if self._room is not None:
            await self._room

    def due_in(self, seconds: float) -> None:
        """The next sign of the hub is due in so many seconds; 0: whenever it likes."""
        self.deadline = self._loop.time() + seconds if seconds else 0.0

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have the loop call this in its next turn."""
        self._loop.call_soon(callback)

    def expire(self) -> None:
        """Its deadline has passed."""
        self.expired = True
        self.abort()

    def abort(self) -> None:
        """End it at once; what is unsent or unread is lost."""
        if not self.lost:  # asyncio's transports break when they are aborted after their end
            self.transport.abort()


class ConnectionPool:
    """The connections to one upstream: those in use are watched, those that wait are handed out, newest first.

    Belongs to the event loop in which it is first used. Raises `OperatorFault` when certificates can't be read.
    """

    def __init__(self, upstream: Upstream, *, limits: Timeouts | None = None, max_idle: int = 256) -> None:
        self.upstream = upstream
        self.limits = limits or Timeouts()
        self.max_idle = max_idle
        parts = urlsplit(upstream.url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._context = tls_context(upstream) if self._secure else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[Connection] = set()
        self._waiting: list[Connection] = []
        self._resting: list[Connection] = []
        self._rested: list[Connection] = []
        self._ticking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"ConnectionPool({self.upstream.name!r}, {len(self._open)} open, {len(self._waiting)} waiting)"

    def __len__(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        """How many connections wait for a request."""
        return len(self._waiting) + len(self._resting) + len(self._rested)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What the hub is trusted by and shown, for whoever else asks it something; None over plain http."""
        return self._context

    def take(self, *, repeatable: bool) -> Connection | None:
        """A waiting connection, or None.

        The hub may be closing it in this very moment. A request that can't be repeated gets only one that was used a
        moment ago, for which that is unlikely (RFC 9112, 9.3.1: it would have to fail).
        """
        waiting = self._waiting
        if not waiting or self._loop is None:
            return None
        limit = self.limits.keep_alive if repeatable else self.limits.keep_alive / 2
        oldest = self._loop.time() - limit
        while waiting:
            connection = waiting[-1]
            if connection.transport.is_closing():
                waiting.pop()
                continue
            if connection.idle_since < oldest:
                return None  # and all the others are older still: the next tick closes them
            waiting.pop()
            connection.waiting = False
            connection.reused = True
            return connection
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises `UpstreamFault` `upstream_unreachable`, always repeatable: nothing was sent."""
        loop = self._loop = asyncio.get_running_loop()
        limit = self.limits.connect or None
        try:
            async with asyncio.timeout(limit):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    self._host,
                    self._port,
                    ssl=self._context,
                    server_hostname=self._host if self._secure else None,
                    ssl_handshake_timeout=limit if self._secure else None,
                )
        except TimeoutError as error:
            raise self.fault(
                "upstream_unreachable", f"no connection within {limit} s", status=504, repeatable=True
            ) from error
        except OSError as error:  # refused, unresolvable, unroutable, a certificate that doesn't verify
            raise self.fault("upstream_unreachable", f"no connection: {error}", repeatable=True) from error
        return connection

    def watch(self, connection: Connection) -> None:
        """It is open: from now on its deadline counts."""
        self._open.add(connection)
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(self.limits.tick, self._tick)

    def release(self, connection: Connection) -> None:
        """Its exchange is over, and both sides agree where the answer ended.

        It is handed out again only after the loop has looked once more for what has arrived. What the hub sent right
        behind its answer is seen by then, so it can't be taken for the answer to another one's request.
        """
        if self._closed or connection.unread or self.waiting >= self.max_idle or self.limits.keep_alive <= 0:
            connection.abort()
            return
        connection.waiting = True
        connection.deadline = 0.0
        connection.idle_since = connection.now
        if not self._resting and not self._rested:
            connection.call_soon(self._turn)
        self._resting.append(connection)

    def _turn(self) -> None:
        """Once per turn of the loop, while there are some: between two calls it looks at all sockets."""
        self._waiting += self._rested
        self._rested, self._resting = self._resting, []
        if self._rested:
            self._rested[0].call_soon(self._turn)

    def forget(self, connection: Connection) -> None:
        """It is lost, or became a tunnel. A waiting one leaves the list when its turn comes."""
        self._open.discard(connection)

    def look_after(self, waiting: Coroutine[None, None, None]) -> None:
        """Run what an exchange still has to wait for, and hold on to it: asyncio alone would not."""
        task = asyncio.get_running_loop().create_task(waiting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fault(self, code: str, message: str, *, status: int | None = None, repeatable: bool = False) -> UpstreamFault:
        """A fault of this upstream."""
        evidence = {"upstream": self.upstream.name}
        return UpstreamFault(code, message, status=status, repeatable=repeatable, evidence=evidence)

    def close(self) -> None:
        """Close waiting connections now, and those in use when their answer is complete."""
        self._closed = True
        for connections in (self._waiting, self._resting, self._rested):
            for connection in connections:
                connection.abort()
            connections.clear()

    def _tick(self) -> None:
        """Once per tick: end what is overdue, drop what waited too long. Stops when nothing is open."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        oldest = now - self.limits.keep_alive
        still = []
        for connection in self._waiting:
            if connection.idle_since < oldest or connection.transport.is_closing():
                connection.abort()
            else:
                still.append(connection)
        self._waiting = still
        for connection in list(self._open):
            if 0.0 < connection.deadline < now:
                connection.expire()
        self._ticking = loop.call_later(self.limits.tick, self._tick) if self._open else None


def tls_context(upstream: Upstream) -> ssl.SSLContext:
    """Verifying, with the site's own authority and our certificate where they are configured."""
    try:
        context = ssl.create_default_context(cafile=upstream.ca or None)
        if upstream.certificate:
            context.load_cert_chain(upstream.certificate, upstream.key or None)
    except OSError as error:  # ssl.SSLError is one
        raise OperatorFault(
            "upstream_certificates",
            f"{upstream.name}: ca, certificate or key can't be read: {error}",
            evidence={"upstream": upstream.name},
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
