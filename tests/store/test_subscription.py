"""A subscription says when it can't be trusted, and misses nothing while it says that it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest

from hubgate.errors import StoreFault
from hubgate.store import open_store
from hubgate.store.base import Event, Lost, Message, Restored, Store
from tests.store.redis_server import RedisServer

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

PATIENCE = 60.0


async def next_event(events: AsyncIterator[Event]) -> Event:
    async with asyncio.timeout(PATIENCE):
        return await anext(events)


@pytest.mark.redis
async def test_silence_is_noticed_and_told(redis_server: RedisServer, redis_store: Store) -> None:
    async with redis_store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        for n in range(2):
            redis_server.pause()
            assert await next_event(events) == Lost()
            redis_server.resume()
            assert await next_event(events) == Restored()
            await redis_store.publish("t", b"%d" % n)
            assert await next_event(events) == Message(b"%d" % n)


@pytest.mark.redis
async def test_an_outage_is_logged_once_with_its_cause(
    redis_server: RedisServer, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may not listen would otherwise never learn why nothing is ever in place."""
    caplog.set_level("INFO")
    redis_server.admin("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels")
    store = open_store(f"redis://deaf:pw@127.0.0.1:{redis_server.port}/0")

    def refused() -> int:
        statistics: dict[str, dict[str, int]] = redis_server.admin("INFO", "commandstats")
        return statistics["cmdstat_subscribe"]["rejected_calls"] if "cmdstat_subscribe" in statistics else 0

    async def tried_often() -> bool:
        return refused() >= 4

    async with store.subscribe("t") as events:
        await until(tried_often)
        redis_server.admin("ACL", "SETUSER", "deaf", "allchannels")
        assert await next_event(events) == Restored()
    await store.close()
    told = [(entry.message, getattr(entry, "cause", None)) for entry in caplog.records]
    assert told == [("store_subscription_down", "NoPermissionError"), ("store_subscription_up", None)]


@pytest.mark.redis
async def test_death_and_return_are_told(redis_server: RedisServer, redis_store: Store) -> None:
    async with redis_store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        redis_server.kill()
        assert await next_event(events) == Lost()
        redis_server.start()
        assert await next_event(events) == Restored()
        # The way back is open for commands as well: the subscription has proved it.
        await redis_store.publish("t", b"1")
        assert await next_event(events) == Message(b"1")


@pytest.mark.redis
async def test_an_idle_line_stays_in_place(redis_server: RedisServer, redis_store: Store) -> None:
    async with redis_store.subscribe("t") as events:
        assert await next_event(events) == Restored()

        def pings() -> int:
            statistics: dict[str, dict[str, int]] = redis_server.admin("INFO", "commandstats")
            return statistics.get("cmdstat_ping", {"calls": 0})["calls"]

        before = pings()
        async with asyncio.timeout(PATIENCE):
            while pings() < before + 5:  # longer than an unanswered line would live
                await asyncio.sleep(0.05)
        await redis_store.publish("t", b"1")
        assert await next_event(events) == Message(b"1")


@pytest.mark.redis
async def test_a_process_that_stood_still_itself_has_lost_nothing(
    redis_server: RedisServer, redis_store: Store
) -> None:
    async with redis_store.subscribe("t") as events:
        assert await next_event(events) == Restored()
        for n in range(2):
            time.sleep(1.2)  # noqa: ASYNC251 - blocking the loop, for longer than silence is suffered, is the test
            redis_server.admin("PUBLISH", "hubgate:0:t", b"%d" % n)
            assert await next_event(events) == Message(b"%d" % n)


@pytest.mark.redis
async def test_databases_of_one_redis_do_not_hear_each_other(redis_server: RedisServer, redis_store: Store) -> None:
    other = open_store(redis_server.url.removesuffix("0") + "1")
    async with redis_store.subscribe("t") as here, other.subscribe("t") as there:
        assert [await next_event(here), await next_event(there)] == [Restored(), Restored()]
        await other.publish("t", b"there")
        await redis_store.publish("t", b"here")
        assert await next_event(here) == Message(b"here")
        assert await next_event(there) == Message(b"there")
    await other.close()


@pytest.mark.redis
async def test_no_message_is_missed_between_restored_and_lost(redis_server: RedisServer, redis_store: Store) -> None:
    """Numbers are published all the time, by another gateway, while the line is cut again and again."""
    publisher = open_store(redis_server.url)
    begun = -1  # the last number that may be under way
    published: set[int] = set()  # those of which Redis said that it had them

    async def publish() -> None:
        nonlocal begun
        for begun in count():
            try:
                await publisher.publish("t", b"%d" % begun)
            except StoreFault:
                await asyncio.sleep(0.01)
            else:
                published.add(begun)

    async def disturb() -> None:
        for _ in range(15):
            await asyncio.sleep(0.05)
            redis_server.admin("CLIENT", "KILL", "TYPE", "pubsub")
        redis_server.pause()
        await asyncio.sleep(1.2)
        redis_server.resume()

    windows: list[
        tuple[int, list[int]]
    ] = []  # what had begun when the subscription was in place; what came from then on
    async with redis_store.subscribe("t") as events:
        publishing, disturbing = asyncio.create_task(publish()), asyncio.create_task(disturb())
        while not (disturbing.done() and len(windows[-1][1]) > 200):
            match await next_event(events):
                case Restored():
                    windows.append((begun, []))
                case Message(payload):
                    windows[-1][1].append(int(payload))
                case Lost():
                    pass
        publishing.cancel()
        await asyncio.wait((publishing,))
        await disturbing
    await publisher.close()

    assert len(windows) > 5
    for floor, received in windows:
        assert received == sorted(set(received))
        due = {number for number in published if floor < number <= max(received, default=floor)}
        assert due <= set(received)
