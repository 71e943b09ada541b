"""How often may this go on?

Token buckets by key (the address a login starts from, as a rule). The table is bounded: whoever invents keys pushes
out the longest unused ones, which then start afresh; that is the lesser evil beside a table that grows.

Knows nothing about clocks; time comes in and is seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and `per_second` in the long run. Both above zero."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """`tokens` were left at `at`."""

    tokens: float
    at: float

    def take(self, rate: Rate, now: float) -> tuple[Bucket, float]:
        """The bucket after an attempt at `now`, and the seconds to wait: 0.0 means go on. Refusals cost nothing."""
        # A clock that is set back must not take tokens away.
        tokens = min(rate.burst, self.tokens + max(0.0, now - self.at) * rate.per_second)
        if tokens >= 1.0:
            return Bucket(tokens - 1.0, now), 0.0
        return Bucket(tokens, now), (1.0 - tokens) / rate.per_second


class Throttle:
    """Buckets of one rate by key, `size` of them at most."""

    def __init__(self, rate: Rate, *, size: int = 10_000) -> None:
        self._rate = rate
        self._size = size
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: str, now: float) -> float:
        """Ask for `key` at `now`: 0.0 means go on, else the seconds after which asking again makes sense."""
        bucket = self._buckets.pop(key, None) or Bucket(self._rate.burst, now)
        self._buckets[key], seconds = bucket.take(self._rate, now)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return seconds

    def ahead(self, key: str, now: float) -> float:
        """What `wait` would say now. For what costs something only when it fails."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.take(self._rate, now)[1]


def source_key(address: str) -> str:
    """The key that an IP address counts under: an IPv6 customer owns a /64 (RFC 6177), so its addresses count as one.

    Anything that is no address is its own key.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
