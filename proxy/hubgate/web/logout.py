"""Log Out: the session ends, and what hangs on it.

On our side that is the record, every worker's copy and every open socket, this browser's sticky cookies and the hubs'
cookies by name. At the provider, its own session: server side where it can be done, else by sending the browser there
(OpenID Connect RP-Initiated Logout 1.0). Hosts other than the portal's hold cookies that only they can remove, so the
browser is passed through each of them.

Only the person may do it: by our form, or by a navigation that a hub's page began, such as JupyterHub's own Log Out.
Anything else gets a page that asks. While the store is away nobody can be logged out everywhere, and they are told so:
here it ends at once, and elsewhere as soon as the store answers.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from urllib.parse import urlencode

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.access import Kind
from hubgate.core.cookies import expire_cookie, hub_cookie_expiries
from hubgate.core.keyring import Keyring
from hubgate.core.session import Session
from hubgate.core.site import Pool, Site
from hubgate.errors import ClientFault, ProviderFault, StoreFault
from hubgate.idp.client import OIDCClient
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.affinity import Bindings
from hubgate.web.endings import Ended, Endings
from hubgate.web.forms import own_form
from hubgate.web.live import LiveSession
from hubgate.web.paths import FAREWELL_PATH, RECEIPT_PATH
from hubgate.web.render import Pages
from hubgate.web.sessions import Sessions, fingerprint
from hubgate.web.visit import Visit, visit_of

_FAREWELL_LIFETIME = 60.0  # seconds for a browser to pass through the hosts


def left_behind(site: Site, pools: Iterable[Pool], username: str) -> list[str]:
    """Set-Cookie values that remove what a person leaves in a browser: the sticky cookies of pools, and their hubs'."""
    lines = []
    for pool in pools:
        lines.append(expire_cookie(site.sticky_cookie(pool), secure=site.secure))
        lines.extend(hub_cookie_expiries(pool.path, username, secure=site.secure))
    return lines


class LogoutPages:
    """`/_hubgate/logout`, `/_hubgate/logged-out`, and `/_hubgate/farewell` on pools' own hosts."""

    def __init__(
        self,
        site: Site,
        *,
        provider: OIDCClient,
        sessions: Sessions,
        endings: Endings,
        bindings: Bindings,
        store: Store,
        keyring: Keyring,
        pages: Pages,
        audit: Audit,
    ) -> None:
        self._site = site
        self._provider = provider
        self._sessions = sessions
        self._endings = endings
        self._bindings = bindings
        self._store = store
        self._sealer = Sealer(keyring, "farewell")
        self._pages = pages
        self._audit = audit

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """GET: log out if a hub's page led here, else ask."""
        visit = visit_of(request)
        if visit.live is None:
            return self._pages.redirect(RECEIPT_PATH)
        if visit.kind is Kind.NAVIGATION and self._led_by_a_hub(request, visit):
            return await self._end(visit, visit.live)
        if visit.scripted:
            raise ClientFault("csrf_failed", "the page that asks is not for scripts", status=403)
        return self._pages.to(visit.accept_language).confirm_logout(visit.live.session, request_id=visit.id)

    def _led_by_a_hub(self, request: web.Request, visit: Visit) -> bool:
        """Whether this is where JupyterHub's Log Out has led. A foreign page can't claim to be of this origin. It can
        link to our login with Log Out for its `next`; but who comes from there, or from any page of ours, brings no
        Referer with a path (web/policy.py)."""
        if request.headers.get("Sec-Fetch-Site") != "same-origin":
            return False
        led_by, origin = request.headers.get("Referer", ""), self._site.origin(visit.host)
        return any(led_by.startswith(origin + pool.path) for pool in self._site.pools_on(visit.host))

    async def do(self, request: web.Request) -> web.StreamResponse:
        """POST: log out."""
        visit = visit_of(request)
        if visit.live is None:
            return self._pages.redirect(RECEIPT_PATH)
        await own_form(request, visit.live.session.csrf, self._site, visit.host)
        return await self._end(visit, visit.live)

    async def _end(self, visit: Visit, live: LiveSession) -> web.StreamResponse:
        session = live.session
        try:
            found = await self._sessions.get(live.key)  # with the tokens of the last refresh
            ended = await self._endings.end([found or live.found])
        except StoreFault:
            self._endings.end_later(live.found)
            raise
        sticky = (visit.cookies.get(self._site.sticky_cookie(pool)) for pool in self._site.pools)
        await self._bindings.release([cookie for cookie in sticky if cookie])
        self._audit.event(
            "logout",
            "ok" if ended.provider else "provider_session_open",
            user=session.identity.username,
            client=visit.address,
            session=session.handle,
            request_id=visit.id,
            connections=ended.closed.connections,
        )
        for each in ended.sessions:
            if each.key != live.key:
                self._audit.event(
                    "session_end",
                    "logout",
                    user=session.identity.username,
                    client=visit.address,
                    session=each.session.handle,
                    request_id=visit.id,
                )
        location = await self._way_out(session, ended)
        response = self._pages.redirect(location)
        response.headers.add("Set-Cookie", expire_cookie(self._site.cookie, secure=self._site.secure))
        for line in left_behind(self._site, self._site.pools_on(visit.host), session.identity.username):
            response.headers.add("Set-Cookie", line)
        return response

    async def _way_out(self, session: Session, ended: Ended) -> str:
        """Where the browser goes next: through the pools' hosts, past the provider if need be, to the receipt."""
        pools = [pool.name for pool in self._site.pools if pool.admits(session.identity.groups)]
        told = urlencode(
            {"closed": ended.closed.connections, "ended": int(ended.provider is True), "pool": pools}, doseq=True
        )
        receipt = f"{self._site.public_url}{RECEIPT_PATH}?{told}"
        if ended.provider is False:  # one that doesn't answer is no place to send anybody
            try:
                url = await self._provider.end_session_url(
                    id_token=session.id_token, post_logout_redirect_uri=self._site.public_url + RECEIPT_PATH
                )
            except ProviderFault:
                url = None
            receipt = url or receipt
        hosts = self._site.hosts[1:]
        if not hosts:
            return receipt
        code = secrets.token_urlsafe(32)
        key = _farewell_key(code)
        record = {"username": session.identity.username, "receipt": receipt}
        await self._store.put(key, self._sealer.seal(key, record), ttl=_FAREWELL_LIFETIME)
        return f"{self._site.origin(hosts[0])}{FAREWELL_PATH}?code={code}"

    async def farewell(self, request: web.Request) -> web.StreamResponse:
        """GET on a pool's host: remove what was left here, and pass the browser on."""
        visit = visit_of(request)
        code = request.query.get("code", "")
        key = _farewell_key(code)
        sealed = await self._store.get(key)
        try:
            record = self._sealer.open(key, sealed or b"")
        except Tampered as error:
            raise ClientFault("unknown_path", "no such farewell", status=404) from error
        following = self._site.hosts[self._site.hosts.index(visit.host) + 1 :]
        location = (
            f"{self._site.origin(following[0])}{FAREWELL_PATH}?code={code}" if following else str(record["receipt"])
        )
        response = self._pages.redirect(location)
        # A session that is still good here is somebody else's, who followed a link: theirs stays.
        if visit.live is None:
            response.headers.add("Set-Cookie", expire_cookie(self._site.cookie, secure=self._site.secure))
            for line in left_behind(self._site, self._site.pools_on(visit.host), str(record["username"])):
                response.headers.add("Set-Cookie", line)
        return response

    async def receipt(self, request: web.Request) -> web.StreamResponse:
        """GET: what was ended. The facts come from the address; they are told, and nothing hangs on them."""
        visit = visit_of(request)
        if visit.live is not None:
            return self._pages.redirect("/")  # "you are logged out" would not be true
        pools = request.query.getall("pool", ())
        closed = request.query.get("closed", "")
        return self._pages.to(visit.accept_language).receipt(
            request_id=visit.id,
            pools=[pool for pool in self._site.pools if pool.name in pools],
            connections=int(closed) if re.fullmatch(r"[0-9]{1,4}", closed) else 0,
            provider_ended={"1": True, "0": False}.get(request.query.get("ended", "")),
        )


def _farewell_key(code: str) -> str:
    return f"farewell:{fingerprint(code)}"
