"""What is known about each hub at this moment?

Configured (`Upstream`), observed (`Health`) and connected (whatever the factory makes: the engine's connection pool)
meet here, and nowhere else. Probes and failures on live traffic both report to it; whoever wants to log or count a
change gets told.

One registry belongs to one event loop; it does not decide where a request goes (core/balancer.py does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from hubgate.core.balancer import Candidate
from hubgate.core.health import Health, Observation, observe, unknown
from hubgate.core.site import Pool, Site, Upstream

T = TypeVar("T")


@dataclass(slots=True)
class UpstreamState(Generic[T]):
    """One hub. `base_url`: path of its pool. `reason`: what the last observation found bad, empty if it was good."""

    upstream: Upstream
    base_url: str
    health: Health
    connections: T
    reason: str = ""


class Registry(Generic[T]):
    """All hubs of a site.

    `rise`, `fall`: how many observations in a row change a condition. `connections`: makes what the engine needs for a
    hub. `on_change`: called after a hub's condition has changed, with its state and the health it had before.
    `now`: seconds since the epoch, this moment if left out.
    """

    def __init__(
        self,
        site: Site,
        *,
        rise: int,
        fall: int,
        connections: Callable[[Upstream], T],
        on_change: Callable[[UpstreamState[T], Health], None] | None = None,
        now: float | None = None,
    ) -> None:
        began = unknown(time.time() if now is None else now)
        self._rise = rise
        self._fall = fall
        self._on_change = on_change
        self._pools = {pool.name: pool for pool in site.pools}
        self._states = {
            upstream.name: UpstreamState(upstream, pool.path, began, connections(upstream))
            for pool in site.pools
            for upstream in pool.upstreams
        }
        self._candidates: dict[str, tuple[Candidate, ...]] = {}

    def __iter__(self) -> Iterator[UpstreamState[T]]:
        return iter(self._states.values())

    def state(self, name: str) -> UpstreamState[T]:
        """The hub of that name. Raises KeyError."""
        return self._states[name]

    def candidates(self, pool: Pool) -> tuple[Candidate, ...]:
        """The pool's hubs as the balancer sees them. Cached until a condition changes: each request asks."""
        cached = self._candidates.get(pool.name)
        if cached is None:
            cached = self._candidates[pool.name] = tuple(
                Candidate(u.name, u.weight, self._states[u.name].health.condition, self._states[u.name].health.since)
                for u in pool.upstreams
            )
        return cached

    def report(self, name: str, observation: Observation, now: float, *, reason: str = "") -> None:
        """One more observation of a hub, by a probe or on live traffic, at `now` (seconds since the epoch).

        `reason`: what was seen, for people who operate; never what a client sent.
        """
        state = self._states[name]
        before = state.health
        state.reason = "" if observation is Observation.OK else reason
        state.health = observe(before, observation, now=now, rise=self._rise, fall=self._fall)
        if state.health.condition is not before.condition:
            self._candidates.pop(state.upstream.pool, None)
            if self._on_change is not None:
                self._on_change(state, before)

    def pool_state(self, pool: Pool) -> Literal["up", "degraded", "down"]:
        """How a pool is, as the landing page says it: down means that none of its hubs answers, notebooks or not."""
        serving = [candidate.serves_hub for candidate in self.candidates(pool)]
        if not any(serving):
            return "down"
        return "up" if all(serving) else "degraded"
