"""What only the store in memory has: its own clock, its bounds, and, as a model, the behaviour that Redis must show."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubgate.errors import StoreFault
from hubgate.store import open_store
from hubgate.store.base import Change, Store
from hubgate.store.memory import SWEEP_EVERY, MemoryStore
from tests.store.redis_server import RedisServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_value_lives_for_its_time_and_no_longer() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    await store.put("k", b"1", ttl=10)
    clock.now += 9.99
    assert await store.get("k") == b"1"
    clock.now += 0.01
    assert await store.get("k") is None


async def test_what_expired_is_swept_out_without_being_asked_for() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    for n in range(1000):
        await store.put(f"k{n}", b"1", ttl=1)
    clock.now += SWEEP_EVERY
    await store.put("new", b"1", ttl=1)
    assert repr(store) == "MemoryStore(1 entries)"


async def test_a_full_store_takes_nothing_new_and_keeps_what_it_has() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, most=10)
    for n in range(9):
        await store.put(f"k{n}", b"1", ttl=100)
    await store.join("s", "m", ttl=1)
    for attempt in (store.put("new", b"1", ttl=1), store.add("new", b"1", ttl=1), store.join("t", "m", ttl=1)):
        with pytest.raises(StoreFault) as caught:
            await attempt
        assert caught.value.code == "store_full"
        assert caught.value.status == 503
    await store.put("k0", b"2", ttl=100)
    await store.join("s", "n", ttl=1)
    assert await store.replace("k0", b"2", b"3", ttl=100)
    assert [await store.get(f"k{n}") for n in range(9)] == [b"3"] + [b"1"] * 8
    clock.now += 1.5  # the set has expired: there is room, long before the next ordinary sweep
    assert await store.add("new", b"1", ttl=1) is True


async def test_topics_that_nobody_listens_to_are_forgotten() -> None:
    store = MemoryStore()
    for n in range(100):
        async with store.subscribe(f"t{n}"), store.subscribe(f"t{n}"):
            pass
    assert store._inboxes == {}


keys = st.sampled_from(["a", "b", "c"])
values = st.sampled_from([b"", b"1", b"2"])
members = st.sampled_from(["x", "y"])
Step = Callable[[Store], Awaitable[object]]


def call(name: str, *arguments: object, **options: object) -> Step:
    def step(store: Store) -> Awaitable[object]:
        made: Awaitable[object] = getattr(store, name)(*arguments, **options)
        return made

    step.__name__ = f"{name}{arguments}"
    return step


steps = st.one_of(
    st.builds(lambda k: call("get", k), keys),
    st.builds(lambda k: call("get_many", k), st.lists(keys, max_size=3)),
    st.builds(lambda k, v: call("put", k, v, ttl=600), keys, values),
    st.builds(lambda k, v: call("add", k, v, ttl=600), keys, values),
    st.builds(lambda k, v, w: call("replace", k, v, w, ttl=600), keys, values, values),
    st.builds(
        lambda changes: call("replace_many", changes),
        st.lists(st.builds(Change, keys, values, values, st.just(600.0)), max_size=3),
    ),
    st.builds(lambda k: call("take", k), keys),
    st.builds(lambda k: call("delete", *k), st.lists(keys, max_size=3)),
    st.builds(lambda k, t: call("touch", k, ttl=t), keys, st.sampled_from([600, 5])),
    st.builds(lambda k, m: call("join", k, m, ttl=600), keys, members),
    st.builds(
        lambda k, v, s, m: call("put_listed", k, v, ttl=600, sets=s, member=m, sets_ttl=600),
        keys,
        values,
        st.lists(keys, max_size=2),
        members,
    ),
    st.builds(lambda k, m: call("leave", k, m), keys, members),
    st.builds(lambda k: call("members", k), keys),
)


async def outcome(step: Step, store: Store) -> object:
    try:
        return await step(store)
    except StoreFault as fault:
        return fault.status


@pytest.mark.redis
@pytest.mark.parametrize("server_name", ["redis_newest", "redis_bundled"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(played=st.lists(steps, max_size=40))
def test_memory_and_redis_give_the_same_answers(
    request: pytest.FixtureRequest, server_name: str, played: list[Step]
) -> None:
    server: RedisServer = request.getfixturevalue(server_name)
    server.admin("FLUSHALL")

    async def play() -> None:
        memory, redis = open_store("memory://"), open_store(server.url)
        try:
            for step in played:
                assert await outcome(step, redis) == await outcome(step, memory), step
        finally:
            await redis.close()

    asyncio.run(play())
