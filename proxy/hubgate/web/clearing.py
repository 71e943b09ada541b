"""What does a request that may go to a hub take along, and what may come back?

Cookies of this person's, the identity where the pool discloses it, and who forwards; of the answer, no cookie of ours
and none for anybody else. All of it is made here, in one place, and kept as a `Clearance` for the next request like it.
Whether a request may go, and to which hub, was decided before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from hubgate.core.cookies import HubCookieTags, RequestCookies, foreign_cookie_expiries, hub_session, set_cookie
from hubgate.core.headers import HeaderRules, forwarded_lines
from hubgate.core.routing import PoolRoute, Zone
from hubgate.core.site import Pool, Site
from hubgate.metrics import Metrics
from hubgate.upstream.http import ConnectionPool
from hubgate.upstream.registry import Registry
from hubgate.web.clearance import Clearance
from hubgate.web.disclosure import Disclosure
from hubgate.web.live import Bound, LiveSession, LiveSessions
from hubgate.web.visit import Visit

_NONE: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Clearing:
    """Makes clearances. `cookie_max_age`: seconds that a browser keeps its sticky cookie."""

    site: Site
    rules: HeaderRules
    tags: HubCookieTags
    disclosure: Disclosure
    registry: Registry[ConnectionPool]
    live: LiveSessions
    metrics: Metrics
    cookie_max_age: int

    def clear(
        self, visit: Visit, field: bytes, cookies: RequestCookies, live: LiveSession, route: PoolRoute, bound: Bound
    ) -> Clearance:
        """What this request goes through with: kept, where the next one like it may go through with the same.

        `field`: its Cookie field, of which `cookies` is the reading.
        """
        passed, foreign = live.cookie_lines.get(field), _NONE
        if passed is None:
            passed, foreign = self.tags.incoming(cookies.rest, user_key=live.user_key)
            if not foreign:
                self.live.remember_cookies(live, field, passed)
            live.visited(visit.upstream, hub_session(passed))
        identity, renew_at = self.disclosure.lines(live, route.pool, visit.upstream, route.zone)
        proto = "https" if self.site.secure else "http"
        clearance = Clearance(
            caller=visit.caller,
            connections=self.registry.state(visit.upstream).connections,
            lines=b"".join(
                (
                    b"Cookie: %b\r\n" % passed if passed else b"",
                    identity,
                    forwarded_lines(client=visit.address, host=visit.host, proto=proto),
                )
            ),
            rewrite=partial(
                self._rewritten,
                live,
                route.zone,
                # First, so that one which the hub sets now takes the place of another's.
                self._expired(visit, route.pool, foreign) if foreign else [],
                self._sticky(visit, route.pool, bound),
            ),
            count=self.metrics.requests(route.pool.name, visit.upstream),
            until=min(renew_at, self.live.believed_until(live), _met_until(route, live)),
        )
        # Since this request was judged, it waited: only what still holds is kept for others.
        still = live.bound.get(route.pool.name) is bound and route.pool.admits(live.session.identity.groups)
        if still and renew_at > 0 and not foreign:
            live.clear((route.name, visit.address, field), clearance)
        return clearance

    def _sticky(self, visit: Visit, pool: Pool, bound: Bound) -> bytes:
        """The Set-Cookie line that binds this browser; empty when the browser has it already."""
        name = self.site.sticky_cookie(pool)
        if visit.cookies.get(name) == bound.cookie:
            return b""
        return (
            b"Set-Cookie: "
            + set_cookie(name, bound.cookie, secure=self.site.secure, max_age=self.cookie_max_age).encode()
        )

    def _expired(self, visit: Visit, pool: Pool, foreign: Iterable[bytes]) -> list[bytes]:
        """The Set-Cookie lines that take another person's hub cookies out of this browser."""
        values = foreign_cookie_expiries(foreign, visit.path, pool.path, secure=self.site.secure)
        return [b"Set-Cookie: " + value.encode() for value in values]

    def _rewritten(
        self, live: LiveSession, zone: Zone, expired: list[bytes], sticky: bytes, _status: int, lines: list[bytes]
    ) -> list[bytes]:
        """An answer's fields as the browser may get them."""
        kept = self.rules.to_client(
            lines, partial(self.tags.outgoing, user_key=live.user_key, from_hub=zone is not Zone.NOTEBOOK)
        )
        if expired:
            kept[:0] = expired
        if sticky:
            kept.append(sticky)
        return kept


def _met_until(route: PoolRoute, live: LiveSession) -> float:
    """Until when this session's proof is good enough for the place."""
    return math.inf if route.demand is None else route.demand.met_until(live.session.proof)
