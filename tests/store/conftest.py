from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from hubgate.store import open_store
from hubgate.store.base import Store
from tests.store.redis_server import BUNDLED, NEWEST, RedisServer, running

PATIENCE = 60.0
"""Seconds after which a test that waits for something gives up. Bounds hangs only; nothing is judged by it."""


@pytest.fixture(scope="session")
def redis_newest() -> Iterator[RedisServer]:
    with running(NEWEST) as server:
        yield server


@pytest.fixture(scope="session")
def redis_bundled() -> Iterator[RedisServer]:
    with running(BUNDLED) as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """For tests that harm it. What was written survives `kill` and `start`."""
    with running(NEWEST, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def redis_store(redis_server: RedisServer) -> AsyncIterator[Store]:
    store = open_store(redis_server.url)
    yield store
    await store.close()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis_newest", marks=pytest.mark.redis),
        pytest.param("redis_bundled", marks=pytest.mark.redis),
    ]
)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Store]]:
    """Two gateways' views of one empty store: in memory, where there is but one gateway, the same object twice."""
    if request.param == "memory":
        first = second = open_store("memory://")
    else:
        server: RedisServer = request.getfixturevalue(request.param)
        server.admin("FLUSHALL")
        first, second = open_store(server.url), open_store(server.url)
    yield first, second
    await first.close()
    await second.close()


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Ask again and again until it is so."""

    async def wait(is_so: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await is_so():
                await asyncio.sleep(0.005)

    return wait
