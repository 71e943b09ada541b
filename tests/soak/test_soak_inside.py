"""The same crowd before a gateway in this process, for a few seconds, so that its tasks and objects can be counted."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.kit.background import eventually
from tests.kit.stand import stand
from tests.soak.clients import Crowd
from tests.soak.ledger import Ledger
from tests.soak.soaking import AGAIN, COMING_TO_REST, IDLE_TIMEOUT, POOLS, Phase, arrived, hubs_of, pools

SECONDS = 5.0
STRAY = 3
"""Objects of one kind that may be more than before: a probe under way, a connection to the provider."""
REMEMBERED = {
    "hubgate.core.plain.PlainFields",  # bounded by the header fields that it remembers
    "hubgate.web.clearance.Caller",
    "hubgate.web.clearance.Clearance",  # a few for each session, as many as the hubs' cookies make
}
"""What is kept on purpose."""
_OURS = ("hubgate.upstream", "hubgate.web", "hubgate.core", "aiohttp.web", "aiohttp.http", "uvloop", "_asyncio")


def tasks() -> Counter[str]:
    """What runs, by the names of its coroutines."""
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())


def objects() -> Counter[str]:
    """What the gateway's parts have in memory, by type."""
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if str(kind.__module__).startswith(_OURS))


@pytest.mark.site
async def test_no_task_and_no_object_outlives_its_request() -> None:
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
    rng, ledger = random.Random(seed), Ledger()
    did: dict[str, str] = {}
    print(f"seed {seed}")
    async with hubs_of(ledger, rng, did) as hubs:

        def adapt(document: dict[str, Any]) -> None:
            document["pools"] = pools(hubs)
            document["limits"] = {"idle_timeout": IDLE_TIMEOUT}

        async with stand(adapt) as site:
            port = urlsplit(site.url).port or 0
            for hub in hubs.values():
                hub.netloc = f"127.0.0.1:{port}".encode()
            sessions = []
            for name in ("alice", "bob", "alice"):
                async with await site.logged_in(name) as person:
                    sessions.append(await arrived(person, site.url, name, rng, *POOLS))
            crowd = Crowd(port=port, sessions=sessions, hubs=hubs, ledger=ledger, rng=rng, did=did)

            async def at_rest() -> bool:
                return sum(hub.held for hub in hubs.values()) == 0

            counted: list[tuple[Counter[str], Counter[str]]] = []
            more: dict[str, tuple[int, int]] = {}
            for _ in range(1 + AGAIN):
                await Phase(crowd, SECONDS, 12).run()
                ledger.judge()
                await eventually(at_rest, within=COMING_TO_REST, what="the end of all connections to hubs")

                async def same_tasks() -> bool:
                    return not counted or not tasks() - counted[-1][0]

                await eventually(
                    same_tasks, within=COMING_TO_REST, what="the end of all tasks that were not there before"
                )
                site.access.clear()  # what the stand keeps
                counted.append((tasks(), objects()))
                if len(counted) > 1:
                    before, after = counted[-2][1], counted[-1][1]
                    grown = (after - before).items()
                    more = {kind: (before[kind], n) for kind, n in grown if n > STRAY and kind not in REMEMBERED}
                    if not more and sum(hub.requests for hub in hubs.values()) > 200:
                        break  # what outlives its request grows each time
            print(ledger.table())
            print(*sorted(counted[-1][0].items()), sep="\n")
            assert not more, (seed, more)
            assert sum(hub.requests for hub in hubs.values()) > 200
