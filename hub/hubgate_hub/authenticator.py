"""Who is logging in at this hub?

The one whom the header names (REMOTE_USER), if the gateway's signed assertion proves exactly that. The header alone
proves nothing: the hub's port must be reachable from notebooks, so any user can send it any header.

JupyterHub then decides, as with every authenticator, whether that person may come in: nobody, until the administrator
says `allow_all`, or names users or groups.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyterhub.auth import Authenticator, LocalAuthenticator
from tornado import web
from tornado.httputil import HTTPHeaders
from traitlets import Bool, Set, Unicode, default

from . import assertion as proof
from .assertion import Assertion, Expectation, Refused, Seen
from .doors import LoginHandler, LogoutHandler, SessionHandler, TurnedAway, end_hub_session
from .keys import KeySource
from .selfcheck import complaints

JWKS_PATH = "/_hubgate/jwks.json"


@dataclass(frozen=True)
class Proven:
    """Who is there, and what proves it. No assertion: the header alone was taken for it, as configured.

    `name` is as it was sent; `normalize_username` makes it this hub's.
    """

    name: str
    assertion: Assertion | None


@dataclass(frozen=True)
class Presented:
    """What a request brought along: each header's one value, or None."""

    identity: str | None
    assertion: str | None


class HubgateAuthenticator(Authenticator):  # type: ignore[misc] # JupyterHub has no types
    """Takes the user from the gateway, and its word for it from a signature."""

    gateway_url = Unicode(
        config=True,
        help="""The gateway's public URL (its `public_url`), as in `https://jupyter.example.org`, without a path.

        It is the issuer that assertions must name, its `/_hubgate/jwks.json` has the keys, and Log Out leads there.
        """,
    )
    hub_name = Unicode(
        config=True,
        help="The name that the gateway's configuration has for this hub: the audience that assertions must name.",
    )
    jwks = Unicode(
        config=True,
        help="""Where the gateway's public keys are, if not at `gateway_url`: another URL, or a file.

        For hubs that can't reach the gateway's public address.
        """,
    )
    identity_header = Unicode("REMOTE_USER", config=True, help="The header that names the user.")
    trust_header_alone = Bool(
        False,
        config=True,
        help="""Believe the header without an assertion. For other proxies, which don't sign.

        Whoever can reach the hub's port can then log in as anybody, and every notebook server can reach it.
        """,
    )
    allowed_groups = Set(
        Unicode(), config=True, help="Who is in one of these groups, as the gateway says, may come in."
    ).tag(allow_config=True)
    admin_groups = Set(
        Unicode(),
        config=True,
        help="""Who is in one of these groups, as the gateway says, is an administrator of this hub.

        Asked at each login: whoever has left the groups, and isn't in `admin_users`, is one no longer.
        """,
    )

    @default("auto_login")
    def _auto_login_default(self) -> bool:
        return True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._now = time.time
        self._started = time.time()
        self._seen = Seen()
        self._keys: KeySource | None = None
        self._checking: asyncio.Task[None] | None = None

    # What the administrator said

    @property
    def issuer(self) -> str:
        """The gateway's public URL without the slash that people like to end it with."""
        return str(self.gateway_url).rstrip("/")

    @property
    def jwks_location(self) -> str:
        """Where the keys are, or "" when nobody said."""
        return str(self.jwks) or (self.issuer and self.issuer + JWKS_PATH)

    @property
    def keys(self) -> KeySource:
        """Where the keys come from. Raises Refused `not_set_up` when that can't be known."""
        if self._keys is None:
            try:
                self._keys = KeySource(self.jwks_location)
            except ValueError as error:
                raise Refused("not_set_up", f"no place for the keys: {error}") from error
        return self._keys

    def check_allow_config(self) -> None:
        """Say what is wrong, one line each. JupyterHub calls this once, at start."""
        found = complaints(self, self.parent)
        for level, sentence in found:
            self.log.log(level, "hubgate check: %s", sentence)
        if not self.trust_header_alone and all(level < logging.ERROR for level, _ in found):
            self.log.info("hubgate check: logins for %s are taken from %s", self.hub_name, self.issuer)
        if self.jwks_location and not self.trust_header_alone:
            # A reference, so that the task isn't collected; nothing waits for it: the gateway may start after the hub.
            self._checking = asyncio.ensure_future(self._check_keys())

    async def _check_keys(self) -> None:
        try:
            keys = self.keys
        except Refused:
            return  # a line of its own has said so
        await keys.refresh()
        if keys.fault:
            self.log.warning(
                "hubgate check: no keys from %s (%s): nobody can log in until that works; the next login tries again",
                keys.location,
                keys.fault,
            )

    # Who is there

    async def prove(self, handler: Any) -> Proven:
        """Who is logging in with this request. Raises an HTTPError with a kind page. An assertion works once."""
        if not hasattr(handler, "_hubgate_proven"):
            # Kept for the request: the login page asks before it looks at cookies, and JupyterHub asks once more.
            try:
                handler._hubgate_proven = await self._prove(self._presented(handler))
            except Refused as refusal:
                raise self.turned_away(handler, refusal) from refusal
        proven: Proven = handler._hubgate_proven
        return proven

    async def _prove(self, presented: Presented) -> Proven:
        if self.trust_header_alone:
            if not presented.identity:
                raise Refused("identity_missing", f"no {self.identity_header}")
            return self._usable(Proven(self._unsigned_name(presented.identity), None))
        if presented.assertion is None:
            raise Refused("assertion_missing", f"{self.identity_header} says {_shown(presented.identity)}")
        assertion = await self._verify(presented.assertion, use="login")
        proof.check_fresh(assertion, started=self._started)
        if not presented.identity:
            raise Refused("identity_missing", f"no {self.identity_header}; the assertion is {assertion.username!a}'s")
        if _octets(presented.identity) != assertion.username.encode():
            raise Refused(
                "identity_differs",
                f"{self.identity_header} says {_shown(presented.identity)}, the assertion {assertion.username!a}",
            )
        # Last, and with no await since the checks: of two requests with the same assertion one gets here first.
        self._seen.use_up(assertion, now=self._now())
        return self._usable(Proven(assertion.username, assertion))

    async def _verify(self, token: str, *, use: str) -> Assertion:
        if not self.issuer or not self.hub_name:
            raise Refused("not_set_up", "gateway_url or hub_name is missing")
        key = await self.keys.key(proof.key_id(token))
        expect = Expectation(issuer=self.issuer, audience=str(self.hub_name))
        return proof.verify(token, key, expect=expect, use=use, now=self._now())

    def _presented(self, handler: Any) -> Presented:
        if not hasattr(handler, "_hubgate_presented"):
            headers: HTTPHeaders = handler.request.headers
            handler._hubgate_presented = Presented(
                identity=single(headers, self.identity_header), assertion=single(headers, proof.HEADER)
            )
            # JupyterHub logs a request's headers when it fails.
            if proof.HEADER in headers:
                del headers[proof.HEADER]
        presented: Presented = handler._hubgate_presented
        return presented

    def _unsigned_name(self, header: str) -> str:
        try:
            return _octets(header).decode()
        except UnicodeDecodeError as error:
            raise Refused("name_refused", f"{self.identity_header} is not UTF-8") from error

    def _usable(self, proven: Proven) -> Proven:
        if not self.validate_username(self.normalize_username(proven.name)):
            raise Refused("name_refused", _shown(proven.name))
        return proven

    def turned_away(self, handler: Any, refusal: Refused, *, user: str = "") -> TurnedAway:
        """The refusal as a page; and as one line in the log, which never has the assertion itself."""
        request = handler.request
        self.log.warning(
            "hubgate: login refused, reason=%s client=%s path=%s: %s",
            refusal.reason,
            request.remote_ip,
            request.path,
            refusal.detail,
        )
        away = TurnedAway(refusal, gateway_url=self.issuer, user=user, hub=str(self.hub_name))
        handler.extra_error_html = away.details
        return away

    # What JupyterHub asks

    def get_handlers(self, app: Any) -> list[tuple[str, type[web.RequestHandler]]]:
        return [
            (r"/login", LoginHandler),
            (r"/logout", LogoutHandler),
            (r"/api/hubgate/users/([^/]+)/sessions(?:/([^/]+))?", SessionHandler),
        ]

    async def authenticate(self, handler: Any, data: Any = None) -> dict[str, Any]:
        """The user of this request, whatever came in a form."""
        proven = await self.prove(handler)
        assertion = proven.assertion
        return {
            "name": proven.name,
            # None: unknown, so leave what there is.
            "groups": None if assertion is None else list(assertion.groups),
            # JupyterHub drops it unless enable_auth_state is set.
            "auth_state": None if assertion is None else _auth_state(assertion),
        }

    def normalize_username(self, username: str) -> str:
        """The name as it is: the gateway decided it once, and changing it here would make two people one."""
        return str(super().normalize_username(username)) if self.trust_header_alone else username

    def validate_username(self, username: str) -> bool:
        """Also refuse what can't be one person's name: two values that a proxy joined, control characters, options."""
        plain = username.isprintable() and "," not in username and not username.startswith("-") and len(username) < 256
        return plain and bool(super().validate_username(username))

    def check_allowed(self, username: str, authentication: Mapping[str, Any] | None = None) -> bool:
        return self.check_allowed_groups(username, authentication) or bool(
            super().check_allowed(username, authentication)
        )

    def check_allowed_groups(self, username: str, authentication: Mapping[str, Any] | None = None) -> bool:
        """Whether one of the person's groups at the gateway is allowed."""
        return not self.allowed_groups.isdisjoint((authentication or {}).get("groups") or ())

    def is_admin(self, handler: Any, authentication: Mapping[str, Any]) -> bool | None:
        if super().is_admin(handler, authentication):
            return True
        groups = authentication.get("groups")
        if not self.admin_groups or groups is None:
            return None
        return not self.admin_groups.isdisjoint(groups)

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:
        """End the hub session when the gateway's assertion on a page is another user's.

        A courtesy, no security boundary: JupyterHub asks at most once in `auth_refresh_age` for each *user*, not for
        each browser, and pages may come without an assertion. The boundary is the gateway, which lets hub cookies
        through only in the sessions of the user that they were issued to.

        A wrong False costs a lot: it blocks API tokens, the servers' own reports of activity among them. So only a
        proof says False, and only for the one who sent this very request.
        """
        if handler is None or getattr(handler, "_token_authenticated", False):
            return True
        # In JupyterHub 5 it isn't there while a cookie's user is looked up, which is when we want to be asked.
        requester = getattr(handler, "_jupyterhub_user", None)
        if requester is not None and requester is not user:
            return True
        if isinstance(handler, LoginHandler):
            return True  # it is about to find out by itself, from an assertion that works once
        asserted = await self._asserted_name(handler)
        if asserted is None or asserted == user.name:
            return True
        self.log.info("hubgate: hub session of %s ended, the gateway says %s", user.name, asserted)
        end_hub_session(handler)
        if not hasattr(handler, "_token_authenticated"):
            # JupyterHub 6.1.1 reads it after a False, and sets it for tokens only.
            handler._token_authenticated = False
        return False

    async def _asserted_name(self, handler: Any) -> str | None:
        """Who the gateway says is looking at this page; None when it doesn't say, or not credibly."""
        try:
            presented = self._presented(handler)
            if self.trust_header_alone:
                return self.normalize_username(self._unsigned_name(presented.identity)) if presented.identity else None
            if presented.assertion is None:
                return None
            return (await self._verify(presented.assertion, use="page")).username
        except Refused as refusal:
            self.log.warning("hubgate: page assertion not believed, reason=%s: %s", refusal.reason, refusal.detail)
            return None


class HubgateLocalAuthenticator(HubgateAuthenticator, LocalAuthenticator):  # type: ignore[misc] # see above
    """The same for hubs whose users are accounts of this system; `create_system_users` creates missing ones.

    `allowed_groups` are the gateway's groups here too, not the system's: one name, one meaning.
    """

    async def authenticate(self, handler: Any, data: Any = None) -> dict[str, Any]:
        model = await super().authenticate(handler, data)
        name = self.normalize_username(model["name"])
        if not self.create_system_users and not self._has_account(name):
            # JupyterHub would find out halfway through, with the user in its database and a page that says 500.
            raise self.turned_away(handler, Refused("no_account", _shown(name)), user=name)
        return model

    def _has_account(self, username: str) -> bool:
        try:
            self._getpwnam(username)
        except KeyError:
            return False
        return True


def single(headers: HTTPHeaders, name: str) -> str | None:
    """The one value of a header; None when it isn't there.

    Raises Refused `header_ambiguous` when it is there twice, or in a spelling that some proxy or server on the way
    takes for the same (`Remote-User` beside `REMOTE_USER`): one of the two is not the gateway's.
    """
    wanted = _folded(name)
    found = [(spelling, value) for spelling, value in headers.get_all() if _folded(spelling) == wanted]
    if not found:
        return None
    if len(found) > 1 or found[0][0].lower() != name.lower():
        raise Refused("header_ambiguous", f"{name} came as " + ", ".join(_shown(spelling) for spelling, _ in found))
    return found[0][1]


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _octets(value: str) -> bytes:
    """A header's value as it came: tornado reads every octet as a character of ISO 8859-1."""
    return value.encode("latin-1", "backslashreplace")


def _auth_state(assertion: Assertion) -> dict[str, Any]:
    return {
        "iss": assertion.issuer,
        "sid": assertion.sid,
        "acr": assertion.acr,
        "amr": list(assertion.amr),
        "auth_time": assertion.auth_time,
    }


def _shown(value: str | None) -> str:
    return ascii(value if value is None or len(value) <= 64 else value[:61] + "...")
