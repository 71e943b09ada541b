"""A username belongs to one person, whoever else comes to have it at the provider."""

import asyncio

import pytest

from hubgate.core.keyring import Keyring
from hubgate.errors import ClientFault
from hubgate.web.usernames import Usernames
from tests.web.people import KEYRING, person


@pytest.fixture
def usernames(store):
    return Usernames(store, KEYRING)


async def test_a_renamed_user_who_takes_anothers_name_is_refused(usernames):
    await usernames.claim(person("alice", subject="first"))
    await usernames.claim(person("alice", subject="first"))
    with pytest.raises(ClientFault) as refused:
        await usernames.claim(person("alice", subject="second"))
    assert (refused.value.code, refused.value.status) == ("username_taken", 403)


async def test_an_operator_can_release_a_name(usernames):
    assert not await usernames.release("alice")
    await usernames.claim(person("alice", subject="first"))
    assert await usernames.release("alice")
    await usernames.claim(person("alice", subject="second"))
    with pytest.raises(ClientFault):
        await usernames.claim(person("alice", subject="first"))


async def test_a_name_outlives_the_key_that_its_record_was_sealed_with(store):
    old, new = b"k" * 32, b"n" * 32
    await Usernames(store, Keyring([old])).claim(person("alice", subject="first"))
    await Usernames(store, Keyring([old, new])).claim(person("alice", subject="first"))
    alone = Usernames(store, Keyring([new]))  # without the old key, a record of it could not even be read
    await alone.claim(person("alice", subject="first"))
    with pytest.raises(ClientFault):
        await alone.claim(person("alice", subject="second"))


async def test_a_name_is_kept_for_whoever_comes_back(store):
    now = 1_800_000_000.0
    usernames = Usernames(store, KEYRING, clock=lambda: now)
    await usernames.claim(person("alice", subject="first"))
    assert await store.touch("username:alice", ttl=1.0)
    now += 31 * 86400
    await usernames.claim(person("alice", subject="first"))
    await asyncio.sleep(1.1)
    with pytest.raises(ClientFault):
        await usernames.claim(person("alice", subject="second"))


async def test_who_was_here_a_moment_ago_costs_the_store_one_look(store):
    usernames = Usernames(store, KEYRING)
    await usernames.claim(person("alice", subject="first"))
    before = await store.get("username:alice")
    await usernames.claim(person("alice", subject="first"))
    assert await store.get("username:alice") == before


async def test_whoever_wants_anothers_name_does_not_keep_it_from_becoming_free(store):
    now = 1_800_000_000.0
    usernames = Usernames(store, KEYRING, clock=lambda: now)
    await usernames.claim(person("alice", subject="first"))
    assert await store.touch("username:alice", ttl=1.0)
    now += 31 * 86400
    with pytest.raises(ClientFault):
        await usernames.claim(person("alice", subject="second"))
    await asyncio.sleep(1.1)
    await usernames.claim(person("alice", subject="second"))
