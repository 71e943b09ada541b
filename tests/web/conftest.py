"""A clock that a test sets, a store in memory, and the sessions in it."""

import pytest

from hubgate.store.memory import MemoryStore
from hubgate.web.sessions import Sessions
from tests.web.people import HOST, KEYRING, LIMITS, Clock


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
