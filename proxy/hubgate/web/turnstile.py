"""How many newcomers may come in at once, without those who are inside having to wait?

A WebSocket handshake costs as much as ten requests. When a hub restarts, thousands come back in the same moment, and
the loop would do nothing else for a second. So they go through one by one, with room for others in between; as long as
nobody pushes, nobody waits.
"""

from __future__ import annotations

import asyncio


class Turnstile:
    """Lets one pass at least `interval` seconds after the one before. Belongs to the event loop in which it is used."""

    __slots__ = ("_interval", "_next")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    async def passed(self) -> None:
        """Wait for one's turn, in the order in which people came."""
        now = asyncio.get_running_loop().time()
        turn = max(self._next, now)
        self._next = turn + self._interval
        if turn > now:
            await asyncio.sleep(turn - now)
