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
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions as theirs

from hubgate.errors import StoreFault
from hubgate.store.address import Address
from hubgate.store.advice import advice
from hubgate.store.base import Change, Event, Lost, milliseconds
from hubgate.store.circuit import Circuit
from hubgate.store.connections import ENCODING_ERRORS, Connections
from hubgate.store.inbox import Inbox
from hubgate.store.subscription import listen

PREFIX = "hubgate:"
DEADLINE = 0.8
"""Seconds for one call, everything included."""
CONNECTIONS = 32
"""At most, per process; one more for each subscription. Further callers wait for their turn, within their deadline."""

# Compare and set in one step. Redis runs a script with nothing in between (redis.io, "Atomicity of scripts").
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""
_REPLACE_MANY = """
local replaced = {}
for place, key in ipairs(KEYS) do
    local at = 3 * (place - 1)
    replaced[place] = 0
    if redis.call('GET', key) == ARGV[at + 1] then
        redis.call('SET', key, ARGV[at + 2], 'PX', ARGV[at + 3])
        replaced[place] = 1
    end
end
return replaced
"""
# PEXPIRE … GT would do, but came with Redis 7. PTTL of a set that was just made is -1.
_INTO = """
local function join(key)
    redis.call('SADD', key, ARGV[1])
    if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
end
"""
_JOIN = f"{_INTO} join(KEYS[1]) return 1"
_PUT_LISTED = f"""{_INTO}
for place = 2, #KEYS do join(KEYS[place]) end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
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
        self._connections = Connections(address, ca=ca, deadline=DEADLINE)
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

    async def put(self, key: str, value: bytes, *, ttl: float | None) -> None:
        lifetime = () if ttl is None else ("PX", milliseconds(ttl))
        await self._ask("SET", PREFIX + key, value, *lifetime)

    async def add(self, key: str, value: bytes, *, ttl: float | None) -> bool:
        lifetime = () if ttl is None else ("PX", milliseconds(ttl))
        return bool(await self._ask("SET", PREFIX + key, value, *lifetime, "NX"))

    async def replace(self, key: str, old: bytes, new: bytes, *, ttl: float | None) -> bool:
        lifetime = () if ttl is None else (milliseconds(ttl),)
        return bool(await self._ask("EVAL", _REPLACE, 1, PREFIX + key, old, new, *lifetime))

    async def replace_many(self, changes: Sequence[Change]) -> list[bool]:
        if not changes:
            return []
        keys = [PREFIX + change.key for change in changes]
        words = [word for change in changes for word in (change.old, change.new, milliseconds(change.ttl))]
        return list(map(bool, await self._ask("EVAL", _REPLACE_MANY, len(keys), *keys, *words)))

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

    async def put_listed(
        self, key: str, value: bytes, *, ttl: float, sets: Sequence[str], member: str, sets_ttl: float
    ) -> None:
        keys = [PREFIX + each for each in (key, *sets)]
        times = milliseconds(sets_ttl), milliseconds(ttl)
        await self._ask("EVAL", _PUT_LISTED, len(keys), *keys, member, times[0], value, times[1])

    async def leave(self, key: str, member: str) -> int:
        return int(await self._ask("EVAL", _LEAVE, 1, PREFIX + key, member))

    async def members(self, key: str) -> set[str]:
        found = await self._ask("SMEMBERS", PREFIX + key)
        try:
            return {member.decode("utf-8", ENCODING_ERRORS) for member in found}
        except UnicodeDecodeError as error:
            raise StoreFault(
                "store_refused",
                "A set in Redis holds what hubgate can't have written. Find out who else writes to it.",
            ) from error

    async def publish(self, topic: str, payload: bytes) -> int:
        return int(await self._ask("PUBLISH", self._channel(topic), payload))

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[Event]]:
        inbox = Inbox()
        if self._closed:
            inbox.close()
            yield inbox
            return
        task = asyncio.create_task(
            listen(
                self._connections.another,
                self._channel(topic),
                inbox,
                on_restored=self._circuit.answered,
                is_current=self._connections.leads_to_primary,
            ),
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

    async def warnings(self, *, enrolments: bool = False) -> list[str]:
        return await advice(self._ask, enrolments=enrolments)

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
        # Calls under way end first, within their deadline: one that is just connecting would leave its line behind.
        for _ in range(CONNECTIONS):
            await self._turns.acquire()
        try:
            async with asyncio.timeout(DEADLINE):
                await self._connections.close()
        except _FOREIGN as error:
            raise _fault(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFault("store_closed", "The store was closed.")

    def _channel(self, topic: str) -> str:
        # Unlike keys, channels are shared by all databases of a Redis (redis.io, "Pub/Sub and databases").
        return f"{PREFIX}{self._address.db}:{topic}"

    async def _ask(self, *command: str | bytes | int) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        now = loop.time
        if not self._circuit.allows(now()):
            raise StoreFault("store_unreachable", "Redis did not answer just now; it is tried again.", retry_after=2)
        # Half by half: a process that itself stood still for a second finds the answer in its buffer.
        limit = asyncio.timeout(None)
        halfway = loop.call_later(DEADLINE / 2, lambda: limit.reschedule(now() + DEADLINE / 2))
        try:
            async with limit, self._turns:
                self._check_open()  # it may have been closed while this call waited for its turn
                answer = await self._connections.execute(*command)
        except _FOREIGN as error:
            fault = _fault(error)
            if fault.code == "store_unreachable":
                self._circuit.failed(now())
            else:
                self._circuit.answered()
            raise fault from error
        finally:
            halfway.cancel()
        self._circuit.answered()
        return answer


def _fault(error: Exception) -> StoreFault:
    code, message = next(
        ((code, message) for kind, code, message in _MEANINGS if isinstance(error, kind)),
        ("store_refused", "What answers at store.url doesn't speak as Redis does."),
    )
    evidence = {"error": type(_told_by_the_system(error)).__name__}
    # Redis puts a code in capitals in front of its errors (MISCONF, WRONGTYPE); the rest may quote the command.
    word = str(error).partition(" ")[0]
    if isinstance(error, theirs.ResponseError) and word.isalpha() and word.isupper():
        evidence["redis"] = word
    return StoreFault(code, message, retry_after=2, evidence=evidence)


def _told_by_the_system(error: Exception) -> BaseException:
    """The nearest OSError behind it (refused, unknown host, certificate): redis-py makes a text of it. Else itself."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found or error
