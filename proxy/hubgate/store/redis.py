"""The store in a Redis (6.2 or newer), found by address or by asking sentinels.

Every call is bounded to less than a second, waiting for a connection included: a person who waits gets a page that says
so, and a gateway whose store is gone doesn't pile up requests. redis-py's own time limits and retries are switched off
for that; one deadline around the whole call is what holds, and cancelling a command closes its connection, so that no
answer is ever left for the next caller (CVE-2023-28858).

This module knows keys, bytes and Redis commands. What the errors of redis-py and the operating system mean is decided
here, in one table; nothing outside of the package ever sees one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions as theirs
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from hubgate.errors import OperatorFault, StoreFault
from hubgate.store.address import Address, Login
from hubgate.store.advice import advice
from hubgate.store.base import Event, Lost, milliseconds
from hubgate.store.circuit import Circuit
from hubgate.store.inbox import Inbox
from hubgate.store.subscription import listen

PREFIX = "hubgate:"
DEADLINE = 0.8
"""Seconds for one call, everything included."""
SENTINEL_DEADLINE = 0.25
"""Seconds for one sentinel to answer, so that there is time to ask another."""
CONNECTIONS = 32
"""At most, per process; one more for each subscription. Further callers wait for their turn, within their deadline."""

_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 3, socket.TCP_KEEPCNT: 3}  # seconds, seconds, times
_ENCODING_ERRORS = "surrogatepass"  # any Python text can be a key or a member; nothing raises half-way

# Compare and set in one step. Redis runs a script with nothing in between (redis.io, "Atomicity of scripts").
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# PEXPIRE … GT would do, but came with Redis 7. PTTL of a set that was just made is -1.
_JOIN = """
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""
_LEAVE = """
redis.call('SREM', KEYS[1], ARGV[1])
return redis.call('SCARD', KEYS[1])
"""

# What an error means; the first class that fits counts. Their texts may hold arguments of the command, so none is used.
_MEANINGS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        theirs.AuthenticationError,
        "store_login_refused",
        "Redis wants another user or password than those in store.url.",
    ),
    (
        theirs.BusyLoadingError,
        "store_loading",
        "Redis is still reading its data from disk and will answer when it is done.",
    ),
    (
        theirs.NoPermissionError,
        "store_forbidden",
        f"Redis doesn't let this user do what hubgate needs: all commands on keys and channels below {PREFIX}.",
    ),
    (
        theirs.OutOfMemoryError,
        "store_full",
        "Redis has reached its maxmemory and takes nothing new: give it more.",
    ),
    (
        theirs.ReadOnlyError,
        "store_read_only",
        "Redis is a read-only replica: store.url must lead to the primary, or to the sentinels that know it.",
    ),
    (
        theirs.ConnectionError,
        "store_unreachable",
        "Redis can't be reached at store.url.",
    ),
    (
        TimeoutError,
        "store_unreachable",
        f"Redis did not answer within {DEADLINE} s.",
    ),
    (
        theirs.TimeoutError,
        "store_unreachable",
        f"Redis did not answer within {DEADLINE} s.",
    ),
    (
        OSError,
        "store_unreachable",
        "Redis can't be reached at store.url.",
    ),
    (
        theirs.ResponseError,
        "store_refused",
        "Redis refused a command; its own log and the evidence say more.",
    ),
)
_FOREIGN = (theirs.RedisError, OSError, EOFError, ValueError)


class RedisStore:
    """See `base.Store`. `ca`: file with the authorities that TLS certificates are checked against."""

    def __init__(self, address: Address, *, ca: str | None = None) -> None:
        self._address = address
        self._sentinel, self._pool = _open(address, ca)
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._execute: Callable[..., Awaitable[Any]] = self._redis.execute_command
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._circuit = Circuit()
        self._subscriptions: dict[asyncio.Task[None], Inbox] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisStore({self._address})"

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._ask("GET", PREFIX + key)
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        values: list[bytes | None] = await self._ask("MGET", *(PREFIX + key for key in keys))
        return values

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        await self._ask("SET", PREFIX + key, value, "PX", milliseconds(ttl))

    async def add(self, key: str, value: bytes, *, ttl: float) -> bool:
        return bool(await self._ask("SET", PREFIX + key, value, "PX", milliseconds(ttl), "NX"))

    async def replace(self, key: str, old: bytes, new: bytes, *, ttl: float) -> bool:
        return bool(await self._ask("EVAL", _REPLACE, 1, PREFIX + key, old, new, milliseconds(ttl)))

    async def take(self, key: str) -> bytes | None:
        value: bytes | None = await self._ask("GETDEL", PREFIX + key)
        return value

    async def delete(self, *keys: str) -> int:
        if not keys:
            return 0
        return int(await self._ask("DEL", *(PREFIX + key for key in keys)))

    async def touch(self, key: str, *, ttl: float) -> bool:
        return bool(await self._ask("PEXPIRE", PREFIX + key, milliseconds(ttl)))

    async def join(self, key: str, member: str, *, ttl: float) -> None:
        await self._ask("EVAL", _JOIN, 1, PREFIX + key, member, milliseconds(ttl))

    async def leave(self, key: str, member: str) -> int:
        return int(await self._ask("EVAL", _LEAVE, 1, PREFIX + key, member))

    async def members(self, key: str) -> set[str]:
        found = await self._ask("SMEMBERS", PREFIX + key)
        try:
            return {member.decode("utf-8", _ENCODING_ERRORS) for member in found}
        except UnicodeDecodeError as error:
            raise StoreFault(
                "store_refused",
                "A set in Redis holds what hubgate can't have written. Find out who else writes to it.",
            ) from error

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._ask("PUBLISH", self._channel(topic), payload)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[Event]]:
        inbox = Inbox()
        if self._closed:
            inbox.close()
            yield inbox
            return
        task = asyncio.create_task(
            listen(self._pool.make_connection, self._channel(topic), inbox, on_restored=self._circuit.answered),
            name=f"store subscription {topic}",
        )
        self._subscriptions[task] = inbox
        try:
            yield inbox
        finally:
            self._subscriptions.pop(task, None)
            task.cancel()
            await asyncio.wait((task,))

    async def ping(self) -> None:
        await self._ask("PING")

    async def warnings(self) -> list[str]:
        return await advice(self._ask)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._subscriptions:
            task.cancel()
        if self._subscriptions:
            await asyncio.wait(tuple(self._subscriptions))
        for inbox in self._subscriptions.values():
            inbox.put(Lost("the store was closed"))
            inbox.close()
        self._subscriptions.clear()
        try:
            async with asyncio.timeout(DEADLINE):
                await self._redis.aclose(close_connection_pool=True)
                if self._sentinel is not None:
                    await self._sentinel.aclose()
        except _FOREIGN as error:
            raise _fault(error) from error

    def _channel(self, topic: str) -> str:
        # Unlike keys, channels are shared by all databases of a Redis (redis.io, "Pub/Sub and databases").
        return f"{PREFIX}{self._address.db}:{topic}"

    async def _ask(self, *command: str | bytes | int) -> Any:
        if self._closed:
            raise StoreFault("store_closed", "The store was closed.")
        now = asyncio.get_running_loop().time
        if not self._circuit.allows(now()):
            raise StoreFault("store_unreachable", "Redis did not answer just now; it is tried again.", retry_after=2)
        try:
            async with asyncio.timeout(DEADLINE), self._turns:
                answer = await self._execute(*command)
        except _FOREIGN as error:
            fault = _fault(error)
            if fault.code == "store_unreachable":
                self._circuit.failed(now())
            else:
                self._circuit.answered()
            raise fault from error
        self._circuit.answered()
        return answer


class _OurTls:
    """Before one of redis-py's TLS connections: all share one context, instead of reading the authorities for each."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = tls  # type: ignore[attr-defined]  # of the class that this one is mixed into


class _TlsConnection(_OurTls, SSLConnection):
    pass


class _SentinelTlsConnection(_OurTls, SentinelManagedSSLConnection):
    pass


def _open(address: Address, ca: str | None) -> tuple[Sentinel | None, ConnectionPool]:
    """Objects only, no connection yet."""
    tls: dict[str, Any] = {"tls": _tls_context(ca)} if address.tls else {}
    plain = _TlsConnection if address.tls else Connection
    options = _options(address.login, DEADLINE) | tls | {"db": address.db, "max_connections": CONNECTIONS}
    if not address.service:
        host, port = address.nodes[0]
        return None, ConnectionPool(connection_class=plain, host=host, port=port, **options)
    sentinel = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    asked = _options(address.sentinel_login, SENTINEL_DEADLINE) | tls
    # redis-py would build them with retries of its own, and for TLS with a context for each.
    sentinel.sentinels = [
        Redis(connection_pool=ConnectionPool(connection_class=plain, host=host, port=port, **asked))
        for host, port in address.nodes
    ]
    managed = _SentinelTlsConnection if address.tls else SentinelManagedConnection
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        address.service, sentinel, connection_class=managed, **options
    )
    return sentinel, pool


def _options(login: Login, deadline: float) -> dict[str, Any]:
    return {
        "username": login.username or None,
        "password": login.password or None,
        "encoding_errors": _ENCODING_ERRORS,
        "protocol": 2,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        # No `socket_timeout`: it costs a task per command, and the deadline around the call holds anyway.
        "socket_timeout": None if deadline == DEADLINE else deadline,
        "socket_connect_timeout": deadline,
        # A peer that vanished without a word is noticed while nobody waits for it.
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
    }


def _tls_context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise OperatorFault(
            "store_ca", f"store.ca can't be used: {ca} is not a readable file of PEM certificates."
        ) from error


def _fault(error: Exception) -> StoreFault:
    code, message = next(
        ((code, message) for kind, code, message in _MEANINGS if isinstance(error, kind)),
        ("store_refused", "What answers at store.url doesn't speak as Redis does."),
    )
    evidence = {"error": type(error).__name__}
    origin = error.__cause__ or error.__context__
    if origin is not None:
        evidence["cause"] = type(origin).__name__
    # Redis puts a code in capitals in front of its errors (MISCONF, WRONGTYPE); the rest may quote the command.
    word = str(error).partition(" ")[0]
    if isinstance(error, theirs.ResponseError) and word.isalpha() and word.isupper():
        evidence["redis"] = word
    return StoreFault(code, message, retry_after=2, evidence=evidence)
