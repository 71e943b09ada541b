"""What one request was let through with, so that the next one like it need not be judged again.

The gateway judges a request in many steps: whose cookies, which session, may it, which hub, in whose name. For all
requests of one browser to one place the outcome is the same, until something happens: so it is kept with the session
(`LiveSession.cleared`), and dropped with it, or when a binding, a claim or a hub's condition changes. What changes by
the mere passing of time is `until`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hubgate.metrics import RequestCount
from hubgate.upstream.http import ConnectionPool, Rewrite


class Caller(NamedTuple):
    """Who asks whom, as metrics and access log say it; empty where it isn't known, or none. `auth`: `token`, or empty
    for a session."""

    address: str
    host: str
    user: str
    pool: str
    upstream: str
    auth: str = ""


@dataclass(frozen=True, slots=True)
class Clearance:
    """`connections`: of the hub. `lines`: what we say to it: Cookie, identity and X-Forwarded lines, each with CRLF.
    `rewrite`: what the browser may get of its answers. `count`: where they are counted. `until`: seconds since the
    epoch."""

    caller: Caller
    connections: ConnectionPool
    lines: bytes = field(repr=False)
    rewrite: Rewrite = field(repr=False)
    count: RequestCount = field(repr=False)
    until: float
