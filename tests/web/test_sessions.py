"""Sessions as records: who finds what, and what a store's operator can't do with them."""

import pytest

from hubgate.core.keyring import Keyring
from hubgate.store.base import Message, Restored
from hubgate.store.codec import UnknownKey
from hubgate.web.sessions import TOPIC, Sessions, fingerprint
from tests.web.people import HOST, LIMITS, POOL_HOST, PROOF, person


async def begin(sessions, name="alice"):
    return await sessions.create(
        person(name),
        PROOF,
        provider_sid="p",
        id_token="id-token",
        refresh_token="refresh-token",
        address="192.0.2.1",
        user_agent="x" * 1000,
    )


async def test_a_session_is_found_by_its_cookie_and_says_what_was_put_in(sessions, clock):
    cookie, made = await begin(sessions)
    found = await sessions.find(cookie, HOST)
    assert found == made
    assert found.session.identity == person()
    assert found.session.proof == PROOF
    assert found.session.refresh_token == "refresh-token"
    assert found.session.created == found.session.last_seen == clock.now
    assert len(found.session.user_agent) == 256


async def test_the_store_holds_neither_cookie_nor_name_nor_token(sessions, store):
    cookie, found = await begin(sessions)
    assert cookie not in repr(found)
    for secret in (cookie, "alice", "refresh-token", "id-token"):
        assert secret.encode() not in found.sealed
    assert await store.get(f"session:{found.key}") == found.sealed
    assert await store.get(f"session:{cookie}") is None


@pytest.mark.parametrize("cookie", ["", "x", "a" * 43, "a" * 4000, "ä" * 43])
async def test_cookies_that_were_never_ours_open_nothing(sessions, cookie):
    await begin(sessions)
    assert await sessions.find(cookie, HOST) is None


async def test_a_portal_cookie_opens_nothing_on_a_pools_host_and_an_alias_nothing_elsewhere(sessions):
    cookie, found = await begin(sessions)
    alias = await sessions.alias(found.key, found.session, POOL_HOST)
    assert await sessions.find(alias, POOL_HOST) == found
    assert await sessions.find(cookie, POOL_HOST) is None
    assert await sessions.find(alias, HOST) is None
    assert await sessions.find(alias, "hpc.example.org") is None


async def test_an_alias_ends_with_its_session(sessions):
    _, found = await begin(sessions)
    alias = await sessions.alias(found.key, found.session, POOL_HOST)
    await sessions.end(found.key, found.session.identity)
    assert await sessions.find(alias, POOL_HOST) is None


async def test_a_record_swapped_onto_another_sessions_key_is_no_session(sessions, store):
    alices, a = await begin(sessions)
    bobs, b = await begin(sessions, "bob")
    await store.put(f"session:{a.key}", b.sealed, ttl=60)
    assert await sessions.find(alices, HOST) is None
    assert (await sessions.find(bobs, HOST)).session.identity.username == "bob"


async def test_a_poisoned_record_is_no_session(sessions, store):
    cookie, found = await begin(sessions)
    await store.put(f"session:{found.key}", b"poison" * 20, ttl=60)
    with pytest.raises(UnknownKey):  # an unknown format must never look like "no session"
        await sessions.find(cookie, HOST)
    await store.put(f"session:{found.key}", found.sealed[:-1] + bytes([found.sealed[-1] ^ 1]), ttl=60)
    assert await sessions.find(cookie, HOST) is None


async def test_keys_rotate_and_an_unknown_key_is_503_never_no_session(store, sessions, clock):
    cookie, _ = await begin(sessions)
    rotated = Sessions(store, Keyring([b"k" * 32, b"n" * 32]), LIMITS, host=HOST, clock=clock)
    assert await rotated.find(cookie, HOST) is not None
    newer, _ = await begin(rotated)
    with pytest.raises(UnknownKey) as caught:
        await sessions.find(newer, HOST)
    assert caught.value.status == 503


async def test_ending_tells_everybody_and_counts_what_is_left(sessions, store):
    _, first = await begin(sessions)
    _, second = await begin(sessions)
    async with store.subscribe(TOPIC) as events:
        assert isinstance(await anext(events), Restored)
        assert await sessions.end(first.key, first.session.identity) == 1
        assert await anext(events) == Message(f"session {first.key}".encode())
        assert await sessions.end(second.key, second.session.identity) == 0
    assert await sessions.get(first.key) is None


async def test_presence_moves_forward_only(sessions, clock):
    cookie, found = await begin(sessions)
    began = clock.now
    await sessions.seen(found.key, began + 100)
    assert (await sessions.find(cookie, HOST)).session.last_seen == began + 100
    await sessions.seen(found.key, began + 50)
    assert (await sessions.find(cookie, HOST)).session.last_seen == began + 100
    await sessions.end(found.key, found.session.identity)
    await sessions.seen(found.key, began + 200)
    assert await sessions.find(cookie, HOST) is None, "a note of presence must not bring a session back"


def test_the_fingerprint_is_a_hash():
    assert fingerprint("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
