"""What does a person get to see, and under which rules of the browser?

Templates say how a page looks, `words` what it says, and this module which facts go in and which headers go out. It asks
nobody: every page renders while the store, the identity provider and all hubs are down. It doesn't know what a request
is allowed to do; whoever calls has decided that.

Every page is HTML without inline script or style, under a policy that starts at `default-src 'none'`. Referrer-Policy:
a page with a form needs `same-origin`, since `no-referrer` would turn the form's Origin into `null` (Fetch, "serializing
a request origin"), which the CSRF check refuses; a page without one gets `no-referrer`, since its own address may hold a
code or a state.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import quote, urlsplit

import jinja2
from aiohttp import web

from hubgate.core.site import OWN_PREFIX, Pool, Site
from hubgate.web.words import Words, load_words

if TYPE_CHECKING:
    from hubgate.core.session import Session

LOGIN_PATH = OWN_PREFIX + "login"
LOGOUT_PATH = OWN_PREFIX + "logout"
MOVE_PATH = OWN_PREFIX + "move"
STATIC_PATH = OWN_PREFIX + "static/"

CSRF_FIELD = "csrf"
"""Name of the hidden form field with `Session.csrf`. Other fields of our forms: `pool`, `next` (both on `MOVE_PATH`)."""

PoolState = Literal["up", "degraded", "down"]
Offer = Literal["retry", "login", "home", "help"]
Tone = Literal["lost", "wait", "stop"]


class PortalTexts(Protocol):
    """What a site says about itself: `[portal]` of the configuration."""

    @property
    def title(self) -> str: ...
    @property
    def help_url(self) -> str: ...
    @property
    def help_text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Card:
    """A pool on the landing page."""

    pool: Pool
    url: str
    state: PoolState


@dataclass(frozen=True, slots=True)
class Section:
    """Cards below one heading, in the order of the configuration. The title may be empty."""

    title: str
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a problem is shown: the way on that helps, best first, and its tone."""

    offers: tuple[Offer, ...]
    tone: Tone = "stop"


_ASK = Shape(("home", "help"))
_AGAIN = Shape(("login", "home", "help"))
_LATER = Shape(("retry", "home", "help"), "wait")
_LOST = Shape(("home",), "lost")

PROBLEMS: Mapping[str, Shape] = {
    "target_malformed": _LOST,
    "target_ambiguous": _LOST,
    "host_malformed": _LOST,
    "unknown_host": _LOST,
    "unknown_path": _LOST,
    "method_not_allowed": _LOST,
    "headers_too_large": _ASK,
    "group_missing": _ASK,
    "login_expired": _AGAIN,
    "login_unknown": _AGAIN,
    "login_denied": _AGAIN,
    "login_restart": _AGAIN,
    "login_not_allowed": _ASK,
    "callback_malformed": _AGAIN,
    "username_refused": _ASK,
    "username_taken": _ASK,
    "second_factor_missing": _AGAIN,
    "provider_unavailable": _LATER,
    "provider_error": _AGAIN,
    "id_token_refused": _AGAIN,
    "claims_malformed": _ASK,
    "too_many_logins": _LATER,
    "session_required": _AGAIN,
    "store_unavailable": _LATER,
    "upstream_unreachable": _LATER,
    "upstream_timeout": _LATER,
    "upstream_malformed": _LATER,
    "upstream_closed": _LATER,
    "no_hub_available": _LATER,
    "origin_refused": _ASK,
    "csrf_failed": Shape(("home", "help")),
    "internal": Shape(("retry", "home", "help")),
}
"""Every code that has sentences of its own; others are told as `unexpected`."""

UNEXPECTED = Shape(("home", "help"))

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

_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_STYLES = ("hubgate.css", "site.css")


class Pages:
    """Every page that is hubgate's own.

    `override`: a site's own directory, whose files win by name over ours (templates, `static/`, `messages/`).
    `form_origins`: origins that a form's answer may redirect to, e.g. the identity provider's (CSP checks the whole chain).
    Raises jinja2.TemplateError or OperatorFault for files that can't be used: at the start, not in front of a person.
    """

    def __init__(
        self,
        site: Site,
        portal: PortalTexts,
        *,
        override: Path | None = None,
        form_origins: Sequence[str] = (),
        language: str = "en",
        clock: Callable[[], float] = time.time,
    ) -> None: ...

    # -- pages

    def landing(
        self, session: Session, *, state_of: Callable[[Pool], PoolState], request_id: str, notices: Sequence[str] = ()
    ) -> web.Response:
        """`/`: the pools by section. `notices`: sentences to show on top."""
        raise NotImplementedError

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
        """What went wrong, for a person. `retry_url`: what "Try again" leads to; without it there is no such link.
        `login_url`: where "Log in" leads to, the portal's login by default. `session`: shows who is logged in."""
        raise NotImplementedError

    def problem_json(
        self,
        code: str,
        status: int,
        request_id: str,
        *,
        retry_after: int | None = None,
        **members: object,
    ) -> web.Response:
        """What went wrong, for a program (RFC 9457). `members`: extension members, e.g. `login_url`."""
        raise NotImplementedError

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
        """503: the hub that holds this user's servers is down. `url`: where the person wants to go (path and query).
        From `may_move_at` on (epoch; None: never) it offers a POST to `MOVE_PATH` with `csrf`, `pool`, `next`."""
        raise NotImplementedError

    def confirm_logout(self, session: Session, *, request_id: str) -> web.Response:
        """Asks for a click: a POST to `LOGOUT_PATH` with `csrf`."""
        raise NotImplementedError

    def receipt(
        self,
        *,
        request_id: str,
        pools: Sequence[Pool] = (),
        connections: int = 0,
        provider_ended: bool | None = True,
        provider_url: str | None = None,
    ) -> web.Response:
        """After Log Out. `pools`: whose hub cookies were ended; `connections`: sockets that were closed;
        `provider_ended`: False: the provider's session may live on, None: there was none; `provider_url`: where to end it."""
        raise NotImplementedError

    def continue_login(self, url: str, *, request_id: str, status: int = 200) -> web.Response:
        """Goes on to `url` at once, with the address's #fragment appended to its `next` parameter."""
        raise NotImplementedError

    # -- files and headers

    async def static(self, request: web.Request) -> web.Response:
        """aiohttp handler of `STATIC_PATH + "{name}"`: GET and HEAD; a plain 404 for unknown names."""
        raise NotImplementedError

    def file(self, name: str, *, if_none_match: str = "", version: str = "") -> web.Response | None:
        """One static file, e.g. `favicon.svg` for `/favicon.ico`, or `robots.txt`; None if there is none."""
        raise NotImplementedError

    @property
    def base_headers(self) -> Mapping[str, str]:
        """For our own answers that are no pages (redirects, JSON): nosniff, no-store, HSTS and so on."""
        raise NotImplementedError
