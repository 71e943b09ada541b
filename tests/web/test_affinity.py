"""Sticky cookies, backed by the store and bound to user and pool."""

import asyncio

import pytest

from hubgate.core.balancer import Affinity, Candidate, Selection, Unavailable
from hubgate.core.health import Condition
from hubgate.core.routing import Zone
from hubgate.store.base import Message, Restored
from hubgate.web.affinity import Bindings
from hubgate.web.live import Bound, LiveSession
from hubgate.web.sessions import TOPIC
from tests.web.people import HOST, KEYRING, PROOF, person, pool

HTC = pool("htc01", "htc02", "htc03")


class Hubs:
    """The condition of each hub, as a test wants it."""

    def __init__(self, clock):
        self.conditions = {u.name: Condition.UP for u in HTC.upstreams}
        self.since = dict.fromkeys(self.conditions, clock.now)

    def candidates(self, _pool):
        return [Candidate(name, 1.0, condition, self.since[name]) for name, condition in self.conditions.items()]

    def down(self, name, clock):
        self.conditions[name] = Condition.DOWN
        self.since[name] = clock.now


@pytest.fixture
def hubs(clock):
    return Hubs(clock)


@pytest.fixture
def worker(store, hubs, clock):
    """Makes one more gateway on the same store."""

    def make(candidates=hubs.candidates):
        return Bindings(store, KEYRING, [HTC], lifetime=600.0, move_after=120.0, candidates=candidates, clock=clock)

    return make


@pytest.fixture
def login(sessions, clock):
    async def log_in(name="alice"):
        cookie, found = await sessions.create(
            person(name), PROOF, provider_sid="", id_token="", refresh_token="", address="", user_agent=""
        )
        return LiveSession(cookie, HOST, found, clock.now)

    return log_in


async def bind(bindings, live, cookie="", zone=Zone.HUB):
    bound = await bindings.bind(live, HTC, cookie, zone)
    assert isinstance(bound, Bound)
    return bound


async def test_a_browser_stays_with_its_hub_through_logins_and_gateways(worker, login):
    bound = await bind(worker(), await login())
    again = await bind(worker(), await login(), bound.cookie)
    assert again == bound


async def test_all_browsers_of_a_person_go_to_the_same_hub(worker, login):
    first = await bind(worker(), await login())
    second = await bind(worker(), await login())
    assert second.affinity == first.affinity
    assert second.cookie != first.cookie


async def test_a_sticky_cookie_is_useless_to_another_user(worker, login, hubs):
    alice = await bind(worker(), await login("alice"))
    bobs_own = await bind(worker(), await login("bob"))
    # bob, who is bound elsewhere or not, presents alice's cookie
    stolen = await bind(worker(), await login("bob"), alice.cookie)
    assert stolen.affinity == bobs_own.affinity
    assert stolen.cookie != alice.cookie


@pytest.mark.parametrize("cookie", ["x", "a" * 43, "ä", "a" * 4000])
async def test_a_made_up_cookie_changes_nothing(worker, login, cookie):
    bound = await bind(worker(), await login())
    again = await bind(worker(), await login(), cookie)
    assert again.affinity == bound.affinity
    assert again.cookie != cookie


async def test_a_hundred_requests_at_once_make_one_binding_and_one_cookie(worker, login):
    live, bindings = await login(), worker()
    bounds = await asyncio.gather(*(bind(bindings, live) for _ in range(100)))
    assert len(set(bounds)) == 1


async def test_two_workers_that_place_somebody_at_once_agree(worker, login):
    """They see different hubs as up, so they would choose differently: the first one wins."""

    def sees(up):
        return lambda _: [
            Candidate(name, 1.0, Condition.UP if name == up else Condition.DOWN, 0.0) for name in ("htc01", "htc02")
        ]

    one, two = worker(sees("htc01")), worker(sees("htc02"))
    first, second = await asyncio.gather(bind(one, await login()), bind(two, await login()))
    assert first.affinity == second.affinity


async def test_who_is_bound_to_a_hub_that_is_down_stays_bound(worker, login, hubs, clock):
    bound = await bind(worker(), await login())
    hubs.down(bound.affinity.upstream, clock)
    bindings, live = worker(), await login()
    again = await bind(bindings, live, bound.cookie)
    assert again == bound
    away = bindings.choose(HTC, again.affinity, user=live.user_key, zone=Zone.HUB)
    assert isinstance(away, Unavailable)
    assert away.upstream == bound.affinity.upstream
    assert away.may_move_at == clock.now + 120.0


async def test_new_users_go_to_hubs_that_are_up_and_nowhere_when_none_is(worker, login, hubs, clock):
    hubs.down("htc01", clock)
    hubs.down("htc02", clock)
    for name in ("alice", "bob", "carol"):
        assert (await bind(worker(), await login(name))).affinity.upstream == "htc03"
    hubs.down("htc03", clock)
    assert isinstance(await worker().bind(await login("dave"), HTC, "", Zone.HUB), Unavailable)


async def test_moving_is_possible_only_after_the_grace_time_and_counts_for_all_browsers(
    worker, login, hubs, clock, store
):
    bindings, live = worker(), await login()
    other_browser = await bind(worker(), await login())
    bound = await bind(bindings, live)
    assert not await bindings.may_move(live, HTC, bound.cookie), "the hub is up"
    hubs.down(bound.affinity.upstream, clock)
    assert not await bindings.may_move(live, HTC, bound.cookie), "the grace time has just begun"
    clock.now += 120
    assert await bindings.may_move(live, HTC, bound.cookie)
    async with store.subscribe(TOPIC) as events:
        assert isinstance(await anext(events), Restored)
        chosen = await bindings.move(live, HTC)
        assert await anext(events) == Message(f"user {live.user_key}".encode())
    assert isinstance(chosen, Selection)
    assert chosen.upstream != bound.affinity.upstream
    assert (await bind(bindings, live, bound.cookie)).affinity.upstream == chosen.upstream
    assert (await bind(worker(), await login(), other_browser.cookie)).affinity.upstream == chosen.upstream


async def test_nobody_is_moved_when_there_is_nowhere_to_go(worker, login, hubs, clock):
    bindings, live = worker(), await login()
    bound = await bind(bindings, live)
    for name in hubs.conditions:
        hubs.down(name, clock)
    clock.now += 1000
    assert not await bindings.may_move(live, HTC, bound.cookie)
    assert isinstance(await bindings.move(live, HTC), Unavailable)
    assert (await bind(bindings, live, bound.cookie)).affinity == bound.affinity


async def test_a_hub_that_is_no_longer_configured_gives_its_users_away(worker, login, hubs):
    bound = await bind(worker(), await login())
    del hubs.conditions[bound.affinity.upstream]
    again = await bind(worker(), await login(), bound.cookie)
    assert again.affinity.upstream in hubs.conditions


async def test_after_log_out_the_cookie_means_nothing_and_the_hint_remains(worker, login, store):
    bindings = worker()
    bound = await bind(bindings, await login())
    await bindings.release([bound.cookie])
    await bindings.release([])
    again = await bind(worker(), await login(), bound.cookie)
    assert again.affinity == bound.affinity
    assert again.cookie != bound.cookie


async def test_a_binding_that_was_planted_in_the_store_is_not_believed(worker, login, store):
    live = await login()
    await store.put(f"binding:htc:{live.user_key}", b"\x01" + b"htc02" * 20, ttl=60)
    with pytest.raises(Exception, match="store_unknown_key"):
        await worker().bind(live, HTC, "", Zone.HUB)
    alices = await bind(worker(), await login("bob"))
    bobs = await store.get(f"binding:htc:{(await login('bob')).user_key}")
    await store.put(f"binding:htc:{live.user_key}", bobs, ttl=60)
    assert isinstance(alices.affinity, Affinity)
    bound = await bind(worker(), live)
    assert bound.affinity.since != 0
