"""What do we ask Keycloak's administration for, and what should its realm be set to?

With a service account of its own (`[keycloak]`), by python-keycloak, and never on the path of an ordinary request: has
somebody a second factor, have them set one up, end their sessions, and look the realm over once at the start. A login
needs none of it.

Calls are rare, so each one brings its own connection and token and takes them away again: nothing grows old in between,
and the library, which takes a third of a second to import, is imported by the first.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hubgate import config
from hubgate.errors import OperatorFault, ProviderFault
from hubgate.idp.backchannel import tls_context

_ISSUER = re.compile(r"(https?://.+?/)realms/([^/]+)/?")
_TIMEOUT = 8  # seconds for one call
_SAFE_VERSION = (26, 7, 2)
_SECOND_FACTORS = frozenset({"otp", "webauthn", "webauthn-passwordless", "recovery-authn-codes"})


def account_url(issuer: str) -> str:
    """Where people look after password and second factor, if the issuer looks like a Keycloak's; else ""."""
    return f"{issuer.rstrip('/')}/account/" if _ISSUER.fullmatch(issuer) else ""


class KeycloakAdmin:
    """A realm's administration. Every method raises ProviderFault: `provider_unavailable` without an answer,
    `provider_error` when Keycloak refuses.

    Raises OperatorFault `keycloak_issuer` when the issuer isn't one of a Keycloak.
    """

    def __init__(self, oidc: config.Oidc, keycloak: config.Keycloak, mfa: config.Mfa | None = None) -> None:
        issuer = oidc.internal_url or oidc.issuer
        found = _ISSUER.fullmatch(issuer)
        if found is None:
            message = f"[keycloak] needs an issuer such as https://id.example.org/realms/site, found {issuer}"
            raise OperatorFault("keycloak_issuer", message)
        self._server, self._realm = found[1], found[2]
        self._ca = oidc.ca
        self._public = oidc.issuer
        self._gateway_client = oidc.client_id
        self._acr = mfa.acr if mfa is not None and mfa.mode == "keycloak" else ""
        self._client_id = keycloak.client_id
        self._client_secret = keycloak.client_secret

    def __repr__(self) -> str:
        return f"KeycloakAdmin({self._server}, {self._realm!r})"

    async def has_otp(self, subject: str) -> bool:
        """Whether somebody has a second factor of any kind. Only who has none may be told to set one up: else whoever
        got hold of a password could add their own.
        """
        async with self._admin() as admin:
            credentials = await admin.a_get_credentials(_segment(subject))
        return any(credential.get("type") in _SECOND_FACTORS for credential in credentials)

    async def require_totp(self, subject: str) -> None:
        """Have Keycloak lead somebody through setting up one-time codes at their next login."""
        async with self._admin() as admin:
            user = await admin.a_get_user(_segment(subject))
            actions = list(dict.fromkeys([*user.get("requiredActions", ()), "CONFIGURE_TOTP"]))
            # This key alone: what is left out stays as it is.
            await admin.a_update_user(_segment(subject), {"requiredActions": actions})

    async def lets_in(self, subject: str, *, since: int = 0) -> bool:
        """Whether somebody may go on who logged in at `since` (seconds since the epoch; 0: not known): there, not
        disabled, and not signed out by an administrator afterwards, for which Keycloak keeps a time (`notBefore`).
        """
        try:
            async with self._admin() as admin:
                user = await admin.a_get_user(_segment(subject))
                if not isinstance(user, dict) or not isinstance(user.get("enabled"), bool):
                    raise TypeError("that is no user")  # as `_admin` translates it
                return bool(user["enabled"]) and not 0 < since < int(user.get("notBefore") or 0)
        except ProviderFault as fault:
            if fault.evidence.get("status") == "404":
                return False
            raise

    async def end_sessions(self, subject: str) -> None:
        """End all of somebody's Keycloak sessions, in every browser and at every client."""
        async with self._admin() as admin:
            await admin.a_user_logout(_segment(subject))

    async def realm_warnings(self) -> list[str]:
        """What an operator should change in the realm: one sentence each, with what to do."""
        async with self._admin() as admin:
            realm = await admin.a_get_realm(self._realm)
            found = await admin.a_get_client_id(self._gateway_client)
            client = await admin.a_get_client(found) if found else {}
            server = await admin.a_get_server_info()
        version = (server.get("systemInfo") or {}).get("version", "")
        return advice(realm, client, version=version, acr=self._acr, https=self._public.startswith("https://"))

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        """python-keycloak with a connection that ends with the block, its exceptions translated."""
        # Imports, certificates: nothing that an event loop should wait for.
        library, connection, tokens = await asyncio.to_thread(self._connections)
        try:
            # The library's limit is one between two bytes.
            async with asyncio.timeout(2 * _TIMEOUT):
                yield library.KeycloakAdmin(connection=connection)
        except (library.KeycloakConnectionError, TimeoutError) as error:
            raise ProviderFault(
                "provider_unavailable",
                f"no answer from Keycloak's administration at {self._server}",
                status=503,
                retry_after=5,
            ) from error
        except (library.KeycloakError, TypeError, ValueError) as error:
            # The text of the error is an answer of the provider; its status says enough. The latter two: no JSON, or
            # another one than expected.
            status = str(getattr(error, "response_code", None) or "garbage")
            message = f"Keycloak's administration refused ({status}); does the service account have its roles?"
            raise ProviderFault("provider_error", message, evidence={"status": status}) from error
        finally:
            await connection.aclose()
            await tokens.aclose()

    def _connections(self) -> tuple[Any, Any, Any]:
        import keycloak  # noqa: PLC0415 - 0.3 s that only those pay who need it

        connection = keycloak.KeycloakOpenIDConnection(
            server_url=self._server,
            realm_name=self._realm,
            client_id=self._client_id,
            client_secret_key=self._client_secret.reveal(),
            grant_type="client_credentials",
            # Typed for a path, which httpx has deprecated; it takes a context.
            verify=tls_context(self._ca),  # type: ignore[arg-type]
            timeout=_TIMEOUT,
            max_retries=0,
        )
        # The second one, for tokens, is made when it is first asked for: here, and not in the event loop.
        return keycloak, connection, connection.keycloak_openid.connection


def _segment(subject: str) -> str:
    """A subject as one segment of a path, whatever is in it: the library puts it there as it is."""
    if subject.strip(".") == "":
        raise ProviderFault("provider_error", "that is nobody's subject", evidence={"reason": "subject"})
    return quote(subject, safe="")


@dataclass(frozen=True, slots=True)
class _Setting:
    """`wrong`: whether the setting (of realm or client) is as it shouldn't be; `sentence`: what to do about it."""

    wrong: Callable[[Mapping[str, Any]], bool]
    sentence: str


_REALM = (
    _Setting(
        lambda realm: not realm.get("bruteForceProtected"),
        "Passwords and codes can be guessed at any speed: turn on brute force detection (Realm settings, Security "
        "defenses).",
    ),
    _Setting(
        lambda realm: bool(realm.get("otpPolicyCodeReusable")),
        "A one-time code is accepted more than once: turn off reusable tokens (Authentication, Policies, OTP policy).",
    ),
    _Setting(
        lambda realm: realm.get("otpPolicyType", "totp") == "totp" and realm.get("otpPolicyLookAheadWindow", 1) > 2,
        "One-time codes are accepted minutes around their time: set the look around window to 1 (Authentication, "
        "Policies, OTP policy).",
    ),
    _Setting(
        lambda realm: bool(realm.get("registrationAllowed")),
        "Anybody can register and thereby log in: turn off user registration (Realm settings, Login), or restrict who "
        "may come in with oidc.allow_groups.",
    ),
    _Setting(
        lambda realm: bool(realm.get("resetPasswordAllowed")),
        "A mailbox is enough to get in where the reset flow also resets the second factor: turn off Forgot password "
        "(Realm settings, Login), or check the flow.",
    ),
    _Setting(
        lambda realm: bool(realm.get("editUsernameAllowed")),
        "Users can change their usernames, and files of the hubs belong to names: turn off Edit username (Realm "
        "settings, Login).",
    ),
    _Setting(
        lambda realm: realm.get("accessTokenLifespan", 300) > 900,
        "Access tokens live for more than 15 minutes: shorten the access token lifespan (Realm settings, Tokens).",
    ),
    _Setting(
        lambda realm: realm.get("ssoSessionMaxLifespan", 36000) > 7 * 86400,
        "A login at Keycloak lasts for more than a week: shorten SSO session max (Realm settings, Sessions).",
    ),
)

_CLIENT = (
    _Setting(
        lambda client: client.get("attributes", {}).get("pkce.code.challenge.method") != "S256",
        "Keycloak would take a login without PKCE: set the client's Proof Key for Code Exchange method to S256 "
        "(Advanced).",
    ),
    _Setting(
        lambda client: any(_is_wide(uri) for uri in client.get("redirectUris", ())),
        "The client's valid redirect URIs have a wildcard that leads to other places than hubgate: name "
        "<public_url>/_hubgate/callback alone.",
    ),
    _Setting(
        lambda client: bool(client.get("publicClient")),
        "The client is public, so its secret protects nothing: turn on client authentication.",
    ),
    _Setting(
        lambda client: bool(client.get("directAccessGrantsEnabled")),
        "Tokens can be had for a password alone, without the second factor: turn off the client's direct access "
        "grants.",
    ),
    _Setting(
        lambda client: bool(client.get("implicitFlowEnabled")),
        "Tokens can be had in the address bar: turn off the client's implicit flow.",
    ),
)


def advice(
    realm: Mapping[str, Any], client: Mapping[str, Any], *, version: str = "", acr: str = "", https: bool = True
) -> list[str]:
    """The sentences for a realm and the gateway's client, as Keycloak's administration represents them. `client` is
    empty when it wasn't found, `version` when it isn't told; `acr`: the one that is demanded; `https`: the issuer's.
    """
    found = [_about_version(version)]
    found += [setting.sentence for setting in _REALM if setting.wrong(realm)]
    if https and realm.get("sslRequired") == "none":
        found.append(
            "Keycloak answers over plain http: set Require SSL to external requests (Realm settings, General)."
        )
    if not client:
        found.append(
            "The client wasn't found in this realm: check oidc.client_id and the service account's view-clients."
        )
        return [sentence for sentence in found if sentence]
    found += [setting.sentence for setting in _CLIENT if setting.wrong(client)]
    if acr and acr not in {*_levels(realm), *_levels(client)}:
        found.append(
            f"No level of authentication stands for the acr {acr!r}, so nobody can log in: map it (Realm settings, "
            "General, ACR to LoA mapping) and give the browser flow a step for it."
        )
    return [sentence for sentence in found if sentence]


def _about_version(version: str) -> str:
    safe = ".".join(map(str, _SAFE_VERSION))
    if not version:
        return (
            f"Keycloak doesn't tell a realm's service account its version: make sure that it is {safe} or newer "
            "(CVE-2026-18963, takeover by a reset of credentials)."
        )
    numbers = tuple(int(number) for number in re.findall("[0-9]+", version)[:3])
    if numbers >= _SAFE_VERSION:
        return ""
    return (
        f"Keycloak {version} can be taken over by a reset of credentials (CVE-2026-18963): update to {safe} or newer."
    )


# A host and a directory, and a wildcard at the end alone.
_NARROW = re.compile(r"https?://[^/*]+/[^*]+/\*")


def _is_wide(uri: str) -> bool:
    """Whether a redirect URI of Keycloak's matches more than paths below one directory of one host."""
    return "*" in uri and not _NARROW.fullmatch(uri)


def _levels(settings: Mapping[str, Any]) -> Iterable[str]:
    try:
        found = json.loads(settings.get("attributes", {}).get("acr.loa.map") or "{}")
    except ValueError:
        return ()
    return found if isinstance(found, dict) else ()
