"""Several observations in a row, and nothing less, change what we think of a hub."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.health import Condition, Health, Observation, observe, unknown

OK, HUB, GONE = Observation.OK, Observation.HUB_DOWN, Observation.UNREACHABLE
MEANS = {OK: Condition.UP, HUB: Condition.HUB_DOWN, GONE: Condition.DOWN}


def after(*seen: Observation, rise: int = 2, fall: int = 3, start: float = 100.0) -> Health:
    """Health after these observations, one a second from the time 101."""
    health = unknown(start)
    for second, observation in enumerate(seen, 1):
        health = observe(health, observation, now=start + second, rise=rise, fall=fall)
    return health


@pytest.mark.parametrize(
    ("seen", "condition", "since"),
    [
        ((), Condition.UP, 100),
        ((OK,), Condition.UP, 100),
        ((GONE,), Condition.DOWN, 101),
        ((HUB,), Condition.HUB_DOWN, 101),
        ((OK, GONE, GONE), Condition.UP, 100),
        ((OK, GONE, GONE, GONE), Condition.DOWN, 102),
        ((OK, GONE, GONE, OK, GONE, GONE), Condition.UP, 100),
        ((OK, GONE, OK, GONE, GONE, GONE), Condition.DOWN, 104),
        ((OK, GONE, GONE, HUB), Condition.HUB_DOWN, 102),
        ((OK, HUB, HUB, GONE), Condition.DOWN, 102),
        ((GONE, OK), Condition.DOWN, 101),
        ((GONE, OK, OK), Condition.UP, 102),
        ((GONE, OK, GONE, OK), Condition.DOWN, 101),
        ((GONE, HUB, HUB), Condition.HUB_DOWN, 102),
        ((GONE, OK, HUB), Condition.HUB_DOWN, 102),
        ((HUB, GONE, OK, GONE, OK), Condition.HUB_DOWN, 101),
        ((HUB, GONE, OK, OK), Condition.UP, 103),
        ((HUB, OK, GONE, GONE, GONE), Condition.DOWN, 103),
    ],
)
def test_sequences(seen: tuple[Observation, ...], condition: Condition, since: float) -> None:
    health = after(*seen)
    assert (health.condition, health.since) == (condition, since)


def test_nothing_new_makes_no_new_value() -> None:
    health = after(OK)
    assert observe(health, OK, now=1e9, rise=2, fall=3) is health


@given(
    st.lists(st.sampled_from(Observation), max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_a_change_needs_its_observations_in_a_row(seen: list[Observation], rise: int, fall: int) -> None:
    severity = list(Condition).index
    health = unknown(0.0)
    for second, observation in enumerate(seen):
        before, health = health, observe(health, observation, now=float(second), rise=rise, fall=fall)
        assert health.since <= second
        if health.condition is before.condition or second == 0:
            continue
        assert MEANS[observation] is health.condition
        worse = severity(health.condition) > severity(before.condition)
        needed = fall if worse else rise
        recent = [severity(MEANS[o]) - severity(before.condition) for o in seen[second + 1 - needed : second + 1]]
        assert len(recent) == needed
        assert all(difference > 0 for difference in recent) or all(difference < 0 for difference in recent)
        assert health.since == second + 1 - needed


@given(st.lists(st.sampled_from(Observation), max_size=20), st.sampled_from(Observation))
def test_it_comes_to_what_is_seen_all_the_time(seen: list[Observation], lasting: Observation) -> None:
    assert after(*seen, *[lasting] * 4).condition is MEANS[lasting]
