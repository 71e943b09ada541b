"""When what is announced is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.announcement import Announcement, Level, Phase, current

WORK = Announcement("-", Level.MAINTENANCE, begins=1000.0, ends=2000.0, pools=("htc",), notice=100.0)


def test_a_maintenance_is_told_before_it_begins() -> None:
    phases = [WORK.phase(now) for now in (899.9, 900.0, 999.9, 1000.0, 1999.9, 2000.0)]
    assert phases == [Phase.LATER, Phase.AHEAD, Phase.AHEAD, Phase.NOW, Phase.NOW, Phase.OVER]


def test_anything_else_is_told_from_its_beginning_until_its_end() -> None:
    news = Announcement("-", begins=1000.0, ends=2000.0, notice=100.0)
    assert [news.phase(now) for now in (950, 1000, 2000)] == [Phase.LATER, Phase.NOW, Phase.OVER]


def test_without_times_it_is_always_told() -> None:
    for now in (0.0, 1e10):
        assert Announcement("-").phase(now) is Phase.NOW
        assert Announcement("-", Level.MAINTENANCE, notice=5.0).phase(now) is Phase.NOW


def test_whom_it_concerns() -> None:
    assert WORK.concerns("htc")
    assert not WORK.concerns("hpc")
    assert Announcement("-").concerns("hpc")


def test_what_matters_most_comes_first() -> None:
    news, warning = Announcement("news"), Announcement("warning", Level.WARNING)
    assert current([news, WORK, warning], 950.0) == [warning, news, WORK]
    assert current([news, WORK, warning], 1500.0) == [WORK, warning, news]
    assert current([news, WORK, warning], 2500.0) == [warning, news]


@given(st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.floats(0, 1e7))
def test_what_is_over_is_never_told(now: float, begins: float | None, ends: float | None, notice: float) -> None:
    told = current([Announcement("-", Level.MAINTENANCE, begins, ends, (), notice)], now)
    assert not told or ends is None or now < ends
