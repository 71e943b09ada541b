"""The provider says that somebody's session there is over: `/_hubgate/backchannel-logout`.

OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8. No browser is there: who asks proves by a signed token that they
are the provider, once. What the token names ends here as by Log Out, on every worker. 200 means that it has ended, 400
that the token is no good, 503 that it can't be said now: then this worker has let go of what it held, and ends the rest
as soon as the store answers, since a provider doesn't ask twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.logout_token import LogoutToken, refused
from hubgate.core.session import Session
from hubgate.core.throttle import Rate, Throttle, source_key
from hubgate.errors import ClientFault, HubgateFault, ProviderFault, StoreFault
from hubgate.store.base import Store
from hubgate.web.endings import Endings
from hubgate.web.forms import form_fields
from hubgate.web.live import LiveSessions
from hubgate.web.renewals import Renewals
from hubgate.web.sessions import Sessions, fingerprint, person_key, user_key
from hubgate.web.standings import Standings
from hubgate.web.visit import Visit, visit_of

_LINES = Rate(burst=60, per_second=1.0)  # of the audit log, on tokens that are refused, per source


class Checks(Protocol):
    """What is needed of `OIDCClient`."""

    async def logout_token(self, token: str) -> LogoutToken:
        """What a token says whose signature and claims are good."""


class BackchannelLogout:
    """POST `logout_token`. `headers`: of our own answers. `standings`: None where no pool takes API tokens."""

    def __init__(
        self,
        *,
        provider: Checks,
        sessions: Sessions,
        live: LiveSessions,
        endings: Endings,
        renewals: Renewals,
        standings: Standings | None,
        store: Store,
        headers: Mapping[str, str],
        audit: Audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._sessions = sessions
        self._live = live
        self._endings = endings
        self._renewals = renewals
        self._standings = standings
        self._store = store
        self._headers = headers
        self._audit = audit
        self._clock = clock
        self._throttle = Throttle(_LINES)

    async def do(self, request: web.Request) -> web.StreamResponse:
        """End what the token names."""
        visit = visit_of(request)
        try:
            token = await self._checked(request)
            await self._end(visit, token)
        except (ClientFault, ProviderFault, StoreFault) as fault:
            return self._told(visit, fault)
        return web.Response(status=200, headers=self._headers)

    async def _checked(self, request: web.Request) -> LogoutToken:
        try:
            fields = await form_fields(request)
        except ClientFault as fault:
            raise refused("form") from fault
        return await self._provider.logout_token(fields.get("logout_token", ""))

    async def _end(self, visit: Visit, token: LogoutToken) -> None:
        once = f"logout-token:{fingerprint(f'{token.issuer} {token.id}')}"
        try:
            new = await self._store.add(once, b"", ttl=max(token.good_until - self._clock(), 1.0))
            if new:
                await self._end_all(visit, token)
        except StoreFault:
            for key in self._live.keys_of(partial(_meant, token)):
                self._live.forget(key)
            self._endings.later(partial(self._end_all, visit, token))
            raise
        if not new:
            raise refused("replayed")

    async def _end_all(self, visit: Visit, token: LogoutToken) -> None:
        if token.sid:
            found = await self._sessions.of_provider(token.issuer, token.sid)
        else:
            # Not one session of theirs but the person is out: that is the end of their programs, too.
            person = person_key(token.issuer, token.subject)
            if self._standings is not None:
                await self._standings.end(person)
            found = await self._sessions.of(person)
        meant = [each for each in found if _meant(token, each.session)]
        # The provider has ended its own already.
        ended = await self._endings.end(meant, provider=False)
        if token.sid and meant:
            self._renewals.doubt(user_key(meant[0].session.identity))
        for each in meant:
            self._audit.event(
                "session_end",
                "backchannel",
                user=each.session.identity.username,
                client=visit.address,
                session=each.session.handle,
                request_id=visit.id,
                connections=ended.closed.connections,
            )

    def _told(self, visit: Visit, fault: HubgateFault) -> web.Response:
        known = isinstance(fault, ClientFault)
        if not self._throttle.wait(source_key(visit.address), self._clock()):
            reason = fault.evidence.get("reason", fault.code)
            self._audit.event(
                "backchannel_logout",
                "refused" if known else "unavailable",
                client=visit.address,
                request_id=visit.id,
                code=reason,
            )
        # RFC 6749, 5.2, as Back-Channel Logout 1.0, 2.8 has it.
        document = {"error": "invalid_request" if known else "temporarily_unavailable", "code": fault.code}
        headers = self._headers if known else {**self._headers, "Retry-After": "5"}
        body = json.dumps(document).encode()
        return web.Response(status=400 if known else 503, body=body, content_type="application/json", headers=headers)


def _meant(token: LogoutToken, session: Session) -> bool:
    """Whether the token speaks of this session; `sid` and `sub` must both fit where both are told."""
    who = session.identity
    if who.issuer != token.issuer or token.subject not in {"", who.subject}:
        return False
    return not token.sid or session.provider_sid == token.sid
