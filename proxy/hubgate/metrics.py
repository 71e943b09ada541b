"""How much, how fast, how often?

Counters for Prometheus, one registry per Metrics. Labels are bounded by what a site configured: pools and hubs by name,
the class of a status, slugs of our own; whatever comes from a client never becomes a label. With several workers each
writes to files of its own in one directory, and any of them can tell the sum (`Share`).

What every request counts is first counted in plain integers, and settled with prometheus_client once a second: its
locks and files would take 5 us of each request.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from hubgate.core.site import Site

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Times of creation double the number of series and nobody reads them.
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client has no types there

_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
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


@dataclass(frozen=True, slots=True)
class Share:
    """One of several processes that count together: in files in `directory`, by a `number` that no other has now.

    Who has the number of one that has ended goes on with its counters, so that there are never more files than
    processes at a time.
    """

    directory: Path
    number: int

    def begin(self) -> None:
        """From now on this process counts there; once, before anything that counts is made."""
        os.environ[_DIRECTORY_VARIABLE] = str(self.directory)
        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call] # prometheus_client has no types there

    def withdraw(self, mode: str = "live*") -> None:
        """What the process with this number said about the present (gauges of this mode) is out of the sum."""
        for file in self.directory.glob(f"gauge_{mode}_{self.number}.db"):
            file.unlink(missing_ok=True)


class Metrics:
    """What is counted. `site` bounds the labels; everything may be called from the hot path.

    `share`: this process is one of several.
    """

    def __init__(self, site: Site, share: Share | None = None) -> None:
        self._share = share
        if share is not None:
            share.begin()
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
        self._tokens = self._counter("api_tokens", "Looks at API tokens of hubs by how they ended", "outcome")
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
        """Let everybody see what was noted until now: this process by `render`, others by its files. On the loop that
        notes: from another thread, what is noted meanwhile would be lost, or counted twice."""
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

    def api_token(self, outcome: str) -> None:
        """A token that a program came with was looked at: `ok`, or the code of the fault."""
        self._tokens.labels(outcome).inc()

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

    def withdraw_upstreams(self) -> None:
        """Other processes look after the hubs from now on: what this one sees of them, which may have been taken out
        of the configuration, counts no longer."""
        if self._share is not None:
            self._share.withdraw("livemin")

    def store_fault(self) -> None:
        """The session store did not answer."""
        self._store_faults.inc()

    async def render(self) -> bytes:
        """Everything that was counted, by all workers, in Prometheus' text format 0.0.4."""
        # Plain integers are right only where they are noted. Summing up the files of many workers takes milliseconds:
        # not on the loop that serves people.
        self.settle()
        return await asyncio.to_thread(self._written)

    def _written(self) -> bytes:
        if self._share is None:
            return generate_latest(self._registry)
        gathered = CollectorRegistry()
        MultiProcessCollector(gathered, path=str(self._share.directory))  # type: ignore[no-untyped-call] # prometheus_client has types elsewhere
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
