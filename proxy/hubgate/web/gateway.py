"""The request path, from the first line to the last byte, as docs/architecture.md lists it.

Each step is decided by `core/` and done by a neighbour; this module strings them together. It is the one place where a
fault becomes an answer: a page for a person, a problem document for a program, and never a redirect to the login for
anything but a navigation.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any, assert_never

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core import api_tokens
from hubgate.core.access import Challenge, Deny, Forward, Kind, StepUp, decide, kind_of, origin_allowed
from hubgate.core.balancer import RETRY_AFTER, Unavailable
from hubgate.core.cookies import RequestCookies, parse_cookies
from hubgate.core.headers import HeaderRules, client_address, forwarded_lines
from hubgate.core.health import Observation
from hubgate.core.presence import is_sign, is_spoken_on
from hubgate.core.routing import NoRoute, PoolRoute, PortalRoute, Router, Target, parse_target
from hubgate.core.session import Limits
from hubgate.core.site import Pool, Site
from hubgate.errors import ClientFault, HubgateFault, StoreFault, UpstreamFault
from hubgate.metrics import Metrics
from hubgate.upstream.http import Aborted, Answer, ClientAborted, ConnectionPool, Rewrite, UpstreamRequest, exchange
from hubgate.upstream.registry import Registry
from hubgate.upstream.tunnel import Tunnel
from hubgate.web.affinity import Bindings
from hubgate.web.clearing import Clearing
from hubgate.web.ear import Ear
from hubgate.web.live import Bound, LiveSession, LiveSessions
from hubgate.web.paths import SESSION_PATH, UNATTENDED, login_url
from hubgate.web.portal import SESSIONLESS
from hubgate.web.programs import Program, Programs
from hubgate.web.render import Pages
from hubgate.web.turnstile import Turnstile
from hubgate.web.visit import AccessLine, Visit, attach
from hubgate.web.wire import ClientConnection, RequestFraming, peer_address, raw_target, request_framing

log = logging.getLogger(__name__)

OwnPages = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BETWEEN_HANDSHAKES = 0.002  # seconds: some three times what one takes; with 1 ms, others waited ten times as long
_HANDSHAKES_AT_ONCE = 32
_ANNOUNCED = frozenset({"hub_down", "no_hub_available"})  # once, when the hub's condition changed: not for each request
_UNLIMITED = Limits(idle=math.inf, max=math.inf)  # what limits programs is their owner's standing


@dataclass(frozen=True, slots=True)
class Gateway:
    """The handler that every request of the public listeners goes through."""

    site: Site
    router: Router
    limits: Limits
    trusted: Sequence[IPv4Network | IPv6Network]
    rules: HeaderRules
    clearing: Clearing
    live: LiveSessions
    bindings: Bindings
    registry: Registry[ConnectionPool]
    pages: Pages
    audit: Audit
    metrics: Metrics
    access: AccessLine | None
    programs: Programs | None = None
    turnstile: Turnstile = field(default_factory=lambda: Turnstile(_BETWEEN_HANDSHAKES, credit=_HANDSHAKES_AT_ONCE))
    clock: Callable[[], float] = time.time

    async def __call__(self, request: web.Request, own: OwnPages) -> web.StreamResponse:
        """Answer one request. Foreseen failures are answers; the rest is a 500 that names its request id."""
        visit = self._visit(request)
        client = ClientConnection(request)
        try:
            target = parse_target(raw_target(request), request.headers.getall("Host", ()), secure=self.site.secure)
            visit.host, visit.path, visit.raw = target.host, target.path, target.raw
            match self.router.match(target):
                case PoolRoute() as route:
                    response = await self._forward(visit, request, client, route, target)
                case PortalRoute():
                    if not target.path.startswith(SESSIONLESS):
                        await self._recognise(visit, parse_cookies(_cookie_field(request), self.site.cookie))
                    alone = visit.raw.endswith(UNATTENDED) or visit.path == SESSION_PATH
                    if visit.live is not None and visit.kind is Kind.NAVIGATION and not alone:
                        visit.live.person_seen(self.clock())
                    attach(request, visit)
                    response = await own(request)
                    self._account(visit, request, _answer(response))
                case NoRoute(why):
                    # 421: RFC 9110, 15.5.20; a browser may then try a connection of its own.
                    raise ClientFault(why, status=421 if why == "unknown_host" else 404)
                case never:
                    assert_never(never)
        except Aborted as fault:
            response = client.aborted()
            self._account(visit, request, Answer(fault.status))
        except HubgateFault as fault:
            response = self._told(visit, request, fault)
        except web.HTTPException as error:
            # Raised by aiohttp's router for our own pages alone: no such page, or not with this method.
            code = "method_not_allowed" if error.status == 405 else "unknown_path"
            response = self._told(visit, request, ClientFault(code, status=error.status))
        except Exception:
            log.exception("request_failed", extra={"request_id": visit.id, "path": visit.path})
            response = self._told(visit, request, HubgateFault("internal"))
        finally:
            if visit.live is not None:
                visit.live.open.pop(client, None)
        return response

    # -- who is it?

    def _visit(self, request: web.Request) -> Visit:
        forwarded = request.headers.getall("X-Forwarded-For", ()) if self.trusted else ()
        return Visit(
            address=client_address(peer_address(request), forwarded, self.trusted),
            kind=kind_of(request.method, request.headers),
            # Fetch Metadata, which no script can set or leave out.
            scripted=request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate",
        )

    async def _recognise(self, visit: Visit, cookies: RequestCookies) -> None:
        visit.cookies = cookies.own
        # Two cookies of our name: one was planted (cookie tossing). We can't tell which, so neither counts.
        if len(cookies.session) == 1:
            visit.session_cookie = cookies.session[0]
            visit.live = self.live.cached(visit.session_cookie, visit.host, self.clock()) or await self.live.find(
                visit.session_cookie, visit.host
            )

    def _admitted(
        self, visit: Visit, route: PoolRoute, origins: Sequence[str], limits: Limits
    ) -> LiveSession | web.Response:
        """The session under which this request may go on, or the way to one."""
        match decide(route.pool, visit.session, visit.kind, limits=limits, now=self.clock(), demand=route.demand):
            case Challenge(kind=Kind.NAVIGATION):
                return self.pages.redirect(login_url(visit.raw), status=302)
            case Challenge():
                raise ClientFault("session_required", status=401)
            case StepUp(kind=Kind.NAVIGATION, demand=demand):
                return self.pages.redirect(login_url(visit.raw, max_age=f"{demand.max_age:.0f}"), status=302)
            case StepUp(demand=demand):
                wish = {"max_age": f"{demand.max_age:.0f}", "acr_values": demand.acr}
                raise ClientFault("fresh_factor_required", status=401, evidence={k: v for k, v in wish.items() if v})
            case Deny(code=code):
                self._audited("access", "denied", visit, code=code)
                raise ClientFault(code, status=403)
            case Forward():
                if visit.kind is Kind.UPGRADE and not origin_allowed(origins, self.site.origin(visit.host)):
                    self._audited("access", "denied", visit, code="origin_refused")
                    raise ClientFault("origin_refused", status=403)
                assert visit.live is not None  # noqa: S101 - `decide` never lets a request without a session on
                return visit.live
            case never:
                assert_never(never)

    # -- which hub, and over to it

    async def _forward(
        self, visit: Visit, request: web.Request, client: ClientConnection, route: PoolRoute, target: Target
    ) -> web.StreamResponse:
        pool, began = route.pool, self.clock()
        visit.pool = pool.name
        headers = self.rules.to_upstream(request.raw_headers)
        framing = request_framing(request)
        cookies = parse_cookies(headers.cookie, self.site.cookie)
        token = None
        if pool.api_tokens and "Authorization" in request.headers:
            token = api_tokens.token_in([v for name, v in request.raw_headers if name.lower() == b"authorization"])
            alone = not cookies.session and api_tokens.is_program(request.headers)
            if token and alone and self.router.is_api(target, pool):
                return await self._forward_program(visit, request, client, route, token, headers.lines, framing)
        await self._recognise(visit, cookies)
        live = self._admitted(visit, route, request.headers.getall("Origin", ()), self.limits)
        if isinstance(live, web.Response):
            self._account(visit, request, _answer(live))
            return live
        signs = is_sign(visit.kind, request.method, route.zone, visit.path[len(pool.path) :])
        live.open[client] = pool.name  # until `__call__` has its answer: should the session end meanwhile, so does this
        if framing.upgrade:
            await self.turnstile.passed()
        attempts_left = 2 * len(pool.upstreams)
        while True:
            attempts_left -= 1
            bound = await self._hub_for(visit, live, route)
            if isinstance(bound, Unavailable):
                return self._unavailable(visit, request, live, pool, bound)
            visit.upstream = bound.affinity.upstream
            if token is not None and self.programs is not None:
                who = live.session.identity.username
                await self.programs.demand_own(pool, visit.upstream, token, username=who, address=visit.address)
            if signs:  # only now: the page on which people wait for a hub loads itself anew
                live.person_seen(began)
            clearance = self.clearing.clear(visit, headers.cookie or b"", cookies, live, route, bound)
            try:
                answer = await self._exchanged(
                    visit,
                    request,
                    client,
                    framing,
                    (*headers.lines, clearance.lines),
                    rewrite=clearance.rewrite,
                    on_tunnel=partial(self._opened, visit, live, route),
                )
            except UpstreamFault as fault:
                unreachable = fault.code == "upstream_unreachable"
                if unreachable:
                    self.registry.report(visit.upstream, Observation.UNREACHABLE, self.clock(), reason=fault.message)
                # Only who was placed by this very request has nothing there yet, and may be placed elsewhere.
                placed_now = bound.affinity.since >= began
                if placed_now and fault.repeatable and attempts_left:
                    if isinstance(await self.bindings.move(live, pool), Unavailable):
                        raise
                    continue
                if not unreachable:
                    raise
                # Probes need a while to be sure that it is down; for this person it is.
                return self._unavailable(visit, request, live, pool, self.bindings.away(pool, bound.affinity))
            self._account(visit, request, answer)
            return client.finished(answer)

    async def _exchanged(
        self,
        visit: Visit,
        request: web.Request,
        client: ClientConnection,
        framing: RequestFraming,
        lines: Iterable[bytes],
        *,
        rewrite: Rewrite,
        on_tunnel: Callable[[Tunnel], None],
    ) -> Answer:
        """Over to the hub that was chosen, and back."""
        if client.ended:
            raise ClientAborted("session_ended")
        if (fault := client.take_fault()) is not None:
            raise fault
        return await exchange(
            self.registry.state(visit.upstream).connections,
            UpstreamRequest(
                method=request.method,
                head=b"".join((f"{request.method} {visit.raw} HTTP/1.1\r\n".encode(), *lines)),
                length=framing.length,
                chunked=framing.chunked,
                upgrade=framing.upgrade,
                expect_continue=framing.expect_continue,
            ),
            client,
            rewrite=rewrite,
            on_tunnel=on_tunnel,
        )

    async def _forward_program(
        self,
        visit: Visit,
        request: web.Request,
        client: ClientConnection,
        route: PoolRoute,
        token: str,
        lines: Sequence[bytes],
        framing: RequestFraming,
    ) -> web.StreamResponse:
        """The same for a program: to the hub that knows its token, without cookies, and in its own name alone."""
        assert self.programs is not None  # noqa: S101 - it is there where a pool takes tokens
        pool = route.pool
        visit.auth, visit.scripted = "token", True
        visit.kind = Kind.UPGRADE if visit.kind is Kind.UPGRADE else Kind.FETCH
        if api_tokens.has_token_in_query(visit.raw):
            raise ClientFault("token_in_query", "a second token, in the query")
        program = await self.programs.admit(pool, token, address=visit.address)
        visit.live, visit.upstream = program.live, program.hub
        self._admitted(visit, route, request.headers.getall("Origin", ()), _UNLIMITED)
        program.live.open[client] = pool.name
        hub = next(each for each in self.registry.candidates(pool) if each.name == program.hub)
        if not hub.serves(route.zone):
            raise UpstreamFault("hub_down", status=503, retry_after=RETRY_AFTER)
        if framing.upgrade:
            await self.turnstile.passed()
        proto = "https" if self.site.secure else "http"
        try:
            answer = await self._exchanged(
                visit,
                request,
                client,
                framing,
                (*lines, forwarded_lines(client=visit.address, host=visit.host, proto=proto)),
                rewrite=lambda _status, lines: self.rules.to_client(lines, lambda _cookie: None),
                on_tunnel=partial(self._opened_by, self.programs, program),
            )
        except UpstreamFault as fault:
            if fault.code == "upstream_unreachable":
                self.registry.report(program.hub, Observation.UNREACHABLE, self.clock(), reason=fault.message)
            raise
        self._account(visit, request, answer)
        return client.finished(answer)

    async def _hub_for(self, visit: Visit, live: LiveSession, route: PoolRoute) -> Bound | Unavailable:
        bound = live.bound.get(route.pool.name)
        if bound is None:
            cookie = visit.cookies.get(self.site.sticky_cookie(route.pool), "")
            found = await self.bindings.bind(live, route.pool, cookie, route.zone)
            if isinstance(found, Unavailable):
                return found
            bound = found
        chosen = self.bindings.choose(route.pool, bound.affinity, user=live.user_key, zone=route.zone)
        return chosen if isinstance(chosen, Unavailable) else bound

    def _opened(self, visit: Visit, live: LiveSession, route: PoolRoute, tunnel: Tunnel) -> None:
        """A WebSocket is about to pass its first byte: it lives as long as its session does."""
        if self.live.cached(visit.session_cookie, visit.host, self.clock()) is not live:
            tunnel.close()  # the session ended while the hub was answering
            return
        if is_spoken_on(visit.path[len(route.pool.path) :]):
            Ear(tunnel, live, self.clock)
        self._keep_open(visit.pool, live, tunnel)

    def _opened_by(self, programs: Programs, program: Program, tunnel: Tunnel) -> None:
        """The same of a program's: it lives as long as the token and its owner's standing do."""
        if not programs.holds(program):
            tunnel.close()
            return
        self._keep_open(program.pool.name, program.live, tunnel)

    def _keep_open(self, pool: str, live: LiveSession, tunnel: Tunnel) -> None:
        if not self.live.admits(pool, live.session.identity.groups):
            tunnel.close()  # groups, or rules, changed while the hub was answering
            return
        live.open[tunnel] = pool
        self.metrics.tunnel_opened(pool)
        tunnel.add_done_callback(partial(self._closed, pool, live))

    def _closed(self, pool: str, live: LiveSession, tunnel: Tunnel) -> None:
        live.open.pop(tunnel, None)
        self.metrics.tunnel_closed(pool)

    # -- what the person gets to know

    def _unavailable(
        self, visit: Visit, request: web.Request, live: LiveSession, pool: Pool, away: Unavailable
    ) -> web.Response:
        if away.upstream is None:
            raise UpstreamFault("no_hub_available", status=503, retry_after=away.retry_after)
        visit.upstream = away.upstream
        if visit.kind is not Kind.NAVIGATION:
            raise UpstreamFault("hub_down", status=503, retry_after=away.retry_after)
        response = self._pages_for(request).waiting(
            session=live.session,
            pool=pool,
            hub=away.upstream,
            since=away.since,
            url=visit.raw,
            retry_after=away.retry_after,
            may_move_at=away.may_move_at,
            request_id=visit.id,
        )
        self._account(visit, request, _answer(response))
        return response

    def _told(self, visit: Visit, request: web.Request, fault: HubgateFault) -> web.Response:
        """A fault as a page for people, or as problem+json (RFC 9457) for programs."""
        code = fault.code
        if isinstance(fault, StoreFault):
            code = "store_unavailable"  # which kind of it is the operator's concern, and in the log
            self.metrics.store_fault()
        if fault.status >= 500 and code not in _ANNOUNCED:
            log.warning(
                "request_refused", extra={"request_id": visit.id, "fault": str(fault), "upstream": visit.upstream}
            )
        wish = fault.evidence if fault.code == "fresh_factor_required" else {}
        pages, login = self._pages_for(request), login_url(visit.retry_url or "/", max_age=wish.get("max_age", ""))
        for_a_person = "text/html" in request.headers.get("Accept", "") and not visit.scripted
        if visit.kind is Kind.NAVIGATION or for_a_person:
            response = pages.problem(
                code,
                status=fault.status,
                request_id=visit.id,
                retry_after=fault.retry_after,
                retry_url=visit.retry_url if request.method == "GET" else None,
                login_url=login if fault.status == 401 else None,
                pool=next((pool for pool in self.site.pools if pool.name == visit.pool), None),
                hub=visit.upstream,
                session=visit.session,
            )
        else:
            members: dict[str, Any] = {}
            if fault.status == 401:
                members = {"login_url": self._login_of(visit, login), **wish}
            response = pages.problem_json(code, fault.status, visit.id, retry_after=fault.retry_after, **members)
        if wish:
            response.headers["WWW-Authenticate"] = _challenge("insufficient_user_authentication", wish)
        elif fault.status == 401 and visit.auth:
            response.headers["WWW-Authenticate"] = _challenge("invalid_token", {"error_description": code})
        self._account(visit, request, _answer(response))
        return response

    def _login_of(self, visit: Visit, here: str) -> str:
        """Where somebody logs in: a program's owner does so in a browser, which has nothing to do at the API."""
        return f"{self.site.public_url}/" if visit.auth else self.site.origin(visit.host) + here

    def _pages_for(self, request: web.Request) -> Pages:
        return self.pages.to(request.headers.get("Accept-Language", ""))

    def _audited(self, event: str, outcome: str, visit: Visit, **more: str) -> None:
        self.audit.event(
            event,
            outcome,
            user=visit.user,
            client=visit.address,
            session=visit.session.handle if visit.session else None,
            pool=visit.pool or None,
            request_id=visit.id,
            **more,
        )

    def _account(self, visit: Visit, request: web.Request, answer: Answer) -> None:
        """One request is over, or has become a tunnel."""
        duration = time.perf_counter() - visit.started
        self.metrics.requests(visit.pool, visit.upstream).note(answer.status, duration)
        if self.access is not None:
            self.access(
                visit.caller,
                method=request.method,
                path=visit.path,
                status=answer.status,
                sent=answer.sent,
                received=answer.received,
                duration=duration,
                request_id=visit.id,
            )


def _challenge(error: str, wish: Mapping[str, str]) -> str:
    """What a program is told that has to come with another token (RFC 6750, 3), or a better proof (RFC 9470, 3)."""
    described = {"error": error, **wish}
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in described.items()}
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in escaped.items())


def _cookie_field(request: web.Request) -> bytes | None:
    fields = [value for name, value in request.raw_headers if name.lower() == b"cookie"]
    return b"; ".join(fields) if fields else None


def _answer(response: web.StreamResponse) -> Answer:
    body = response.body if isinstance(response, web.Response) else None
    return Answer(response.status, sent=len(body) if isinstance(body, bytes) else 0)
