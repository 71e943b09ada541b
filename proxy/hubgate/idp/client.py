"""How does a person log in at the provider, and out?

OpenID Connect Core 1.0 with the code flow (3.1), PKCE with S256 (RFC 7636), the issuer in the callback (RFC 9207),
refresh (RFC 6749, 6) and both ways out: by the browser (RP-Initiated Logout 1.0) and behind its back (what Keycloak
does for a client that shows its refresh token). Authlib writes the requests, `core/oidc.py` judges the answers, and
the provider's metadata and keys are `metadata.py`'s.

Where a login in progress is kept, and what comes of one that is complete, isn't known here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from hubgate import config
from hubgate.core.identity import Proof
from hubgate.core.logout_token import LogoutToken, check_logout_token, refused
from hubgate.core.oidc import (
    LARGEST_TOKEN,
    Expectations,
    LoginAttempt,
    authorization_code,
    check_id_token,
    error_slug,
    token_header,
    verified_claims,
)
from hubgate.errors import ClientFault, HubgateFault, ProviderFault
from hubgate.idp.backchannel import Backchannel, Reply
from hubgate.idp.metadata import Discovery, refusal

log = logging.getLogger(__name__)

# A login is begun only at a provider that gave a sign of life not longer ago than this: people should meet our page
# about its absence, not their browser's.
_SIGN_OF_LIFE = 2.0
# Seconds between attempts to read the metadata for the first time.
_WARM_UP = (0.5, 1.0, 2.0, 5.0, 10.0)
# For a provider that doesn't say how long its access token lives (RFC 6749, 5.1: it should).
_UNKNOWN_LIFETIME = 300
_LONGEST_LIFETIME = 86400


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What the token endpoint gave out. `expires_at`: of the access token, seconds since the epoch. After a refresh
    `id_token` is "" when none came with it: the one of before stays the one to show at the end.
    """

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: int
    scope: str


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was checked in every respect. `provider_sid`: the provider's name for its session, or ""."""

    claims: Mapping[str, object] = field(repr=False)
    proof: Proof
    tokens: TokenSet
    provider_sid: str


class OIDCClient:
    """This gateway as a client of its provider, while entered.

    `cool_down`: seconds between two fetches of the provider's keys because of a key id that nobody knows; `timeout`:
    seconds that one question to the provider may take.
    """

    def __init__(
        self,
        oidc: config.Oidc,
        mfa: config.Mfa,
        *,
        clock: Callable[[], float] = time.time,
        cool_down: float = 30.0,
        timeout: float = 8.0,
    ) -> None:
        self._oidc = oidc
        self._acr = mfa.acr if mfa.mode == "keycloak" and mfa.acr else None
        self._amr = tuple(mfa.amr) if mfa.mode == "keycloak" else ()
        self._clock = clock
        self._backchannel = Backchannel(ca=oidc.ca, timeout=timeout)
        self._discovery = Discovery(
            self._backchannel,
            issuer=oidc.issuer,
            internal_url=oidc.internal_url,
            clock=clock,
            cool_down=cool_down,
        )
        self._unwell_at = float("-inf")  # when it failed to answer the end of a session
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"OIDCClient({self._oidc.issuer!r}, {self._oidc.client_id!r}, available={self.available})"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._backchannel)
            stack.push_async_callback(self._discovery.close)
            warm_up = asyncio.create_task(self._warm_up(), name="first read of the provider's metadata")
            stack.push_async_callback(_ended, warm_up)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def available(self) -> bool:
        """Whether the provider's metadata has been read. It stays True when the provider goes away later: those who
        are logged in go on, and whoever logs in is told.
        """
        return self._discovery.known

    async def begin(
        self,
        *,
        redirect_uri: str,
        next: str,  # noqa: A002 - the name that the attempt, the query and the pages use
        browser: str,
        tries: int = 0,
        prompt: str | None = None,
        max_age: int | None = None,
    ) -> tuple[str, LoginAttempt]:
        """Where to send the browser, and what to remember until it comes back. `prompt`: instead of the configured one;
        `max_age`: seconds that the proof may be old (OpenID Connect Core 1.0, 3.1.2.1).

        Raises ProviderFault `provider_unavailable` or `provider_error` when the provider can't be used now.
        """
        metadata = await self._discovery.metadata(max_age=_SIGN_OF_LIFE)
        attempt = LoginAttempt(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            next=next,
            browser=browser,
            begun=int(self._clock()),
            tries=tries,
            max_age=max_age,
        )
        asked = _authorization_request(
            metadata.authorization,
            client_id=self._oidc.client_id,
            redirect_uri=redirect_uri,
            scopes=tuple(self._oidc.scopes),
            # One value: with several, Keycloak may take the lowest.
            acr_values=self._acr,
            prompt=prompt or self._oidc.prompt or None,
            kc_idp_hint=self._oidc.idp_hint or None,
            max_age=None if max_age is None else str(max_age),
        )
        challenge = create_s256_code_challenge(attempt.verifier)
        return f"{asked}&state={attempt.state}&nonce={attempt.nonce}&code_challenge={challenge}", attempt

    async def finish(self, attempt: LoginAttempt, params: Mapping[str, str]) -> Login:
        """The login that a callback completes. `params`: of the callback, whose `state` led to this attempt.

        Raises ClientFault `callback_malformed`, `login_denied`, `login_restart` (beginning anew helps),
        `second_factor_missing`; ProviderFault `id_token_refused`, `provider_error`, `provider_unavailable`.
        """
        metadata = await self._discovery.metadata()
        code = authorization_code(params, issuer=self._oidc.issuer, iss_required=metadata.iss_in_callback)
        reply = await self._post(
            metadata.token,
            prepare_token_request(
                "authorization_code", redirect_uri=attempt.redirect_uri, code=code, code_verifier=attempt.verifier
            ),
        )
        if _error(reply) == "invalid_grant":
            # Used before, too old, or begun with another verifier: a new one can't be worse.
            raise ClientFault(
                "login_restart", "the provider didn't accept the code", evidence={"error": "invalid_grant"}
            )
        tokens = self._tokens(reply)
        expect = self._expect(nonce=attempt.nonce, acr=self._acr, amr=self._amr, max_age=attempt.max_age)
        claims, proof = await self._checked(tokens, expect)
        sid = claims.get("sid")
        return Login(claims=claims, proof=proof, tokens=tokens, provider_sid=sid if isinstance(sid, str) else "")

    async def refresh(self, refresh_token: str, *, subject: str = "") -> tuple[TokenSet, Mapping[str, object] | None]:
        """New tokens for an old session, and what the ID token among them says, if there is one. `subject`: whose they
        must be, if it is known.

        Raises ProviderFault `refresh_refused` when the provider's session is over or its user disabled,
        `id_token_refused` for somebody else's, `provider_error`, `provider_unavailable`.
        """
        metadata = await self._discovery.metadata()
        reply = await self._post(metadata.token, prepare_token_request("refresh_token", refresh_token=refresh_token))
        if _error(reply) == "invalid_grant":
            raise ProviderFault("refresh_refused", "the provider's session is over", status=401)
        tokens = self._tokens(reply, refresh_token=refresh_token)
        claims: Mapping[str, object] | None = None
        if tokens.id_token:
            # How strong the login was has been decided at the login; Keycloak forgets it sooner than its session.
            claims, _ = await self._checked(tokens, self._expect(nonce=None))
            if subject and claims["sub"] != subject:
                raise ProviderFault("id_token_refused", "the tokens are somebody else's", evidence={"reason": "sub"})
        return tokens, claims

    async def logout_token(self, token: str) -> LogoutToken:
        """What a token says that the provider sent behind the browser's back (Back-Channel Logout 1.0, 2.6).

        Raises ClientFault `logout_token_refused`; ProviderFault when its keys can't be had to check it with.
        """
        try:
            header = token_header(token)
            claims = verified_claims(token, await self._discovery.key(header))
        except ProviderFault as fault:
            if fault.code != "id_token_refused":
                raise
            raise refused(fault.evidence.get("reason", "malformed")) from fault
        return check_logout_token(
            claims,
            header,
            issuer=self._oidc.issuer,
            client_id=self._oidc.client_id,
            skew=int(self._oidc.clock_skew),
            now=int(self._clock()),
        )

    async def end_session(self, refresh_token: str) -> bool:
        """End the provider's session without the browser. Whether the provider confirmed it."""
        try:
            metadata = await self._discovery.metadata()
            if not metadata.end_session_internal:
                return False
            form = prepare_token_request("refresh_token", refresh_token=refresh_token)
            reply = await self._post(metadata.end_session_internal, form)
        except HubgateFault as fault:
            log.warning("provider_session_open", extra={"fault": fault.code})
            self._unwell_at = self._clock()
            return False
        if reply.status >= 500:
            self._unwell_at = self._clock()
        # Other providers answer 200 with a page that asks a person: nothing has ended then.
        return reply.status == 204

    async def end_session_url(self, *, id_token: str, post_logout_redirect_uri: str) -> str | None:
        """Where the browser ends the provider's session (RP-Initiated Logout 1.0, 2). None: the provider has no such
        place. Raises ProviderFault when it isn't known, or when the provider failed `end_session` a moment ago: nobody
        should end up on their browser's "cannot connect".
        """
        if 0 <= self._clock() - self._unwell_at < _SIGN_OF_LIFE:
            raise ProviderFault("provider_unavailable", "it did not answer just now", status=503, retry_after=5)
        metadata = await self._discovery.metadata()
        if not metadata.end_session:
            return None
        given = {
            "id_token_hint": id_token or None,
            "client_id": self._oidc.client_id,
            "post_logout_redirect_uri": post_logout_redirect_uri,
        }
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if value)
        return f"{metadata.end_session}{'&' if '?' in metadata.end_session else '?'}{pairs}"

    async def _warm_up(self) -> None:
        """Read the metadata for the first time, however long that takes; say once that it does."""
        failures = 0
        while True:
            try:
                await self._discovery.metadata()
            except ProviderFault as fault:
                if failures == 0:
                    log.warning("provider_unavailable", extra={"fault": str(fault)})
                await asyncio.sleep(_WARM_UP[min(failures, len(_WARM_UP) - 1)])
                failures += 1
            else:
                log.info("provider_available", extra={"issuer": self._oidc.issuer})
                return

    def _expect(
        self, *, nonce: str | None, acr: str | None = None, amr: tuple[str, ...] = (), max_age: int | None = None
    ) -> Expectations:
        return Expectations(
            issuer=self._oidc.issuer,
            client_id=self._oidc.client_id,
            nonce=nonce,
            skew=int(self._oidc.clock_skew),
            acr=acr,
            amr=amr,
            max_age=max_age,
        )

    async def _checked(self, tokens: TokenSet, expect: Expectations) -> tuple[dict[str, Any], Proof]:
        header = token_header(tokens.id_token)
        claims = verified_claims(tokens.id_token, await self._discovery.key(header))
        now = int(self._clock())
        return claims, check_id_token(claims, header, expect=expect, access_token=tokens.access_token, now=now)

    async def _post(self, url: str, form: str) -> Reply:
        method = self._oidc.token_endpoint_auth_method
        who = (self._oidc.client_id, self._oidc.client_secret.reveal())
        if method.endswith("_basic"):
            # RFC 6749, 2.3.1: both are form-encoded before they are joined; Authlib leaves that to its caller.
            who = (quote(who[0], safe=""), quote(who[1], safe=""))
        url, headers, body = ClientAuth(*who, method).prepare("POST", url, {}, form)
        return await self._backchannel.post(url, body=body, headers=headers)

    def _tokens(self, reply: Reply, *, refresh_token: str = "") -> TokenSet:
        """The tokens in a reply (RFC 6749, 5.1). `refresh_token`: the one that was used, which stays good if no other
        comes (RFC 6749, 6); without one, an ID token is demanded.
        """
        found = reply.document
        if reply.status != 200 or found is None:
            error = _error(reply)
            if error:
                message = f"the provider refused the client's request: {error}"
                raise ProviderFault("provider_error", message, evidence={"error": error})
            raise refusal(reply, "tokens")
        if str(found.get("token_type")).lower() != "bearer":
            raise _malformed("token_type")
        lifetime = found.get("expires_in", _UNKNOWN_LIFETIME)
        if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit() and len(lifetime) < 10:
            lifetime = int(lifetime)  # some providers write a text
        if isinstance(lifetime, bool) or not isinstance(lifetime, int) or lifetime < 0:
            raise _malformed("expires_in")
        return TokenSet(
            id_token=_token(found, "id_token", required=not refresh_token),
            access_token=_token(found, "access_token", required=True),
            refresh_token=_token(found, "refresh_token", required=False) or refresh_token,
            expires_at=int(self._clock()) + min(lifetime, _LONGEST_LIFETIME),
            scope=str(found.get("scope", "")),
        )


@lru_cache(maxsize=16)
def _authorization_request(
    endpoint: str, *, client_id: str, redirect_uri: str, scopes: tuple[str, ...], **optional: str | None
) -> str:
    """What is the same in everybody's request, and so written once: it was 3 % of a login. The rest of it, state, nonce
    and challenge, is base64url and needs no quoting.
    """
    return str(
        prepare_grant_uri(
            endpoint,
            client_id=client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=list(scopes),
            code_challenge_method="S256",
            **optional,
        )
    )


def _token(found: Mapping[str, Any], name: str, *, required: bool) -> str:
    value = found.get(name, "")
    if not isinstance(value, str) or len(value) > LARGEST_TOKEN or (required and not value):
        raise _malformed(name)
    return value


def _malformed(name: str) -> ProviderFault:
    return ProviderFault("provider_error", f"the token response has no usable {name}", evidence={"reason": name})


def _error(reply: Reply) -> str:
    """The error that a token response tells (RFC 6749, 5.2), or ""."""
    # With 429 and 5xx it is the day that is bad and not the request, whatever the body says.
    if reply.document is None or "error" not in reply.document or reply.status == 429 or reply.status >= 500:
        return ""
    return error_slug(reply.document["error"])


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
