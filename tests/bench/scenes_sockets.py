"""What does a WebSocket cost, while it talks and while it doesn't?"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack

from tests.bench import measure
from tests.bench.backend import BASE
from tests.bench.driving import Driver
from tests.bench.figures import Figure, scene
from tests.bench.load import Plan
from tests.bench.targets import Target
from tests.bench.workbench import FRESH, MIB, Bench

MESSAGES = 5_000
SOCKETS = 50
_LARGE = 1 << 20
_IDLE = 1000
_STEPS = 3
_SETTLED = 2.0  # seconds


def messages(
    size: int = 100, *, sockets: int = SOCKETS, count: int = MESSAGES, seconds: float = 60.0
) -> Callable[[Target], Plan]:
    """Messages there and back, one under way on each socket."""

    def plan(target: Target) -> Plan:
        head = target.head(f"{BASE}user/somebody/api/kernels/5a7c/channels", socket=True)
        return Plan("socket", target.port, head, sockets, count, size, ca=target.ca, seconds=seconds)

    return plan


@scene("ws")
async def small(bench: Bench) -> list[Figure]:
    """100 B, as kernels send them."""
    targets = await bench.field("apache", "haproxy", "nginx", "gateway", "chp")
    title = "WebSocket 100 B, CPU µs per message there and back"
    costs = await bench.measured(title, messages(), targets)
    return [
        bench.compared("ws-nginx", costs, "gateway", "nginx", lambda cost: cost.each),
        bench.compared("ws-chp", costs, "gateway", "chp", lambda cost: cost.each),
    ]


@scene("ws-large")
async def large(bench: Bench) -> list[Figure]:
    """1 MiB, as plots and tables come."""
    targets = await bench.field("haproxy", "nginx", "gateway", "chp")
    title = "WebSocket 1 MiB, CPU µs per message there and back"
    costs = await bench.measured(title, messages(_LARGE, sockets=4, count=50), targets)
    rates = {name: [cost.rate for cost in found] for name, found in costs.items()}
    bench.record("WebSocket 1 MiB, messages there and back per second", rates)
    return [
        bench.compared("ws-large-cpu", costs, "gateway", "chp", lambda cost: 1 / cost.each),
        bench.compared("ws-large-rate", costs, "gateway", "chp", lambda cost: cost.rate),
    ]


@scene("idle")
async def idle(bench: Bench) -> list[Figure]:
    """A thousand more, three times, on processes that have held none before."""
    found: dict[str, list[float]] = {}
    for name in ("nginx", "haproxy", "chp", "gateway", "nginx-tls", "gateway-tls"):
        for target in await bench.field(f"{name}{FRESH}"):
            with bench.progress.step(name, f"{_STEPS} x {_IDLE} idle sockets", "measured"):
                found[name] = [grown / MIB for grown in await _growth(target)]
    bench.record(f"MiB per {_IDLE} idle WebSockets", found)
    note = "the kernel's socket buffers are not in it; growth of PSS of the process tree"
    return [Figure("idle", found["gateway"], note), Figure("idle-tls", found["gateway-tls"])]


async def _growth(target: Target) -> list[int]:
    """Bytes for each step."""
    plan = messages(sockets=_IDLE, count=0, seconds=120)
    async with AsyncExitStack() as stack:
        drivers = [await stack.enter_async_context(Driver()) for _ in range(_STEPS)]
        await drivers[0].outcome(messages(sockets=20, count=100)(target))
        grown = [await _settled(target)]
        for driver in drivers:
            await stack.enter_async_context(driver.holding(plan(target)))
            grown.append(await _settled(target))
    return [after - before for before, after in itertools.pairwise(grown)]


async def _settled(target: Target) -> int:
    await asyncio.sleep(_SETTLED)
    return measure.memory(target.root).pss
