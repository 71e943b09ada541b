"""How long does the session go on if nobody is there? `/_hubgate/session`, on every host of the site.

For `static/session.js`, which a page of ours or of a site's hubs may load: it is told when to ask again, what to show,
and in which language. Asking is never a sign of a person, or an open tab would keep its own session alive. Saying "I am
still here" is one, and a POST that only a page of this host can send.

What ends a session is not decided here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from hubgate.core.session import Limits, Session
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.web.popup import is_another
from hubgate.web.render import Pages
from hubgate.web.visit import visit_of

_WARNING = 120.0  # seconds before the end at which people are told: time to come back from the next room
_FRACTION = 4  # and with short limits, no more than so much of them
_PATIENCE = 60  # seconds at most between two looks: another tab, or browser, may have changed what is to come
_COUNTDOWN = 5  # and while people are told


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a session, in seconds. `by_idling`: being there would prolong it. `near`: time to tell.
    `look_again`: after how many seconds to ask again."""

    seconds: float
    by_idling: bool
    near: bool
    look_again: int


def remaining(session: Session, limits: Limits, now: float) -> Remaining:
    """What is left of a session if nobody comes back."""
    idle_at = session.idle_at(limits)
    left = max(session.ends_at(limits) - now, 0.0)
    until_near = left - min(_WARNING, (idle_at - session.last_seen) / _FRACTION)
    near = until_near <= 0
    return Remaining(
        left,
        by_idling=idle_at < session.created + limits.max,
        near=near,
        look_again=_COUNTDOWN if near else min(math.ceil(until_near), _PATIENCE),
    )


class SessionPage:
    """GET and POST of `SESSION_PATH`."""

    def __init__(self, site: Site, limits: Limits, *, pages: Pages, clock: Callable[[], float] = time.time) -> None:
        self._site = site
        self._limits = limits
        self._pages = pages
        self._clock = clock

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET: what is left, and what to tell people; with `was`, whether somebody else is logged in now."""
        visit = visit_of(request)
        if visit.session is None:
            raise ClientFault("session_required", status=401)
        left = remaining(visit.session, self._limits, self._clock())
        return self._pages.to(visit.accept_language).session_json(left, another=is_another(request, visit.session))

    async def stay(self, request: web.Request) -> web.StreamResponse:
        """POST: somebody is there, and says so."""
        visit = visit_of(request)
        if visit.live is None:
            raise ClientFault("session_required", status=401)
        # No token: scripts of this host could read it, and nobody else's can send our Origin.
        if request.headers.getall("Origin", ()) != [self._site.origin(visit.host)]:
            raise ClientFault("csrf_failed", status=403, evidence={"why": "foreign_origin"})
        visit.live.person_seen(self._clock())
        return await self.show(request)
