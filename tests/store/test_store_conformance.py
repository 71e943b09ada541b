"""What every store promises (hubgate.store.base), asked of each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hubgate.errors import StoreFault
from hubgate.store.base import Change, Event, Lost, Message, Restored, Store

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

PATIENCE = 60.0
EVERY_BYTE = bytes(range(256))
ODD_TEXT = ["", "a b", "ключ", "a:b:c", "\n\x00", "\udc80", "😀" * 50, "*", "{x}"]


async def next_event(events: AsyncIterator[Event]) -> Event:
    async with asyncio.timeout(PATIENCE):
        return await anext(events)


async def test_what_was_put_is_found_by_everyone(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await here.put("k", EVERY_BYTE, ttl=60)
    assert await there.get("k") == EVERY_BYTE
    await there.put("k", b"", ttl=60)
    assert await here.get("k") == b""
    assert await here.get("other") is None


@pytest.mark.parametrize("key", ODD_TEXT)
async def test_any_text_is_a_key(store: Store, key: str) -> None:
    await store.put(key, b"1", ttl=60)
    await store.put(key + "x", b"2", ttl=60)
    assert await store.get_many([key, key + "x", "y" + key]) == [b"1", b"2", None]


async def test_many_values_come_in_the_order_of_the_keys(store: Store) -> None:
    await store.put("a", b"1", ttl=60)
    await store.put("b", b"2", ttl=60)
    await store.join("set", "m", ttl=60)
    assert await store.get_many(["b", "nothing", "a", "b", "set"]) == [b"2", None, b"1", b"2", None]
    assert await store.get_many([]) == []


async def test_add_writes_only_what_is_absent(store: Store) -> None:
    assert await store.add("k", b"1", ttl=60) is True
    assert await store.add("k", b"2", ttl=60) is False
    assert await store.get("k") == b"1"
    await store.join("set", "m", ttl=60)
    assert await store.add("set", b"1", ttl=60) is False


async def test_of_many_adding_at_once_one_wins(stores: tuple[Store, Store]) -> None:
    wins = await asyncio.gather(*(stores[n % 2].add("k", b"%d" % n, ttl=60) for n in range(50)))
    assert sum(wins) == 1
    assert await stores[0].get("k") == b"%d" % wins.index(True)


async def test_replace_compares_and_sets(store: Store) -> None:
    assert await store.replace("k", b"", b"new", ttl=60) is False
    assert await store.get("k") is None
    await store.put("k", EVERY_BYTE, ttl=60)
    assert await store.replace("k", EVERY_BYTE[:-1], b"new", ttl=60) is False
    assert await store.get("k") == EVERY_BYTE
    assert await store.replace("k", EVERY_BYTE, b"", ttl=60) is True
    assert await store.replace("k", b"", EVERY_BYTE, ttl=60) is True
    assert await store.get("k") == EVERY_BYTE


async def test_many_are_replaced_each_for_itself(store: Store, until: Until) -> None:
    await store.put("a", b"1", ttl=60)
    await store.put("b", b"1", ttl=60)
    changes = [
        Change("a", b"1", b"2", ttl=60),
        Change("nothing", b"", b"2", ttl=60),
        Change("b", b"other", b"2", ttl=60),
        Change("a", b"2", b"3", ttl=0.05),
    ]
    assert await store.replace_many(changes) == [True, False, False, True]
    assert await store.get_many(["nothing", "b"]) == [None, b"1"]
    assert await store.replace_many([]) == []

    async def gone() -> bool:
        return await store.get("a") is None

    await until(gone)


async def test_replace_is_atomic(stores: tuple[Store, Store]) -> None:
    """Fifty writers, each adding one by reading, counting and comparing, never lose a step to each other."""
    await stores[0].put("count", b"0", ttl=60)

    async def add_one(store: Store) -> None:
        while True:
            old = await store.get("count")
            assert old is not None
            if await store.replace("count", old, b"%d" % (int(old) + 1), ttl=60):
                return

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(add_one(stores[n % 2]) for n in range(50)))
    assert await stores[0].get("count") == b"50"


async def test_take_is_once_for_all(stores: tuple[Store, Store]) -> None:
    await stores[0].put("code", b"secret", ttl=60)
    taken = await asyncio.gather(*(stores[n % 2].take("code") for n in range(50)))
    assert [value for value in taken if value is not None] == [b"secret"]
    assert await stores[0].get("code") is None
    assert await stores[0].take("code") is None


async def test_delete_tells_how_many_there_were(store: Store) -> None:
    await store.put("a", b"1", ttl=60)
    await store.join("s", "m", ttl=60)
    assert await store.delete("a", "s", "nothing") == 2
    assert await store.delete("a") == 0
    assert await store.delete() == 0
    assert await store.get("a") is None
    assert await store.members("s") == set()
    await store.put("a", b"1", ttl=60)
    assert await store.delete("a", "a") == 1


async def test_values_expire(store: Store, until: Until) -> None:
    await store.put("short", b"1", ttl=0.05)
    await store.put("shortened", b"1", ttl=60)
    await store.put("shortened", b"2", ttl=0.05)
    await store.add("added", b"1", ttl=0.05)
    await store.put("replaced", b"1", ttl=60)
    await store.replace("replaced", b"1", b"2", ttl=0.05)
    await store.put("touched", b"1", ttl=60)
    assert await store.touch("touched", ttl=0.05) is True
    await store.join("set", "m", ttl=0.05)
    await store.put("lasting", b"1", ttl=60)

    for key in ("short", "shortened", "added", "replaced", "touched"):

        async def gone(key: str = key) -> bool:
            return await store.get(key) is None

        await until(gone)

    async def set_gone() -> bool:
        return await store.members("set") == set()

    await until(set_gone)
    assert await store.get("lasting") == b"1"
    assert await store.take("short") is None
    assert await store.delete("short", "set") == 0
    assert await store.touch("short", ttl=60) is False
    assert await store.replace("short", b"1", b"2", ttl=60) is False
    assert await store.add("short", b"again", ttl=60) is True


async def test_what_has_no_time_to_live_stays(store: Store, until: Until) -> None:
    assert await store.add("added", b"1", ttl=None) is True
    assert await store.add("added", b"2", ttl=None) is False
    await store.put("short", b"1", ttl=2)
    assert await store.replace("short", b"1", b"2", ttl=None) is True
    assert await store.replace("added", b"other", b"2", ttl=None) is False
    await store.put("put", b"1", ttl=2)
    await store.put("put", b"2", ttl=None)
    await store.put("marker", b"1", ttl=2)

    async def marker_gone() -> bool:
        return await store.get("marker") is None

    await until(marker_gone)
    assert await store.get_many(["added", "short", "put"]) == [b"1", b"2", b"2"]
    assert await store.replace("added", b"1", b"3", ttl=0.05) is True, "and can be given one"

    async def gone() -> bool:
        return await store.get("added") is None

    await until(gone)


async def test_a_touched_value_lives_on(store: Store, until: Until) -> None:
    await store.put("k", b"1", ttl=2)
    assert await store.touch("k", ttl=60) is True
    await store.put("marker", b"1", ttl=2)

    async def marker_gone() -> bool:
        return await store.get("marker") is None

    await until(marker_gone)
    assert await store.get("k") == b"1"
    assert await store.touch("nothing", ttl=60) is False


@pytest.mark.parametrize("ttl", [0, -5, 0.0001])
async def test_no_time_to_live_is_no_error(store: Store, until: Until, ttl: float) -> None:
    await store.put("k", b"1", ttl=ttl)

    async def gone() -> bool:
        return await store.get("k") is None

    await until(gone)


@pytest.mark.parametrize("ttl", [float("nan"), float("inf")])
async def test_a_time_to_live_is_a_number_of_seconds(store: Store, ttl: float) -> None:
    await store.put("k", b"old", ttl=60)
    for attempt in (
        store.put("k", b"1", ttl=ttl),
        store.add("new", b"1", ttl=ttl),
        store.add("k", b"1", ttl=ttl),
        store.replace("k", b"old", b"1", ttl=ttl),
        store.replace("k", b"other", b"1", ttl=ttl),
        store.replace_many([Change("k", b"old", b"1", ttl)]),
        store.touch("k", ttl=ttl),
        store.join("s", "m", ttl=ttl),
        store.put_listed("k", b"1", ttl=ttl, sets=["s"], member="m", sets_ttl=60),
        store.put_listed("k", b"1", ttl=60, sets=["s"], member="m", sets_ttl=ttl),
    ):
        with pytest.raises(ValueError, match="finite"):
            await attempt
    assert await store.get("k") == b"old"


async def test_sets_know_their_members(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await here.join("s", "a", ttl=60)
    await there.join("s", "b", ttl=60)
    await here.join("s", "a", ttl=60)
    assert await there.members("s") == {"a", "b"}
    assert await here.leave("s", "c") == 2
    assert await here.leave("s", "a") == 1
    assert await there.leave("s", "b") == 0
    assert await here.members("s") == set()
    assert await here.leave("nothing", "a") == 0
    assert await here.add("s", b"an empty set is none", ttl=60) is True


async def test_what_is_put_and_listed_is_in_all_its_sets(store: Store, until: Until) -> None:
    await store.put("k", b"before", ttl=60)
    await store.join("a", "m", ttl=60)
    await store.put_listed("k", b"1", ttl=60, sets=["a", "b"], member="n", sets_ttl=0.05)
    assert await store.get("k") == b"1"
    assert await store.members("a") == {"m", "n"}
    assert await store.members("b") <= {"n"}

    async def gone() -> bool:
        return await store.members("b") == set()

    await until(gone)
    assert await store.members("a") == {"m", "n"}
    await store.put_listed("k", b"2", ttl=0.05, sets=[], member="n", sets_ttl=60)

    async def ended() -> bool:
        return await store.get("k") is None

    await until(ended)


async def test_any_text_is_a_member(store: Store) -> None:
    for member in ODD_TEXT:
        await store.join("s", member, ttl=60)
    assert await store.members("s") == set(ODD_TEXT)
    for left, member in enumerate(ODD_TEXT, start=1):
        assert await store.leave("s", member) == len(ODD_TEXT) - left


async def test_members_are_a_copy(store: Store) -> None:
    await store.join("s", "a", ttl=60)
    (await store.members("s")).add("b")
    assert await store.members("s") == {"a"}


async def test_joining_never_shortens_the_life_of_a_set(store: Store, until: Until) -> None:
    await store.join("s", "a", ttl=60)
    await store.join("s", "b", ttl=0.05)
    await store.join("lengthened", "a", ttl=2)
    await store.join("lengthened", "b", ttl=60)
    await store.put("marker", b"1", ttl=2)

    async def marker_gone() -> bool:
        return await store.get("marker") is None

    await until(marker_gone)
    assert await store.members("s") == {"a", "b"}
    assert await store.members("lengthened") == {"a", "b"}


async def test_fifty_leave_at_once_and_one_is_the_last(stores: tuple[Store, Store]) -> None:
    for n in range(50):
        await stores[0].join("s", str(n), ttl=60)
    left = await asyncio.gather(*(stores[n % 2].leave("s", str(n)) for n in range(50)))
    assert sorted(left) == list(range(50))


async def test_the_wrong_kind_is_refused(store: Store) -> None:
    await store.join("s", "m", ttl=60)
    await store.put("v", b"1", ttl=60)
    for attempt in (
        store.get("s"),
        store.take("s"),
        store.replace("s", b"1", b"2", ttl=60),
        store.join("v", "m", ttl=60),
        store.leave("v", "m"),
        store.members("v"),
    ):
        with pytest.raises(StoreFault) as caught:
            await attempt
        assert caught.value.status == 503
    assert await store.members("s") == {"m"}
    assert await store.get("v") == b"1"
    await store.put("s", b"2", ttl=60)
    assert await store.get("s") == b"2"


async def test_messages_reach_every_subscription_in_order(stores: tuple[Store, Store]) -> None:
    here, there = stores
    async with here.subscribe("t") as first, there.subscribe("t") as second, there.subscribe("other") as third:
        for events in (first, second, third):
            assert await next_event(events) == Restored()
        for n in range(100):
            await here.publish("t", b"%d" % n)
        await there.publish("other", EVERY_BYTE)
        for events in (first, second):
            assert [await next_event(events) for _ in range(100)] == [Message(b"%d" % n) for n in range(100)]
        assert await next_event(third) == Message(EVERY_BYTE)


async def test_nothing_said_before_is_heard(store: Store) -> None:
    assert await store.publish("t", b"before") == 0
    async with store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        assert await store.publish("t", b"after") == 1
        assert await next_event(events) == Message(b"after")
    await store.publish("t", b"nobody listens")


async def test_a_reader_can_be_cancelled_and_read_on(store: Store) -> None:
    async with store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        for n in range(20):
            reader = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait((reader,))
            assert reader.cancelled()
            await store.publish("t", b"%d" % n)
            assert await next_event(events) == Message(b"%d" % n)


async def test_a_subscription_leaves_nothing_behind(store: Store) -> None:
    await store.ping()
    before = asyncio.all_tasks()

    async def fail() -> None:
        async with store.subscribe("t") as events:
            assert await next_event(events) == Restored()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()

    async def listen() -> None:
        async with store.subscribe("t") as events:
            async for _ in events:
                pass

    for _ in range(10):
        listener = asyncio.create_task(listen())
        await store.ping()
        listener.cancel()
        await asyncio.wait((listener,))
        assert listener.cancelled()
    assert asyncio.all_tasks() == before


async def test_the_store_answers(store: Store) -> None:
    await store.ping()
    for sentence in [*await store.warnings(), *await store.warnings(enrolments=True)]:
        assert sentence.endswith(".")
        assert len(sentence) > 40


async def test_after_closing_there_is_nothing(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    await store.put("k", b"1", ttl=60)
    before = asyncio.all_tasks()
    async with store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        await store.close()
        await store.close()
        assert await next_event(events) == Lost()
        with pytest.raises(StopAsyncIteration):
            await next_event(events)
    for attempt in (
        store.get("k"),
        store.get_many(["k"]),
        store.put("k", b"1", ttl=60),
        store.add("k", b"1", ttl=60),
        store.replace("k", b"1", b"2", ttl=60),
        store.replace_many([Change("k", b"1", b"2", 60)]),
        store.take("k"),
        store.delete("k"),
        store.touch("k", ttl=60),
        store.join("s", "m", ttl=60),
        store.put_listed("k", b"1", ttl=60, sets=["s"], member="m", sets_ttl=60),
        store.leave("s", "m"),
        store.members("s"),
        store.publish("t", b"1"),
        store.ping(),
        store.warnings(),
    ):
        with pytest.raises(StoreFault) as caught:
            await attempt
        assert caught.value.code == "store_closed"
    async with store.subscribe("t") as events:
        with pytest.raises(StopAsyncIteration):
            await next_event(events)
    assert asyncio.all_tasks() == before
