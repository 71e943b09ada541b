"""A store inside one process: for the demo, for tests, and for a gateway of one worker that may forget.

No method awaits anything, so each one is atomic by itself. Memory is bounded: what expired is swept out, and when the
store is full it refuses what is new, as a Redis with `noeviction` does, instead of forgetting what it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hubgate.errors import StoreFault
from hubgate.store.base import Change, Event, Lost, Message, Restored, milliseconds
from hubgate.store.inbox import Inbox

MOST_ENTRIES = 200_000
SWEEP_EVERY = 30.0
"""Seconds between two looks at all entries; one second while the store is full."""


@dataclass(slots=True)
class _Entry:
    value: bytes | set[str]
    expires: float


class MemoryStore:
    """See `base.Store`. `clock`: seconds that never go back. `most`: entries above which new ones are refused."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_ENTRIES) -> None:
        self._clock = clock
        self._most = most
        self._entries: dict[str, _Entry] = {}
        self._inboxes: dict[str, set[Inbox]] = {}
        self._next_sweep = clock() + SWEEP_EVERY
        self._closed = False

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._entries)} entries)"

    async def get(self, key: str) -> bytes | None:
        entry = self._find(key)
        return None if entry is None else _value(entry)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        entries = [self._find(key) for key in keys]
        return [entry.value if entry is not None and isinstance(entry.value, bytes) else None for entry in entries]

    async def put(self, key: str, value: bytes, *, ttl: float | None) -> None:
        self._write(key, value, self._expiry(ttl))

    async def add(self, key: str, value: bytes, *, ttl: float | None) -> bool:
        expires = self._expiry(ttl)
        if self._find(key) is not None:
            return False
        self._write(key, value, expires)
        return True

    async def replace(self, key: str, old: bytes, new: bytes, *, ttl: float | None) -> bool:
        expires = self._expiry(ttl)
        entry = self._find(key)
        if entry is None or _value(entry) != old:
            return False
        self._write(key, new, expires)
        return True

    async def replace_many(self, changes: Sequence[Change]) -> list[bool]:
        return [await self.replace(key, old, new, ttl=ttl) for key, old, new, ttl in changes]

    async def take(self, key: str) -> bytes | None:
        entry = self._find(key)
        if entry is None:
            return None
        value = _value(entry)
        del self._entries[key]
        return value

    async def delete(self, *keys: str) -> int:
        return sum(self._find(key) is not None and self._entries.pop(key, None) is not None for key in keys)

    async def touch(self, key: str, *, ttl: float) -> bool:
        expires = self._expiry(ttl)
        entry = self._find(key)
        if entry is None:
            return False
        entry.expires = expires
        return True

    async def join(self, key: str, member: str, *, ttl: float) -> None:
        expires = self._expiry(ttl)
        entry = self._find(key)
        if entry is None:
            self._write(key, {member}, expires)
            return
        _set(entry).add(member)
        entry.expires = max(entry.expires, expires)

    async def put_listed(
        self, key: str, value: bytes, *, ttl: float, sets: Sequence[str], member: str, sets_ttl: float
    ) -> None:
        for each in sets:
            await self.join(each, member, ttl=sets_ttl)
        await self.put(key, value, ttl=ttl)

    async def leave(self, key: str, member: str) -> int:
        entry = self._find(key)
        if entry is None:
            return 0
        members = _set(entry)
        members.discard(member)
        if not members:
            del self._entries[key]
        return len(members)

    async def members(self, key: str) -> set[str]:
        entry = self._find(key)
        return set() if entry is None else set(_set(entry))

    async def publish(self, topic: str, payload: bytes) -> int:
        self._check_open()
        inboxes = self._inboxes.get(topic, ())
        for inbox in inboxes:
            inbox.put(Message(payload))
        return len(inboxes)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[Event]]:
        inbox = Inbox()
        if self._closed:
            inbox.close()
        else:
            inbox.put(Restored())
            self._inboxes.setdefault(topic, set()).add(inbox)
        try:
            yield inbox
        finally:
            listeners = self._inboxes.get(topic, set())
            listeners.discard(inbox)
            if not listeners:
                self._inboxes.pop(topic, None)

    async def ping(self) -> None:
        self._check_open()

    async def warnings(self, *, enrolments: bool = False) -> list[str]:
        self._check_open()
        lost = (
            "Sessions and enrolled second factors are kept in the memory of this one process: after a restart whoever "
            "knows a password can enrol anew. "
            if enrolments
            else "Sessions are kept in the memory of this one process: a restart logs everybody out. "
        )
        return [lost + "Set store.url to a redis:// address for a real site."]

    async def close(self) -> None:
        self._closed = True
        self._entries.clear()
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(Lost("the store was closed"))
                inbox.close()
        self._inboxes.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFault("store_closed", "The store was closed.")

    def _expiry(self, ttl: float | None) -> float:
        return math.inf if ttl is None else self._clock() + milliseconds(ttl) / 1000

    def _find(self, key: str) -> _Entry | None:
        self._check_open()
        entry = self._entries.get(key)
        if entry is not None and entry.expires <= self._clock():
            del self._entries[key]
            return None
        return entry

    def _write(self, key: str, value: bytes | set[str], expires: float) -> None:
        self._check_open()
        self._sweep()
        if len(self._entries) >= self._most and key not in self._entries:
            raise StoreFault(
                "store_full",
                f"The store in memory holds {self._most} entries and takes no more. A real site needs redis://.",
                retry_after=5,
            )
        self._entries[key] = _Entry(value, expires)

    def _sweep(self) -> None:
        now = self._clock()
        full = len(self._entries) >= self._most
        if now < self._next_sweep - (SWEEP_EVERY - 1 if full else 0):
            return
        self._next_sweep = now + SWEEP_EVERY
        self._entries = {key: entry for key, entry in self._entries.items() if entry.expires > now}


def _value(entry: _Entry) -> bytes:
    if isinstance(entry.value, bytes):
        return entry.value
    raise StoreFault("store_wrong_kind", "A value was asked for where the store holds a set.")


def _set(entry: _Entry) -> set[str]:
    if isinstance(entry.value, set):
        return entry.value
    raise StoreFault("store_wrong_kind", "A set was asked for where the store holds a value.")
