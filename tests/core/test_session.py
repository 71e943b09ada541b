"""A session can't outlive its limits, whatever happens to it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.session import Limits, SessionState, renewal_due
from tests.core.strategies import session

LIMITS = Limits(idle=1800, max=43200)


def test_states() -> None:
    fresh = session(created=1000, last_seen=1000)
    assert fresh.state(LIMITS, 1000) is SessionState.LIVE
    assert fresh.state(LIMITS, 2799.9) is SessionState.LIVE
    assert fresh.state(LIMITS, 2800) is SessionState.IDLE
    assert fresh.state(LIMITS, 44199.9) is SessionState.IDLE
    assert fresh.state(LIMITS, 44200) is SessionState.EXPIRED


def test_the_absolute_limit_comes_first() -> None:
    assert session(created=1000, last_seen=44199).state(LIMITS, 44200) is SessionState.EXPIRED


def test_ends_at_the_nearer_limit() -> None:
    assert session(created=1000, last_seen=2000).ends_at(LIMITS) == 3800
    assert session(created=1000, last_seen=44000).ends_at(LIMITS) == 44200


def test_the_strictest_of_the_places_where_somebody_has_been_holds_everywhere() -> None:
    limits = Limits(idle=1800, max=43200, idle_by_hub={"strict": 600, "lenient": 7200})
    assert limits.shortest == 600
    nowhere = session(created=1000, last_seen=1000)
    assert nowhere.idle_at(limits) == 2800
    assert nowhere.visited("lenient").idle_at(limits) == 8200
    assert nowhere.visited("lenient").visited("usual").idle_at(limits) == 2800
    been = nowhere.visited("lenient").visited("usual").visited("strict")
    assert been.idle_at(limits) == been.ends_at(limits) == 1600
    assert been.state(limits, 1599) is SessionState.LIVE
    assert been.state(limits, 1600) is SessionState.IDLE
    assert been.idle_at(LIMITS) == 2800
    assert nowhere.visited("lenient").ends_at(Limits(idle=60, max=100, idle_by_hub={"lenient": 7200})) == 1100


@given(
    pauses=st.lists(st.floats(0, 4000), max_size=60),
    idle=st.floats(1, 4000),
    longest=st.floats(1, 50000),
)
def test_no_way_of_using_it_prolongs_it_beyond_its_limits(pauses: list[float], idle: float, longest: float) -> None:
    limits = Limits(idle=idle, max=longest)
    held, now = session(created=1000, last_seen=1000), 1000.0
    for pause in pauses:
        now += pause
        live = held.state(limits, now) is SessionState.LIVE
        assert live == (now < held.ends_at(limits))
        if not live:
            assert pause >= idle or now >= 1000 + longest
            break
        assert now < 1000 + longest
        held = replace(held, last_seen=now)


def test_repr_names_no_secret() -> None:
    assert repr(session()) == "Session(s-1, 'alice')"


def test_where_somebody_has_been() -> None:
    nowhere = session()
    once = nowhere.visited("htc01")
    assert once.hubs == (("htc01", ""),)
    assert once.visited("htc01") is once
    known = once.visited("hpc01").visited("htc01", "a")
    assert dict(known.hubs) == {"htc01": "a", "hpc01": ""}
    assert known.visited("htc01", "a") is known
    assert known.visited("htc01") is known, "a page without the hub's cookie doesn't make it forgotten"
    assert dict(known.visited("htc01", "b").hubs)["htc01"] == "b"


def test_tabs_that_log_in_at_once_hang_on_one_session_of_the_provider() -> None:
    alone = session()
    assert alone.root == "s-1"
    assert replace(alone, handle="s-2", provider_sid="k").root == replace(alone, provider_sid="k").root == "k"


def test_tokens_are_renewed_a_minute_early_and_short_ones_in_the_middle() -> None:
    assert renewal_due(expires=1300, now=1000) == 1240
    assert renewal_due(expires=1120, now=1000) == 1060
    assert renewal_due(expires=1060, now=1000) == 1030


@given(now=st.integers(0, 2_000_000_000), life=st.floats(1e-3, 1e6))
def test_tokens_are_renewed_while_they_are_good(now: int, life: float) -> None:
    assert now < renewal_due(now + life, now) < now + life
