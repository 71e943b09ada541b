"""Does a request cost more because of others: their sockets, their sessions, their hubs, their groups?

    make bench ARGS="scale-beside scale-sessions scale-hubs scale-groups"

Each is two gateways (or two people at one) that differ in one thing, measured in turn. It takes some minutes and tens
of thousands of descriptors, so it is done by hand and at night.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import resource
from collections.abc import Sequence

from hubgate.ops.demo.child import free_ports, text_at
from tests.bench import measure
from tests.bench.backend import BASE, Connection
from tests.bench.crowd import Crowd, visit
from tests.bench.figures import Figure, scene
from tests.bench.measure import ratios
from tests.bench.scenes_requests import each, gets
from tests.bench.sites import Site, pool, site
from tests.bench.targets import Target
from tests.bench.workbench import Bench
from tests.kit.background import Background

_SOCKETS = 10_000
_SESSIONS = 20_000
_MANY = 100_000
_HELD = 20_000  # of those in the worker's hands: as many as can visit within the minute for which it keeps them
_HUBS = 100
_POOLS = 10
_NAME = BASE.strip("/")
_STEP = 1000  # visits at a time
_GROUPS = 200
_SPARE = 500  # descriptors for everything else
_ROUNDS = 5  # within that minute


@scene("scale-beside", by_hand=True)
async def beside(bench: Bench) -> list[Figure]:
    """Ten thousand people with an idle socket each, ten thousand more who were there within the last minute."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets = min(_SOCKETS, (most - _SPARE) // 2)  # two descriptors each, in the gateway
    alone, crowded = _before_one_hub(bench, "alone"), _before_one_hub(bench, "crowded")
    people = await crowded.people(_SESSIONS)
    heads = [
        crowded.target(cookie).head(f"{BASE}user/x/api/kernels/k/channels", socket=True).encode()
        for cookie in people[:sockets]
    ]
    async with Crowd(crowded.port, heads).sitting():
        took = await _visited(crowded, people[sockets:])
        found = await _compared(bench, "scale-beside", alone, crowded)
        note = f"{sockets} sockets ({most} descriptors are allowed here), {_held(crowded)} sessions held; {took}"
    return [Figure("scale-beside", found, note)]


@scene("scale-sessions", by_hand=True)
async def sessions(bench: Bench) -> list[Figure]:
    """A hundred thousand people, of whom as many as possible are in the worker's hands, against ten.

    All of them come, in waves, and each wave is measured: two gateways that have the same to do differ by up to 10 % in
    five rounds on a virtual machine, and by 2 % in twenty-five.
    """
    few, many = _before_one_hub(bench, "few"), _before_one_hub(bench, "many")
    await _visited(few, await few.people(10))
    people = await many.people(_MANY)
    found, held, took = [], [], ""
    for at in range(0, _MANY, _HELD):
        took = await _visited(many, people[at : at + _HELD])
        held.append(_held(many))
        found += await _compared(bench, "scale-sessions", few, many)
    return [Figure("scale-sessions", found, f"{_MANY} in the store; {min(held)} to {max(held)} held; {took}")]


@scene("scale-hubs", by_hand=True)
async def hubs(bench: Bench) -> list[Figure]:
    """Ten pools with a hundred hubs, all of which are probed, against one pool with one."""
    with Background() as background:
        ports = free_ports(_HUBS - 1)
        servers = [background.run(_listening(background, port)) for port in ports]
        others = [(f"hub{port}", f"http://127.0.0.1:{port}") for port in ports]
        pools = [pool(f"pool{number}", dict(others[number :: _POOLS - 1])) for number in range(_POOLS - 1)]
        many = site(bench, "many-hubs", [*pools, pool(_NAME, {"hub01": bench.backend.url})])
        found = await _compared(bench, "scale-hubs", _before_one_hub(bench, "one-hub"), many, 2 * bench.rounds)
        for server in servers:
            background.loop.call_soon_threadsafe(server.close)
    return [Figure("scale-hubs", found, f"{_POOLS} pools; all hubs are probed meanwhile")]


@scene("scale-groups", by_hand=True)
async def groups(bench: Bench) -> list[Figure]:
    """Somebody in many groups, all of which are told to the hub in the assertion, against somebody in one."""
    place = _before_one_hub(bench, "groups")
    few, many = await place.people(1), await place.people(1, groups=_GROUPS)
    one, other = place.target(few[0]), place.target(many[0])
    return [Figure("scale-groups", await _ratios(bench, "scale-groups", one, other, 2 * bench.rounds))]


def _before_one_hub(bench: Bench, name: str) -> Site:
    return site(bench, name, [pool(_NAME, {"hub01": bench.backend.url})])


async def _listening(background: Background, port: int) -> asyncio.Server:
    return await background.loop.create_server(Connection, "127.0.0.1", port)


async def _visited(place: Site, cookies: Sequence[str]) -> str:
    """Each of these people was at the hub once. Says what that took: the first thousand, and the last."""
    requests = [place.target(cookie).head(f"{BASE}hub/200").encode() + b"\r\n" for cookie in cookies]
    costs = []
    for at in range(0, len(requests), _STEP):
        before = measure.tasks(place.gateway.pid)
        await visit(place.port, requests[at : at + _STEP])
        costs.append(measure.spent(before, measure.tasks(place.gateway.pid)) / len(requests[at : at + _STEP]) * 1e3)
    return f"somebody new cost {costs[0]:.2f} ms at first and {costs[-1]:.2f} ms at the end"


def _held(place: Site) -> int:
    """How many sessions the gateway has in its hands."""
    found = re.search(r"^hubgate_sessions\S* (\S+)$", text_at(f"{place.gateway.ops_url}/metrics") or "", re.MULTILINE)
    return int(float(found[1])) if found else 0


async def _compared(bench: Bench, title: str, few: Site, many: Site, rounds: int = _ROUNDS) -> list[float]:
    """What a request of somebody costs before `many`, divided by what it costs before `few`, round by round."""
    one, other = [place.target((await place.people(1))[0]) for place in (few, many)]
    return await _ratios(bench, title, one, other, rounds)


async def _ratios(bench: Bench, title: str, few: Target, many: Target, rounds: int = _ROUNDS) -> list[float]:
    targets = [dataclasses.replace(few, name="few"), dataclasses.replace(many, name="many")]
    costs = await bench.measured(f"{title}, CPU µs per request", gets(), targets, rounds=rounds)
    for name, found in costs.items():
        bench.progress.say(title, f"{name}: {', '.join(f'{each(cost) * 1e6:.1f}' for cost in found)} µs")
    return ratios([each(cost) for cost in costs["many"]], [each(cost) for cost in costs["few"]])
