"""What a worker holds in its hands, and when it lets go."""

import asyncio
from dataclasses import replace

import pytest

from hubgate.errors import StoreFault
from hubgate.store.base import Lost, Restored
from hubgate.store.memory import MemoryStore
from hubgate.web import live as live_module
from hubgate.web.live import LiveSessions
from hubgate.web.sessions import Closed, Sessions
from tests.web.people import HOST, KEYRING, LIMITS, PROOF, person


class Flaky(MemoryStore):
    """A store that can be unplugged, counts what it is asked, and can make a reader wait."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key):
        self.reads += 1
        if self.away:
            raise StoreFault("store_unavailable")
        value = await super().get(key)
        await self.gate.wait()
        return value

    async def get_many(self, keys):
        self.reads += 1
        if self.away:
            raise StoreFault("store_unavailable")
        return await super().get_many(keys)


class Socket:
    """Stands for a tunnel."""

    closed = False

    def close(self):
        self.closed = True


@pytest.fixture
async def store():
    store = Flaky()
    yield store
    await store.close()


@pytest.fixture
def live(sessions, store, clock):
    return LiveSessions(sessions, store, LIMITS, outage_grace=120.0, clock=clock)


async def begin(sessions, name="alice"):
    cookie, found = await sessions.create(
        person(name), PROOF, provider_sid="", id_token="", refresh_token="", address="", user_agent=""
    )
    return cookie, found


async def test_fifty_requests_at_once_read_the_store_once(live, sessions, store):
    cookie, _ = await begin(sessions)
    store.reads = 0
    found = await asyncio.gather(*(live.find(cookie, HOST) for _ in range(50)))
    assert len({id(one) for one in found}) == 1
    assert store.reads == 1
    assert live.cached(cookie, HOST, live._clock()) is found[0]
    assert store.reads == 1


async def test_nobody_is_found_for_a_cookie_of_another_host(live, sessions):
    cookie, _ = await begin(sessions)
    assert await live.find(cookie, HOST) is not None
    assert live.cached(cookie, "htc.example.org", live._clock()) is None
    assert await live.find(cookie, "htc.example.org") is None


async def test_idle_and_absolute_limits_end_a_cached_session_at_once(live, sessions, clock):
    cookie, _ = await begin(sessions)
    one = await live.find(cookie, HOST)
    clock.now += LIMITS.idle - 1
    one.confirmed = clock.now
    assert live.cached(cookie, HOST, clock.now) is one
    clock.now += 1
    one.confirmed = clock.now
    assert live.cached(cookie, HOST, clock.now) is None
    assert await live.find(cookie, HOST) is None
    assert len(live) == 0


async def test_a_person_keeps_a_session_alive_until_the_absolute_limit(live, sessions, clock):
    cookie, _ = await begin(sessions)
    one = await live.find(cookie, HOST)
    began = clock.now
    while clock.now < began + LIMITS.max - 600:
        clock.now += 600
        one.confirmed = clock.now
        assert live.cached(cookie, HOST, clock.now) is one
        one.person_seen(clock.now)
    clock.now = began + LIMITS.max
    one.confirmed = clock.now
    assert live.cached(cookie, HOST, clock.now) is None


async def test_an_outage_is_bridged_for_the_grace_time_and_then_fails_closed(live, sessions, store, clock):
    cookie, _ = await begin(sessions)
    one = await live.find(cookie, HOST)
    store.away = True
    clock.now += 119
    assert await live.find(cookie, HOST) is one
    clock.now += 2
    with pytest.raises(StoreFault):
        await live.find(cookie, HOST)
    store.away = False
    assert await live.find(cookie, HOST) is one


async def test_where_somebody_has_just_been_is_known_before_the_store_hears_of_it(live, sessions):
    """On whichever host: else the end of the session would leave open what hangs on it there."""
    cookie, found = await begin(sessions)
    alias = await sessions.alias(found.key, found.session, "htc.example.org")
    (await live.find(cookie, HOST)).visited("hpc01")
    (await live.find(alias, "htc.example.org")).visited("htc01", "mark")
    stored = await sessions.get(found.key)
    assert stored.session.hubs == ()
    assert dict(live.latest(stored).session.hubs) == {"hpc01": "", "htc01": "mark"}
    nobodys = replace(stored, key="0" * 64)
    assert live.latest(nobodys) is nobodys


async def test_a_session_that_was_created_just_now_is_read_only_if_something_has_ended_since(live, sessions, store):
    heard = live.heard
    cookie, found = await begin(sessions)
    store.reads = 0
    assert (await live.begun(cookie, HOST, found, heard=heard)).session == found.session
    assert store.reads == 0
    heard = live.heard
    cookie, found = await begin(sessions)
    await store.delete(f"session:{found.key}")  # by another worker, whose message has come in
    live.forget(found.key)
    assert await live.begun(cookie, HOST, found, heard=heard) is None


async def test_forgetting_closes_every_socket_of_the_session_and_no_other(live, sessions):
    cookie, found = await begin(sessions)
    other, _ = await begin(sessions, "bob")
    mine, theirs = Socket(), Socket()
    (await live.find(cookie, HOST)).open[mine] = "htc"
    (await live.find(other, HOST)).open[theirs] = "htc"
    assert live.forget(found.key) == 1
    assert mine.closed
    assert live.forget(found.key) == 0
    assert not theirs.closed
    assert live.cached(cookie, HOST, live._clock()) is None


async def test_a_session_that_ends_while_it_is_read_is_not_cached(live, sessions, store):
    """The reader got the record, the message came in, and only then would the reader have stored it."""
    cookie, found = await begin(sessions)
    store.gate.clear()
    reading = asyncio.create_task(live.find(cookie, HOST))
    while store.reads == 0:
        await asyncio.sleep(0)
    await store.delete(f"session:{found.key}")
    live.forget(found.key)
    store.gate.set()
    assert await reading is None
    assert len(live) == 0


async def test_a_message_ends_the_session_on_every_worker(sessions, store, clock):
    cookie, found = await begin(sessions)
    workers = [LiveSessions(sessions, store, LIMITS, outage_grace=120.0, clock=clock) for _ in range(3)]
    sockets = [Socket() for _ in workers]
    async with workers[0].kept(), workers[1].kept(), workers[2].kept():
        for worker, socket in zip(workers, sockets, strict=True):
            (await worker.find(cookie, HOST)).open[socket] = "htc"
        while not all(worker.subscribed for worker in workers):
            await asyncio.sleep(0)
        assert await sessions.end([found.key]) == Closed(1, 3)
        async with asyncio.timeout(60):
            while not all(socket.closed for socket in sockets):
                await asyncio.sleep(0.01)
        assert [await worker.find(cookie, HOST) for worker in workers] == [None, None, None]


async def test_whoever_waits_for_a_session_that_ends_meanwhile_gets_none(live, sessions):
    cookie, found = await begin(sessions)
    waiting = [asyncio.create_task(live.find(cookie, HOST)) for _ in range(3)]
    while len(live) == 0:
        await asyncio.sleep(0)
    await sessions._store.delete(f"session:{found.key}")
    live.forget(found.key)  # it was read, and nobody has been told yet
    assert await asyncio.gather(*waiting) == [None, None, None]


async def test_where_somebody_has_been_is_noted_in_the_background_and_once(sessions, store, clock, monkeypatch):
    monkeypatch.setattr(live_module, "_TICK", 0.01)
    live = LiveSessions(sessions, store, LIMITS, outage_grace=120.0, clock=clock)
    cookie, found = await begin(sessions)
    async with live.kept():
        here = await live.find(cookie, HOST)
        here.visited("htc01")
        here.visited("htc01", "of the hub")
        async with asyncio.timeout(60):
            while (await sessions.get(found.key)).session.hubs != (("htc01", "of the hub"),):
                await asyncio.sleep(0.01)
        reads = store.reads
        for _ in range(10):
            here.visited("htc01")
            await asyncio.sleep(0.01)
        assert store.reads == reads


class Scripted(Flaky):
    """A store whose subscription says what a test wants it to say."""

    def __init__(self) -> None:
        super().__init__()
        self.script = asyncio.Queue()

    def subscribe(self, _topic):
        queue = self.script

        class Subscription:
            async def __aenter__(self):
                return self

            async def __aexit__(self, *_):
                return None

            def __aiter__(self):
                return self

            async def __anext__(self):
                return await queue.get()

        return Subscription()


@pytest.mark.parametrize("event", [Lost("silent"), Restored()])
async def test_a_subscription_that_cant_be_trusted_has_everything_read_again(clock, event):
    """The session was ended while messages were lost: nobody told this worker, so it must look for itself."""
    store = Scripted()
    sessions = Sessions(store, KEYRING, LIMITS, host=HOST, clock=clock)
    live = LiveSessions(sessions, store, LIMITS, outage_grace=120.0, clock=clock)
    cookie, found = await begin(sessions)
    socket = Socket()
    (await live.find(cookie, HOST)).open[socket] = "htc"
    await store.delete(f"session:{found.key}")
    async with live.kept():
        store.script.put_nowait(event)
        async with asyncio.timeout(60):
            while not socket.closed:
                await asyncio.sleep(0.01)
        assert live.subscribed is isinstance(event, Restored)
    await store.close()


async def test_presence_reaches_the_store_so_that_other_workers_know(live, sessions, clock, monkeypatch):
    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    cookie, found = await begin(sessions)
    one = await live.find(cookie, HOST)
    clock.now += 100
    one.person_seen(clock.now)
    async with live.kept(), asyncio.timeout(60):
        while (await sessions.get(found.key)).session.last_seen != clock.now:
            await asyncio.sleep(0.01)


async def test_whoever_comes_back_while_their_entry_is_let_go_of_keeps_it(live, sessions, clock, monkeypatch):
    """Else what they do next would be forgotten with it."""
    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    cookie, _ = await begin(sessions)
    one = await live.find(cookie, HOST)
    clock.now += 1
    one.person_seen(clock.now)
    clock.now += 200
    letting_go, back, rounds = asyncio.Event(), asyncio.Event(), []

    async def note(_):
        letting_go.set()
        await back.wait()

    monkeypatch.setattr(sessions, "note", note)
    monkeypatch.setattr(live, "_on_size", rounds.append)
    async with live.kept(), asyncio.timeout(5):
        await letting_go.wait()
        clock.now += 121  # a slow store: the entry may not be believed any more, and is read again
        assert await live.find(cookie, HOST) is one
        back.set()
        while len(rounds) < 2:
            await asyncio.sleep(0.01)
    assert live.cached(cookie, HOST, clock.now) is one


async def test_a_session_that_goes_idle_has_its_sockets_closed_and_one_used_elsewhere_does_not(
    live, sessions, clock, monkeypatch
):
    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    idle_cookie, _ = await begin(sessions)
    busy_cookie, busy = await begin(sessions, "bob")
    idle_socket, busy_socket = Socket(), Socket()
    (await live.find(idle_cookie, HOST)).open[idle_socket] = "htc"
    (await live.find(busy_cookie, HOST)).open[busy_socket] = "htc"
    clock.now += LIMITS.idle
    await sessions.note([(busy.key, replace(busy.session, last_seen=clock.now))])  # by another worker, which saw bob
    async with live.kept(), asyncio.timeout(60):
        while not idle_socket.closed:
            await asyncio.sleep(0.01)
    assert not busy_socket.closed
    assert await live.find(busy_cookie, HOST) is not None


async def test_sockets_are_closed_when_the_store_has_been_away_for_too_long(live, sessions, store, clock, monkeypatch):
    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    cookie, _ = await begin(sessions)
    socket = Socket()
    (await live.find(cookie, HOST)).open[socket] = "htc"
    store.away = True
    async with live.kept(), asyncio.timeout(60):
        clock.now += 119
        await asyncio.sleep(0.05)
        assert not socket.closed
        clock.now += 2
        while not socket.closed:
            await asyncio.sleep(0.01)


async def test_a_fault_of_our_own_does_not_end_the_looking_after_limits(live, sessions, clock, monkeypatch):
    """It would have ended unheard, and sockets with it outlived their sessions."""
    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    monkeypatch.setattr("hubgate.tasks._PAUSE", 0.01)
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
    measure = live._on_size
    faults = [ValueError("strange")]
    monkeypatch.setattr(live, "_on_size", lambda size: measure(size) if not faults else _raise(faults.pop()))
    cookie, _ = await begin(sessions)
    socket = Socket()
    (await live.find(cookie, HOST)).open[socket] = "htc"
    async with live.kept(), asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.01)
        clock.now += LIMITS.idle
        while not socket.closed:
            await asyncio.sleep(0.01)
    assert heard == ["sessions: upkeep failed in itself"]


def _raise(error):
    raise error
