"""What a worker remembers while the store is away, and what it makes up for afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from hubgate.core.balancer import Affinity
from hubgate.core.session import Limits
from hubgate.errors import StoreFault
from hubgate.store.base import Lost, Restored
from hubgate.store.memory import MemoryStore
from hubgate.web import live as module
from hubgate.web.live import Bound, LiveSession, LiveSessions
from hubgate.web.sessions import Sessions
from tests.web.people import HOST, KEYRING, PROOF, person

PATIENCE = 60.0


class Unplugged(MemoryStore):
    """A store that can be away, and says so to whoever listens."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.asked = 0
        self.events: asyncio.Queue[Lost | Restored] = asyncio.Queue()

    def _look(self) -> None:
        self.asked += 1
        if self.away:
            raise StoreFault("store_unreachable")

    async def get(self, key: str) -> bytes | None:
        self._look()
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self._look()
        return await super().get_many(keys)

    def subscribe(self, topic: str):  # type: ignore[no-untyped-def,override]  # as the protocol has it
        return _Told(self.events)


class _Told:
    def __init__(self, events: asyncio.Queue[Lost | Restored]) -> None:
        self._events = events

    async def __aenter__(self) -> AsyncIterator[Lost | Restored]:
        return self._all()

    async def __aexit__(self, *_: object) -> None:
        return None

    async def _all(self) -> AsyncIterator[Lost | Restored]:
        while True:
            yield await self._events.get()
            self._events.task_done()


class Socket:
    """Stands for a tunnel."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK", 0.01)


async def entered(store: Unplugged, *, grace: float = 60.0, idle: float = 0.2) -> tuple[LiveSessions, LiveSession]:
    """Somebody who is logged in; a sign of them is written down a quarter of `idle` later."""
    limits = Limits(idle=idle, max=3600)
    live = LiveSessions(Sessions(store, KEYRING, limits, host=HOST), store, limits, outage_grace=grace)
    return live, await another(live, "alice")


async def another(live: LiveSessions, name: str = "bob") -> LiveSession:
    """One more person."""
    cookie, _ = await live._sessions.create(
        person(name), PROOF, provider_sid="", id_token="", refresh_token="", address="", user_agent=""
    )
    found = await live.find(cookie, HOST)
    assert found is not None
    return found


async def rounds(store: Unplugged, count: int = 5) -> None:
    """Wait until the store was asked so many times more."""
    wanted = store.asked + count
    async with asyncio.timeout(PATIENCE):
        while store.asked < wanted:
            await asyncio.sleep(0.01)


async def test_bindings_outlive_the_loss_of_the_subscription_and_are_read_anew_with_the_next() -> None:
    store = Unplugged()
    live, alice = await entered(store, idle=3600)
    async with live.kept():
        alice.bound["htc"] = Bound(Affinity("htc01", 1.0), "cookie")
        store.away = True
        store.events.put_nowait(Lost("silent"))
        await store.events.join()
        assert not live.subscribed
        assert "htc" in alice.bound
        assert live.cached(alice.cookie, HOST, live._clock()) is alice
        store.away = False
        store.events.put_nowait(Restored())
        await store.events.join()
        assert live.subscribed
        assert alice.bound == {}


async def test_a_short_grace_closes_no_socket_while_the_store_is_well() -> None:
    store = Unplugged()
    live, alice = await entered(store, grace=0.0, idle=3600)
    socket = Socket()
    alice.open[socket] = "htc"  # type: ignore[arg-type]  # closes like one
    async with live.kept():
        await rounds(store)
        assert not socket.closed
        store.away = True
        async with asyncio.timeout(PATIENCE):
            while not socket.closed:
                await asyncio.sleep(0.01)


async def test_presence_that_could_not_be_told_is_told_later() -> None:
    store = Unplugged()
    live, alice = await entered(store, idle=8)
    async with live.kept():
        store.away = True
        seen = alice.session.last_seen + 3
        alice.person_seen(seen)
        await rounds(store, 2)
        store.away = False
        sessions = live._sessions
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await sessions.get(alice.key)
                assert found is not None
                if found.session.last_seen == seen:
                    break
                await asyncio.sleep(0.01)


async def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONFIRM_AFTER", 0.0)
    store = Unplugged()
    live, alice = await entered(store, idle=3600)
    alice.open[Socket()] = "htc"  # type: ignore[arg-type]  # closes like one
    async with live.kept():
        for outage in (1, 2):
            store.away = True
            await rounds(store)
            assert [record.getMessage() for record in caplog.records] == ["sessions_unconfirmed"] * outage
            store.away = False
            await rounds(store)


async def test_the_grace_begins_with_the_outage_and_holds_for_who_was_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONFIRM_AFTER", 0.0)
    store = Unplugged()
    live, alice = await entered(store, grace=60.0, idle=3600)
    bob = await another(live)
    async with live.kept():
        store.events.put_nowait(Restored())
        await store.events.join()
        alice.confirmed -= 50
        store.away = True
        store.events.put_nowait(Lost("silent"))
        await store.events.join()
        # Rounds of upkeep that ask for somebody else.
        monkeypatch.setattr(module, "_KEEP_UNUSED", 0.0)
        bob.open[Socket()] = "htc"  # type: ignore[arg-type]  # closes like one
        await rounds(store)
        assert live.cached(alice.cookie, HOST, live._clock() + 55) is alice
        assert live.cached(alice.cookie, HOST, live._clock() + 65) is None
