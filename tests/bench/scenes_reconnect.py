"""A hub restarts, and everybody's sockets come back at once: what do the others notice?"""

from __future__ import annotations

import asyncio
import statistics
import time

from hubgate.ops.demo.child import answers
from tests.bench.backend import BASE, Backend
from tests.bench.crowd import Crowd
from tests.bench.figures import Figure, scene
from tests.bench.pulse import pulse
from tests.bench.sites import Site, pool, site
from tests.bench.targets import Unfit
from tests.bench.workbench import Bench

_SOCKETS = 2000
_PEOPLE = 500  # whose they are: some tabs with some notebooks each
_QUIET = 2.0  # seconds before, which the time meanwhile is compared with


@scene("reconnect")
async def reconnect(bench: Bench) -> list[Figure]:
    """The hub of one pool restarts; somebody at another hub goes on, with a request every few milliseconds."""
    restarted = Backend(bench.folder)
    bench.ends(restarted)
    restarted.start()
    restarted.wait_until(lambda: answers(f"{restarted.url}{BASE}"), timeout=15)
    pools = [pool(BASE.strip("/"), {"hub01": bench.backend.url}), pool("again", {"hub02": restarted.url})]
    place = site(bench, "reconnect", pools)
    somebody, *people = (place.target(cookie) for cookie in await place.people(_PEOPLE + 1))
    heads = [
        people[number % _PEOPLE].head(f"/again/user/x/api/kernels/{number}/channels", socket=True).encode()
        for number in range(_SOCKETS)
    ]
    crowd = Crowd(place.port, heads)
    back, slower, seconds, moment, worst = [], [], [], [], []
    with bench.progress.step("reconnect", f"{_SOCKETS} sockets", "measured"):
        async with crowd.sitting(), pulse(somebody.port, somebody.head(f"{BASE}hub/200")) as beats:
            for _ in range(min(bench.rounds, 5)):
                quiet_from = time.perf_counter()
                await asyncio.sleep(_QUIET)
                quiet_to = time.perf_counter()
                began, ended = await _restarted(crowd, restarted, place)
                back.append(crowd.up)
                seconds.append(ended - began)
                before, meanwhile = await beats.made(quiet_from, quiet_to), await beats.made(began, ended)
                slower.append(statistics.median(meanwhile) / statistics.median(before))
                moments = await beats.noticed(began, ended)
                moment.append(statistics.median(moments) * 1e3)
                worst.append(max(moments) * 1e3)
    note = f"all within {statistics.median(seconds):.1f} s once the hub was there again; nobody was asked to log in"
    others = (
        f"of the requests that were made; each moment counted alike, the median is {statistics.median(moment):.1f} ms, "
        f"and the slowest took {statistics.median(worst):.0f} ms"
    )
    return [Figure("reconnect-back", back, note), Figure("reconnect-others", slower, others)]


async def _restarted(crowd: Crowd, hub: Backend, place: Site) -> tuple[float, float]:
    """When the hub was there again, and when everybody was back. `Unfit` when somebody was asked to log in."""
    ended = crowd.ended
    crowd.there.clear()
    crowd.answers.clear()
    hub.kill()
    await crowd.left(ended + _SOCKETS)
    hub.start()
    hub.wait_until(lambda: answers(f"{hub.url}{BASE}"), timeout=15)
    place.gateway.sees(["hub02"])
    began = time.perf_counter()
    crowd.there.set()
    await crowd.back()
    strange = crowd.answers.keys() - {"101", "502", "503", "504"}
    if strange:
        raise Unfit(f"who came back was answered {dict(crowd.answers)}")
    return began, time.perf_counter()
