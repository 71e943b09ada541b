"""Is hubgate slower than it was? The gateway against nginx, in less than two minutes, for every change.

The limits leave ample room: they are for the commit that makes a request cost half as much again by mistake, not for
holding the figures of docs/performance.md, which a busy machine of somebody else's can't do. A ratio that is over its
limit is measured again, and counts only if it is over it each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.load import Plan
from tests.bench.measure import Spread, ratios
from tests.bench.scenes_requests import gets
from tests.bench.scenes_sockets import messages
from tests.bench.targets import Target
from tests.bench.workbench import Bench

LIMITS = {"request": 3.5, "message": 1.6}
"""CPU of the gateway's process tree divided by nginx's, for a GET of 200 B and for a WebSocket message of 100 B."""

ROUNDS = 9
_ATTEMPTS = 3
_PLANS: dict[str, Callable[[Target], Plan]] = {"request": gets(), "message": messages()}


@dataclass(frozen=True)
class Judged:
    """`attempts`: the medians and spreads of each attempt; the last one counts."""

    name: str
    attempts: list[Spread]
    limit: float

    @property
    def slower(self) -> bool:
        """Whether it costs too much."""
        return self.attempts[-1].median > self.limit

    def __str__(self) -> str:
        said = ", then ".join(f"{s.median:.2f} ({s.low:.2f} to {s.high:.2f})" for s in self.attempts)
        return f"{self.name}: {said} x nginx's CPU, at most {self.limit} is let pass"


async def judged(bench: Bench) -> list[Judged]:
    """For each limit. `Absent` when there is no nginx to compare with."""
    targets = await bench.needed("nginx", "gateway")
    return [await _judged(bench, name, targets) for name in LIMITS]


async def _judged(bench: Bench, name: str, targets: list[Target]) -> Judged:
    attempts: list[Spread] = []
    while len(attempts) < _ATTEMPTS and (not attempts or attempts[-1].median > LIMITS[name]):
        costs = await bench.measured(f"{name}, CPU µs", _PLANS[name], targets, rounds=ROUNDS)
        ours, theirs = ([cost.each for cost in costs[who]] for who in ("gateway", "nginx"))
        attempts.append(Spread.of(ratios(ours, theirs)))
    return Judged(name, attempts, LIMITS[name])
