"""How much, how fast, how often?

Counters for Prometheus, one registry per Metrics. Labels are bounded by what a site configured: pools and hubs by name,
the class of a status, slugs of our own; whatever comes from a client never becomes a label. With several workers each
writes to files of its own in one directory, and any of them can tell the sum: for that the environment must name the
directory before this module is imported (prometheus_client decides at import time).

What every request counts is first counted in plain integers, and settled with prometheus_client once a second: its
locks and files would take 5 us of each request.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from hubgate.core.site import Site

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Times of creation double the number of series and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client has no types there

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SEEN_WITHIN = {"1m": 60.0, "5m": 300.0, "15m": 900.0, "1h": 3600.0}
_MOST_OUTCOMES = 64
_PORTAL = "portal"
_OTHER = "other"


class RequestCount:
    """The answers of one hub, or of our own pages, since the last `settle`."""

    __slots__ = ("buckets", "seconds", "statuses")

    statuses: list[int]
    buckets: list[int]
    seconds: float

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew; whoever holds this goes on noting."""
        self.statuses = [0] * 10
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0

    def note(self, status: int, duration: float) -> None:
        """One more of them; `duration` in seconds."""
        self.statuses[status // 100] += 1
        self.buckets[bisect_left(_SECONDS, duration)] += 1
        self.seconds += duration


class Metrics:
    """What is counted. `site` bounds the labels; everything may be called from the hot path."""

    def __init__(self, site: Site) -> None:
        self._registry = CollectorRegistry()
        self._pools = frozenset(pool.name for pool in site.pools)
        self._upstreams = frozenset(upstream.name for pool in site.pools for upstream in pool.upstreams)
        self._requests = self._counter("requests", "Answers to clients", "pool", "upstream", "status")
        self._duration = Histogram(
            "hubgate_request_duration_seconds",
            "From the head of a request to the end of its answer",
            ["pool"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tunnels = self._gauge("tunnels_open", "WebSockets that are open", "livesum", "pool")
        self._logins = self._counter("logins", "Logins by how they ended", "outcome")
        self._outcomes: set[str] = set()
        self._sessions = self._gauge("sessions_cached", "Sessions in the memory of the workers", "livesum")
        self._seen = self._gauge(
            "sessions_seen", "Of these, where a person was seen (no polls) within", "livesum", "within"
        )
        self._up = self._gauge("upstream_up", "1: the hub answers its probes", "livemin", "pool", "upstream")
        self._letters = self._counter("letters", "Letters about second factors by how they ended", "outcome")
        self._store_faults = self._counter("store_faults", "Calls that the session store did not answer")
        self._counts: dict[tuple[str, str], RequestCount] = {}

    def requests(self, pool: str, upstream: str) -> RequestCount:
        """Where answers are noted. `pool` "": our own pages; `upstream` "": no hub was asked."""
        key = (self._pool(pool), self._upstream(upstream))
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = RequestCount()
        return count

    def settle(self) -> None:
        """Let everybody see what was noted until now: this process by `render`, others by its files."""
        for (pool, upstream), count in self._counts.items():
            for hundreds, number in enumerate(count.statuses):
                if number:
                    self._requests.labels(pool, upstream, f"{hundreds}xx").inc(number)
            if any(count.buckets):
                # `observe` takes one value at a time; of what it does with each, this is the sum.
                child: Any = self._duration.labels(pool)
                child._sum.inc(count.seconds)
                for bucket, number in zip(child._buckets, count.buckets, strict=True):
                    if number:
                        bucket.inc(number)
            count.clear()

    def tunnel_opened(self, pool: str) -> None:
        """A WebSocket was opened."""
        self._tunnels.labels(self._pool(pool)).inc()

    def tunnel_closed(self, pool: str) -> None:
        """A WebSocket is closed."""
        self._tunnels.labels(self._pool(pool)).dec()

    def login(self, outcome: str) -> None:
        """A login ended: `ok`, or the code of the fault."""
        # Codes are ours; the bound is for the day on which one is not.
        if outcome not in self._outcomes and len(self._outcomes) >= _MOST_OUTCOMES:
            outcome = _OTHER
        self._outcomes.add(outcome)
        self._logins.labels(outcome).inc()

    def letter(self, outcome: Literal["sent", "failed", "dropped"]) -> None:
        """A letter was handed over, given up, or not taken at all."""
        self._letters.labels(outcome).inc()

    def sessions_cached(self, number: int) -> None:
        """How many sessions this process has in its memory."""
        self._sessions.set(number)

    def people_seen(self, unseen_for: Iterable[float]) -> None:
        """When somebody was last seen in each of these sessions: so many seconds ago."""
        ages = sorted(unseen_for)
        for within, seconds in _SEEN_WITHIN.items():
            self._seen.labels(within).set(bisect_right(ages, seconds))

    def upstream_condition(self, pool: str, upstream: str, *, up: bool) -> None:
        """A hub came up or went down, as this process sees it."""
        self._up.labels(self._pool(pool), self._upstream(upstream)).set(1 if up else 0)

    def store_fault(self) -> None:
        """The session store did not answer."""
        self._store_faults.inc()

    def render(self) -> bytes:
        """Everything that was counted, by all workers, in Prometheus' text format 0.0.4."""
        self.settle()
        directory = os.environ.get(DIRECTORY_VARIABLE)
        if directory is None:
            return generate_latest(self._registry)
        gathered = CollectorRegistry()
        MultiProcessCollector(gathered, path=directory)  # type: ignore[no-untyped-call] # prometheus_client has types elsewhere
        return generate_latest(gathered)

    def _pool(self, name: str) -> str:
        return name if name in self._pools else _OTHER if name else _PORTAL

    def _upstream(self, name: str) -> str:
        return name if name in self._upstreams or not name else _OTHER

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"hubgate_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, together: Literal["livesum", "livemin"], *labels: str) -> Gauge:
        # `together`: how the values of several workers become one; those that have ended don't count.
        return Gauge(f"hubgate_{name}", meaning, labels, registry=self._registry, multiprocess_mode=together)


def forget_worker(pid: int, directory: Path) -> None:
    """Take what a worker that has ended said about the present out of the sum; what it counted stays."""
    mark_process_dead(pid, path=str(directory))  # type: ignore[no-untyped-call] # prometheus_client has types elsewhere
