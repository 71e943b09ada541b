"""Who may go on, and in which form the others are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from hubgate.core.access import Challenge, Deny, Forward, Kind, decide, kind_of, origin_allowed
from hubgate.core.session import Limits, SessionState
from tests.core.strategies import SITE, session

LIMITS = Limits(idle=1800, max=43200)
HTC, HPC = SITE.pools[:2]


@pytest.mark.parametrize(
    ("method", "headers", "kind"),
    [
        ("GET", {"Sec-Fetch-Mode": "navigate"}, Kind.NAVIGATION),
        ("HEAD", {"sec-fetch-mode": "navigate"}, Kind.NAVIGATION),
        ("GET", {"Accept": "text/html,*/*;q=0.8"}, Kind.NAVIGATION),
        ("GET", {"Accept": "*/*"}, Kind.FETCH),
        ("GET", {}, Kind.FETCH),
        ("GET", {"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, Kind.FETCH),
        ("GET", {"Sec-Fetch-Mode": "no-cors", "Accept": "text/html"}, Kind.FETCH),
        ("POST", {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, Kind.FETCH),
        ("DELETE", {"Accept": "text/html"}, Kind.FETCH),
        ("GET", {"Upgrade": "websocket", "Sec-Fetch-Mode": "navigate"}, Kind.UPGRADE),
        ("POST", {"upgrade": "WebSocket"}, Kind.UPGRADE),
        ("GET", {"Upgrade": "h2c, websocket"}, Kind.UPGRADE),
        ("GET", {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}, Kind.FETCH),
        ("GET", {"Upgrade": "", "Sec-Fetch-Mode": "navigate"}, Kind.NAVIGATION),
    ],
)
def test_kind(method: str, headers: dict[str, str], kind: Kind) -> None:
    assert kind_of(method, CIMultiDict(headers)) is kind


@pytest.mark.parametrize("kind", Kind)
def test_without_a_session_somebody_has_to_log_in(kind: Kind) -> None:
    assert decide(HTC, None, kind, limits=LIMITS, now=1000) == Challenge(kind)


def test_a_session_that_ended_says_how() -> None:
    at_rest = session(created=1000, last_seen=1000)
    assert decide(HTC, at_rest, Kind.FETCH, limits=LIMITS, now=2799) == Forward()
    assert decide(HTC, at_rest, Kind.FETCH, limits=LIMITS, now=2800) == Challenge(Kind.FETCH, SessionState.IDLE)
    busy = session(created=1000, last_seen=44199)
    assert decide(HTC, busy, Kind.UPGRADE, limits=LIMITS, now=44200) == Challenge(Kind.UPGRADE, SessionState.EXPIRED)


def test_a_pool_with_groups_is_for_its_groups() -> None:
    def to_hpc(*groups: str) -> object:
        return decide(HPC, session(groups=groups), Kind.NAVIGATION, limits=LIMITS, now=1000)

    assert to_hpc() == Deny("group_missing", ("hpc-users", "staff"))
    assert to_hpc("hpc", "Staff", "") == Deny("group_missing", ("hpc-users", "staff"))
    assert to_hpc("x", "staff") == Forward()


@given(
    now=st.floats(0, 1e10),
    created=st.floats(0, 1e10),
    last_seen=st.floats(0, 1e10),
    groups=st.lists(st.sampled_from(("staff", "x", "hpc-users"))).map(tuple),
    kind=st.sampled_from(Kind),
    later=st.floats(0, 1e5),
)
def test_nobody_goes_on_beyond_a_limit_or_without_a_group(
    now: float, created: float, last_seen: float, groups: tuple[str, ...], kind: Kind, later: float
) -> None:
    held = session(created=created, last_seen=last_seen, groups=groups)
    if decide(HPC, held, kind, limits=LIMITS, now=now) == Forward():
        assert now < created + LIMITS.max
        assert now < last_seen + LIMITS.idle
        assert {"staff", "hpc-users"} & set(groups)
    else:
        # Time alone never lets anybody in who was kept out before.
        assert decide(HPC, held, kind, limits=LIMITS, now=now + later) != Forward()


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ([], True),
        (["https://jupyter.example.org"], True),
        (["HTTPS://Jupyter.example.org"], True),
        (["http://jupyter.example.org"], False),
        (["https://jupyter.example.org:8443"], False),
        (["https://jupyter.example.org.evil.org"], False),
        (["https://evil.org"], False),
        (["null"], False),
        ([""], False),
        (["https://jupyter.example.org", "https://evil.org"], False),
        (["https://jupyter.example.org", "https://jupyter.example.org"], False),
    ],
)
def test_origin_of_a_handshake(origins: list[str], allowed: bool) -> None:
    assert origin_allowed(origins, "https://jupyter.example.org") is allowed
