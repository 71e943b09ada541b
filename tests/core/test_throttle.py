"""No more than the rate, whoever asks and however."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.throttle import Bucket, Rate, Throttle, source_key


def test_a_burst_and_then_the_rate() -> None:
    throttle = Throttle(Rate(burst=3, per_second=0.5))
    assert [throttle.wait("a", 100.0) for _ in range(5)] == [0, 0, 0, 2.0, 2.0]
    assert throttle.wait("b", 100.0) == 0
    assert throttle.wait("a", 101.0) == 1.0
    assert throttle.wait("a", 102.0) == 0
    assert throttle.wait("a", 102.0) == 2.0


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    bucket, wait = Bucket(2.0, 100.0).take(Rate(burst=3, per_second=1), 50.0)
    assert (bucket, wait) == (Bucket(1.0, 50.0), 0.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 10), st.floats(0.05, 5))
def test_never_more_than_burst_and_rate(pauses: list[float], burst: int, per_second: float) -> None:
    rate, now, allowed = Rate(burst, per_second), 1000.0, 0
    bucket = Bucket(burst, now)
    for pause in pauses:
        now += pause
        bucket, wait = bucket.take(rate, now)
        allowed += wait == 0
        if wait:
            # What we tell is true: not before then, and then indeed.
            assert bucket.take(rate, now + wait * 0.9)[1] > 0
            assert bucket.take(rate, now + wait * 1.1)[1] == 0
    assert allowed <= burst + per_second * (now - 1000.0) + 1e-6


def test_the_table_is_bounded_and_forgets_the_longest_unused() -> None:
    throttle = Throttle(Rate(burst=1, per_second=0.001), size=3)
    for key in "abc":
        assert throttle.wait(key, 0.0) == 0
    assert throttle.wait("a", 1.0) > 0
    assert throttle.wait("d", 1.0) == 0
    assert len(throttle) == 3
    assert throttle.wait("a", 1.0) > 0
    assert throttle.wait("b", 1.0) == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
    ],
)
def test_a_customer_is_one_source(address: str, key: str) -> None:
    assert source_key(address) == key


def test_looking_ahead_costs_nothing() -> None:
    throttle = Throttle(Rate(burst=1, per_second=0.5))
    assert throttle.ahead("a", 100.0) == 0
    assert len(throttle) == 0
    assert throttle.wait("a", 100.0) == 0
    assert [throttle.ahead("a", 100.0) for _ in range(3)] == [2.0, 2.0, 2.0]
    assert throttle.ahead("a", 102.0) == 0
    assert throttle.wait("a", 102.0) == 0
