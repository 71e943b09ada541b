"""What is known about each hub, and who gets told when it changes."""

from __future__ import annotations

import pytest

from hubgate.core.balancer import Candidate
from hubgate.core.health import Condition, Health, Observation
from hubgate.core.site import Pool, Site, Upstream
from hubgate.upstream.registry import Registry, UpstreamState

OK, HUB_DOWN, GONE = Observation.OK, Observation.HUB_DOWN, Observation.UNREACHABLE

HTC = Pool(
    "htc",
    "/htc/",
    (Upstream("htc01", "http://127.0.0.1:1", "htc"), Upstream("htc02", "http://127.0.0.1:2", "htc", weight=3)),
)
HPC = Pool("hpc", "/hpc/", (Upstream("hpc01", "http://127.0.0.1:3", "hpc"),))
SITE = Site("https://jupyter.example.org", (HTC, HPC))


def registry(changes: list[tuple[str, Condition, Condition, str]] | None = None) -> Registry[str]:
    def told(state: UpstreamState[str], before: Health) -> None:
        if changes is not None:
            changes.append((state.upstream.name, before.condition, state.health.condition, state.reason))

    return Registry(SITE, rise=2, fall=3, connections=lambda u: f"to {u.name}", on_change=told, now=100.0)


def test_every_hub_has_its_state_and_connections() -> None:
    states = list(registry())
    assert [(s.upstream.name, s.base_url, s.connections) for s in states] == [
        ("htc01", "/htc/", "to htc01"),
        ("htc02", "/htc/", "to htc02"),
        ("hpc01", "/hpc/", "to hpc01"),
    ]
    assert all(s.health == Health(Condition.UP, 100.0) for s in states)
    assert registry().state("htc02").upstream is HTC.upstreams[1]
    with pytest.raises(KeyError):
        registry().state("nobody")


def test_candidates_are_made_anew_only_after_a_change_in_their_pool() -> None:
    hubs = registry()
    first, other = hubs.candidates(HTC), hubs.candidates(HPC)
    assert list(first) == [Candidate("htc01", 1, Condition.UP, 100.0), Candidate("htc02", 3, Condition.UP, 100.0)]
    hubs.report("htc01", OK, 101.0)
    assert hubs.candidates(HTC) is first
    for second in range(102, 104):
        hubs.report("htc01", GONE, float(second))
    assert hubs.candidates(HTC) is first
    hubs.report("htc01", GONE, 104.0)
    assert list(hubs.candidates(HTC)) == [
        Candidate("htc01", 1, Condition.DOWN, 102.0),
        Candidate("htc02", 3, Condition.UP, 100.0),
    ]
    assert hubs.candidates(HPC) is other


def test_changes_are_told_once_with_their_reason() -> None:
    changes: list[tuple[str, Condition, Condition, str]] = []
    hubs = registry(changes)
    hubs.report("hpc01", HUB_DOWN, 101.0, reason="hub/health answered 503")
    hubs.report("hpc01", HUB_DOWN, 102.0, reason="hub/health answered 503")
    hubs.report("hpc01", OK, 103.0)
    assert hubs.state("hpc01").reason == ""
    hubs.report("hpc01", OK, 104.0)
    assert changes == [
        ("hpc01", Condition.UP, Condition.HUB_DOWN, "hub/health answered 503"),
        ("hpc01", Condition.HUB_DOWN, Condition.UP, ""),
    ]


def test_live_traffic_and_probes_count_together() -> None:
    hubs = registry()
    hubs.report("hpc01", OK, 101.0)
    for second in range(102, 105):
        hubs.report("hpc01", GONE, float(second), reason="connection refused")
    assert hubs.state("hpc01").health.condition is Condition.DOWN
    assert hubs.state("hpc01").reason == "connection refused"


def test_nobody_needs_to_listen() -> None:
    hubs: Registry[None] = Registry(SITE, rise=1, fall=1, connections=lambda _: None)
    hubs.report("hpc01", GONE, 1.0)
    assert hubs.state("hpc01").health.condition is Condition.DOWN
    assert hubs.state("htc01").health.since > 1e9


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        (OK, OK, "up"),
        (OK, GONE, "degraded"),
        (HUB_DOWN, OK, "degraded"),
        (HUB_DOWN, HUB_DOWN, "down"),
        (GONE, HUB_DOWN, "down"),
        (GONE, GONE, "down"),
    ],
)
def test_how_a_pool_is(first: Observation, second: Observation, state: str) -> None:
    hubs = registry()
    hubs.report("htc01", first, 101.0)
    hubs.report("htc02", second, 101.0)
    assert hubs.pool_state(HTC) == state
    assert hubs.pool_state(HPC) == "up"


def test_a_pool_without_hubs_is_down() -> None:
    empty = Pool("none", "/none/", ())
    hubs: Registry[None] = Registry(Site("https://a", (empty,)), rise=1, fall=1, connections=lambda _: None)
    assert hubs.pool_state(empty) == "down"
