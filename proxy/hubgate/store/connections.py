"""Lines to the Redis that an address leads to: who is asked for it, how a line is opened, and when it is given up.

redis-py's own time limits and retries are switched off as far as they can be: it retries ten times by default, and its
`socket_timeout` costs a task for each command. Whoever uses a line puts a deadline around all that it does with it;
a command that is cut off closes its line. Nothing is connected before it is needed.

This module knows of no keys and no commands but those that sentinels understand.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hubgate.errors import OperatorFault
from hubgate.store.address import Address, Login

SENTINEL_DEADLINE = 0.25
"""Seconds for one sentinel to answer, so that there is time to ask another."""

ENCODING_ERRORS = "surrogatepass"
"""Any Python text can be a key or a member, so that nothing raises half-way."""

_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 3, socket.TCP_KEEPCNT: 3}  # seconds, seconds, times


class Line(Protocol):
    """What is used of one connection of redis-py, and all that must keep its meaning when that is updated."""

    host: str
    port: int

    @property
    def is_connected(self) -> bool:
        """Whether it was connected and not disconnected since; the peer may have closed it."""
        ...

    async def connect(self) -> None:
        """Connect, log in, choose the database. Nothing happens when it is connected."""
        ...

    async def can_read(self) -> bool:
        """Whether something came that nobody asked for: bytes, or the peer's end. Never waits."""
        ...

    async def send_command(self, *words: str | bytes | int) -> None:
        """Send one command."""
        ...

    async def read_response(self, *, timeout: float | None = None) -> Any:
        """The next reply, or None after `timeout` seconds without a whole one; what came of it by then isn't lost."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """Close, without waiting for the peer if `nowait`."""
        ...


class Connections:
    """All lines of this process to one Redis; `another` hands out some beside those that commands take in turns.
    `deadline`: seconds.
    """

    def __init__(self, address: Address, *, ca: str | None, deadline: float) -> None:
        tls: dict[str, Any] = {"tls": _tls_context(ca)} if address.tls else {}
        line = _TlsConnection if address.tls else Connection
        options = _options(address.login) | tls | {"db": address.db}
        self._deadline = deadline
        self._sentinel: Sentinel | None = None
        self._primary: Callable[[], Awaitable[tuple[str, int]]] | None = None
        self._resting: list[Line] = []
        self._leads_to: tuple[str, int] | None = None  # where the line led that was connected last
        self._pool: Any  # of redis-py, which leaves most of it untyped; it makes lines and keeps none
        if address.service:
            self._sentinel = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SENTINEL_DEADLINE)
            asked = _options(address.sentinel_login) | limits | tls
            # Built here, since Sentinel would give them retries of its own and a TLS context for each.
            self._sentinel.sentinels = [
                Redis(connection_pool=ConnectionPool(connection_class=line, host=host, port=port, **asked))
                for host, port in address.nodes
            ]
            managed = _SentinelTlsConnection if address.tls else SentinelManagedConnection
            self._pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
                address.service, self._sentinel, connection_class=managed, **options
            )
            self._primary = self._pool.get_master_address
        else:
            host, port = address.nodes[0]
            self._pool = ConnectionPool(connection_class=line, host=host, port=port, **options)
        self._readings: dict[Any, Any] = dict(Redis(connection_pool=self._pool).response_callbacks)

    async def execute(self, *words: str | bytes | int) -> Any:
        """One command and its reply, as redis-py reads it.

        `Redis.execute_command` does the same with retries, which are off here, and its pool with events and meters,
        which nobody hears and reads: those were half of what a command costs, and commands are a third of a login.
        """
        line = self._resting.pop() if self._resting else self.another()
        try:
            await self._fit(line)
            # Whatever cuts one of these off closes the line, so that no reply is left for the next caller.
            await line.send_command(*words)
            reply = await line.read_response()
        finally:
            if line.is_connected and (line.host, line.port) == self._leads_to:
                self._resting.append(line)
            else:
                await line.disconnect(nowait=True)
        reading = self._readings.get(words[0])
        return reply if reading is None else reading(reply)

    async def _fit(self, line: Line) -> None:
        """Have a line connected, and nothing on it that belongs to nobody: Redis may have closed it meanwhile."""
        try:
            if line.is_connected and await line.can_read():
                await line.disconnect(nowait=True)
        except (RedisError, OSError):
            await line.disconnect(nowait=True)
        if not line.is_connected:
            await line.connect()
            await self._lead_to((line.host, line.port))

    async def _lead_to(self, place: tuple[str, int]) -> None:
        """From now on lines lead there; one that leads elsewhere is closed, at its return if it is in use."""
        if place != self._leads_to:
            self._leads_to = place
            while self._resting:
                await self._resting.pop().disconnect(nowait=True)

    def another(self) -> Line:
        """A line of the caller's own, not open yet."""
        line: Line = self._pool.make_connection()
        return line

    async def leads_to_primary(self, line: Line) -> bool:
        """Whether sentinels still name the Redis that this line leads to; if not, no other line to it is kept either.

        When an operator hands over to another Redis, sentinels leave the old one alone for some ten seconds, and it
        takes every write: those would be lost.
        """
        if self._primary is None:
            return True
        try:
            async with asyncio.timeout(self._deadline):
                primary = await self._primary()
        except (RedisError, OSError):
            return True  # sentinels that know nothing don't make a Redis that answers any worse
        if primary == (line.host, line.port):
            return True
        await self._lead_to(primary)
        return False

    async def close(self) -> None:
        """Close all lines but those of `another`, none of which is in use."""
        while self._resting:
            await self._resting.pop().disconnect()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class _OurTls:
    """Before one of redis-py's TLS connections: all share one context, instead of reading the authorities for each."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = tls  # type: ignore[attr-defined]  # of the class that this one is mixed into


class _TlsConnection(_OurTls, SSLConnection):
    pass


class _SentinelTlsConnection(_OurTls, SentinelManagedSSLConnection):
    pass


def _options(login: Login) -> dict[str, Any]:
    return {
        "username": login.username or None,
        "password": login.password or None,
        "encoding_errors": ENCODING_ERRORS,
        "protocol": 2,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        # A peer that vanished without a word is noticed while nobody waits for it.
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
    }


def _tls_context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl.SSLError is one
        raise OperatorFault(
            "store_ca", f"store.ca can't be used: {ca} is not a readable file of PEM certificates."
        ) from error
