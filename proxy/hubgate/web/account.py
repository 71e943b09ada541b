"""What somebody finds about themselves: `/_hubgate/account`.

Their sessions and their programs, each with a button that ends it, and the way to their second factor. Only a form of
ours, sent by the person, ends anything; what it names is looked for among what is that person's own and nowhere else.
The session in which they look at the page ends by Log Out, as everywhere.

A program ends here, at once and for good: its token is refused. The token itself is the hub's; where the hub lets us,
it is revoked there, and where not, the page says so and shows the way.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.browsers import browser_and_system
from hubgate.core.identity import Identity
from hubgate.core.session import Limits, Session
from hubgate.core.site import Pool, Site
from hubgate.errors import ClientFault, StoreFault, UpstreamFault
from hubgate.upstream.hubapi import HubApis
from hubgate.web.endings import Endings
from hubgate.web.forms import own_form
from hubgate.web.live import LiveSession
from hubgate.web.paths import ACCOUNT_PATH, UNATTENDED, login_url
from hubgate.web.presence import remaining
from hubgate.web.render import Pages
from hubgate.web.sessions import Found, Sessions
from hubgate.web.standings import Standings, TokenUse
from hubgate.web.visit import Visit, visit_of

if TYPE_CHECKING:  # most sites leave the second factor to the provider
    from hubgate.web.mfa_views import FactorState

log = logging.getLogger(__name__)

FactorOf: TypeAlias = "Callable[[Identity], Awaitable[FactorState | None]]"

OTHERS = "others"
"""What the form says instead of one session's handle."""

REVOKED, REFUSED_HERE = "revoked", "refused_here"
"""What became of a program's token: it is worth nothing any more, or nothing here."""

_PATIENCE = 5.0  # seconds for a hub to revoke a token, while somebody waits for the page


@dataclass(frozen=True, slots=True)
class Seat:
    """One session as its owner sees it. `browser`, `system`: names, "" if unknown; times in seconds since the epoch;
    `here`: it is the one in which the page is shown."""

    handle: str
    browser: str
    system: str
    since: float
    seen: float
    pools: tuple[Pool, ...]
    here: bool


@dataclass(frozen=True, slots=True)
class Helper:
    """A program of its owner's as they see it: an API token that was used. `url`: where the hub lists their tokens;
    `ended`: it is refused here, and at the hub still good. Times in seconds since the epoch."""

    handle: str
    pool: Pool
    hub: str
    id: str
    first: float
    last: float
    url: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Helpers:
    """The programs of somebody, and until when they may go on without a new login, 0.0: they may not."""

    used: tuple[Helper, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Told:
    """What was just ended, as the address says; nothing hangs on it. `program`: `REVOKED` or `REFUSED_HERE`; "": it was
    sessions."""

    sessions: int = 0
    connections: int = 0
    program: str = ""


def seat(session: Session, site: Site, *, here: bool = False) -> Seat:
    """What is worth telling about a session."""
    been = {hub for hub, _ in session.hubs}
    browser, system = browser_and_system(session.user_agent)
    pools = tuple(pool for pool in site.pools if been & {upstream.name for upstream in pool.upstreams})
    return Seat(session.handle, browser, system, session.created, session.last_seen, pools, here)


def examples(session: Session, site: Site) -> tuple[Seat, ...]:
    """Seats to try a template with."""
    here = seat(session, site, here=True)
    return here, replace(here, browser="-", system="-", pools=site.pools, here=False)


def example_helpers(site: Site) -> Helpers:
    """Programs to try a template with."""
    helpers = (Helper("-", pool, "-", "a1", 0.0, 0.0, "/", ended) for pool in site.pools for ended in (False, True))
    return Helpers(tuple(helpers), 1.0)


class AccountPages:
    """GET and POST of `ACCOUNT_PATH` on the portal's host. `factor`: None where second factors are the provider's;
    `standings`: None where no pool takes API tokens."""

    def __init__(
        self,
        site: Site,
        *,
        sessions: Sessions,
        endings: Endings,
        factor: FactorOf | None,
        standings: Standings | None,
        hubs: HubApis,
        pages: Pages,
        audit: Audit,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._limits = limits
        self._clock = clock
        self._sessions = sessions
        self._endings = endings
        self._factor = factor
        self._standings = standings
        self._hubs = hubs
        self._pages = pages
        self._audit = audit

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET: who am I here, and where else?"""
        visit = visit_of(request)
        attended = not visit.raw.endswith(UNATTENDED)
        if visit.live is None:
            if not attended:  # the provider might let in again whoever isn't there
                raise ClientFault("session_required", status=401)
            return self._pages.redirect(login_url(ACCOUNT_PATH), status=302)
        if visit.scripted:
            raise ClientFault("csrf_failed", "the account page is not for scripts", status=403)
        seats = [seat(visit.live.session, self._site, here=True)]
        others = {found.session.root: found.session for found in await self._others(visit.live)}
        seats += [seat(session, self._site) for session in reversed(others.values())]
        pages = self._pages.to(visit.accept_language)
        session = visit.live.session
        factor = await self._factor(session.identity) if self._factor else None
        helpers = await self._helpers(self._standings, visit.live.user_key) if self._standings else None
        return pages.account(
            session,
            seats,
            told=_told(request),
            factor=factor,
            helpers=helpers,
            remaining=remaining(session, self._limits, self._clock()),
            attended=attended,
            request_id=visit.id,
        )

    async def do(self, request: web.Request) -> web.StreamResponse:
        """POST `end`: a session's handle, or `OTHERS`; or `end_token`: a program's."""
        visit = visit_of(request)
        if visit.live is None:
            raise ClientFault("session_required", status=401)
        form = await own_form(request, visit.live.session.csrf, self._site, visit.host)
        if self._standings is not None and (handle := form.get("end_token")):
            done = await self._end_program(visit, visit.live, self._standings, handle)
            return self._pages.redirect(f"{ACCOUNT_PATH}?program={done}" if done else ACCOUNT_PATH)
        wanted = form.get("end", "")
        chosen = [found for found in await self._others(visit.live) if wanted in {OTHERS, found.session.handle}]
        ended = await self._endings.end(chosen)
        for found in ended.sessions:
            self._audited(visit, found)
        count = len({found.session.root for found in chosen})
        return self._pages.redirect(f"{ACCOUNT_PATH}?ended={count}&closed={ended.closed.connections}")

    async def _end_program(self, visit: Visit, live: LiveSession, standings: Standings, handle: str) -> str:
        """`REVOKED` or `REFUSED_HERE`; "": there is no such program of theirs. Raises StoreFault: it may go on."""
        use = await standings.end_token(live.user_key, handle)
        if use is None:
            return ""
        revoked = await self._revoked(live.session.identity.username, use)
        self._audit.event(
            "api_token",
            "revoked" if revoked else "refused_here",
            user=visit.user,
            client=visit.address,
            upstream=use.hub,
            token=use.id or use.handle,
            request_id=visit.id,
        )
        with suppress(StoreFault):  # a list to look at: ended it is
            await standings.note_ended(live.user_key, use, revoked=revoked)
        return REVOKED if revoked else REFUSED_HERE

    async def _revoked(self, username: str, use: TokenUse) -> bool:
        """Whether the hub has revoked it. Some hubs don't tell what they call a token, others gave us none of ours."""
        if not use.id or use.hub not in self._hubs:
            return False
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._hubs.revoke_token(use.hub, username, use.id)
        except (TimeoutError, UpstreamFault) as fault:
            log.warning("api_token_not_revoked", extra={"upstream": use.hub, "fault": str(fault) or "timeout"})
            return False

    async def _others(self, live: LiveSession) -> list[Found]:
        """The person's sessions in other browsers, the oldest first; those that have met a limit are none."""
        here = live.session.root
        found = await self._sessions.of(live.user_key)
        return [each for each in found if each.session.root != here and self._sessions.is_live(each.session)]

    async def _helpers(self, standings: Standings, user: str) -> Helpers:
        """The programs that came lately, at pools that there are."""
        pools = {pool.name: pool for pool in self._site.pools if pool.api_tokens}
        standing = await standings.of(user)
        used = tuple(
            Helper(use.handle, pool, use.hub, use.id, use.first, use.last, self._token_page(pool), use.ended)
            for use in await standings.uses(user)
            if (pool := pools.get(use.pool)) is not None
        )
        return Helpers(used, standing.until if standing else 0.0)

    def _token_page(self, pool: Pool) -> str:
        return f"{self._site.origin(self._site.pool_host(pool))}{pool.path}hub/token"

    def _audited(self, visit: Visit, found: Found) -> None:
        self._audit.event(
            "session_end",
            "own_account",
            user=visit.user,
            client=visit.address,
            session=found.session.handle,
            request_id=visit.id,
        )


def _told(request: web.Request) -> Told | None:
    if (program := request.query.get("program")) in {REVOKED, REFUSED_HERE}:
        return Told(program=str(program))
    ended, closed = (request.query.get(name, "") for name in ("ended", "closed"))
    if not re.fullmatch(r"[0-9]{1,4}", ended) or not re.fullmatch(r"[0-9]{1,5}", closed):
        return None
    return Told(int(ended), int(closed))
