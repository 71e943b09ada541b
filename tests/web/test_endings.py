"""What the hubs are asked when sessions end, and who is let go of by the hub they were bound to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hubgate.core.balancer import Candidate
from hubgate.core.health import Condition
from hubgate.core.routing import Zone
from hubgate.errors import StoreFault, UpstreamFault
from hubgate.store.base import Message, Restored
from hubgate.store.memory import MemoryStore
from hubgate.web.affinity import Bindings
from hubgate.web.endings import Endings
from hubgate.web.live import Bound, LiveSession
from hubgate.web.sessions import TOPIC, Found, Sessions, user_key
from tests.web.people import HOST, KEYRING, PROOF, Clock, person, pool

HTC = pool("htc01", "htc02")


class Provider:
    async def end_session(self, _token: str) -> bool:
        return True


class Hubs:
    """The hubs' administration, as far as it is asked. `servers`: at which hub somebody has one."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.servers: set[str] = set()
        self.asked: list[tuple[str, ...]] = []
        self.fails = False
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def __len__(self) -> int:
        return len(self.known)

    def __contains__(self, hub: object) -> bool:
        return hub in self.known

    async def end_sessions(self, hub: str, username: str) -> None:
        if self.fails:
            raise UpstreamFault("hub_api_failed", "as the test wants it")
        self.asked.append(("all", hub, username))

    async def end_session(self, hub: str, username: str, hub_session: str) -> None:
        self.asked.append(("one", hub, username, hub_session))

    async def stop_servers(self, hub: str, _username: str) -> int:
        self.asked.append(("stop", hub))
        self.servers.discard(hub)
        return 1

    async def runs_servers(self, hub: str, _username: str) -> bool:
        if self.meanwhile is not None:
            await self.meanwhile()
        return hub in self.servers


class Worker:
    """One gateway's part in it, and people who use it."""

    def __init__(self, store: MemoryStore, sessions: Sessions, clock: Clock) -> None:
        self.store = store
        self.sessions = sessions
        self.clock = clock
        self.up = ["htc01", "htc02"]
        self.bindings = Bindings(
            store, KEYRING, [HTC], lifetime=600.0, move_after=60.0, candidates=self.candidates, clock=clock
        )

    def candidates(self, _pool: object) -> list[Candidate]:
        return [
            Candidate(each.name, 1.0, Condition.UP if each.name in self.up else Condition.DOWN, 0.0)
            for each in HTC.upstreams
        ]

    async def arrived(self, name: str = "alice", cookie: str = "") -> tuple[Found, Bound]:
        """Somebody with a new session, at the hub that they belong to."""
        value, found = await self.sessions.create(
            person(name), PROOF, provider_sid="", id_token="", refresh_token="", address="", user_agent=""
        )
        live = LiveSession(value, HOST, found, self.clock.now)
        bound = await self.bindings.bind(live, HTC, cookie, Zone.HUB)
        assert isinstance(bound, Bound)
        live.visited(bound.affinity.upstream, f"session-of-{found.key[:4]}")
        return live.found, bound

    def endings(self, hubs: Hubs, **more: bool) -> Endings:
        return Endings(
            self.sessions,
            live=None,
            bindings=self.bindings,
            provider=Provider(),  # type: ignore[arg-type]  # as far as it is asked
            hubs=hubs,  # type: ignore[arg-type]  # likewise
            **more,
        )

    async def bound_to(self, name: str = "alice") -> dict[str, str]:
        return await self.bindings.held(user_key(person(name)))


@pytest.fixture
async def worker(store: MemoryStore, sessions: Sessions, clock: Clock) -> AsyncIterator[Worker]:
    return Worker(store, sessions, clock)


async def test_with_the_last_session_somebody_is_let_go_of(worker: Worker) -> None:
    (first, bound), (second, _) = await worker.arrived(), await worker.arrived()
    bobs, _ = await worker.arrived("bob")
    hub = bound.affinity.upstream
    hubs = Hubs("htc01", "htc02")
    async with worker.endings(hubs) as endings:
        await endings.end([first])
        assert hubs.asked == [("one", hub, "alice", f"session-of-{first.key[:4]}")]
        assert await worker.bound_to() == {"htc": hub}, "another browser is at work there"
        async with worker.store.subscribe(TOPIC) as events:
            assert isinstance(await anext(events), Restored)
            await endings.end([second])
            told = [await anext(events) for _ in range(2)]
        assert hubs.asked[1:] == [("all", hub, "alice")]
        assert await worker.bound_to() == {}
        assert Message(f"user {user_key(person('alice'))}".encode()) in told, "whoever remembers it must forget it"
    assert set(await worker.bound_to("bob")) == {"htc"}
    assert await worker.sessions.get(bobs.key) is not None


async def test_a_sticky_cookie_that_a_browser_kept_binds_nobody_any_more(worker: Worker) -> None:
    """An administrator's end, or the provider's, takes no cookie out of anybody's browser."""
    found, bound = await worker.arrived()
    async with worker.endings(Hubs("htc01", "htc02")) as endings:
        await endings.end([found])
    worker.up.remove(bound.affinity.upstream)
    _, again = await worker.arrived(cookie=bound.cookie)
    assert again.affinity.upstream != bound.affinity.upstream, "nothing holds them at a hub that is away"
    assert again.cookie != bound.cookie


async def test_nobody_is_let_go_of_whose_server_runs_or_may_run(worker: Worker) -> None:
    found, bound = await worker.arrived()
    hub = bound.affinity.upstream
    hubs = Hubs("htc01", "htc02")
    hubs.servers.add(hub)
    async with worker.endings(hubs) as endings:
        await endings.end([found])
        assert await worker.bound_to() == {"htc": hub}
        found, again = await worker.arrived(cookie=bound.cookie)
        assert again == bound, "and their browser has its cookie still"
    async with worker.endings(Hubs()) as endings:
        await endings.end([found])
    assert await worker.bound_to() == {"htc": hub}, "hubs that can't be asked"
    async with worker.endings(Hubs("htc01", "htc02"), stop_servers=True) as endings:
        found, _ = await worker.arrived()
        await endings.end([found])
    assert await worker.bound_to() == {}


async def test_hubs_that_another_browser_led_to_are_asked_as_well(worker: Worker) -> None:
    """The session that was there has met a limit long ago; the last one never went there."""
    _, bound = await worker.arrived()
    worker.clock.now += 7 * 3600
    _, last = await worker.sessions.create(
        person("alice"), PROOF, provider_sid="", id_token="", refresh_token="", address="", user_agent=""
    )
    hubs = Hubs("htc01", "htc02")
    async with worker.endings(hubs) as endings:
        await endings.end([last])
    assert hubs.asked == [("all", bound.affinity.upstream, "alice")]


async def test_whoever_logs_in_again_meanwhile_stays_where_they_are(worker: Worker) -> None:
    found, bound = await worker.arrived()
    hubs = Hubs("htc01", "htc02")

    async def back() -> None:
        _, again = await worker.arrived(cookie=bound.cookie)
        assert again == bound

    hubs.meanwhile = back
    async with worker.endings(hubs) as endings:
        await endings.end([found])
    assert await worker.bound_to() == {"htc": bound.affinity.upstream}


async def test_what_a_hub_does_not_answer_is_asked_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubgate.web.endings._AGAIN_AFTER", (0.001, 0.001, 0.001))
    found, bound = await worker.arrived()
    hubs = Hubs("htc01", "htc02")
    hubs.fails = True
    async with worker.endings(hubs) as endings:
        await endings.end([found])
        assert await worker.bound_to() == {"htc": bound.affinity.upstream}
    hubs.fails = False
    found, _ = await worker.arrived()
    release = worker.bindings.let_go
    failed = asyncio.Event()

    async def fails_once(*args: object) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreFault("store_unreachable", "as the test wants it")
        await release(*args)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(worker.bindings, "let_go", fails_once)
    async with worker.endings(hubs) as endings:
        await endings.end([found])
        async with asyncio.timeout(60):
            while await worker.bound_to():
                await asyncio.sleep(0.001)
    assert failed.is_set()
