"""Is anybody there, and who?

Each hub is asked at intervals for `<base>hub/health`, on a new connection each time: a kept one could outlive a proxy
that takes no new ones. A hub that is merely busy or hung must not be taken for a dead machine, or its living notebooks
would be cut off; so when no answer comes in time, configurable-http-proxy is asked for the one path that it answers
by itself. What was seen goes to the registry, which knows what it means.

Knows nothing about what follows from an observation, nor about live traffic.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from hubgate.core.health import Condition, Observation
from hubgate.core.site import Upstream
from hubgate.upstream.registry import Registry, UpstreamState

_PROXY_HEALTH = "/_chp_healthz"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
_WHILE_UNSURE = 1.0  # seconds between looks at a hub that isn't well, or may be about to change: people wait
_JITTER = 0.2  # of the interval, around it


class Prober:
    """Probes every hub of `registry` while entered. `interval`, `timeout`: seconds; a hub that isn't well, or whose
    last probes contradict what is known of it, is looked at every second.

    `tls`: what to trust and to show when a hub is reached by https. `clock`: seconds since the epoch. `chance`: numbers
    from 0 to 1, so that the probes of several hubs and gateways drift apart.
    """

    def __init__(
        self,
        registry: Registry[Any],
        *,
        interval: float,
        timeout: float,
        tls: Callable[[Upstream], ssl.SSLContext | None],
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._interval = interval
        self._timeout = timeout
        self._tls = tls
        self._clock = clock
        self._chance = chance
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._watch(state), name=f"probe of {state.upstream.name}") for state in self._registry
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, state: UpstreamState[Any]) -> None:
        tls = self._tls(state.upstream)
        while True:
            try:
                observation, reason = await self._look(state, tls)
                self._registry.report(state.upstream.name, observation, self._clock(), reason=reason)
            except Exception as error:  # noqa: BLE001 - one look that failed in our own code must not end all looking
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"the probe of {state.upstream.name} failed in itself", "exception": error}
                )
            settled = state.health.condition is Condition.UP and not state.health.streak
            pause = self._interval if settled else min(self._interval, _WHILE_UNSURE)
            await asyncio.sleep(pause * (1 - _JITTER / 2 + _JITTER * self._chance()))

    async def _look(self, state: UpstreamState[Any], tls: ssl.SSLContext | None) -> tuple[Observation, str]:
        address = state.upstream.url.rstrip("/")
        try:
            status = await self._status(f"{address}{state.base_url}hub/health", tls)
        except TimeoutError:
            return await self._look_at_proxy(address, tls)
        except OSError as error:
            return Observation.UNREACHABLE, str(error) or type(error).__name__
        if status >= 500:
            return Observation.HUB_DOWN, f"hub/health answered {status}"
        if status == 404 and await self._proxy_alone(address, tls):
            return Observation.HUB_DOWN, "the proxy knows no way to the hub, which has not started yet"
        return Observation.OK, ""

    async def _proxy_alone(self, address: str, tls: ssl.SSLContext | None) -> bool:
        """Whether a 404 is configurable-http-proxy's own, which has no route yet; other backends have no hub/health."""
        try:
            return await self._status(address + _PROXY_HEALTH, tls) == 200
        except OSError:  # TimeoutError is an OSError
            return False

    async def _look_at_proxy(self, address: str, tls: ssl.SSLContext | None) -> tuple[Observation, str]:
        silent = f"hub/health did not answer within {self._timeout:g} s"
        try:
            await self._status(address + _PROXY_HEALTH, tls)
        except OSError:  # TimeoutError is an OSError
            return Observation.UNREACHABLE, f"{silent}, nor did the proxy"
        return Observation.HUB_DOWN, f"{silent}, the proxy does"

    async def _status(self, url: str, tls: ssl.SSLContext | None) -> int:
        """The status that is answered there. Raises OSError: nobody answers, in time (`TimeoutError`), or in HTTP/1.x.

        By hand, since the status is all there is to know: a client's request and response objects were two thirds of a
        probe, and the probes of a hundred hubs 2 % of a processor.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        async with asyncio.timeout(self._timeout):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=(tls or True) if secure else None
            )
            try:
                writer.write(
                    f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: hubgate-probe\r\n"
                    "Accept: */*\r\nConnection: close\r\n\r\n".encode()
                )
                try:
                    match = _STATUS_LINE.match(await reader.readline())
                except ValueError:  # longer than any status line
                    match = None
                if match is None:
                    raise ConnectionError("no answer in HTTP/1.x")
                return int(match[1])
            finally:
                writer.close()
