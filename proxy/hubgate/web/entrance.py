"""From somebody who has proved who they are to a session, in exactly one way.

Whatever had to be shown before, at the identity provider or here, has been shown when `Entrance.enter` is called; it
decides nothing any more. What ends with a new session (the one before it, and what another person left in the browser)
ends here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core.cookies import set_cookie
from hubgate.core.identity import Identity, Proof
from hubgate.core.session import Session
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.metrics import Metrics
from hubgate.web.endings import Endings
from hubgate.web.live import LiveSession, LiveSessions
from hubgate.web.logout import left_behind
from hubgate.web.sessions import Found, Sessions, user_key
from hubgate.web.standings import Standings
from hubgate.web.visit import Visit


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody at the door: who, proved how, with which tokens of the provider, on the way to `next`."""

    identity: Identity
    proof: Proof
    next: str
    provider_sid: str
    id_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    renew_at: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        texts = {name: getattr(self, name) for name in ("next", "provider_sid", "id_token", "refresh_token")}
        return {
            **texts,
            "renew_at": self.renew_at,
            "identity": self.identity.as_record(),
            "proof": self.proof.as_record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Arrival:
        """The arrival that `as_record` wrote. KeyError or TypeError: it was not written by it."""
        identity, proof = Identity.from_record(record["identity"]), Proof.from_record(record["proof"])
        return cls(**{**record, "identity": identity, "proof": proof})


class Entrance:
    """Where sessions begin. `standings`: None where no pool takes API tokens."""

    def __init__(
        self,
        site: Site,
        *,
        sessions: Sessions,
        live: LiveSessions,
        endings: Endings,
        standings: Standings | None,
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        self._site = site
        self._sessions = sessions
        self._live = live
        self._endings = endings
        self._standings = standings
        self._audit = audit
        self._metrics = metrics

    async def enter(
        self,
        request: web.Request,
        visit: Visit,
        arrival: Arrival,
        response: web.Response,
        *,
        renews: Session | None = None,
    ) -> web.Response:
        """Begin a session, and let `response` bring its cookie to the browser. Raises StoreFault: there is none.

        `renews`: the session that goes on with a new proof; its limits hold. ClientFault `session_required`: it has
        ended meanwhile.
        """
        identity, proof = arrival.identity, arrival.proof
        before = visit.live
        if self._standings is not None:
            await self._standings.note(identity, proof)
        heard = self._live.heard
        cookie, found = await self._sessions.create(
            identity,
            proof,
            provider_sid=arrival.provider_sid,
            id_token=arrival.id_token,
            refresh_token=arrival.refresh_token,
            renew_at=arrival.renew_at,
            address=visit.address,
            user_agent=request.headers.get("User-Agent", ""),
            renews=renews,
        )
        if before is not None:
            # The old id ends with every login (session fixation), and a switch ends all that was the other's.
            if before.user_key == user_key(identity):
                await self._take_over(before, found, goes_on=renews is not None)
            else:
                ended = await self._endings.end([before.found])
                for line in left_behind(self._site, self._site.pools_on(visit.host), before.session.identity.username):
                    response.headers.add("Set-Cookie", line)
                for each in ended.sessions:
                    self._audit.event(
                        "session_end",
                        "identity_switch",
                        user=before.session.identity.username,
                        client=visit.address,
                        session=each.session.handle,
                        request_id=visit.id,
                        connections=ended.closed.connections,
                    )
        # Somebody may have ended it meanwhile, while the one before was being ended for instance.
        visit.live = await self._live.begun(cookie, visit.host, found, heard=heard)
        response.headers.add("Set-Cookie", set_cookie(self._site.cookie, cookie, secure=self._site.secure))
        if renews is None:
            self._metrics.login("ok")
        self._audit.event(
            "login" if renews is None else "step_up",
            "ok",
            user=identity.username,
            client=visit.address,
            session=found.session.handle,
            factor=" ".join(proof.amr) or proof.acr or "none",
            request_id=visit.id,
            subject=identity.subject,
        )
        return response

    async def _take_over(self, before: LiveSession, found: Found, *, goes_on: bool) -> None:
        """End the session before this one, of the same person. `goes_on`: this one is that one with a new proof, and
        nothing without it."""
        was = await self._sessions.take(before.key)
        self._live.forget(before.key)
        await self._sessions.end([before.key])
        if not goes_on:
            return
        if was is None:
            # While its form was on the way, somebody has ended it: who has ended isn't back by showing a code.
            await self._sessions.end([found.key])
            raise ClientFault("session_required", status=401)
        if was.refresh_token != found.session.refresh_token:
            # Its tokens were renewed since this worker read them, and those of before are void.
            await self._sessions.renewed(
                found.key,
                lambda new: replace(
                    new,
                    identity=was.identity,
                    id_token=was.id_token,
                    refresh_token=was.refresh_token,
                    renew_at=was.renew_at,
                ),
            )
