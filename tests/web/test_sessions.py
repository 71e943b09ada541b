"""Sessions as records: who finds what, and what a store's operator can't do with them."""

import asyncio
from dataclasses import replace

import pytest

from hubgate.core.keyring import Keyring
from hubgate.store.base import Message, Restored
from hubgate.store.codec import Sealer, UnknownKey
from hubgate.web.sessions import TOPIC, Closed, Sessions, fingerprint, user_key
from tests.web.people import HOST, KEYRING, LIMITS, POOL_HOST, PROOF, person


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
    await sessions.end([found.key])
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


async def told(events):
    """Nonce and keys of the next message that ends sessions."""
    event = await anext(events)
    assert isinstance(event, Message)
    verb, nonce, *keys = event.payload.decode().split(" ")
    assert verb == "session"
    return nonce, keys


async def test_ending_tells_everybody_and_adds_up_what_they_closed(sessions, store):
    keys = [(await begin(sessions))[1].key for _ in range(3)]
    async with store.subscribe(TOPIC) as one, store.subscribe(TOPIC) as another:
        assert {type(await anext(one)), type(await anext(another))} == {Restored}
        ending = asyncio.create_task(sessions.end(keys[:2]))
        nonce, named = await told(one)
        assert named == keys[:2]
        assert await told(another) == (nonce, named)
        assert [await sessions.get(key) for key in keys[:2]] == [None, None], "gone before anybody hears of it"
        await sessions.closed(nonce, named[0], "one", 3)
        await sessions.closed(nonce, named[0], "another", 3)
        assert await ending == Closed(2, 6)
    assert await sessions.get(keys[2]) is not None


async def test_a_worker_that_says_nothing_keeps_nobody_waiting_and_is_not_made_up_for(sessions, store):
    _, found = await begin(sessions)
    async with store.subscribe(TOPIC) as one, store.subscribe(TOPIC) as mute:
        assert {type(await anext(one)), type(await anext(mute))} == {Restored}
        ending = asyncio.create_task(sessions.end([found.key]))
        nonce, named = await told(one)
        await sessions.closed(nonce, named[0], "one", 3)
        assert await ending == Closed(1, 3, complete=False)


async def test_more_sessions_than_one_message_names(sessions, store):
    keys = [(await begin(sessions))[1].key for _ in range(450)]
    async with store.subscribe(TOPIC) as events:
        assert isinstance(await anext(events), Restored)
        ending = asyncio.create_task(sessions.end(keys))
        named = []
        while len(named) < len(keys):
            nonce, batch = await told(events)
            await sessions.closed(nonce, batch[0], "one", 5)
            named += batch
        assert named == keys
        assert await ending == Closed(450, 15)
    assert await sessions.everybodys() == []


async def test_the_directory_knows_a_persons_sessions_and_nobody_elses(sessions):
    first, second = [(await begin(sessions))[1] for _ in range(2)]
    _, other = await begin(sessions, "bob")
    assert await sessions.of(user_key(person())) in ([first, second], [second, first])
    assert await sessions.of(user_key(person("bob"))) == [other]
    assert await sessions.of("nobody") == []
    assert {found.key for found in await sessions.everybodys()} == {first.key, second.key, other.key}
    await sessions.end([first.key])
    assert await sessions.of(user_key(person())) == [second]


async def test_the_directory_follows_sessions_over_hours_and_days_and_ends_with_them(sessions, store, clock):
    began = []
    for _ in range(12):
        began.append((await begin(sessions))[1])
        clock.now += 3599
    listed = await sessions.of(user_key(person()))
    assert [found.key for found in listed] == [found.key for found in began]
    assert [found.key for found in await sessions.everybodys()] == [found.key for found in began]
    for found in began[:5]:
        await store.delete(f"session:{found.key}")  # as its time to live does
    assert len(await sessions.of(user_key(person()))) == 7
    days = {int(found.session.created) // 86400 for found in began}
    kept = set().union(*[await store.members(f"sessions-of:{user_key(person())}:{day}") for day in days])
    assert kept == {found.key for found in began[5:]}, "who looks takes out what is gone"


async def test_sessions_are_found_by_the_providers_name_for_its_own(sessions):
    _, found = await begin(sessions)
    issuer = person().issuer
    assert await sessions.of_provider(issuer, "p") == [found]
    assert await sessions.of_provider(issuer, "q") == []
    assert await sessions.of_provider("https://other.example", "p") == []


async def test_one_record_that_cant_be_read_hides_no_other(store, sessions, clock):
    await begin(sessions)
    rotated = Sessions(store, Keyring([b"k" * 32, b"n" * 32]), LIMITS, host=HOST, clock=clock)
    newer = (await begin(rotated))[1]
    assert len(await sessions.of(user_key(person()))) == 1
    assert len(await rotated.of(user_key(person()))) == 2
    assert await sessions.of(user_key(person()))
    assert newer in await rotated.of(user_key(person())), "nor is it taken out by who can't read it"


async def test_presence_moves_forward_only(sessions, clock):
    cookie, found = await begin(sessions)
    began = clock.now

    async def seen(at):
        await sessions.note([(found.key, replace(found.session, last_seen=at))])

    await seen(began + 100)
    assert (await sessions.find(cookie, HOST)).session.last_seen == began + 100
    await seen(began + 50)
    assert (await sessions.find(cookie, HOST)).session.last_seen == began + 100
    await sessions.end([found.key])
    await seen(began + 200)
    assert await sessions.find(cookie, HOST) is None, "a note of presence must not bring a session back"


async def test_where_somebody_has_been_is_kept_whoever_notes_it(sessions):
    cookie, found = await begin(sessions)
    await sessions.note([(found.key, found.session.visited("htc01"))])
    await sessions.note([(found.key, found.session.visited("hpc01", "s"))])
    assert (await sessions.find(cookie, HOST)).session.hubs == (("htc01", ""), ("hpc01", "s"))


async def test_what_several_hosts_know_of_a_session_is_noted_together(sessions, store):
    cookie, found = await begin(sessions)
    _, beside = await begin(sessions)
    await store.put(f"session:{beside.key}", b"\x01????unreadable" + bytes(32), ttl=60)
    seen = replace(found.session, last_seen=found.session.last_seen + 5)
    here, there = found.session.visited("htc01"), seen.visited("hpc01", "s")
    await sessions.note([(found.key, here), (beside.key, seen), (found.key, there)])
    kept = (await sessions.find(cookie, HOST)).session
    assert (kept.hubs, kept.last_seen) == ((("htc01", ""), ("hpc01", "s")), seen.last_seen)


async def test_a_record_of_an_older_version_is_a_session(sessions, store):
    cookie, found = await begin(sessions)
    sealer = Sealer(KEYRING, "session")
    record = sealer.open(found.key, found.sealed)
    del record["hubs"]
    await store.put(f"session:{found.key}", sealer.seal(found.key, record), ttl=60)
    assert (await sessions.find(cookie, HOST)).session == found.session


def test_the_fingerprint_is_a_hash():
    assert fingerprint("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
