"""What stands while a scene is measured: backend, provider, client, and whoever is compared, each started when it is
first asked for and checked before it is measured.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hubgate.ops.demo.child import Child, answers
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.redis import RedisServer
from tests.bench import gateways, peers
from tests.bench.backend import BASE, HUB_COOKIES, Backend
from tests.bench.driving import Cost, Driver, together
from tests.bench.figures import Figure
from tests.bench.load import Fault, Plan
from tests.bench.measure import Spread, interleaved, ratios
from tests.bench.targets import Target, Unfit, check
from tests.kit.background import Background
from tests.kit.certificates import Authority, Issued
from tests.kit.embedded import EmbeddedProvider
from tests.kit.running import Gateways, RunningGateway

MIB = 1 << 20
FRESH = "-fresh"
TURNS = 4
"""Of a round; a plan is for one turn."""


@dataclass
class Bench:
    """`rounds`: how often everything is measured. `folder`: for files and logs, gone afterwards.

    `running` and `redis`: gateways and their Redis servers by name. `absent`: why somebody isn't compared.
    `costs`: what was found on the way, by kind of work (with its unit) and name of the target, for the report.
    """

    folder: Path
    rounds: int
    backend: Backend
    driver: Driver
    provider: EmbeddedProvider
    authority: Authority
    issued: Issued
    gateways: Gateways
    progress: Progress = field(default_factory=Progress)
    targets: dict[str, Target] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    running: dict[str, RunningGateway] = field(default_factory=dict)
    redis: dict[str, RedisServer] = field(default_factory=dict)
    costs: dict[str, dict[str, Spread]] = field(default_factory=dict)
    _children: list[Child] = field(default_factory=list)

    async def field(self, *names: str) -> list[Target]:
        """Those of these that can be had here, started and checked; `absent` says why one is not. A name with `FRESH`
        after it is another process of the same kind, which nobody else has used.

        `Unfit` for one that answers wrongly.
        """
        return [target for name in names if (target := await self._target(name)) is not None]

    async def needed(self, *names: str) -> list[Target]:
        """All of these. `Absent` when one can't be had here, else as `field`."""
        targets = await self.field(*names)
        for name in names:
            if name in self.absent:
                raise peers.Absent(self.absent[name])
        return targets

    async def _target(self, name: str) -> Target | None:
        kind = name.removesuffix(FRESH)
        if kind in self.absent:
            return None
        if name not in self.targets:
            try:
                with self.progress.step(name, "starting", "started, logged in and checked"):
                    starting = peers.PEERS.get(kind)
                    target = await (starting(self, name) if starting else gateways.started(self, kind, name))
                    check(target)
            except peers.Absent as absent:
                self.absent[kind] = str(absent)
                self.progress.say(name, f"MISSING: {absent}")
                return None
            self.targets[name] = target
        return self.targets[name]

    async def measured(
        self,
        kind: str,
        plan: Callable[[Target], Plan],
        targets: Sequence[Target],
        *,
        rounds: int = 0,
        turns: int = TURNS,
        unit: float = 1e-6,
    ) -> dict[str, list[Cost]]:
        """What this plan costs each of the targets, round by round; name those that are compared next to each other.

        In a round everybody has some short `turns`, so that the same moods of the machine hit all of them. `kind`: a
        title in the report's table of costs, where the CPU time of each request, message or byte stands in `unit`
        (seconds).
        """
        by_name = {target.name: target for target in targets}

        async def once(name: str) -> Cost:
            try:
                return await self.driver.cost(plan(by_name[name]), by_name[name].root)
            except Fault as fault:
                raise Unfit(f"{name}, {kind}: {fault}") from fault

        with self.progress.step(kind, f"measuring {', '.join(by_name)}", "measured"):
            taken = await interleaved(list(by_name), once, rounds=(rounds or self.rounds) * turns, warm_up=turns)
        costs = {
            name: [together(each[at : at + turns]) for at in range(0, len(each), turns)] for name, each in taken.items()
        }
        self.record(kind, {name: [cost.each / unit for cost in found] for name, found in costs.items()})
        return costs

    def record(self, kind: str, found: Mapping[str, Sequence[float]]) -> None:
        """Something for the report's table of costs: what was found, by name of the target, round by round."""
        self.costs.setdefault(kind, {}).update({name: Spread.of(values) for name, values in found.items()})

    def compared(
        self,
        key: str,
        costs: Mapping[str, Sequence[Cost]],
        ours: str,
        theirs: str,
        of: Callable[[Cost], float],
        note: str = "",
    ) -> Figure:
        """The figure `key`: `of` one target's costs divided by that of another's, round by round."""
        if theirs not in costs:
            return Figure(key, [], self.absent[theirs])
        return Figure(key, ratios(list(map(of, costs[ours])), list(map(of, costs[theirs]))), note)

    @property
    def who(self) -> dict[str, str]:
        """What each of those is that were started."""
        return {name.removesuffix(FRESH): target.what for name, target in self.targets.items()}

    @property
    def direct(self) -> Target:
        """The backend without anybody before it."""
        return Target("backend", "the backend, asked directly", self.backend.port, self.backend.pid)

    def ends(self, child: Child) -> None:
        """This child ends with the bench."""
        self._children.append(child)

    def cookies_like_ours(self) -> dict[str, str]:
        """For those before whom nobody logs in: as many bytes of cookies as before the gateway."""
        ours = {"hubgate": 43 * "s", "hubgate-at-bench": 43 * "a"}
        return ours | {name: f"{value}~{22 * 't'}" for name, value in HUB_COOKIES.items()}

    def stop(self) -> None:
        """Ends everybody."""
        self.gateways.stop()
        for child in reversed(self._children):
            child.stop(grace=5)


@asynccontextmanager
async def standing(folder: Path, *, rounds: int, progress: Progress | None = None) -> AsyncIterator[Bench]:
    """A bench with nobody on it yet."""
    _many_descriptors()
    with Background() as background:
        authority = Authority(folder, "bench authority")
        bench = Bench(
            folder=folder,
            rounds=rounds,
            backend=Backend(folder),
            driver=Driver(),
            provider=EmbeddedProvider(background),
            authority=authority,
            issued=authority.issue("localhost"),
            gateways=Gateways(folder),
            progress=progress or Progress(),
        )
        try:
            bench.ends(bench.backend)
            bench.backend.start()
            bench.backend.wait_until(lambda: answers(f"{bench.backend.url}{BASE}"), timeout=15)
            async with bench.driver:
                yield bench
        finally:
            bench.stop()


def _many_descriptors() -> None:
    """As many as we may have: thousands of sockets, and each process inherits this."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
