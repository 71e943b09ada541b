"""What lies in the store of somebody's second factor: used once, however many ask at once, and never taken for none."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.core import totp
from hubgate.core.keyring import Keyring
from hubgate.core.site import Site
from hubgate.errors import ClientFault, HubgateFault, StoreFault
from hubgate.ops.demo import codes
from hubgate.store import open_store
from hubgate.store.codec import Sealer
from hubgate.web.attempts import Attempts, Lane
from hubgate.web.factors import Factors
from hubgate.web.sessions import user_key
from tests.kit.hesitant import Hesitant
from tests.web.people import KEYRING, person

KEY = totp.new_key(bytes(range(20)))
ALICE = person("alice")


@pytest.fixture
def stores(request):
    """Two gateways' views of one store."""
    if request.param == "memory":
        store = Hesitant()
        return store, store
    server = request.getfixturevalue("redis_server")
    return open_store(server.url), open_store(server.url)


@pytest.fixture
def factors(clock):
    return Factors(Hesitant(), KEYRING, clock=clock)


def code(clock, ahead=0):
    return codes.code(KEY, clock.now + ahead * totp.STEP)


async def enrol(factors, who=ALICE, *, replaces="", step=0):
    return await factors.enrol(who, KEY, step=step, replaces=replaces)


@pytest.mark.parametrize("stores", ["memory", pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
async def test_of_many_who_ask_at_once_one_is_right(stores, clock):
    here, there = (Factors(store, KEYRING, clock=clock) for store in stores)
    who = person("alice", subject=f"once-{clock.now}-{id(stores)}")
    await enrol(here, who)
    for ahead in (0, 1):
        verdicts = await asyncio.gather(*(each.judge(who, code(clock, ahead)) for each in (here, there) * 10))
        assert sum(isinstance(verdict, totp.Right) for verdict in verdicts) == 1
        assert sum(verdict == totp.Used() for verdict in verdicts) == 19
    for store in stores:
        await store.close()


async def test_of_many_recovery_codes_each_is_used_once(factors):
    left = await enrol(factors)
    answers = await asyncio.gather(*(factors.recover(ALICE, each) for each in left * 2))
    assert sum(answer is not None for answer in answers) == 10
    assert (await factors.of(ALICE)).recovery == ()
    assert await factors.recover(ALICE, left[0]) is None


async def test_a_code_that_is_used_takes_no_recovery_code_back(factors, clock):
    """Two changes of one record at once: both are there afterwards."""
    left = await enrol(factors)
    verdict, recovered = await asyncio.gather(factors.judge(ALICE, code(clock)), factors.recover(ALICE, left[0]))
    assert isinstance(verdict, totp.Right)
    assert recovered is not None
    enrolment = await factors.of(ALICE)
    assert enrolment.last == verdict.step
    assert len(enrolment.recovery) == 9


async def test_of_many_first_enrolments_one_is_made(factors):
    answers = await asyncio.gather(*(enrol(factors) for _ in range(10)))
    assert sum(answer is not None for answer in answers) == 1


async def test_an_enrolment_takes_the_place_of_the_one_that_was_meant(factors, clock):
    first = await enrol(factors)
    before = await factors.of(ALICE)
    assert await enrol(factors) is None, "there is one"
    assert await enrol(factors, replaces="another") is None
    await factors.judge(ALICE, code(clock))  # it was used meanwhile, and is still the same
    answers = await asyncio.gather(*(enrol(factors, replaces=before.id) for _ in range(5)))
    assert sum(answer is not None for answer in answers) == 1
    assert await factors.recover(ALICE, first[0]) is None
    await factors.reset(user_key(ALICE))
    assert await enrol(factors, replaces=before.id) is None, "it was reset"
    assert await enrol(factors) is not None


async def test_a_diagnosed_code_of_the_future_is_spent(factors, clock):
    await enrol(factors)
    ahead = code(clock, 4)
    assert await factors.judge(ALICE, ahead) == totp.Off(120, int(clock.now) // 30 + 4)
    assert isinstance(await factors.judge(ALICE, code(clock, -4)), totp.Off)
    clock.now += 120
    assert await factors.judge(ALICE, ahead) == totp.Used()
    assert isinstance(await factors.judge(ALICE, code(clock, 1)), totp.Right)
    assert (await factors.of(ALICE)).spent == (int(clock.now) // 30,)


async def test_without_an_enrolment_no_code_is_right(factors, clock):
    for attempt in (factors.judge(ALICE, code(clock)), factors.recover(ALICE, "0000-0000-0000")):
        with pytest.raises(ClientFault) as refused:
            await attempt
        assert refused.value.code == "second_factor_changed"
    assert await factors.of(ALICE) is None
    assert not await factors.reset(user_key(ALICE))


async def test_it_is_one_persons(factors, clock):
    left = await enrol(factors)
    await enrol(factors, person("bob"))
    assert await factors.recover(person("bob"), left[0]) is None
    assert await factors.of(person("alice", subject="another")) is None


async def test_a_record_that_cannot_be_read_is_never_none(clock):
    store = Hesitant()
    old, new = Keyring([b"o" * 32]), Keyring([b"n" * 32])
    await enrol(Factors(store, old, clock=clock))
    with pytest.raises(StoreFault) as unknown:  # its secret was taken out of the list
        await Factors(store, new, clock=clock).of(ALICE)
    assert unknown.value.status == 503
    (at,) = store._entries
    await store.put(at, Sealer(old, "session").seal(at, {}), ttl=60)  # sealed by us, for another purpose
    with pytest.raises(HubgateFault) as tampered:
        await Factors(store, old, clock=clock).of(ALICE)
    assert tampered.value.status == 503


async def test_what_is_used_is_sealed_by_the_newest_secret(clock):
    """So that an old secret can go without anybody's second factor going with it."""
    store = Hesitant()
    await enrol(Factors(store, Keyring([b"o" * 32]), clock=clock))
    both = Factors(store, Keyring([b"o" * 32, b"n" * 32]), clock=clock)
    assert isinstance(await both.judge(ALICE, code(clock)), totp.Right)
    assert await Factors(store, Keyring([b"n" * 32]), clock=clock).of(ALICE) is not None


async def test_tries_at_once_are_all_counted(clock):
    attempts = Attempts(Site("https://jupyter.example.org", ()), Hesitant(), KEYRING, clock=clock)
    lane = Lane("address 192.0.2.7", known=False)
    waits = await asyncio.gather(*(attempts.wait(lane, ALICE) for _ in range(20)))
    assert sorted(wait > 0 for wait in waits) == [False] * 8 + [True] * 12


async def test_tries_that_were_tampered_with_are_none(clock):
    store = Hesitant()
    attempts = Attempts(Site("https://jupyter.example.org", ()), store, KEYRING, clock=clock)
    lane = Lane("address 192.0.2.7", known=False)
    assert await attempts.wait(lane, ALICE) == 0.0
    (at,) = store._entries
    await store.put(at, b"spoilt", ttl=60)
    assert await attempts.wait(lane, ALICE) == 0.0
