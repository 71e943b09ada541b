"""An identity provider for one person's own machine: development only, never for a site.

It stands in where a real Keycloak can't be had, and answers quickly enough for tests. For the gateway and for a
scripted login it looks like Keycloak: the same paths below the issuer, the same names of form fields, the same claims.
It demands password and one-time code, and leads somebody without a key through setting one up; or, for a gateway with a
second factor of its own, the password alone. Users come from whoever starts it, all that it remembers is gone when it
ends, and it serves loopback alone: an issuer elsewhere is refused, and so is a request that came in by another address.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from aiohttp import web
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from hubgate.config.values import is_loopback
from hubgate.ops import devidp_pages
from hubgate.ops.devidp_codes import OneTimeCodes, new_key
from hubgate.ops.devidp_loopback import demand_loopback, loopback_only

log = logging.getLogger(__name__)

_WRONG_CODES = 5  # for one login, then it begins anew
_CODE_LIFETIME = 60
_ACCESS_LIFETIME = 60
_SESSION_LIFETIME = 12 * 3600
_MOST_FLOWS = 1000  # logins that were begun: the oldest gives way


@dataclass(frozen=True, slots=True)
class DevUser:
    """Somebody who can log in. `totp_secret_b32`: the key of their one-time codes in base32, "" for somebody who has
    to set one up at the first login. `subject`: what `sub` says; made from issuer and user name when empty.
    """

    password: str = field(repr=False)
    totp_secret_b32: str = field(default="", repr=False)
    groups: tuple[str, ...] = ()
    name: str = ""
    email: str = ""
    subject: str = ""


@dataclass(slots=True)
class _Flow:
    """A login under way. `username` is empty until the password was right."""

    request: Mapping[str, str]
    username: str = ""
    new_key: str = ""
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class _Session:
    sid: str
    username: str
    auth_time: int


@dataclass(frozen=True, slots=True)
class _Code:
    request: Mapping[str, str]
    session: _Session
    expires: float


class DevIdp:
    """The provider. `issuer`: its URL on loopback; `app` answers below the issuer's path. `second_factor`: whether it
    demands one-time codes.

    Raises OperatorFault `devidp_not_loopback`.
    """

    def __init__(
        self,
        users: Mapping[str, DevUser],
        client_id: str,
        client_secret: str,
        issuer: str,
        *,
        second_factor: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        demand_loopback(urlsplit(issuer).hostname or "")
        self._users = users
        self._otp = OneTimeCodes({name: user.totp_secret_b32 for name, user in users.items()}, clock)
        self._client = (client_id, client_secret)
        self._second_factor = second_factor
        self._clock = clock
        self.issuer = issuer.rstrip("/")
        self._path = urlsplit(self.issuer).path
        self._cookie = f"dev-idp-{urlsplit(self.issuer).port or 80}"
        self._signing = ECKey.generate_key("P-256", auto_kid=True)
        self._flows: dict[str, _Flow] = {}
        self._codes: dict[str, _Code] = {}
        self._sessions: dict[str, _Session] = {}  # by the browser's cookie
        self._refresh: dict[str, _Session] = {}
        self.app = self._application()
        log.warning("devidp_development_only", extra={"issuer": self.issuer})

    def __repr__(self) -> str:
        return f"DevIdp({self.issuer!r}, development only)"

    @property
    def _acr(self) -> str:
        return "mfa" if self._second_factor else "pwd"

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[loopback_only])
        protocol = self._path + "/protocol/openid-connect"
        app.router.add_get(self._path + "/.well-known/openid-configuration", self._discovery)
        app.router.add_get(protocol + "/certs", self._certs)
        app.router.add_get(protocol + "/auth", self._authorize)
        app.router.add_post(protocol + "/token", self._token)
        app.router.add_get(protocol + "/logout", self._logout)
        app.router.add_post(protocol + "/logout", self._logout_behind)
        app.router.add_post(self._path + "/login-actions/authenticate", self._authenticate)
        return app

    async def _discovery(self, _: web.Request) -> web.Response:
        protocol = self.issuer + "/protocol/openid-connect"
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": protocol + "/auth",
                "token_endpoint": protocol + "/token",
                "jwks_uri": protocol + "/certs",
                "end_session_endpoint": protocol + "/logout",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "code_challenge_methods_supported": ["S256"],
                "acr_values_supported": [self._acr],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _certs(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self._signing.as_dict(private=False) | {"use": "sig", "alg": "ES256"}]})

    # -- the browser logs in

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        redirect = urlsplit(asked.get("redirect_uri", ""))
        if asked.get("client_id") != self._client[0] or not is_loopback(redirect.hostname or "") or redirect.fragment:
            message = "No client is known by this name and return address."
            return devidp_pages.notice("Unknown client", message, status=400)
        if len(asked) != len(request.query) or asked.get("response_type") != "code":
            return self._back(asked, error="invalid_request")
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            return self._back(asked, error="invalid_request", error_description="PKCE with S256 is demanded")
        if "openid" not in asked.get("scope", "").split():
            return self._back(asked, error="invalid_scope")
        session = self._sessions.get(request.cookies.get(self._cookie, ""))
        age = asked.get("max_age", "")
        stale = session is not None and age.isdigit() and self._clock() - session.auth_time > int(age)
        if session is not None and not stale and asked.get("prompt") != "login":
            return self._granted(asked, session)
        if asked.get("prompt") == "none":
            return self._back(asked, error="login_required")
        while len(self._flows) >= _MOST_FLOWS:
            self._flows.pop(next(iter(self._flows)))
        flow_id = secrets.token_urlsafe(16)
        self._flows[flow_id] = _Flow(asked)
        return self._form(flow_id)

    async def _authenticate(self, request: web.Request) -> web.Response:
        flow_id = request.query.get("flow", "")
        flow = self._flows.get(flow_id)
        if flow is None:
            message = "This login took too long, or was finished elsewhere. Go back and begin anew."
            return devidp_pages.notice("Login is over", message, status=400)
        given = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        if not flow.username:
            return self._password(flow_id, flow, given)
        code = given.get("totp" if flow.new_key else "otp", "")
        if not self._otp.accept(flow.username, code, new_key=flow.new_key):
            flow.wrong += 1
            if flow.wrong >= _WRONG_CODES:
                del self._flows[flow_id]
                return self._back(flow.request, error="access_denied")
            return self._form(flow_id, "Invalid authenticator code.")
        return self._logged_in(flow_id, flow)

    def _logged_in(self, flow_id: str, flow: _Flow) -> web.Response:
        del self._flows[flow_id]
        session = _Session(str(uuid.uuid4()), flow.username, int(self._clock()))
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = session
        response = self._granted(flow.request, session)
        response.set_cookie(self._cookie, cookie, path=self._path or "/", httponly=True, samesite="Lax")
        return response

    def _password(self, flow_id: str, flow: _Flow, given: Mapping[str, str]) -> web.Response:
        username, password = given.get("username", "").strip().lower(), given.get("password", "")
        user = self._users.get(username)
        # Compared with something in any case, so that the time doesn't tell who exists.
        right = hmac.compare_digest(password.encode(), (user.password if user else secrets.token_hex()).encode())
        if user is None or not right:
            return self._form(flow_id, "Invalid username or password.")
        flow.username = username
        if not self._second_factor:
            return self._logged_in(flow_id, flow)
        if not self._otp.enrolled(username):
            flow.new_key = new_key()
        return self._form(flow_id)

    def _granted(self, asked: Mapping[str, str], session: _Session) -> web.Response:
        code = secrets.token_urlsafe(32)
        self._codes[code] = _Code(asked, session, self._clock() + _CODE_LIFETIME)
        return self._back(asked, code=code, session_state=session.sid)

    def _back(self, asked: Mapping[str, str], **answer: str) -> web.Response:
        target = asked["redirect_uri"]
        answer = {**({"state": asked["state"]} if "state" in asked else {}), **answer, "iss": self.issuer}
        location = target + ("&" if urlsplit(target).query else "?") + urlencode(answer)
        return web.Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})

    def _form(self, flow_id: str, problem: str = "") -> web.Response:
        flow = self._flows[flow_id]
        action = f"{self._path}/login-actions/authenticate?flow={quote(flow_id)}"
        if not flow.username:
            return devidp_pages.password_form(action, problem)
        if not flow.new_key:
            return devidp_pages.code_form(action, problem)
        uri = self._otp.uri(flow.username, flow.new_key)
        return devidp_pages.enrolment_form(action, problem, key=flow.new_key, uri=uri)

    # -- the client asks

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._client_is_known(request, form):
            return _oauth_error("invalid_client", 401)
        match form.get("grant_type"):
            case "authorization_code":
                code = self._codes.pop(form.get("code", ""), None)
                if code is None or code.expires < self._clock() or not _same_request(code.request, form):
                    return _oauth_error("invalid_grant")
                return self._tokens(code.session, code.request["scope"], nonce=code.request.get("nonce"))
            case "refresh_token":
                session = self._refresh.get(form.get("refresh_token", ""))
                if session is None or not self._is_alive(session):
                    return _oauth_error("invalid_grant")
                return self._tokens(session, form.get("scope", "openid"))
            case _:
                return _oauth_error("unsupported_grant_type")

    def _client_is_known(self, request: web.Request, form: Mapping[str, str]) -> bool:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                parts = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError:
                return False
            client_id, secret = unquote_plus(parts[0]), unquote_plus(parts[2])
        return hmac.compare_digest(f"{client_id}\0{secret}".encode(), "\0".join(self._client).encode())

    def _tokens(self, session: _Session, scope: str, *, nonce: str | None = None) -> web.Response:
        access_token, refresh_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._refresh[refresh_token] = session
        now, user = int(self._clock()), self._users[session.username]
        claims = {
            "iss": self.issuer,
            "sub": user.subject or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.issuer}/{session.username}")),
            "aud": self._client[0],
            "azp": self._client[0],
            "typ": "ID",
            "exp": now + _ACCESS_LIFETIME,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "auth_time": session.auth_time,
            "at_hash": _b64(hashlib.sha256(access_token.encode()).digest()[:16]),
            "sid": session.sid,
            "acr": self._acr,
            "amr": ["pwd", "otp"] if self._second_factor else ["pwd"],
            "preferred_username": session.username,
            "name": user.name,
            "email": user.email,
            "email_verified": True,
            "groups": list(user.groups),
        }
        claims |= {"nonce": nonce} if nonce is not None else {}
        return web.json_response(
            {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": _ACCESS_LIFETIME,
                "refresh_token": refresh_token,
                "id_token": self._signed(claims),
                "scope": scope,
            },
            headers={"Cache-Control": "no-store"},
        )

    def _signed(self, claims: Mapping[str, object]) -> str:
        header = {"alg": "ES256", "typ": "JWT", "kid": self._signing.kid}
        return jws.serialize_compact(header, json.dumps(claims), self._signing, algorithms=["ES256"])

    # -- and out

    def _is_alive(self, session: _Session) -> bool:
        return session in self._sessions.values() and self._clock() - session.auth_time < _SESSION_LIFETIME

    def _end(self, sid: str) -> None:
        self._sessions = {cookie: session for cookie, session in self._sessions.items() if session.sid != sid}
        self._refresh = {token: session for token, session in self._refresh.items() if session.sid != sid}

    async def _logout(self, request: web.Request) -> web.Response:
        """GET by the browser (RP-Initiated Logout 1.0)."""
        hint = self._read_back(request.query.get("id_token_hint", ""))
        session = self._sessions.get(request.cookies.get(self._cookie, ""))
        if hint is None or (session is not None and session.sid != hint["sid"]):
            return devidp_pages.notice("Log out", "Log out where you logged in.", status=400)
        self._end(hint["sid"])
        target = request.query.get("post_logout_redirect_uri", "")
        if not is_loopback(urlsplit(target).hostname or ""):
            return devidp_pages.notice("Logged out", "You are logged out.")
        state = {"state": request.query["state"]} if "state" in request.query else {}
        location = target + (f"{'&' if urlsplit(target).query else '?'}{urlencode(state)}" if state else "")
        return web.Response(status=302, headers={"Location": location})

    async def _logout_behind(self, request: web.Request) -> web.Response:
        """POST by the client with a refresh token, as Keycloak takes it."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._client_is_known(request, form):
            return _oauth_error("unauthorized_client", 401)
        session = self._refresh.get(form.get("refresh_token", ""))
        if session is None:
            return _oauth_error("invalid_grant")
        self._end(session.sid)
        return web.Response(status=204)

    def _read_back(self, token: str) -> Any:
        """The claims of an ID token that was given out here, however old, else None."""
        try:
            signed = jws.deserialize_compact(token, self._signing, algorithms=["ES256"])
            return json.loads(signed.payload or b"")
        except (ValueError, JoseError):
            return None


@asynccontextmanager
async def serving(
    users: Mapping[str, DevUser],
    client_id: str,
    client_secret: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    path: str = "/realms/dev",
    second_factor: bool = True,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[DevIdp]:
    """A provider that answers while entered. `host`: an address of loopback; `port` 0: any that is free.

    Raises OperatorFault as `DevIdp` does, OSError when the port is taken.
    """
    demand_loopback(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        netloc = f"[{host}]" if ":" in host else host
        issuer = f"http://{netloc}:{listener.getsockname()[1]}{path}"
        idp = DevIdp(users, client_id, client_secret, issuer, second_factor=second_factor, clock=clock)
        runner = web.AppRunner(idp.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield idp
        finally:
            await runner.cleanup()


def _same_request(asked: Mapping[str, str], form: Mapping[str, str]) -> bool:
    """Whether the code is redeemed by whoever asked for it (RFC 6749, 4.1.3; RFC 7636, 4.6)."""
    verifier = form.get("code_verifier", "")
    return asked["redirect_uri"] == form.get("redirect_uri") and hmac.compare_digest(
        asked["code_challenge"].encode(), str(create_s256_code_challenge(verifier)).encode()
    )


def _oauth_error(error: str, status: int = 400) -> web.Response:
    return web.json_response({"error": error}, status=status, headers={"Cache-Control": "no-store"})


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
