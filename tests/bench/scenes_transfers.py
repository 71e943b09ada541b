"""How fast do large files pass, and what do they leave behind in memory?"""

from __future__ import annotations

from collections.abc import Callable

from tests.bench import measure
from tests.bench.backend import BASE, BIG
from tests.bench.figures import Figure, scene
from tests.bench.load import Kind, Plan
from tests.bench.targets import Target
from tests.bench.workbench import MIB, Bench

_MILLISECONDS = 1e-3 / BIG


def transfer(kind: Kind) -> Callable[[Target], Plan]:
    """256 MiB `down` or `up`, on a notebook server's path."""

    def plan(target: Target) -> Plan:
        method, name = ("GET", "big") if kind == "down" else ("PUT", "upload")
        return Plan(kind, target.port, target.head(f"{BASE}user/somebody/files/{name}", method), ca=target.ca)

    return plan


async def compared(bench: Bench, kind: Kind, names: tuple[str, ...], key: str, ours: str, theirs: str) -> list[Figure]:
    """The figure `key`, and what the transfer leaves behind."""
    targets = await bench.field(*names)
    (root,) = (target.root for target in targets if target.name == ours)
    at_rest = measure.memory(root).rss  # before the first one, which isn't counted otherwise
    label = f"{'TLS, ' if 'tls' in ours else ''}256 MiB {kind}"
    costs = await bench.measured(f"{label}, CPU ms", transfer(kind), targets, turns=2, unit=_MILLISECONDS)
    rates = {name: [cost.rate / MIB for cost in found] for name, found in costs.items()}
    bench.record(f"{label}, MiB/s", rates)
    grown = [(cost.peak - at_rest) / MIB for cost in costs[ours]]
    return [
        bench.compared(key, costs, ours, theirs, lambda cost: cost.rate),
        Figure(
            f"{key}-growth",
            grown,
            "peak of the process tree's resident memory during a transfer, less that before the first one",
        ),
    ]


@scene("transfers")
async def plain(bench: Bench) -> list[Figure]:
    """Plain TCP."""
    names = ("haproxy", "nginx", "gateway")
    down = await compared(bench, "down", names, "down", "gateway", "nginx")
    return down + await compared(bench, "up", names, "up", "gateway", "nginx")
