"""How many newcomers may come in at once, without those who are inside having to wait?

A WebSocket handshake costs as much as thirty plain requests. When a hub restarts, thousands come back in the same
moment, and the loop would do nothing else for seconds. So they go through one by one, with room for others in between.
As long as nobody pushes, nobody waits: a page may open its handful of sockets at once.
"""

from __future__ import annotations

import asyncio


class Turnstile:
    """Lets `credit` pass at once, and from then on one each `interval` seconds. Belongs to one event loop."""

    __slots__ = ("_credit", "_interval", "_next")

    def __init__(self, interval: float, *, credit: int) -> None:
        self._interval = interval
        self._credit = credit * interval
        self._next = 0.0

    async def passed(self) -> None:
        """Wait for one's turn, in the order in which people came."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._credit) + self._interval
        if self._next > now:
            await asyncio.sleep(self._next - now)
