"""A Redis that is found by its sentinels, and found again when another one takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis

from hubgate.errors import StoreFault
from hubgate.store import open_store
from hubgate.store.base import Lost, Message, Restored
from hubgate.store.subscription import CHECK_EVERY
from tests.store.redis_server import BUNDLED, NEWEST, RedisServer, running

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

PATIENCE = 60.0  # seconds; sentinels take their time

SENTINEL = """
sentinel monitor main 127.0.0.1 {port} 1
sentinel down-after-milliseconds main 3000
sentinel failover-timeout main 3000
"""


@asynccontextmanager
async def watched(executable: str, until: Until) -> AsyncIterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A primary, its replica, and the sentinel that knows both."""
    with (
        running(executable, "--repl-diskless-sync-delay", "0") as primary,
        running(executable, "--replicaof", "127.0.0.1", str(primary.port)) as replica,
    ):

        async def in_step() -> bool:
            return bool(replica.admin("INFO", "replication")["master_link_status"] == "up")

        await until(in_step)
        with running(executable, sentinel=SENTINEL.format(port=primary.port)) as sentinel:

            async def known() -> bool:
                return bool(sentinel.admin("SENTINEL", "REPLICAS", "main"))

            await until(known)
            yield primary, replica, sentinel


@pytest.mark.redis
@pytest.mark.parametrize("executable", [NEWEST, BUNDLED], ids=["newest", "bundled"])
async def test_another_takes_over(executable: str, until: Until) -> None:
    async with watched(executable, until) as (primary, replica, sentinel):
        # The first sentinel of the list is gone, which must not matter.
        store = open_store(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0")
        await store.put("k", b"1", ttl=600)
        assert primary.admin("GET", "hubgate:k") == b"1"

        async def replicated() -> bool:
            return bool(replica.admin("EXISTS", "hubgate:k"))

        await until(replicated)
        async with store.subscribe("t") as events, asyncio.timeout(PATIENCE):
            assert await anext(events) == Restored()
            primary.kill()
            assert await anext(events) == Lost()
            assert await anext(events) == Restored()

            async def writable() -> bool:
                try:
                    return await store.replace("k", b"1", b"2", ttl=600)
                except StoreFault:
                    return False

            await until(writable)
            assert replica.admin("GET", "hubgate:k") == b"2"
            await store.publish("t", b"after")
            assert await anext(events) == Message(b"after")
        await store.close()


@pytest.mark.redis
async def test_a_switch_by_the_operator_leaves_nothing_on_the_old_one(until: Until) -> None:
    """The old primary lives on as a replica; connections to it must not be used for writing."""
    async with watched(NEWEST, until) as (primary, replica, sentinel):
        # Some seconds later the sentinel would make a replica of it, which refuses writes by itself.
        primary.admin("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
        store = open_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        await asyncio.gather(*(store.put(f"k{n}", b"1", ttl=600) for n in range(50)))
        async with store.subscribe("t") as events, asyncio.timeout(PATIENCE):
            assert await anext(events) == Restored()

            async def begun() -> bool:
                try:
                    sentinel.admin("SENTINEL", "FAILOVER", "main")
                except redis.ResponseError:  # no replica that is good enough yet
                    return False
                return True

            await until(begun)

            assert await anext(events) == Lost()
            assert await anext(events) == Restored()
            # The old one still takes writes: none of ours may go there.
            assert primary.admin("ROLE")[0] == b"master"
            await asyncio.gather(*(store.put(f"k{n}", b"2", ttl=600) for n in range(50)))
            assert {replica.admin("GET", f"hubgate:k{n}") for n in range(50)} == {b"2"}
            assert {primary.admin("GET", f"hubgate:k{n}") for n in range(50)} == {b"1"}
            await store.publish("t", b"after")
            assert await anext(events) == Message(b"after")
        await store.close()


@pytest.mark.redis
async def test_sentinels_that_fall_silent_take_nothing_away(until: Until) -> None:
    """Redis itself answers, so lines to it are kept, and none is lost for want of somebody who confirms it."""
    async with watched(NEWEST, until) as (_, _, sentinel):
        store = open_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        async with store.subscribe("t") as events, asyncio.timeout(PATIENCE):
            assert await anext(events) == Restored()
            await store.ping()
            await asyncio.sleep(1.5 * CHECK_EVERY)  # asked once, and all is as it was
            sentinel.pause()
            await asyncio.sleep(1.5 * CHECK_EVERY)  # asked again, in vain
            await store.put("k", b"1", ttl=60)
            await store.publish("t", b"still here")
            assert await anext(events) == Message(b"still here")
            sentinel.resume()
        await store.close()


@pytest.mark.redis
async def test_a_service_that_no_sentinel_knows(until: Until) -> None:
    async with watched(NEWEST, until) as (_, _, sentinel):
        for url in (
            f"redis+sentinel://127.0.0.1:{sentinel.port}/unknown",
            "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main",
        ):
            store = open_store(url)
            with pytest.raises(StoreFault) as caught:
                await store.get("k")
            assert caught.value.code == "store_unreachable"
            await store.close()


@pytest.mark.redis
async def test_silent_sentinels_cost_no_more_than_a_silent_redis(until: Until) -> None:
    async with watched(NEWEST, until) as (_, _, sentinel):
        sentinel.pause()
        store = open_store(f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:{sentinel.port}/main")
        async with asyncio.timeout(PATIENCE):
            for _ in range(100):
                with pytest.raises(StoreFault) as caught:
                    await store.get("k")
                assert caught.value.code == "store_unreachable"
        sentinel.resume()
        await store.close()
