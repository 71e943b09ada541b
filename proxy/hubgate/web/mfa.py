"""The second factor that is hubgate's own (`mfa.mode = "gateway"`): `/_hubgate/mfa`.

At a login it stands between the provider's callback and the session. Who has no second factor yet is led to enrol one,
once: after that the password alone never leads here to another. A recovery code does, and a current code of the old
phone does from within a session, which is the second half of this module.

Whether a code is right is `core.totp`'s to say, that it is so only once `factors`', how often it may be tried
`attempts`'. What happens between two pages is in `pending` or, for a session, in a record beside it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from aiohttp import web

from hubgate.audit import Audit
from hubgate.core import totp
from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.core.oidc import safe_next
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.attempts import Attempts
from hubgate.web.entrance import Arrival, Entrance
from hubgate.web.factors import Enrolment, Factors
from hubgate.web.forms import own_form
from hubgate.web.live import LiveSession
from hubgate.web.mfa_views import AskCode, AskTicket, Codes, Enrol, FactorState, Manage, Trouble, View
from hubgate.web.paths import MFA_PATH, login_url
from hubgate.web.pending import LIFETIME, Pending, Pendings, Setup
from hubgate.web.qr import qr_code
from hubgate.web.render import Pages
from hubgate.web.tickets import Tickets
from hubgate.web.visit import Visit, visit_of

if TYPE_CHECKING:  # the library for mail takes its time, and most sites send none
    from hubgate.web.letters import Change, Letters

Stage = Literal["code", "ticket", "enrol"]


@dataclass(frozen=True, slots=True)
class Terms:
    """`label`: the site's name in an authenticator app; `acr`: what a session's proof says then; `ticket`: nobody
    enrols without one.
    """

    label: str
    acr: str
    ticket: bool


class MfaPages:
    """GET and POST of `MFA_PATH` on the portal's host."""

    def __init__(
        self,
        site: Site,
        terms: Terms,
        *,
        store: Store,
        keyring: Keyring,
        entrance: Entrance,
        pages: Pages,
        audit: Audit,
        letters: Letters | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._terms = terms
        self._factors = Factors(store, keyring, clock=clock)
        self._tickets = Tickets(store, keyring, demanded=terms.ticket)
        self._attempts = Attempts(site, store, keyring, clock=clock)
        self._pendings = Pendings(site, store, keyring, clock=clock)
        self._store = store
        self._changes = Sealer(keyring, "second-factor-change")
        self._entrance = entrance
        self._pages = pages
        self._audit = audit
        self._letters = letters
        self._clock = clock

    async def begin(self, arrival: Arrival) -> web.Response:
        """Take over somebody whom the provider let through (`login.SecondStep`)."""
        response = self._pages.redirect(MFA_PATH)
        response.headers.add("Set-Cookie", await self._pendings.begin(arrival))
        return response

    def again(self, after: str) -> web.Response:
        """Ask somebody who is logged in for another code (`login.SecondStep`)."""
        return self._pages.redirect(f"{MFA_PATH}?{urlencode({'next': after})}")

    async def state(self, who: Identity) -> FactorState | None:
        """What the account page says about it; None: there is none."""
        enrolment = await self._factors.of(who)
        return None if enrolment is None else FactorState(enrolment.since, len(enrolment.recovery))

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET: what is asked for now; with a session what can be changed, or with `next` a code on the way there."""
        visit = visit_of(request)
        if visit.scripted:
            raise ClientFault("csrf_failed", "the second factor is not for scripts", status=403)
        pending = await self._pendings.find(visit)
        if pending is not None:
            return await self._ask(visit, pending)
        if visit.live is not None:
            if "next" in request.query:
                return await self._ask_again(visit, visit.live, request.query["next"])
            return await self._manage(visit, visit.live)
        if self._pendings.expected(visit):
            raise ClientFault("login_expired", "no login waits for a second factor")
        return self._pages.redirect(login_url(MFA_PATH), status=302)

    async def do(self, request: web.Request) -> web.StreamResponse:
        """POST `step` and what it needs."""
        visit = visit_of(request)
        pending = await self._pendings.find(visit)
        if pending is not None:
            return await self._proceed(request, visit, pending)
        if visit.live is not None:
            return await self._change(request, visit, visit.live)
        raise ClientFault("login_expired", "no login waits for a second factor")

    # -- at the login

    async def _stage(self, pending: Pending) -> tuple[Stage, Enrolment | None]:
        """What is to be shown now. Asked anew with every request: meanwhile somebody may have enrolled elsewhere, or an
        administrator may have reset the enrolment or issued a ticket.
        """
        who = pending.arrival.identity
        enrolment = await self._factors.of(who)
        if enrolment is not None:
            recovered = pending.setup is not None and pending.setup.replaces == enrolment.id
            return ("enrol" if recovered else "code"), enrolment
        if await self._tickets.needed(who.username, shown=pending.ticket):
            return "ticket", None
        return "enrol", None

    async def _ask(self, visit: Visit, pending: Pending, trouble: Trouble | None = None) -> web.Response:
        stage, enrolment = await self._stage(pending)
        who, csrf = pending.arrival.identity, pending.csrf
        view: View
        match stage:
            case "code":
                view = AskCode(csrf=csrf, who=who, trouble=trouble)
            case "ticket":
                view = AskTicket(csrf=csrf, who=who, trouble=trouble)
            case "enrol":
                setup, replaces = pending.setup, enrolment.id if enrolment else ""
                if setup is None or setup.replaces != replaces:
                    setup = _new_setup(replaces)
                    if await self._pendings.update(pending, setup=setup) is None:
                        return self._pages.redirect(MFA_PATH)  # another tab was faster: it is its key that counts
                view = self._enrol(csrf, who, setup, "recovered" if replaces else "first", trouble)
        return self._shown(visit, view)

    async def _proceed(self, request: web.Request, visit: Visit, pending: Pending) -> web.Response:
        form = await own_form(request, pending.csrf, self._site, visit.host)
        stage, enrolment = await self._stage(pending)
        typed = form.get("code", "")
        match stage, form.get("step"):
            case "code", "code":
                trouble = await self._tried(visit, pending.arrival.identity, typed)
                if trouble is None:
                    return await self._enter(request, visit, pending, ("otp",))
            case "code", "recovery":
                trouble = await self._recovered(visit, pending, typed)
            case "ticket", "ticket":
                trouble = await self._ticketed(visit, pending, typed)
            case "enrol", "confirm" if pending.setup is not None:
                return await self._confirmed(request, visit, pending, pending.setup, enrolment, typed)
            case _:
                trouble = None  # a form that was overtaken: the page shows where we are
        return self._pages.redirect(MFA_PATH) if trouble is None else await self._ask(visit, pending, trouble)

    async def _recovered(self, visit: Visit, pending: Pending, typed: str) -> Trouble | None:
        who = pending.arrival.identity
        if wait := self._attempts.wait_with_long_code(visit, who):
            return self._refused(visit, who, Trouble("too_many", wait))
        enrolment = await self._factors.recover(who, typed)
        if enrolment is None:
            return self._refused(visit, who, Trouble("wrong_recovery_code"))
        self._noted("recovery_code_used", visit, who, enrolment, left=len(enrolment.recovery))
        # Should this fail, the code is spent and there are nine more.
        await self._pendings.update(pending, setup=_new_setup(enrolment.id))
        return None

    async def _ticketed(self, visit: Visit, pending: Pending, typed: str) -> Trouble | None:
        who = pending.arrival.identity
        if wait := self._attempts.wait_with_long_code(visit, who):
            return self._refused(visit, who, Trouble("too_many", wait))
        ticket = await self._tickets.recognised(who.username, typed)
        if ticket is None:
            return self._refused(visit, who, Trouble("wrong_ticket"))
        await self._pendings.update(pending, ticket=ticket)
        return None

    async def _confirmed(
        self,
        request: web.Request,
        visit: Visit,
        pending: Pending,
        setup: Setup,
        before: Enrolment | None,
        typed: str,
    ) -> web.Response:
        who = pending.arrival.identity
        match totp.judge(setup.key, typed, now=self._clock()):
            case totp.Right(step):
                codes = await self._factors.enrol(who, setup.key, step=step, replaces=setup.replaces)
            case verdict:
                return await self._ask(visit, pending, _trouble(verdict))
        if codes is None:
            return self._pages.redirect(MFA_PATH)  # somebody was faster, and it is their code that is asked for
        recovered = bool(setup.replaces)
        self._noted("replaced" if recovered else "enrolled", visit, who, before, how="login")
        if not recovered:
            await self._tickets.spend(who.username)
        view = self._codes(pending.csrf, who, codes, onward=pending.arrival.next, enrolled=True)
        factors = ("recovery", "otp") if recovered else ("otp",)
        return await self._enter(request, visit, pending, factors, self._shown(visit, view))

    async def _enter(
        self,
        request: web.Request,
        visit: Visit,
        pending: Pending,
        factors: tuple[str, ...],
        response: web.Response | None = None,
    ) -> web.Response:
        if not await self._pendings.take(pending):
            raise ClientFault("login_expired", "this login was finished by another request")
        arrival = pending.arrival
        proof = self._proof(arrival.proof, factors)
        # It was minutes ago that the provider let them through: renewing its tokens tells at once whether that holds.
        renew_at = self._clock() if arrival.renew_at else 0.0
        response = response or self._pages.redirect(arrival.next)
        await self._entrance.enter(request, visit, replace(arrival, proof=proof, renew_at=renew_at), response)
        response.headers.add("Set-Cookie", self._pendings.forgotten)
        if known := self._attempts.known_cookie(visit, arrival.identity):
            response.headers.add("Set-Cookie", known)
        return response

    def _proof(self, before: Proof, factors: tuple[str, ...]) -> Proof:
        """What is proved now, after what was proved before."""
        # RFC 8176 has no word for the password if the provider says none.
        methods = tuple(dict.fromkeys((*(before.amr or ("pwd",)), *factors)))
        return Proof(self._terms.acr, methods, int(self._clock()))

    # -- with a session

    async def _ask_again(
        self, visit: Visit, live: LiveSession, after: str, trouble: Trouble | None = None
    ) -> web.Response:
        session, who = live.session, live.session.identity
        if await self._factors.of(who) is None:
            return await self._manage(visit, live)
        onward = safe_next(after, own_hosts=(visit.host,))
        return self._shown(visit, AskCode(csrf=session.csrf, who=who, trouble=trouble, onward=onward))

    async def _shown_again(
        self, request: web.Request, visit: Visit, live: LiveSession, after: str, typed: str
    ) -> web.Response:
        session = live.session
        if (trouble := await self._tried(visit, session.identity, typed)) is not None:
            return await self._ask_again(visit, live, after, trouble)
        arrival = Arrival(
            session.identity,
            self._proof(session.proof, ("otp",)),
            safe_next(after, own_hosts=(visit.host,)),
            provider_sid=session.provider_sid,
            id_token=session.id_token,
            refresh_token=session.refresh_token,
            renew_at=session.renew_at,
        )
        response = self._pages.redirect(arrival.next)
        return await self._entrance.enter(request, visit, arrival, response, renews=session)

    async def _manage(self, visit: Visit, live: LiveSession, trouble: Trouble | None = None) -> web.Response:
        session, who = live.session, live.session.identity
        enrolment = await self._factors.of(who)
        setup = await self._begun(live, enrolment)
        view: View
        if setup is not None:
            view = self._enrol(session.csrf, who, setup, "change", trouble)
        else:
            view = Manage(
                csrf=session.csrf,
                who=who,
                trouble=trouble,
                since=enrolment.since if enrolment else None,
                left=len(enrolment.recovery) if enrolment else 0,
            )
        return self._shown(visit, view)

    async def _change(self, request: web.Request, visit: Visit, live: LiveSession) -> web.Response:
        session, who = live.session, live.session.identity
        form = await own_form(request, session.csrf, self._site, visit.host)
        enrolment = await self._factors.of(who)
        if enrolment is None:
            return self._pages.redirect(MFA_PATH)  # reset meanwhile: the page says so
        typed, step = form.get("code", ""), form.get("step")
        if step == "again":
            return await self._shown_again(request, visit, live, form.get("next", ""), typed)
        if step == "confirm":
            setup = await self._begun(live, enrolment)
            if setup is not None:
                return await self._changed(visit, live, setup, enrolment, typed)
            return self._pages.redirect(MFA_PATH)
        if step == "cancel":
            await self._store.delete(_change_key(live))
        elif step in {"phone", "codes"}:
            if (trouble := await self._tried(visit, who, typed)) is not None:
                return await self._manage(visit, live, trouble)
            if step == "codes":
                codes = await self._factors.new_recovery_codes(who)
                self._noted("recovery_codes_renewed", visit, who, enrolment)
                return self._shown(visit, self._codes(session.csrf, who, codes, onward=MFA_PATH, enrolled=False))
            key = _change_key(live)
            await self._store.put(key, self._changes.seal(key, _new_setup(enrolment.id).as_record()), ttl=LIFETIME)
        return self._pages.redirect(MFA_PATH)

    async def _changed(
        self, visit: Visit, live: LiveSession, setup: Setup, before: Enrolment, typed: str
    ) -> web.Response:
        who = live.session.identity
        match totp.judge(setup.key, typed, now=self._clock()):
            case totp.Right(step):
                codes = await self._factors.enrol(who, setup.key, step=step, replaces=setup.replaces)
            case verdict:
                return await self._manage(visit, live, _trouble(verdict))
        await self._store.delete(_change_key(live))
        if codes is None:
            raise ClientFault("second_factor_changed", "enrolled elsewhere meanwhile", status=409)
        self._noted("replaced", visit, who, before, how="session")
        return self._shown(visit, self._codes(live.session.csrf, who, codes, onward=MFA_PATH, enrolled=True))

    async def _begun(self, live: LiveSession, enrolment: Enrolment | None) -> Setup | None:
        """The new phone that this session is just setting up, behind a code of the enrolment that it replaces."""
        key = _change_key(live)
        sealed = await self._store.get(key)
        if sealed is None or enrolment is None:
            return None
        try:
            record = self._changes.open(key, sealed)
        except Tampered:
            return None
        setup = Setup(str(record["key"]), str(record["replaces"]))
        return setup if setup.replaces == enrolment.id else None

    # -- both

    async def _tried(self, visit: Visit, who: Identity, typed: str) -> Trouble | None:
        """Try a code of the enrolled key: None if it was right, and is used up now."""
        if not totp.is_code(typed):
            return Trouble("malformed_code")  # a slip of the finger, and no guess
        lane = self._attempts.lane(visit, who)
        if wait := await self._attempts.wait(lane, who):
            return self._refused(visit, who, Trouble("too_many", wait))
        verdict = await self._factors.judge(who, typed)
        if not isinstance(verdict, totp.Right):
            return self._refused(visit, who, _trouble(verdict))
        await self._attempts.right(lane, who)
        return None

    def _refused(self, visit: Visit, who: Identity, trouble: Trouble) -> Trouble:
        self._audited("refused", visit, who, code=trouble.slug)
        return trouble

    def _noted(self, change: Change, visit: Visit, who: Identity, enrolment: Enrolment | None, **more: Any) -> None:
        """Write down, and tell its owner, what happened to a second factor; `enrolment`: as it was before."""
        self._audited(change, visit, who, **more)
        if self._letters is not None:
            known = enrolment.email if enrolment else ""
            self._letters.tell(change, who.username, known, who.email, client=visit.address)

    def _audited(self, outcome: str, visit: Visit, who: Identity, **more: Any) -> None:
        self._audit.event(
            "second_factor",
            outcome,
            user=who.username,
            client=visit.address,
            session=visit.live.session.handle if visit.live else None,
            request_id=visit.id,
            subject=who.subject,
            **more,
        )

    def _shown(self, visit: Visit, view: View) -> web.Response:
        live = visit.live
        # Somebody else's session may be open in this browser: the page of a login shows whose login it is.
        mine = live is not None and live.session.csrf == view.csrf
        shown = replace(view, session=live.session if live and mine else None)
        return self._pages.to(visit.accept_language).mfa(shown, request_id=visit.id)

    def _enrol(
        self,
        csrf: str,
        who: Identity,
        setup: Setup,
        reason: Literal["first", "recovered", "change"],
        trouble: Trouble | None,
    ) -> Enrol:
        uri = totp.provisioning_uri(setup.key, account=who.username, issuer=self._terms.label)
        return Enrol(
            csrf=csrf,
            who=who,
            trouble=trouble,
            reason=reason,
            qr=qr_code(uri),
            key=totp.in_fours(setup.key),
            uri=uri,
            label=self._terms.label,
        )

    def _codes(self, csrf: str, who: Identity, codes: tuple[str, ...], *, onward: str, enrolled: bool) -> Codes:
        heading = f"{self._terms.label}: {who.username}\n{self._site.public_url}\n\n"
        text = heading + "".join(f"{code}\n" for code in codes)
        return Codes(csrf=csrf, who=who, codes=codes, onward=onward, enrolled=enrolled, text=text)


def _new_setup(replaces: str) -> Setup:
    return Setup(totp.new_key(secrets.token_bytes(totp.KEY_BYTES)), replaces)


def _trouble(verdict: totp.Verdict) -> Trouble:
    """What to say about a code that isn't right."""
    match verdict:
        case totp.Used():
            return Trouble("used_code")
        case totp.Off(seconds):
            return Trouble("clock_ahead" if seconds > 0 else "clock_behind", abs(seconds))
        case totp.Malformed():
            return Trouble("malformed_code")
        case _:
            return Trouble("wrong_code")


def _change_key(live: LiveSession) -> str:
    return f"second-factor-change:{live.key}"
