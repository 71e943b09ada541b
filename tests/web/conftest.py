"""A clock that a test sets, a store in memory, and the sessions in it."""

import pytest

from hubgate.store.memory import MemoryStore
from hubgate.web.sessions import Sessions
from tests.kit.loops import loop_factories
from tests.web.people import HOST, KEYRING, LIMITS, Clock


def pytest_asyncio_loop_factories(item):
    return loop_factories(item)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def store():
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
def sessions(store, clock):
    return Sessions(store, KEYRING, LIMITS, host=HOST, clock=clock)
