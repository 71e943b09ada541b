"""From somebody unknown to the door: the browser's way through the identity provider and back.

What has to be remembered meanwhile lies in the store under a hash of `state`, and is bound to a cookie of this one
browser: whoever is lured into a callback that another browser began gets no session (CVE-2025-68158 in a peer). One
cookie serves all tabs. The state is taken once; a tab that comes late, with a session already there, is just sent on.

The protocol is `idp/client.py`'s and its checks `core/oidc.py`'s; who may come in is `core/identity.py`'s.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.cookies import set_cookie
from hubgate.core.identity import Admission, Identity, UsernamePolicy, admit, identity_from_claims
from hubgate.core.keyring import Keyring
from hubgate.core.oidc import LoginAttempt, callback_params
from hubgate.core.session import renewal_due
from hubgate.core.site import Site
from hubgate.core.throttle import Rate, Throttle, source_key
from hubgate.errors import ClientFault, HubgateFault, ProviderFault
from hubgate.idp.client import OIDCClient
from hubgate.idp.keycloak import KeycloakAdmin
from hubgate.metrics import Metrics
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.entrance import Arrival, Entrance
from hubgate.web.paths import CALLBACK_PATH, login_url
from hubgate.web.popup import destination, is_popup
from hubgate.web.render import Pages
from hubgate.web.sessions import fingerprint
from hubgate.web.stepup import Freshness
from hubgate.web.usernames import Usernames
from hubgate.web.visit import Visit, visit_of

log = logging.getLogger(__name__)

_ATTEMPT_LIFETIME = 600.0  # seconds for password, code and, the first time, the QR code
_TRIES = 2  # how often a login is begun anew by itself before somebody is told

# A lab behind one address begins its working day at nine: generous, but no way to fill the store with states.
_RATE = Rate(burst=120, per_second=2.0)

_BROWSER_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Entry:
    """Who may enter under which name, as configured."""

    usernames: UsernamePolicy
    groups_claim: str
    admission: Admission

    def judge(self, claims: Mapping[str, object]) -> Identity:
        """Who it is, if they may be here at all. Raises ClientFault."""
        identity = identity_from_claims(claims, usernames=self.usernames, groups_claim=self.groups_claim)
        admit(identity, claims, self.admission)
        return identity


class SecondStep(Protocol):
    """Where the provider's word is not enough: what more there is to show."""

    async def begin(self, arrival: Arrival) -> web.Response:
        """Take over somebody whom the provider has let through; no session has begun yet."""

    def again(self, after: str) -> web.Response:
        """Have it shown anew in a session that lasts, on the way to `after`."""


class LoginPages:
    """`/_hubgate/login` on the portal's host, and `/_hubgate/callback`.

    `second_step`: what comes between callback and session; None where the provider's word is enough.
    """

    def __init__(
        self,
        site: Site,
        *,
        provider: OIDCClient,
        admin: KeycloakAdmin | None,
        entry: Entry,
        store: Store,
        keyring: Keyring,
        entrance: Entrance,
        second_step: SecondStep | None,
        freshness: Freshness,
        pages: Pages,
        audit: Audit,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._provider = provider
        self._admin = admin
        self._entry = entry
        self._store = store
        self._attempts = Sealer(keyring, "login-attempt")
        self._usernames = Usernames(store, keyring)
        self._entrance = entrance
        self._second_step = second_step
        self._freshness = freshness
        self._pages = pages
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        self._cookie_name = site.cookie_named("login")
        self._throttle = Throttle(_RATE)

    # -- the way out

    async def start(self, request: web.Request) -> web.StreamResponse:
        """GET: send the browser to the provider, and afterwards to `next`, or in a popup to the page that ends it.

        Whoever has a session is sent on, unless `max_age` says that its proof is too old.
        """
        visit = visit_of(request)
        after = destination(request, visit.host)
        max_age = None if visit.live is None else self._freshness.lacking(request, visit.live.session)
        if visit.live is not None and max_age is None:
            return self._pages.redirect(after)
        mode = request.headers.get("Sec-Fetch-Mode", "navigate")
        if mode != "navigate":
            # Scripts and prefetches don't begin logins: they would pile up states that nobody comes back for.
            raise ClientFault("session_required", status=401)
        fragment_may_follow = after != "/" and "#" not in after and not is_popup(request)
        if "Sec-Fetch-Mode" in request.headers and fragment_may_follow and "on" not in request.query:
            # A #fragment never reaches a server, and the provider's form would lose it.
            wish = request.query.get("max_age", "")
            pages = self._pages.to(visit.accept_language)
            return pages.continue_login(f"{login_url(after, max_age=wish)}&on=1", request_id=visit.id)
        if max_age is None:
            return await self._begin(visit, after, tries=0)
        if self._second_step is not None:
            return self._second_step.again(after)
        return await self._begin(visit, after, tries=0, prompt="login", max_age=max_age)

    async def _begin(
        self, visit: Visit, after: str, *, tries: int, prompt: str | None = None, max_age: int | None = None
    ) -> web.Response:
        wait = self._throttle.wait(source_key(visit.address), self._clock())
        if wait:
            raise ClientFault("too_many_logins", status=429, retry_after=int(wait) + 1)
        browser = visit.cookies.get(self._cookie_name, "")
        if not _BROWSER_COOKIE.fullmatch(browser):
            browser = secrets.token_urlsafe(32)
        url, attempt = await self._provider.begin(
            redirect_uri=self._site.public_url + CALLBACK_PATH,
            next=after,
            browser=fingerprint(browser),
            tries=tries,
            prompt=prompt,
            max_age=max_age,
        )
        key = _attempt_key(attempt.state)
        await self._store.put(key, self._attempts.seal(key, attempt.as_record()), ttl=_ATTEMPT_LIFETIME)
        response = self._pages.redirect(url, status=302)
        response.headers.add(
            "Set-Cookie",
            set_cookie(self._cookie_name, browser, secure=self._site.secure, max_age=int(_ATTEMPT_LIFETIME)),
        )
        return response

    # -- the way back

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """GET: what the provider sends the browser back to."""
        visit = visit_of(request)
        attempt: LoginAttempt | None = None
        try:
            params = callback_params(request.rel_url.raw_query_string)
            attempt = await self._attempt(visit, params.get("state", ""))
            proven = await self._provider.finish(attempt, params)
            identity = self._entry.judge(proven.claims)
            await self._usernames.claim(identity)
        except HubgateFault as fault:
            return await self._failed(visit, attempt, fault)
        arrival = Arrival(
            identity,
            proven.proof,
            attempt.next,
            provider_sid=proven.provider_sid,
            id_token=proven.tokens.id_token,
            refresh_token=proven.tokens.refresh_token,
            renew_at=renewal_due(proven.tokens.expires_at, self._clock()) if proven.tokens.refresh_token else 0.0,
        )
        if self._second_step is not None:
            return await self._second_step.begin(arrival)
        return await self._entrance.enter(request, visit, arrival, self._pages.redirect(arrival.next))

    async def _attempt(self, visit: Visit, state: str) -> LoginAttempt:
        """The attempt that this browser began. ClientFault `login_expired` or `login_unknown` when there is none."""
        if not state:
            raise ClientFault("callback_malformed", "no state")
        browser = visit.cookies.get(self._cookie_name, "")
        if not browser:
            # Looked at before the state is taken, so that a lured browser doesn't spend somebody's attempt.
            raise ClientFault("login_unknown", "no login cookie")
        key = _attempt_key(state)
        sealed = await self._store.take(key)
        if sealed is None:
            raise ClientFault("login_expired", "unknown or used state")
        try:
            attempt = LoginAttempt.from_record(self._attempts.open(key, sealed))
        except Tampered as error:
            raise ClientFault("login_expired", "unreadable state") from error
        if not hmac.compare_digest(attempt.browser, fingerprint(browser)):
            raise ClientFault("login_unknown", "begun in another browser", evidence={"why": "foreign_browser"})
        return attempt

    async def _failed(self, visit: Visit, attempt: LoginAttempt | None, fault: HubgateFault) -> web.StreamResponse:
        if visit.live is not None and fault.code in {"login_expired", "login_unknown"}:
            # A tab that was left at the provider's form while another one logged in.
            return self._pages.redirect("/")
        self._metrics.login(fault.code)
        self._audit.event(
            "login", "refused", client=visit.address, request_id=visit.id, code=fault.code, **dict(fault.evidence)
        )
        if attempt is not None and fault.code == "login_restart" and attempt.tries < _TRIES:
            prompt = None if attempt.max_age is None else "login"
            return await self._begin(
                visit, attempt.next, tries=attempt.tries + 1, prompt=prompt, max_age=attempt.max_age
            )
        if attempt is not None and fault.code == "second_factor_missing" and not attempt.tries:
            # Once more from the beginning: a login that enrolled somebody says amr `pwd` alone (Keycloak 26), and
            # somebody without a second factor can be led to one.
            await self._require_enrolment(fault.evidence.get("subject", ""))
            return await self._begin(visit, attempt.next, tries=_TRIES, prompt="login", max_age=attempt.max_age)
        raise fault

    async def _require_enrolment(self, subject: str) -> None:
        """Have Keycloak lead this person through setting up one-time codes, if they have no second factor at all."""
        if self._admin is None or not subject:
            return
        try:
            if not await self._admin.has_otp(subject):
                await self._admin.require_totp(subject)
        except ProviderFault as fault:
            log.warning("enrolment_not_required", extra={"fault": str(fault)})


def _attempt_key(state: str) -> str:
    return f"login:{fingerprint(state)}"
