"""Is it worth asking? Spares callers the wait for a store that was silent a moment ago.

After a few failures in a row with no answer between them, callers are turned away at once; every now and then one is
let through to try. Time comes in as an argument.
"""

from __future__ import annotations

FAILURES = 3
"""In a row; so many callers pay the full wait when a store falls silent."""

PAUSE = 0.4
"""Seconds between two tries, and so the most that is lost when the store is back."""


class Circuit:
    """Closed (everyone may ask) until `FAILURES` in a row."""

    __slots__ = ("_failures", "_next_try")

    def __init__(self) -> None:
        self._failures = 0
        self._next_try = 0.0

    def allows(self, now: float) -> bool:
        """Whether this caller may ask. The one that is let through while it is open should report how that went."""
        if self._failures < FAILURES:
            return True
        if now < self._next_try:
            return False
        # Should this caller be cancelled and never report, the next try comes one pause later.
        self._next_try = now + PAUSE
        return True

    def answered(self) -> None:
        """The store said something, be it no."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """The store could not be reached or said nothing in time."""
        self._failures += 1
        self._next_try = now + PAUSE
