"""Which facts go into a page?

`templates` says how a page looks, `words` what it says. Nobody is asked: every page renders while the store, the
identity provider and all hubs are down. What a request is allowed to do is not known here; whoever calls has decided
that.

Every page is HTML without inline script or style attributes; `policy` says under which rules it is shown.
"""

from __future__ import annotations

import copy
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web
from markupsafe import Markup

from hubgate.config import Portal
from hubgate.core.announcement import Announcement
from hubgate.core.identity import Identity, Proof
from hubgate.core.language import in_language, preferred
from hubgate.core.session import Session
from hubgate.core.site import Pool, Site
from hubgate.web.brand import brand_of
from hubgate.web.files import StaticFiles
from hubgate.web.notices import Notice, NoticeBoard, local
from hubgate.web.paths import ACCOUNT_PATH, LOGIN_PATH, LOGOUT_PATH, MFA_PATH, MOVE_PATH, UNATTENDED, login_url
from hubgate.web.problems import Offer, told_as
from hubgate.web.templates import Templates, template_folders
from hubgate.web.words import load_words

if TYPE_CHECKING:  # most sites leave the second factor to the provider
    from hubgate.web.account import Helpers, Seat, Told
    from hubgate.web.mfa_views import FactorState, View
    from hubgate.web.presence import Remaining


_PATHS = {"login": LOGIN_PATH, "logout": LOGOUT_PATH, "move": MOVE_PATH, "mfa": MFA_PATH, "account": ACCOUNT_PATH}

CSRF_FIELD = "csrf"
"""The hidden form field with `Session.csrf`. A form to `MOVE_PATH` has two more: `pool` (its name) and `next`."""

PoolState = Literal["up", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class Card:
    """A pool on the landing page. `work`: a sentence on a maintenance that goes on there, mostly empty."""

    pool: Pool
    url: str
    state: PoolState
    work: str


@dataclass(frozen=True, slots=True)
class Section:
    """Cards below one heading, in the order of the configuration. The title may be empty."""

    title: str
    cards: tuple[Card, ...]


# RFC 8176 values, and the ones that Keycloak's flows are commonly given, that name a second factor.
_FACTORS: Mapping[str, str] = {
    "otp": "otp",
    "totp": "otp",
    "hotp": "otp",
    "hwk": "key",
    "swk": "key",
    "webauthn": "key",
    "fido": "key",
    "sms": "sms",
    "recovery": "recovery",
}

_TEMPLATES = (
    *("landing.html", "problem.html", "waiting.html", "confirm_logout.html", "receipt.html", "continue.html"),
    *("account.html", "renewed.html"),
    *("mfa_code.html", "mfa_ticket.html", "mfa_enrol.html", "mfa_codes.html", "mfa_manage.html"),
)

_STANDALONE = frozenset({"unknown_host", "host_malformed"})
"""Told at an address where our style sheet isn't served: it goes into the page, under a hash of the policy."""

_FEW = 4
"""Up to so many pools get large cards."""

_WORTH_TELLING = 5
"""Seconds; a shorter wait is not worth a sentence."""

_LOCAL = re.compile(r"/(?![/\\])")


class Pages:
    """Every page that is hubgate's own, in the site's first language; `to` has the others.

    `override`: a site's own directory, whose files win by name over ours (templates, `static/`, `messages/`); its
    templates can extend ours as `hubgate/<name>`. `form_origins`: origins that a form's answer may redirect to, e.g.
    the identity provider's (browsers hold the whole chain against `form-action`). `own_factor`: there is a page about
    the second factor; `account_url`: of the provider's own page about accounts; `stop_servers`: with somebody's last
    session. Everything is read once, here: for a change, make a new one. A site's own templates are tried out here,
    too. `site_in`: the site with its texts in a language; None: it has them in one.

    Raises OperatorFault `templates_malformed`, `messages_malformed`, `messages_missing`: at the start, not in front of
    a person.
    """

    def __init__(
        self,
        site: Site,
        portal: Portal,
        *,
        override: Path | None = None,
        form_origins: Sequence[str] = (),
        own_factor: bool = False,
        account_url: str = "",
        stop_servers: bool = False,
        announcements: Sequence[Announcement] = (),
        site_in: Callable[[str], Site] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        spoken = load_words(template_folders(override), wanted=portal.languages)
        self._board = NoticeBoard(announcements)
        self._clock = clock
        self._templates = Templates(
            site,
            brand_of(portal),
            override=override,
            form_origins=form_origins,
            several_languages=len(spoken) > 1,
            facts={
                "home": f"{site.public_url}/",
                "paths": _PATHS,
                "own_factor": own_factor,
                "account_url": account_url,
                "stop_servers": stop_servers,
                "csrf_field": CSRF_FIELD,
                "listed": self._listed,
            },
        )
        self._languages = tuple(spoken)
        self._in_language: dict[str, Pages] = {}
        for language in reversed(self._languages):  # what is set last stays ours
            self._words = spoken[language]
            self._portal = _told_in(portal, language)
            self._site = site_in(language) if site_in else site
            self._in_language[language] = copy.copy(self)
        if override is not None:
            self._templates.rehearsed(_TEMPLATES, self._rehearse)

    def to(self, accept_language: str) -> Pages:
        """The same pages for somebody whose request says this in Accept-Language (RFC 9110, 12.5.4), or nothing."""
        return self._in_language[preferred(accept_language, self._languages)]

    # -- pages

    def landing(self, session: Session, *, state_of: Callable[[Pool], PoolState], request_id: str) -> web.Response:
        """`/`: the pools by section."""
        groups = session.identity.groups
        admitted = [pool for pool in self._site.pools if pool.admits(groups)]
        sections = self._sections(admitted, state_of)
        count = sum(len(section.cards) for section in sections)
        return self._page(
            "landing.html",
            request_id=request_id,
            session=session,
            sections=sections,
            count=count,
            # Few choices, each a section of its own, are told as large cards without headings over single things.
            large=count <= _FEW and len(sections) == count,
            closed=[pool for pool in self._site.pools if not pool.admits(groups)],
            notices=self._notices(admitted),
            ago=self._words.span(self._clock() - session.created, "ago"),
            time=self._time(session.created),
            factor=next((_FACTORS[value] for value in session.proof.amr if value in _FACTORS), ""),
        )

    def problem(
        self,
        code: str,
        *,
        status: int,
        request_id: str,
        retry_after: int | None = None,
        retry_url: str | None = None,
        login_url: str | None = None,
        pool: Pool | None = None,
        hub: str = "",
        session: Session | None = None,
    ) -> web.Response:
        """What went wrong, for a person.

        `retry_url`: what "Try again" leads to; without it there is no such link. `login_url`: where "Log in again"
        leads to, by default the portal's login. `pool`, `hub`: what it was about. `session`: shows who is logged in.
        """
        key, shape = told_as(code)
        pool = pool and self._told(pool)
        waits = shape.waits and bool(retry_after) and retry_url is not None
        # An announcement explains what is away; about a pool for some, it tells nobody else.
        explains = shape.tone == "wait" and (session is not None or pool is None or not pool.groups)
        targets: dict[Offer, str | None] = {
            # An address that the client made up must not become a link to another host.
            "retry": retry_url if _LOCAL.match(retry_url or "") else None,
            "login": login_url or self._login_url,
            "home": f"{self._site.public_url}/",
            "help": self._portal.help_url,
        }
        return self._page(
            "problem.html",
            status=status,
            request_id=request_id,
            session=session,
            retry_after=retry_after,
            standalone=code in _STANDALONE,
            script=waits,
            waits=waits,
            code=code,
            key=key,
            shape=shape,
            links=[{"offer": offer, "url": targets[offer]} for offer in shape.offers if targets[offer]],
            wait=self._words.span(retry_after) if retry_after and retry_after >= _WORTH_TELLING else "",
            pool=pool,
            hub=hub,
            notices=self._notices([pool] if pool else []) if explains else [],
        )

    def problem_json(
        self, code: str, status: int, request_id: str, *, retry_after: int | None = None, **members: object
    ) -> web.Response:
        """What went wrong, for a program (RFC 9457). `members`: extension members, e.g. `login_url`.

        Title and detail are in the language that was asked for (3.1.3, 3.1.4), since programs show them to people;
        `type` and `code` are what a program goes by.
        """
        key, _ = told_as(code)
        document = {
            "type": f"urn:hubgate:problem:{code}",
            "title": self._words.plain(f"problem.{key}.title"),
            "status": status,
            "detail": " ".join(self._words.plain(f"problem.{key}.{part}") for part in ("what", "do")),
            "code": code,
            "request_id": request_id,
            **members,
        }
        headers = {**self._templates.policy.document, **self._templates.language_headers(self._words)}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return web.Response(
            body=json.dumps(document, ensure_ascii=False).encode(),
            status=status,
            headers=headers,
            content_type="application/problem+json",
        )

    def waiting(
        self,
        *,
        session: Session,
        pool: Pool,
        hub: str,
        since: float,
        url: str,
        retry_after: int,
        may_move_at: float | None,
        request_id: str,
    ) -> web.Response:
        """503: the hub that holds this user's servers has been down since `since`. It goes on by itself.

        `url`: where the person wants to go (path and query), the address of this page. From `may_move_at` on (None:
        never) it offers a POST to `MOVE_PATH` with `csrf`, `pool` (its name) and `next`. Times: seconds since the
        epoch.
        """
        now, pool = self._clock(), self._told(pool)
        later = may_move_at is not None and may_move_at > now
        return self._page(
            "waiting.html",
            status=503,
            request_id=request_id,
            session=session,
            retry_after=max(1, retry_after),
            script=True,
            pool=pool,
            hub=hub,
            url=url,
            since=self._time(since),
            ago=self._words.span(now - since, "ago"),
            notices=self._notices([pool]),
            may_move=may_move_at is not None and not later,
            move_at=self._time(may_move_at) if may_move_at is not None and later else "",
            move_in=int(may_move_at - now) + 1 if may_move_at is not None and later else 0,
        )

    def confirm_logout(self, session: Session, *, request_id: str) -> web.Response:
        """Asks for a click, since a GET proves no intent: a POST to `LOGOUT_PATH` with `csrf`."""
        return self._page("confirm_logout.html", request_id=request_id, session=session)

    def receipt(
        self,
        *,
        request_id: str,
        pools: Sequence[Pool] = (),
        connections: int = 0,
        provider_ended: bool | None = True,
    ) -> web.Response:
        """After Log Out: what was ended.

        `pools`: whose hub cookies were ended; `connections`: how many open connections were closed; `provider_ended`:
        False if the provider's session may live on, None if there is nothing to tell.
        """
        return self._page(
            "receipt.html",
            request_id=request_id,
            session=None,
            pools=self._listed(self._titles(pools)),
            connections=connections,
            provider_ended=provider_ended,
            login=self._login_url,
        )

    def continue_login(self, url: str, *, request_id: str, status: int = 200) -> web.Response:
        """Goes on to `url` at once, with the #fragment of this page's address appended to its `next` parameter."""
        return self._page("continue.html", status=status, request_id=request_id, session=None, script=True, url=url)

    def renewed(self, session: Session, *, through: str, another: bool, request_id: str) -> web.Response:
        """The end of a login in a popup. `through`: what the browser passes by at the hub, "" for nothing; `another`:
        the page that waits was opened by somebody else than who logged in.
        """
        identity = session.identity
        return self._page(
            "renewed.html",
            request_id=request_id,
            session=None,  # a small window: no way out of the session, and no token of its forms
            script=not another,
            frame=bool(through),
            who=identity.name or identity.username,
            through=through,
            another=another,
        )

    def account(
        self,
        session: Session,
        seats: Sequence[Seat],
        *,
        told: Told | None = None,
        factor: FactorState | None = None,
        helpers: Helpers | None = None,
        remaining: Remaining | None = None,
        attended: bool = True,
        request_id: str,
    ) -> web.Response:
        """Somebody's own sessions, with what they have just ended (`told`), their second factor if it is ours, and
        their programs where there may be any.

        `remaining`: of the session in which the page is shown. `attended`: somebody asked for it, it didn't itself.
        """
        return self._page(
            "account.html",
            request_id=request_id,
            session=session,
            seats=seats,
            told=told,
            factor=factor,
            helpers=helpers,
            remaining=remaining,
            left=self._left(remaining) if remaining else "",
            attended=attended,
            unattended=ACCOUNT_PATH + UNATTENDED,
            script=remaining is not None,
            time=self._time,
            titles=self._titles,
        )

    def session_json(self, remaining: Remaining) -> web.Response:
        """What is left of a session, for `static/session.js`."""
        document = {
            "seconds_left": int(remaining.seconds),
            "by_idling": remaining.by_idling,
            "near": remaining.near,
            "look_again": remaining.look_again,
            "left": self._left(remaining),
            "stay": self._words.plain("account.stay"),
        }
        headers = {**self._templates.policy.document, **self._templates.language_headers(self._words)}
        body = json.dumps(document, ensure_ascii=False).encode()
        return web.Response(body=body, headers=headers, content_type="application/json")

    def _left(self, remaining: Remaining) -> str:
        sentence = "account.ends_idle" if remaining.by_idling else "account.ends_max"
        return self._words.plain(sentence, span=self._words.span(remaining.seconds))

    def mfa(self, view: View, *, request_id: str) -> web.Response:
        """A page of the second factor. One that says why a code was not taken is a 403, or a 429 for too many."""
        trouble = view.trouble
        wait = math.ceil(trouble.seconds) if trouble is not None and trouble.slug == "too_many" else None
        since = getattr(view, "since", None)
        return self._page(
            view.template,
            status=200 if trouble is None else 403 if wait is None else 429,
            request_id=request_id,
            session=view.session,
            form=view.has_form,
            retry_after=wait,
            view=view,
            since="" if since is None else self._time(since),
        )

    # -- headers

    def redirect(self, location: str, *, status: int = 303) -> web.Response:
        """Go there: `location` goes out as it is (aiohttp's own redirects rewrite it). 303: RFC 9110, 15.4.4."""
        return web.Response(status=status, headers={**self.base_headers, "Location": location})

    @property
    def files(self) -> StaticFiles:
        """What pages need beside them."""
        return self._templates.files

    @property
    def base_headers(self) -> Mapping[str, str]:
        """For our own answers that are no pages, redirects for instance: never stored, sniffed, framed or embedded."""
        return self._templates.policy.base

    # -- inside

    def _rehearse(self) -> None:
        """Show every page once, to nobody: what is wrong in a site's own templates comes out now."""
        from hubgate.web import account, mfa_views, presence  # noqa: PLC0415 - see above

        nobody = Session("", Identity("", "", "nobody", ""), Proof("", (), 0), created=0.0, last_seen=0.0, csrf="")
        for pool in self._site.pools[:1]:
            self.waiting(
                session=nobody, pool=pool, hub="", since=0.0, url="/", retry_after=1, may_move_at=0.0, request_id=""
            )
        self.landing(nobody, state_of=lambda _: "down", request_id="")
        self.problem("internal", status=500, request_id="", session=nobody)
        self.confirm_logout(nobody, request_id="")
        self.account(
            nobody,
            account.examples(nobody, self._site),
            told=account.Told(1, 1),
            helpers=account.example_helpers(self._site),
            request_id="",
        )
        left = presence.Remaining(1.0, by_idling=True, near=True, look_again=1)
        self.account(nobody, (), factor=mfa_views.FactorState(0.0, 1), remaining=left, request_id="")
        self.receipt(request_id="", pools=self._site.pools, connections=1, provider_ended=False)
        self.continue_login(LOGIN_PATH, request_id="")
        for another in (True, False):
            self.renewed(nobody, through="/", another=another, request_id="")
        for view in mfa_views.examples(nobody):
            self.mfa(view, request_id="")

    def _page(self, template: str, **facts: Any) -> web.Response:
        """`Templates.page`, with what it takes beside the facts, in our language."""
        return self._templates.page(template, words=self._words, portal=self._portal, **facts)

    def _told(self, pool: Pool) -> Pool:
        """The pool with its texts in our language."""
        return next((ours for ours in self._site.pools if ours.name == pool.name), pool)

    def _titles(self, pools: Iterable[Pool]) -> list[str]:
        return [told.title or told.name for told in map(self._told, pools)]

    def _notices(self, pools: Sequence[Pool]) -> list[Notice]:
        return self._board.told(self._words, pools, self._clock())

    def _sections(self, pools: Sequence[Pool], state_of: Callable[[Pool], PoolState]) -> list[Section]:
        cards: dict[str, list[Card]] = {}
        for pool in pools:
            url = pool.path if pool.host is None else self._site.origin(pool.host) + pool.path
            cards.setdefault(pool.section, []).append(
                Card(pool, url, state_of(pool), self._board.work_on(self._words, pool, self._clock()))
            )
        return [Section(title, tuple(entries)) for title, entries in cards.items()]

    @property
    def _login_url(self) -> str:
        return f"{self._site.public_url}{login_url('/')}"

    def _time(self, moment: float) -> Markup:
        """A time of day in the server's zone, with the date if it isn't today's."""
        told = local(moment)
        text = self._words.moment(told, now=local(self._clock()))
        return Markup('<time datetime="{}">{}</time>').format(told.isoformat(timespec="seconds"), text)

    @staticmethod
    def _listed(names: Iterable[str]) -> Markup:
        return Markup(", ").join(Markup("<bdi>{}</bdi>").format(name) for name in names)


def _told_in(portal: Portal, language: str) -> Portal:
    """`[portal]` with its texts in one language."""
    texts = {key: in_language(getattr(portal, key), language) for key in ("welcome", "help_text")}
    return portal.model_copy(update=texts)
