"""Does a person speak on this WebSocket?

Listened to as little as will do, since what is said on a socket costs its user CPU: presence is kept to the second, so
whoever was heard isn't listened to for a second, and what they go on saying passes as if nobody ever listened. Nor is
anybody in the first seconds, in which a page says by itself what it has to say.

What counts as speaking is decided in `core/presence.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hubgate.core.presence import says_something
from hubgate.upstream.tunnel import Tunnel
from hubgate.web.live import LiveSession

_GREETING = 5.0  # seconds: JupyterLab opens a socket anew whenever one was lost, and greets the kernel
_PAUSE = 1.0  # seconds


class Ear:
    """Listens on one socket for as long as it is open, and tells its session."""

    __slots__ = ("_clock", "_live", "_tunnel")

    def __init__(self, tunnel: Tunnel, live: LiveSession, clock: Callable[[], float]) -> None:
        self._tunnel = tunnel
        self._live = live
        self._clock = clock
        asyncio.get_running_loop().call_later(_GREETING, self._listen)

    def _listen(self) -> None:
        self._tunnel.overhear(self._hear)

    def _hear(self, piece: bytes) -> bool:
        if not says_something(piece):
            return False
        self._live.person_seen(self._clock())
        asyncio.get_running_loop().call_later(_PAUSE, self._listen)
        return True
