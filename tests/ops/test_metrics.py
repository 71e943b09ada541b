"""What is counted, and that nobody outside can make a label."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest

from hubgate.core.site import Pool, Site, Upstream
from hubgate.metrics import Metrics

ROOT = Path(__file__).parents[2]
SITE = Site(
    "https://jupyter.example.org",
    (
        Pool("htc", "/htc/", (Upstream("htc01", "http://a", "htc"), Upstream("htc02", "http://b", "htc"))),
        Pool("hpc", "/hpc/", (Upstream("hpc01", "http://c", "hpc"),)),
    ),
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(SITE)


async def samples(metrics: Metrics) -> dict[str, float]:
    lines = (await metrics.render()).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


async def test_requests_are_counted_by_pool_upstream_and_class(metrics: Metrics) -> None:
    metrics.requests("htc", "htc01").note(200, 0.2)
    metrics.requests("htc", "htc01").note(204, 0.2)
    metrics.requests("htc", "htc02").note(502, 0.2)
    metrics.requests("", "").note(404, 0.0)
    now = await samples(metrics)
    assert now['hubgate_requests_total{pool="htc",status="2xx",upstream="htc01"}'] == 2
    assert now['hubgate_requests_total{pool="htc",status="5xx",upstream="htc02"}'] == 1
    assert now['hubgate_requests_total{pool="portal",status="4xx",upstream=""}'] == 1
    assert now['hubgate_request_duration_seconds_count{pool="htc"}'] == 3
    assert now['hubgate_request_duration_seconds_bucket{le="0.25",pool="htc"}'] == 3
    assert now['hubgate_request_duration_seconds_bucket{le="0.1",pool="htc"}'] == 0


async def test_gauges_go_up_and_down(metrics: Metrics) -> None:
    metrics.tunnel_opened("htc")
    metrics.tunnel_opened("htc")
    metrics.tunnel_closed("htc")
    metrics.sessions_cached(7)
    metrics.upstream_condition("htc", "htc01", up=True)
    metrics.upstream_condition("htc", "htc02", up=False)
    metrics.login("ok")
    metrics.store_fault()
    now = await samples(metrics)
    assert now['hubgate_tunnels_open{pool="htc"}'] == 1
    assert now["hubgate_sessions_cached"] == 7
    assert now['hubgate_upstream_up{pool="htc",upstream="htc01"}'] == 1
    assert now['hubgate_upstream_up{pool="htc",upstream="htc02"}'] == 0
    assert now['hubgate_logins_total{outcome="ok"}'] == 1
    assert now["hubgate_store_faults_total"] == 1


async def test_no_name_from_outside_becomes_a_label(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.requests(f"pool{number}", f"hub{number}").note(200 + number % 3, 0.1)
        metrics.tunnel_opened(f"pool{number}")
        metrics.upstream_condition(f"pool{number}", f"hub{number}", up=True)
        metrics.login(f"code{number}")
    now = await samples(metrics)
    assert len(now) < 120
    assert now['hubgate_requests_total{pool="other",status="2xx",upstream="other"}'] == 1000
    assert sum(value for name, value in now.items() if name.startswith("hubgate_logins_total")) == 1000
    assert now['hubgate_tunnels_open{pool="other"}'] == 1000


async def test_every_metric_is_documented(metrics: Metrics) -> None:
    metrics.requests("htc", "htc01").note(200, 0.2)
    metrics.tunnel_opened("htc")
    metrics.upstream_condition("htc", "htc01", up=True)
    metrics.login("ok")
    types = re.findall(r"(?m)^# TYPE (\w+) ", (await metrics.render()).decode())
    document = (ROOT / "docs" / "configuration.md").read_text()
    assert re.findall(r"(?m)^\| `(hubgate_\w+)` \|", document) == types


async def test_reading_the_metrics_loses_nothing_that_is_noted_meanwhile() -> None:
    """Settling beside the loop that notes counted some requests twice, and others never."""
    threads: list[int] = []

    class Watched(Metrics):
        def settle(self) -> None:
            threads.append(threading.get_ident())
            super().settle()

    metrics = Watched(SITE)
    noted = 0
    for _ in range(20):
        reading = asyncio.create_task(samples(metrics))
        while not reading.done():
            metrics.requests("htc", "htc01").note(200, 0.2)
            noted += 1
            await asyncio.sleep(0)
    assert (await samples(metrics))['hubgate_requests_total{pool="htc",status="2xx",upstream="htc01"}'] == noted
    assert set(threads) == {threading.get_ident()}
