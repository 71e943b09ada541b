"""Bound users stay, the others spread, and an outage concerns nobody but its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.balancer import (
    RETRY_AFTER,
    Affinity,
    Candidate,
    Selection,
    Unavailable,
    newest,
    place,
    select,
)
from hubgate.core.health import Condition
from hubgate.core.routing import Zone

UP, HUB_DOWN, DOWN = Condition.UP, Condition.HUB_DOWN, Condition.DOWN


def hub(name: str, condition: Condition = UP, *, weight: float = 1.0, since: float = 50.0) -> Candidate:
    return Candidate(name, weight, condition, since)


def ask(
    candidates: list[Candidate], affinity: Affinity | None, zone: Zone = Zone.HUB, user: str = "u"
) -> Selection | Unavailable:
    return select(candidates, affinity, user_key=user, zone=zone, now=1000.0, move_after=120.0)


candidates = st.lists(
    st.builds(
        Candidate,
        st.sampled_from([f"hub{n}" for n in range(9)]),
        st.floats(0.1, 10),
        st.sampled_from(Condition),
        st.floats(0, 999),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda c: c.name,
)
users = st.text(max_size=20)


@pytest.mark.parametrize(
    ("condition", "new", "notebooks", "own"),
    [(UP, True, True, True), (HUB_DOWN, False, True, False), (DOWN, False, False, False)],
)
def test_what_a_condition_serves(condition: Condition, new: bool, notebooks: bool, own: bool) -> None:
    candidate = hub("a", condition)
    assert (candidate.takes_new_users, candidate.serves_notebooks, candidate.serves_hub) == (new, notebooks, own)
    assert [candidate.serves(zone) for zone in (Zone.NOTEBOOK, Zone.HUB, Zone.LOGIN)] == [notebooks, own, own]


def test_without_weight_a_hub_keeps_its_users_and_takes_no_others() -> None:
    hubs = [hub("a", weight=0), hub("b")]
    assert all(place(hubs, user_key=str(n)) == Selection("b", "placed") for n in range(50))
    assert ask(hubs, Affinity("a", 1.0)) == Selection("a", "bound")
    assert place([hub("a", weight=0)], user_key="u") == Unavailable(None, 50.0, None, RETRY_AFTER, UP)


@given(candidates, users, st.sampled_from(Zone), st.data())
def test_a_bound_user_is_never_moved(hubs: list[Candidate], user: str, zone: Zone, data: st.DataObject) -> None:
    bound = data.draw(st.sampled_from(hubs))
    match ask(hubs, Affinity(bound.name, 1.0), zone, user):
        case Selection(upstream, why):
            assert (upstream, why) == (bound.name, "bound")
            assert bound.serves(zone)
        case Unavailable() as unavailable:
            assert not bound.serves(zone)
            assert unavailable.upstream == bound.name
            assert unavailable.condition is bound.condition
            assert unavailable.since == bound.since
            others = [c for c in hubs if c.takes_new_users and c is not bound]
            assert unavailable.may_move_at == (bound.since + 120.0 if others else None)


def test_notebooks_of_a_hub_that_is_away_go_on() -> None:
    hubs = [hub("a", HUB_DOWN), hub("b")]
    assert ask(hubs, Affinity("a", 1.0), Zone.NOTEBOOK) == Selection("a", "bound")
    assert ask(hubs, Affinity("a", 1.0), Zone.HUB) == Unavailable("a", 50.0, 170.0, RETRY_AFTER, HUB_DOWN)


def test_an_outage_never_begins_in_the_future() -> None:
    waiting = ask([hub("a", DOWN, since=2000.0)], Affinity("a", 1.0))
    assert isinstance(waiting, Unavailable)
    assert waiting.since == 1000.0


@given(candidates, users)
def test_a_binding_to_a_hub_that_was_taken_away_is_none(hubs: list[Candidate], user: str) -> None:
    assert ask(hubs, Affinity("gone", 1.0), user=user) == ask(hubs, None, user=user)


@given(candidates, users)
def test_the_unbound_go_to_hubs_that_are_up(hubs: list[Candidate], user: str) -> None:
    match ask(hubs, None, user=user):
        case Selection(upstream, why):
            assert upstream in [c.name for c in hubs if c.condition is UP]
            assert why == ("placed" if len(hubs) > 1 else "only")
        case Unavailable() as unavailable:
            assert not any(c.condition is UP for c in hubs)
            assert (unavailable.upstream, unavailable.may_move_at) == (None, None)
            assert unavailable.since == max(c.since for c in hubs)
            alive = any(c.condition is HUB_DOWN for c in hubs)
            assert unavailable.condition is (HUB_DOWN if alive else DOWN)


@given(candidates, users, st.randoms(use_true_random=False))
def test_placing_does_not_depend_on_order(hubs: list[Candidate], user: str, chance: object) -> None:
    assert place(hubs, user_key=user) == place(list(reversed(hubs)), user_key=user)


@given(candidates.filter(lambda hubs: len(hubs) > 1), st.lists(users, min_size=1, max_size=30), st.data())
def test_losing_a_hub_moves_only_its_users(hubs: list[Candidate], everyone: list[str], data: st.DataObject) -> None:
    hubs = [replace(c, condition=UP) for c in hubs]
    lost = data.draw(st.sampled_from(hubs))
    left = [replace(c, condition=DOWN) if c is lost else c for c in hubs]
    for user in everyone:
        before, after = place(hubs, user_key=user), place(left, user_key=user)
        assert isinstance(before, Selection)
        assert isinstance(after, Selection)
        assert after == before or before.upstream == lost.name
        # Being avoided by choice comes to the same as being down.
        assert place(hubs, user_key=user, avoiding=lost.name) == after


def test_users_spread_by_weight() -> None:
    hubs = [hub("a"), hub("b", weight=2), hub("c", weight=5)]
    chosen = Counter(
        placed.upstream for n in range(8000) if isinstance(placed := place(hubs, user_key=f"user{n}"), Selection)
    )
    assert chosen["a"] == pytest.approx(1000, rel=0.1)
    assert chosen["b"] == pytest.approx(2000, rel=0.1)
    assert chosen["c"] == pytest.approx(5000, rel=0.1)


def test_nowhere_else_to_go() -> None:
    assert place([hub("a")], user_key="u", avoiding="a") == Unavailable(None, 0.0, None, RETRY_AFTER, DOWN)
    assert place([], user_key="u") == Unavailable(None, 0.0, None, RETRY_AFTER, DOWN)


@pytest.mark.parametrize(
    ("cookie", "user", "holds"),
    [
        (None, None, None),
        (Affinity("a", 1.0), None, "a"),
        (None, Affinity("b", 1.0), "b"),
        (Affinity("a", 1.0), Affinity("b", 2.0), "b"),
        (Affinity("a", 2.0), Affinity("b", 1.0), "a"),
        (Affinity("a", 1.0), Affinity("b", 1.0), "a"),
    ],
)
def test_the_later_binding_holds(cookie: Affinity | None, user: Affinity | None, holds: str | None) -> None:
    found = newest(cookie, user)
    assert (found and found.upstream) == holds
