"""Where a fresh proof is demanded, and when one is fresh."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.access import Deny, Forward, Kind, StepUp, decide
from hubgate.core.freshness import ACTIONS, Demand, is_place
from hubgate.core.identity import Proof
from hubgate.core.routing import PoolRoute, Router, Zone, parse_target
from hubgate.core.session import Limits, Session
from hubgate.core.site import Pool, Site, Upstream
from hubgate.errors import ClientFault
from tests.core.strategies import paths, respelled, session

LIMITS = Limits(idle=1e9, max=1e9)
HOST = "jupyter.example.org"


def site(*places: str, path: str = "/htc/") -> Site:
    demand = Demand(places, 900, "mfa") if places else None
    pool = Pool("htc", path, (Upstream("htc01", "http://127.0.0.1:8001", "htc"),), step_up=demand)
    return Site(f"https://{HOST}", (pool,))


def proved(proof: Proof) -> Session:
    alice = session(created=1e6, last_seen=1e6)
    return Session(alice.handle, alice.identity, proof, created=1e6, last_seen=1e6, csrf="c")


@pytest.mark.parametrize(
    ("place", "covered", "not_covered"),
    [
        (
            "start",
            ("hub/spawn", "hub/spawn/", "hub/spawn/ada/big"),
            ("hub/spawn-pending/ada", "hub/spawner", "user/hub/spawn"),
        ),
        ("start", ("hub/api/users/ada/server", "hub/api/users/a@b/servers/x"), ("hub/api/users/ada", "hub/api/users")),
        ("admin", ("hub/admin", "hub/admin/x", "hub/api/users", "hub/api/users/ada"), ("hub/home", "hub/administer")),
        ("admin", ("hub/api/groups/x/users", "hub/api/shutdown"), ("hub/api/users/ada/activity", "hub/api/user")),
        ("tokens", ("hub/token", "hub/api/users/ada/tokens/7"), ("hub/tokens", "hub/api/users/ada/tokensx")),
        ("share", ("hub/api/shares/ada/x", "hub/api/share-codes/ada"), ("hub/accept-share",)),
        ("all", ("", "hub/login", "user/ada/lab", "hub/x\nhub"), ()),
        ("user/*/lab", ("user/ada/lab", "user/ada/lab/tree/x"), ("user/ada/labs", "user/ada/x/lab", "user/lab")),
        ("a.b/c$", ("a.b/c", "a.b/c/"), ("a.b/c/d", "axb/c")),
    ],
)
def test_places(place: str, covered: tuple[str, ...], not_covered: tuple[str, ...]) -> None:
    demand = Demand((place,), 60)
    assert [path for path in covered if not demand.covers(path)] == []
    assert [path for path in not_covered if demand.covers(path)] == []


@pytest.mark.parametrize("place", ["", "/hub", "hub//x", "hub/", "hub/%61dmin", "hub/../x", "a b", "hub/$x", "$"])
def test_what_is_no_place(place: str) -> None:
    assert not is_place(place)


def test_actions_are_places() -> None:
    assert all(is_place(action) for action in ACTIONS)
    assert all(is_place(path) for action, paths in ACTIONS.items() for path in paths if action != "all")


def test_a_proof_is_fresh_for_a_while() -> None:
    demand = Demand(("all",), 900, "mfa")
    assert demand.met_until(Proof("mfa", ("pwd", "otp"), 1000)) == 1900
    assert demand.met_until(Proof("pwd", (), 1000)) == 0
    assert demand.met_until(Proof("mfa", (), 0)) == 0, "the provider did not say when"
    assert Demand(("all",), 900).met_until(Proof("whatever", (), 1000)) == 1900


@pytest.mark.parametrize("kind", Kind)
def test_whoever_is_not_fresh_is_asked(kind: Kind) -> None:
    (pool,) = site("all").pools
    alice = proved(Proof("mfa", (), 1_000_000))
    assert decide(pool, alice, kind, limits=LIMITS, now=1_000_899, demand=pool.step_up) == Forward()
    assert pool.step_up is not None
    assert decide(pool, alice, kind, limits=LIMITS, now=1_000_900, demand=pool.step_up) == StepUp(kind, pool.step_up)
    assert decide(pool, alice, kind, limits=LIMITS, now=1_000_900) == Forward()


@given(
    auth_time=st.integers(0, 2_000_000),
    acr=st.sampled_from(("", "pwd", "mfa")),
    now=st.floats(1e6, 1.1e6),
    later=st.floats(0, 1e5),
    groups=st.booleans(),
)
def test_time_alone_makes_nothing_fresh_and_a_fresh_proof_lets_nobody_in_who_is_kept_out(
    auth_time: int, acr: str, now: float, later: float, groups: bool
) -> None:
    demand = Demand(("all",), 900, "mfa")
    pool = Pool("htc", "/htc/", (), groups=("x",) if groups else (), step_up=demand)
    alice = proved(Proof(acr, (), auth_time))
    first = decide(pool, alice, Kind.FETCH, limits=LIMITS, now=now, demand=demand)
    assert isinstance(first, Deny) == groups
    if first == Forward():
        assert acr == "mfa"
        assert auth_time > now - 900
        assert auth_time
    else:
        assert decide(pool, alice, Kind.FETCH, limits=LIMITS, now=now + later, demand=demand) != Forward()


@given(
    target=st.one_of(respelled("/htc/hub/admin"), respelled("/htc/hub/api/users/ada"), respelled("/htc/hub/admin/x"))
)
def test_no_spelling_gets_around_a_demand(target: str) -> None:
    try:
        found = Router(site("admin")).match(parse_target(target, [HOST], secure=True))
    except ClientFault:
        return
    assert not isinstance(found, PoolRoute) or found.fresh


@given(target=paths)
def test_a_demand_moves_nothing_to_another_place(target: str) -> None:
    try:
        read = parse_target(target, [HOST], secure=True)
        found = Router(site("hub", "user/*/files")).match(read)
    except ClientFault:
        return
    wanted = Router(site()).match(read)
    if isinstance(wanted, PoolRoute):
        assert isinstance(found, PoolRoute)
        assert found.zone is wanted.zone
        assert found.fresh or wanted.zone is Zone.NOTEBOOK
    else:
        assert found == wanted


@pytest.mark.parametrize(
    "spelling", ["/htc/hub/%61dmin", "/htc/hub/admin%2f", "/htc/hub/;x/admin", "/htc/hub//admin", "/htc/hub/admin;x"]
)
def test_an_odd_spelling_is_refused_or_asked(spelling: str) -> None:
    router = Router(site("admin"))
    target = parse_target(spelling, [HOST], secure=True)
    try:
        found = router.match(target)
    except ClientFault:
        return
    assert isinstance(found, PoolRoute)
    assert found.fresh


@given(name=st.text(min_size=1, max_size=8))
def test_names_of_people_may_be_spelled_as_they_are(name: str) -> None:
    """An encoded name in a place with a star is still that place."""
    router = Router(site("start"))
    try:
        found = router.match(parse_target(f"/htc/hub/spawn/{quote(name, safe='')}", [HOST], secure=True))
    except ClientFault:
        return
    assert isinstance(found, PoolRoute)
    assert found.fresh


def test_a_route_that_demands_has_a_name_of_its_own() -> None:
    """The short way keeps what it was let through with by this name."""
    router = Router(site("admin"))
    asked = router.match_plain(HOST, "/htc/hub/admin")
    free = router.match_plain(HOST, "/htc/hub/home")
    assert isinstance(asked, PoolRoute)
    assert isinstance(free, PoolRoute)
    assert (asked.zone, free.zone) == (Zone.HUB, Zone.HUB)
    assert asked.name != free.name
    assert asked.demand is not None
    assert free.demand is None


@pytest.mark.parametrize("path", ["/htc", "/htc/", "/htc/hub", "/htc/hub/login", "/htc/user/ada/"])
def test_a_pool_can_demand_it_everywhere(path: str) -> None:
    route = Router(site("all")).match_plain(HOST, path)
    assert isinstance(route, PoolRoute)
    assert route.fresh
