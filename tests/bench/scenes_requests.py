"""What does a request cost, how late is its answer, and what does Redis hear of it?"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import redis

from tests.bench.backend import BASE
from tests.bench.driving import Cost
from tests.bench.figures import Figure, scene
from tests.bench.load import Plan
from tests.bench.measure import Spread, ratios
from tests.bench.targets import Target
from tests.bench.workbench import Bench

CONNECTIONS = 64
REQUESTS = 2_500
SIZES = {"200": 200, "10k": 10_240}
_TITLES = {"200": "GET 200 B", "10k": "GET 10 KiB"}
_SESSION = ("hubgate", "__Host-hubgate")
_STEADY_REQUESTS = 150_000


def gets(
    size: str = "200",
    *,
    connections: int = CONNECTIONS,
    count: int = REQUESTS,
    path: str = "hub/",
    cookies: Callable[[Target], dict[str, str]] = lambda target: target.cookies,
) -> Callable[[Target], Plan]:
    """GETs of an answer of `SIZES`."""

    def plan(target: Target) -> Plan:
        head = target.head(f"{BASE}{path}{size}", cookies=cookies(target))
        return Plan("get", target.port, head, connections, count, SIZES[size], ca=target.ca)

    return plan


def each(cost: Cost) -> float:
    """CPU for one."""
    return cost.each


@scene("get")
async def requests(bench: Bench) -> list[Figure]:
    """Everybody, 64 connections."""
    targets = await bench.field("oauth2-proxy", "apache", "chp", "haproxy", "nginx", "gateway", "gateway-log")
    figures: list[Figure] = []
    for size in SIZES:
        costs = await bench.measured(f"{_TITLES[size]}, CPU µs per request", gets(size), targets)
        figures += [
            bench.compared(
                f"get-{size}", costs, "gateway", "nginx", each, await _otherwise(bench) if size == "200" else ""
            ),
            bench.compared(f"get-{size}-openidc", costs, "gateway", "apache", each),
            bench.compared(f"get-{size}-chp", costs, "gateway", "chp", each),
            bench.compared(
                f"log-{size}", costs, "gateway-log", "gateway", each, "metrics are on in both, nobody can turn them off"
            ),
        ]
        late = {name: [cost.outcome.p99 * 1e3 for cost in found] for name, found in costs.items()}
        bench.record(f"{_TITLES[size]}, p99 at {CONNECTIONS} connections, ms", late)
        rates = {name: [cost.rate for cost in found] for name, found in costs.items()}
        bench.record(f"{_TITLES[size]}, requests per second", rates)
        if size == "200":
            figures.append(bench.compared("p99", costs, "gateway", "nginx", lambda cost: cost.outcome.p99))
    return figures


async def _otherwise(bench: Bench) -> str:
    """That the main figure isn't one of a way that only the bench takes: what else a browser may send."""
    targets = await bench.field("nginx", "gateway")
    if len(targets) < 2:
        return ""

    def session_alone(target: Target) -> dict[str, str]:
        return {name: value for name, value in target.cookies.items() if name in _SESSION}

    others = {
        "with the session cookie alone": gets(cookies=session_alone),
        "on a notebook's path": gets(path="user/somebody/files/"),
    }
    said: list[str] = []
    for name, plan in others.items():
        costs = await bench.measured(f"GET 200 B, {name}, CPU µs per request", plan, targets)
        found = Spread.of(ratios(list(map(each, costs["gateway"])), list(map(each, costs["nginx"]))))
        said.append(f"{name} {found.median:.2f} ×")
    return ", ".join(said)


@scene("latency")
async def latency(bench: Bench) -> list[Figure]:
    """One connection, one request at a time: what a proxy adds to the backend's own median.

    Tens of microseconds, and the machine's mood changes by as much within a second: so the turns are very short.
    """
    targets = [bench.direct, *await bench.field("haproxy", "nginx", "gateway")]
    title = "GET 200 B at one connection, CPU µs per request"
    costs = await bench.measured(title, gets(connections=1, count=400), targets, turns=16)
    direct = [cost.outcome.p50 * 1e6 for cost in costs.pop("backend")]
    added = {
        name: [cost.outcome.p50 * 1e6 - alone for cost, alone in zip(found, direct, strict=True)]
        for name, found in costs.items()
    }
    bench.record("added median latency at one connection, µs", added)
    if "nginx" not in added:
        return [Figure("latency", [], bench.absent["nginx"])]
    note = f"the backend alone answers in {statistics.median(direct):.0f} µs"
    return [Figure("latency", ratios(added["gateway"], added["nginx"]), note)]


@scene("redis")
async def redis_calls(bench: Bench) -> list[Figure]:
    """Of a session in use, over some seconds: pings of the subscription and everything else counts."""
    (gateway,) = await bench.field("gateway")
    with redis.Redis.from_url(bench.redis["gateway"].url) as watching:
        await bench.driver.outcome(gets(count=1000)(gateway))
        before = _calls(watching)
        done = await bench.driver.outcome(gets(count=_STEADY_REQUESTS)(gateway))
        after = _calls(watching)
    made = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    told = ", ".join(f"{name} {count}" for name, count in sorted(made.items())) or "none"
    note = f"{done.count} requests in {done.seconds:.0f} s; calls: {told}"
    return [Figure("redis", [sum(made.values()) / done.count], note)]


def _calls(watching: redis.Redis) -> dict[str, int]:
    """How often each command was called, our own asking left out."""
    stats = watching.info("commandstats")
    assert isinstance(stats, dict)
    names = {name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in stats.items()}
    names.pop("info", None)
    return names
