"""The landing page, and the few small things that live beside it under the portal's address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.assertion import Signer
from hubgate.core.balancer import Unavailable
from hubgate.core.oidc import safe_next
from hubgate.core.site import Site
from hubgate.errors import ClientFault, UpstreamFault
from hubgate.upstream.registry import Registry
from hubgate.web.account import AccountPages
from hubgate.web.affinity import Bindings
from hubgate.web.backchannel import BackchannelLogout
from hubgate.web.forms import own_form
from hubgate.web.handover import HandoverPages
from hubgate.web.login import LoginPages
from hubgate.web.logout import LogoutPages, left_behind
from hubgate.web.paths import (
    ACCOUNT_PATH,
    BACKCHANNEL_PATH,
    CALLBACK_PATH,
    FAREWELL_PATH,
    HANDOVER_PATH,
    JWKS_PATH,
    LOGIN_PATH,
    LOGOUT_PATH,
    MFA_PATH,
    MOVE_PATH,
    RECEIPT_PATH,
    RENEWED_PATH,
    SESSION_PATH,
    STATIC_PATH,
    login_url,
)
from hubgate.web.popup import PopupPages
from hubgate.web.presence import SessionPage
from hubgate.web.render import Pages
from hubgate.web.visit import visit_of

if TYPE_CHECKING:  # most sites leave the second factor to the provider
    from hubgate.web.mfa import MfaPages


SESSIONLESS = (STATIC_PATH, JWKS_PATH, "/favicon.ico", "/robots.txt")
"""Beginnings of paths that are for everybody, and answer while the store is away: its error page needs style."""

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FORM_BYTES = 16 * 1024  # our largest form has three short fields


class PortalPages:
    """`/`, the choice of another hub, and the public keys."""

    def __init__(
        self, site: Site, *, registry: Registry[Any], bindings: Bindings, signer: Signer, pages: Pages, audit: Audit
    ) -> None:
        self._site = site
        self._registry = registry
        self._bindings = bindings
        self._jwks = signer.jwks()
        self._pages = pages
        self._audit = audit

    async def landing(self, request: web.Request) -> web.StreamResponse:
        """GET: HTC or HPC?"""
        visit = visit_of(request)
        if visit.session is None:
            return self._pages.redirect(login_url("/"), status=302)
        if visit.scripted:
            raise ClientFault("csrf_failed", "the landing page is not for scripts", status=403)
        pages = self._pages.to(visit.accept_language)
        return pages.landing(visit.session, state_of=self._registry.pool_state, request_id=visit.id)

    async def move(self, request: web.Request) -> web.StreamResponse:
        """POST `pool`, `next`: bind the person to another hub, because theirs is down and they chose not to wait."""
        visit = visit_of(request)
        if visit.live is None:
            raise ClientFault("session_required", status=401)
        session = visit.live.session
        form = await own_form(request, session.csrf, self._site, visit.host)
        pool = next((pool for pool in self._site.pools if pool.name == form.get("pool")), None)
        if pool is None or not pool.admits(session.identity.groups) or self._site.pool_host(pool) != visit.host:
            raise ClientFault("group_missing", status=403)
        after = safe_next(form.get("next"), own_hosts=(visit.host,))
        if not await self._bindings.may_move(visit.live, pool, visit.cookies.get(self._site.sticky_cookie(pool), "")):
            return self._pages.redirect(after)  # the hub is back, or the grace time isn't over: that page says which
        chosen = await self._bindings.move(visit.live, pool)
        if isinstance(chosen, Unavailable):
            raise UpstreamFault("no_hub_available", status=503, retry_after=chosen.retry_after)
        self._audit.event(
            "move",
            "ok",
            user=visit.user,
            client=visit.address,
            session=session.handle,
            pool=pool.name,
            request_id=visit.id,
            upstream=chosen.upstream,
        )
        response = self._pages.redirect(after)
        # What the old hub issued is of no use at the new one.
        for line in left_behind(self._site, [pool], session.identity.username):
            response.headers.add("Set-Cookie", line)
        return response

    async def jwks(self, _request: web.Request) -> web.StreamResponse:
        """GET: the keys that hubs verify assertions with (RFC 7517). Short-lived in caches, since they rotate."""
        headers = {**self._pages.base_headers, "Cache-Control": "public, max-age=60"}
        return web.Response(body=self._jwks, content_type="application/jwk-set+json", headers=headers)

    def file(self, name: str) -> Page:
        """A page that is one of the static files, at an address that browsers and robots expect."""

        async def page(_request: web.Request) -> web.StreamResponse:
            return self._pages.files.answer(name) or self._pages.redirect("/")

        return page


def own_pages(
    site: Site,
    *,
    portal: PortalPages,
    login: LoginPages,
    logout: LogoutPages,
    backchannel: BackchannelLogout,
    handover: HandoverPages,
    account: AccountPages,
    popup: PopupPages,
    state: SessionPage,
    mfa: MfaPages | None,
    pages: Pages,
) -> web.Application:
    """Every page that is hubgate's own, by path. What differs between the portal's host and pools' is told here."""

    def on(portal_page: Page, pool_page: Page | None = None) -> Page:
        async def page(request: web.Request) -> web.StreamResponse:
            if visit_of(request).host == site.host:
                return await portal_page(request)
            if pool_page is not None:
                return await pool_page(request)
            return pages.redirect(site.public_url + visit_of(request).raw, status=307)

        return page

    def asked_at_the_portal(path: str) -> Page:
        async def page(_request: web.Request) -> web.StreamResponse:
            # A form that is passed on to another host comes from a foreign page there: that host's own page asks again.
            return pages.redirect(site.public_url + path)

        return page

    app = web.Application(client_max_size=_FORM_BYTES)
    app.router.add_get("/", on(portal.landing))
    app.router.add_get(LOGIN_PATH, on(login.start, handover.ask))
    app.router.add_get(CALLBACK_PATH, on(login.callback))
    app.router.add_get(LOGOUT_PATH, on(logout.ask))
    app.router.add_post(LOGOUT_PATH, on(logout.do, asked_at_the_portal(LOGOUT_PATH)))
    app.router.add_get(RECEIPT_PATH, on(logout.receipt))
    app.router.add_get(ACCOUNT_PATH, on(account.show))
    app.router.add_post(ACCOUNT_PATH, on(account.do, asked_at_the_portal(ACCOUNT_PATH)))
    app.router.add_get(SESSION_PATH, state.show)
    app.router.add_post(SESSION_PATH, state.stay)
    app.router.add_post(BACKCHANNEL_PATH, on(backchannel.do))
    app.router.add_get(FAREWELL_PATH, logout.farewell)
    app.router.add_get(HANDOVER_PATH, handover.handle)
    app.router.add_get(RENEWED_PATH, popup.renewed)
    app.router.add_post(MOVE_PATH, portal.move)
    if mfa is not None:
        app.router.add_get(MFA_PATH, on(mfa.show))
        app.router.add_post(MFA_PATH, on(mfa.do, asked_at_the_portal(MFA_PATH)))
    app.router.add_get(JWKS_PATH, portal.jwks)
    app.router.add_get(STATIC_PATH + "{name}", pages.files.serve)
    app.router.add_get("/favicon.ico", portal.file("favicon.svg"))
    app.router.add_get("/robots.txt", portal.file("robots.txt"))
    return app
