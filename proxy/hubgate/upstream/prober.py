"""Is anybody there, and who?

Each hub is asked at intervals for `<base>hub/health`, on a new connection each time: a kept one could outlive a proxy
that takes no new ones. What is seen goes to the registry, which knows what it means.

Knows nothing about what follows from an observation, nor about live traffic.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from hubgate.upstream.registry import Registry


class Prober:
    """Probes every hub of `registry` while entered. `interval`, `timeout`: seconds.

    `clock`: seconds since the epoch. `chance`: numbers from 0 to 1; probes of several hubs and gateways drift apart.
    """

    def __init__(
        self,
        registry: Registry[Any],
        *,
        interval: float,
        timeout: float,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._chance = chance
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError
