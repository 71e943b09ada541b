"""What a store promises: bytes under keys that expire, sets of names, and messages to everyone who listens.

Whoever uses a store codes against this protocol and can't tell which one is behind it; one suite of tests holds all of
them to it (tests/store). A store knows nothing of sessions or users and never looks into a value: what should stay
secret from the store's own operator is sealed before it comes here (`codec`).

Any method may raise `StoreFault` (503) when the store is out of reach or refuses, after about a second at most. The
fault doesn't tell whether a write took effect before the line went dead; what must happen once (`take`, `replace`) then
happened once or not at all, never twice.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """Somebody published this on the topic."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The subscription can't be trusted: messages may be missing from now on. `why` is for the log."""

    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Restored:
    """A new subscription is in place: no message from now on is missed. Re-read what you cached before."""


Event = Message | Lost | Restored


class Change(NamedTuple):
    """What `replace` is asked for: `new` instead of `old`, for `ttl` seconds."""

    key: str
    old: bytes
    new: bytes
    ttl: float


class Store(Protocol):
    """Keys and members are text, values bytes. A `ttl` is in seconds; zero or less stands for a millisecond, and None,
    where it may be given, for ever.

    A key holds a value or a set. Asking for the other kind raises StoreFault, but `put`, `delete` and `touch` take any.
    """

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, in one round trip. A set counts as None."""
        ...

    async def put(self, key: str, value: bytes, *, ttl: float | None) -> None:
        """Write, whatever was there."""
        ...

    async def add(self, key: str, value: bytes, *, ttl: float | None) -> bool:
        """Write if nothing is there; whether it was written. Of several callers at once, one."""
        ...

    async def replace(self, key: str, old: bytes, new: bytes, *, ttl: float | None) -> bool:
        """Write `new` if exactly `old` is there; whether it was written. Of several callers at once, one."""
        ...

    async def replace_many(self, changes: Sequence[Change]) -> list[bool]:
        """`replace` for each of them, in one round trip."""
        ...

    async def take(self, key: str) -> bytes | None:
        """The value, which is gone afterwards. Of several callers at once, one gets it, the others None."""
        ...

    async def delete(self, *keys: str) -> int:
        """Remove values and sets; how many there were."""
        ...

    async def touch(self, key: str, *, ttl: float) -> bool:
        """Live for `ttl` from now on; whether there was anything to touch."""
        ...

    async def join(self, key: str, member: str, *, ttl: float) -> None:
        """Put the member into the set. The whole set lives for at least `ttl` from now, never shorter than before."""
        ...

    async def put_listed(
        self, key: str, value: bytes, *, ttl: float, sets: Sequence[str], member: str, sets_ttl: float
    ) -> None:
        """`put`, and `join` each of the sets for `sets_ttl`; all in one round trip."""
        ...

    async def leave(self, key: str, member: str) -> int:
        """Take the member out of the set; how many are left. An empty set is none."""
        ...

    async def members(self, key: str) -> set[str]:
        """Who is in the set; empty when there is none."""
        ...

    async def publish(self, topic: str, payload: bytes) -> int:
        """Tell every subscription of the topic that is in place now, in all processes; how many there are."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Listen until the `async with` ends. The first event is `Restored`, as soon as the subscription is in place.

        Entering never fails and never waits for the store. A subscription that goes silent or breaks gives `Lost`
        within a second, and then `Restored` when it could be set up again, which is tried for ever. Never two `Lost`
        or two `Restored` in a row. The iterator ends when the store is closed.
        """
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def warnings(self, *, enrolments: bool = False) -> list[str]:
        """What an operator should change about this store: a sentence each, with what to do. For the log at start.

        `enrolments`: people's second factors are kept in it, too, so more than logins is lost with it.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Later calls raise StoreFault; closing again does nothing."""
        ...


def milliseconds(ttl: float) -> int:
    """A time to live as stores take it: whole milliseconds, at least one. ValueError unless it is a finite number."""
    if not math.isfinite(ttl):
        raise ValueError(f"a time to live must be a finite number of seconds, not {ttl}")
    return max(1, math.ceil(ttl * 1000))
