"""A soak from its beginning to its verdict: a gateway, hubs, people, and minutes of everything at once.

First a while of the same, so that what is made once (code, tables, buffers, arenas) has been made; then a pause, in
which everything must end, and a look at what the gateway holds: that is what is compared with at the end. `hub_names`
are in two pools that everybody uses, `odd01` is alone in a pool for whoever must be alone (catalogue.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hubgate.ops.demo.realm import DemoUser
from tests.kit.background import eventually
from tests.kit.person import Person
from tests.kit.running import RunningGateway
from tests.soak import catalogue
from tests.soak.clients import Crowd
from tests.soak.hub import Hub
from tests.soak.ledger import Ledger, SoakFailed
from tests.soak.people import Session, session_of
from tests.soak.watch import Held, Watch
from tests.soak.wire import Malformed

GROWTH = 6 << 20
"""Bytes by which the process may have grown since the warm-up: what allocators keep of peaks that chance makes higher
than those of the warm-up."""
REMEMBERED, TIMES = 32 << 20, 2.5
"""What it may grow in addition: it may remember header fields that came for the first time, up to so many bytes of them
(core/plain.py), and as what it made of them."""
SPARE_DESCRIPTORS = 2
"""Of what begins and ends by itself, as the operator's port."""
MOST_ELSEWHERE = 64
"""Lines to store and provider: as many rest as were once needed at the same time, for instance when the tokens of all
who logged in together were due together."""
COMING_TO_REST = 60.0
"""Seconds for the gateway to let go of everything: keep-alive towards hubs ends after 4."""
POOLS = {"htc": ("htc01", "htc02"), "hpc": ("hpc01",), "odd": ("odd01",)}
SHARED = ("htc", "hpc")
IDLE_TIMEOUT = "6s"
"""For what a hub that stalls may do to its clients: hubs and clients share a process, which may itself stand still."""
AGAIN = 5
"""Times that a phase is done again, for what a busy machine didn't get round to, or to tell a leak from a peak."""

SignIn = Callable[[int], Awaitable[tuple[Person, str]]]
"""(how many) -> a browser that has logged in as somebody, and who."""


def pools(hubs: dict[str, Hub]) -> list[dict[str, Any]]:
    """As they stand in the configuration."""
    return [
        {"name": name, "path": f"/{name}/", "hubs": [{"name": hub, "url": hubs[hub].url} for hub in members]}
        for name, members in POOLS.items()
    ]


@contextlib.asynccontextmanager
async def hubs_of(ledger: Ledger, rng: random.Random, did: dict[str, str]) -> AsyncIterator[dict[str, Hub]]:
    """All hubs, listening."""
    serials = itertools.count(1)
    hubs = {
        name: Hub(name, ledger=ledger, rng=random.Random(rng.random()), serials=serials, did=did)
        for members in POOLS.values()
        for name in members
    }
    for hub in hubs.values():
        await hub.start()
    try:
        yield hubs
    finally:
        for hub in hubs.values():
            await hub.stop()


async def arrived(person: Person, url: str, user: str, rng: random.Random, *names: str) -> Session:
    """Somebody who has logged in, and has been at each of these pools once."""
    for name in names:
        page = await person.get(f"{url}/{name}/hub/health")
        if page.status != 200:
            raise SoakFailed(f"{user} can't get to {name}: {page}")
    return session_of(person, url, user, rng)


@dataclass
class Phase:
    """`tasks`: how many clients work at once; `newcomer`: logs in whoever comes and goes meanwhile."""

    crowd: Crowd
    seconds: float
    tasks: int
    newcomer: Callable[[], Awaitable[tuple[Person, Session]]] | None = None

    async def run(self) -> None:
        """Everything at once, for so long, then to the end of what was begun."""
        crowd = self.crowd
        until = asyncio.get_running_loop().time() + self.seconds
        crowd.deal()
        work = [crowd.work(until) for _ in range(self.tasks)]
        work.append(self._alone(until))
        if self.newcomer is not None:
            work.append(self._come_and_go(until, self.newcomer))
        await asyncio.gather(*work)
        crowd.close()

    async def _alone(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until and not self.crowd.ledger.over:
            await self.crowd.do(self.crowd.wake_idle)
            await asyncio.sleep(self.crowd.rng.random() * 0.1)

    async def _come_and_go(self, until: float, newcomer: Callable[[], Awaitable[tuple[Person, Session]]]) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until and not self.crowd.ledger.over:
            await self.crowd.do(lambda: come_and_go(self.crowd, newcomer))
            await asyncio.sleep(min(6.0, self.seconds / 6))


async def come_and_go(crowd: Crowd, newcomer: Callable[[], Awaitable[tuple[Person, Session]]]) -> None:
    """Somebody logs in, works, logs out: from the receipt on the session opens nothing, on any connection."""
    person, session = await newcomer()
    async with person:
        lines = [await crowd.line(new=True), await crowd.line()]
        request = crowd.request("sized", session=session, fields=session.sets[0], size=200, plain=True)
        for number in range(8):
            line = lines[number % 2]
            await line.send(request.data)
            answer = await line.answer()
            crowd.judge(request, line, answer)
        url = f"http://127.0.0.1:{crowd.port}"
        page = await person.get(url + "/")
        form = next(form for form in page.forms if form.action.endswith("/_hubgate/logout"))
        receipt = await person.submit(page, form)
        if "/_hubgate/logged-out" not in receipt.url:
            raise Malformed(f"no receipt of a log-out: {receipt}")
        for line in lines:
            for _ in range(2):
                await line.send(request.data)
                answer = await line.answer()
                await crowd.refused(answer)
            await crowd.put_back(line, answer)
        crowd.ledger.count("logged in and out", "nothing opens")


class Soak:
    """One gateway under way. `newcomer`: logs somebody new in."""

    def __init__(
        self,
        *,
        seed: int,
        ledger: Ledger,
        crowd: Crowd,
        hubs: dict[str, Hub],
        watch: Watch,
        newcomer: Callable[[], Awaitable[tuple[Person, Session]]],
        say: Callable[[str], None],
    ) -> None:
        self.seed = seed
        self.ledger = ledger
        self.crowd = crowd
        self.hubs = hubs
        self.watch = watch
        self.newcomer = newcomer
        self.say = say

    async def run(self, seconds: float, *, tasks: int = 24) -> None:
        """Warm up, rest, soak, rest, compare. Raises `SoakFailed`."""
        warm = min(60.0, seconds * 0.3)
        for _ in range(AGAIN):
            await self._phase("warm-up", warm, tasks)
            if not self._never_met():
                break
        before = await self._at_rest()
        self.say(f"after the warm-up: {before}")
        for _ in range(AGAIN):
            samples = asyncio.create_task(self._sampled(tasks))
            try:
                self.crowd.novel = 0
                await self._phase("soak", seconds - warm, tasks)
            finally:
                samples.cancel()
            after = await self._at_rest()
            self.say(f"at the end: {after}")
            leaks = self._leaks(before, after)
            if not leaks:
                break
            before = after  # what leaks grows again
        for leak in leaks:
            self.ledger.fail(leak)
        self.say(self.ledger.table())
        self.ledger.judge()
        # Else this soak was none.
        if never := self._never_met():
            raise SoakFailed(f"never met: {sorted(never)}")

    async def _phase(self, name: str, seconds: float, tasks: int) -> None:
        began, requests = time.monotonic(), sum(hub.requests for hub in self.hubs.values())
        await Phase(self.crowd, seconds, tasks, self.newcomer).run()
        took = time.monotonic() - began
        asked = sum(hub.requests for hub in self.hubs.values()) - requests
        self.say(f"{name}: {asked} requests at hubs in {took:.1f} s, {self.crowd.lines} connections of clients")
        self.ledger.judge()

    async def _at_rest(self) -> Held:
        """What is held when nobody asks any more. Raises `SoakFailed` for what doesn't end by itself."""
        seen: list[Held] = []

        async def resting() -> bool:
            seen.append(self.watch.held())
            held = sum(hub.held + hub.sockets for hub in self.hubs.values())
            # A probe may just be under way, on a connection of its own.
            return held == 0 and seen[-1].clients == 0 and seen[-1].hubs == 0 and seen[-1].tunnels == 0

        try:
            await eventually(resting, within=COMING_TO_REST, every=0.1)
        except AssertionError:
            held = {hub.name: hub.held for hub in self.hubs.values()}
            self.ledger.fail(f"nobody asks any more, and the gateway holds {seen[-1]}; hubs see {held}")
            self.ledger.judge()
        return seen[-1]

    async def _sampled(self, tasks: int) -> None:
        """All along: what is held is bounded by who is there."""
        while True:
            await asyncio.sleep(2)
            held = self.watch.held()
            most = 200 + 4 * tasks + 2 * len(self.crowd.shelf) + 64 * len(self.hubs)
            if held.descriptors > most:
                self.ledger.fail(f"{tasks} clients at work, and the gateway holds {held}")

    def _leaks(self, before: Held, after: Held) -> list[str]:
        leaks = []
        if after.descriptors > before.descriptors + SPARE_DESCRIPTORS:
            leaks.append(f"descriptors leak: {before} -> {after}")
        if after.elsewhere > MOST_ELSEWHERE:
            leaks.append(f"lines to store and provider leak: {before} -> {after}")
        allowance = GROWTH + TIMES * min(self.crowd.novel, REMEMBERED)
        self.say(f"grown by {(after.rss - before.rss) / 2**20:.1f} MiB, allowed {allowance / 2**20:.1f} MiB")
        if after.rss > before.rss + allowance:
            leaks.append(f"memory leaks: {before} -> {after}, allowed {allowance / 2**20:.1f} MiB")
        return leaks

    def _never_met(self) -> set[str]:
        """What of the catalogue has not happened."""
        met = {what for what, _ in self.ledger.outcomes}
        wanted = set(catalogue.GET) | {f"upload {how}" for how in catalogue.UPLOADS}
        wanted |= {f"socket {how}" for how in catalogue.SOCKETS}
        wanted |= {"moody sized", "pipelined", "landing page", "stranger", "vanished", "read slowly", "sent slowly"}
        wanted |= {"spoken on an idle connection", "logged in and out", "socket ended by"}
        return wanted - met


def read_log(gateway: RunningGateway, ledger: Ledger, watch: Watch) -> Counter[int]:
    """The gateway's own account, held against what clients saw. Gives how many lines each status has.

    No line is broken, none tells of a failure of ours, and each line of the access log names the user who asked.
    """
    statuses: Counter[int] = Counter()
    interrupted = False
    counted = watch.metric("hubgate_requests_total")
    gateway.stop()
    target = re.compile(r"/(?:htc|hpc|odd)/(?:hub/soak/([^/]+)/|user/([^/]+)/soak/)")
    with gateway.log.open(errors="replace") as log:
        for number, text in enumerate(log, 1):
            try:
                line = json.loads(text)
            except ValueError:
                ledger.fail(f"line {number} of the log: {text[:300]!r}")
                continue
            if line["log"] == "access":
                statuses[line["status"]] += 1
                found = target.match(line["path"])
                user = found and (found[1] or found[2])
                if user and line["user"] != user and line["status"] != 401:
                    ledger.fail(f"a request of {user} is written down as another's: {text[:400]}")
            elif line.get("event") == "store_subscription_down":
                interrupted = True
            elif line.get("level") in {"error", "critical"} or "trace" in line or line["event"] == "request_failed":
                ledger.fail(f"in the log: {text[:3000]}")
    if not interrupted and any(what == "bound anew" for what, _ in ledger.outcomes):
        ledger.fail("browsers were bound anew, though nothing kept the gateway from hearing the store")
    for status, number in ledger.answers.items():
        # There are more: pages of logins, answers that nobody stayed for.
        if statuses[status] < number:
            ledger.fail(f"{number} clients got a {status}, {statuses[status]} are written down")
    classes: Counter[str] = Counter()
    for labels, value in counted.items():
        classes[re.search(r'status="(\dxx)"', labels)[1]] += round(value)  # type: ignore[index]
    written: Counter[str] = Counter()
    for status, number in statuses.items():
        written[f"{status // 100}xx"] += number
    if classes != written:
        ledger.fail(f"metrics and access log differ: {dict(classes)}, {dict(written)}")
    return statuses


async def soaked(
    seconds: float,
    seed: int,
    *,
    start: Callable[..., RunningGateway],
    provider: Any,
    store_url: str,
    say: Callable[[str], None],
    tasks: int = 24,
    people: int = 6,
) -> None:
    """A soak of `hubgate serve`. `start`, `provider`, `store_url`: as in tests/kit. Raises `SoakFailed`."""
    rng = random.Random(seed)
    ledger, did = Ledger(), {}
    say(f"seed {seed}, {seconds:.0f} s")
    async with hubs_of(ledger, rng, did) as hubs:
        gateway = start(
            pools=pools(hubs), provider=provider, store_url=store_url, limits={"idle_timeout": IDLE_TIMEOUT}
        )
        port = urlsplit(gateway.url).port or 0
        for hub in hubs.values():
            hub.netloc = f"127.0.0.1:{port}".encode()
        watch = Watch(
            gateway.worker,
            port=port,
            hub_ports=frozenset(hub.port for hub in hubs.values()),
            elsewhere=frozenset(urlsplit(url).port or 0 for url in (store_url, provider.issuer)),
            ops_url=gateway.ops_url,
        )

        async def up() -> bool:
            told = await asyncio.to_thread(watch.metric, "hubgate_upstream_up")
            return sum(told.values()) == len(hubs)

        await eventually(up, within=COMING_TO_REST, what="all hubs up")

        async def login(user: DemoUser, *pools: str) -> tuple[Person, Session]:
            person = Person(gateway.url, provider.origin)
            await person.login(gateway.url + "/", user)
            return person, await arrived(person, gateway.url, user.username, rng, *pools)

        users = [provider.create_user() for _ in range(people)]
        sessions = []
        for user in [*users, *users[: people // 2]]:
            person, session = await login(user, *POOLS)
            sessions.append(session)
            await person.session.close()
        crowd = Crowd(port=port, sessions=sessions, hubs=hubs, ledger=ledger, rng=rng, did=did)
        soak = Soak(
            seed=seed,
            ledger=ledger,
            crowd=crowd,
            hubs=hubs,
            watch=watch,
            newcomer=lambda: login(provider.create_user(), *SHARED),
            say=say,
        )
        try:
            await soak.run(seconds, tasks=tasks)
        except SoakFailed as failed:
            raise SoakFailed(f"seed {seed}\n{failed}\n\n{ledger.table()}\n\n{gateway.tail(30)[-6000:]}") from None
        statuses = read_log(gateway, ledger, watch)
        say(f"written down: {dict(sorted(statuses.items()))}")
        try:
            ledger.judge()
        except SoakFailed as failed:
            raise SoakFailed(f"seed {seed}\n{failed}") from None
