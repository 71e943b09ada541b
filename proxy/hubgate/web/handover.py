"""One login, several hosts: how a pool's own host gets a cookie of its own.

A cookie is good on one host only, and never a Domain cookie. So the pool's host sets a state cookie first, and sends
the browser to the portal; the portal, where the session is, answers with a code that is good once, for this host, for a
minute, and for the browser that holds that state cookie. A code that is overheard or planted opens nothing elsewhere.
"""

from __future__ import annotations

import hmac
import re
import secrets
from urllib.parse import urlencode

from aiohttp import web

from hubgate.core.access import Kind
from hubgate.core.cookies import expire_cookie, set_cookie
from hubgate.core.keyring import Keyring
from hubgate.core.oidc import safe_next
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.paths import HANDOVER_PATH, login_url
from hubgate.web.popup import destination
from hubgate.web.render import Pages
from hubgate.web.sessions import Sessions, fingerprint
from hubgate.web.stepup import Freshness
from hubgate.web.visit import visit_of

_CODE_LIFETIME = 60.0
_STATE_LIFETIME = 900  # seconds: as long as a login at the provider may take, and a little more
_STATE = re.compile(r"[0-9a-f]{64}")
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")


class HandoverPages:
    """`/_hubgate/handover` on the portal's host and on pools' hosts, and `/_hubgate/login` on the latter."""

    def __init__(
        self,
        site: Site,
        *,
        sessions: Sessions,
        freshness: Freshness,
        store: Store,
        keyring: Keyring,
        pages: Pages,
    ) -> None:
        self._site = site
        self._sessions = sessions
        self._freshness = freshness
        self._store = store
        self._sealer = Sealer(keyring, "handover")
        self._pages = pages
        self._cookie_name = site.cookie_named("handover")

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """GET on a pool's host: go and ask the portal who this is, with a fresh proof if `max_age` is wished."""
        visit = visit_of(request)
        after = destination(request, visit.host)
        if visit.live is not None and self._freshness.lacking(request, visit.live.session) is None:
            return self._pages.redirect(after)
        if visit.kind is not Kind.NAVIGATION:
            raise ClientFault("session_required", status=401)
        state = visit.cookies.get(self._cookie_name, "")
        if not _COOKIE.fullmatch(state):
            state = secrets.token_urlsafe(32)
        wish = {"max_age": age} if (age := request.query.get("max_age")) else {}
        query = urlencode({"host": visit.host, "state": fingerprint(state), "next": after, **wish})
        response = self._pages.redirect(f"{self._site.public_url}{HANDOVER_PATH}?{query}")
        response.headers.add(
            "Set-Cookie", set_cookie(self._cookie_name, state, secure=self._site.secure, max_age=_STATE_LIFETIME)
        )
        return response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET: the portal's half, or the pool host's."""
        visit = visit_of(request)
        if visit.kind is not Kind.NAVIGATION:
            raise ClientFault("session_required", status=401)
        return await (self._give(request) if visit.host == self._site.host else self._take(request))

    async def _give(self, request: web.Request) -> web.StreamResponse:
        visit = visit_of(request)
        host, state = request.query.get("host", ""), request.query.get("state", "")
        if host not in self._site.hosts[1:] or not _STATE.fullmatch(state):
            raise ClientFault("target_malformed", "a handover to no host of this site")
        if visit.live is None:
            return self._pages.redirect(login_url(visit.raw))
        if (max_age := self._freshness.lacking(request, visit.live.session)) is not None:
            return self._pages.redirect(login_url(visit.raw, max_age=str(max_age)))
        code = secrets.token_urlsafe(32)
        key = _code_key(code)
        record = {
            "session": visit.live.key,
            "host": host,
            "state": state,
            "next": safe_next(request.query.get("next"), own_hosts=(visit.host,)),
        }
        await self._store.put(key, self._sealer.seal(key, record), ttl=_CODE_LIFETIME)
        return self._pages.redirect(f"{self._site.origin(host)}{HANDOVER_PATH}?code={code}")

    async def _take(self, request: web.Request) -> web.StreamResponse:
        visit = visit_of(request)
        key = _code_key(request.query.get("code", ""))
        state = visit.cookies.get(self._cookie_name, "")
        # Whoever shows a code has spent it: none is left lying in the address of a page that refused it.
        sealed = await self._store.take(key)
        if not state:
            raise ClientFault("login_unknown", "no handover cookie")
        try:
            record = self._sealer.open(key, sealed or b"")
        except Tampered as error:
            raise ClientFault("login_expired", "unknown or used handover") from error
        if record["host"] != visit.host or not hmac.compare_digest(str(record["state"]), fingerprint(state)):
            raise ClientFault("login_unknown", "a handover to another browser or host")
        found = await self._sessions.get(str(record["session"]))
        if found is None:
            raise ClientFault("login_expired", "the session ended meanwhile")
        cookie = await self._sessions.alias(found.key, found.session, visit.host)
        response = self._pages.redirect(str(record["next"]))
        response.headers.add("Set-Cookie", set_cookie(self._site.cookie, cookie, secure=self._site.secure))
        response.headers.add("Set-Cookie", expire_cookie(self._cookie_name, secure=self._site.secure))
        return response


def _code_key(code: str) -> str:
    return f"handover:{fingerprint(code)}"
