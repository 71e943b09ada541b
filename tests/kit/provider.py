"""The identity provider as a test sees it: an issuer, a client, people, and ways to make more of them."""

from __future__ import annotations

import itertools
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hubgate.ops.demo import realm as demo_realm
from hubgate.ops.demo.keycloak import ADMIN_PASSWORD, ADMIN_USER, Keycloak
from hubgate.ops.demo.realm import DemoUser
from tests.kit.background import eventually

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_NUMBERS = itertools.count(1)


@dataclass
class Provider:
    """`issuer` and client go into a gateway's `[oidc]`; `users` are people by name."""

    issuer: str
    client_id: str
    client_secret: str
    users: Mapping[str, DemoUser]

    @property
    def client(self) -> tuple[str, str]:
        return self.client_id, self.client_secret

    @property
    def origin(self) -> str:
        return "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(self.issuer))


@dataclass
class KeycloakProvider(Provider):
    """A realm of a real Keycloak. `server` is its process: it can be stopped and started again by a test of its own."""

    server: Keycloak
    realm: str
    admin_user: str = ADMIN_USER
    admin_password: str = ADMIN_PASSWORD
    _token: tuple[str, float] = field(default=("", 0.0), repr=False)

    @classmethod
    def of(cls, server: Keycloak, realm: Mapping[str, Any]) -> KeycloakProvider:
        """One of the realms that `server` was given."""
        document = dict(realm)
        client_id, client_secret = demo_realm.client(document)
        name = str(document["realm"])
        return cls(server.issuer(name), client_id, client_secret, demo_realm.users(document), server, name)

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Keycloak's admin API: `path` below `/admin/realms/REALM`, or below `/admin` when it starts with `/`."""
        base = f"{self.server.url}/admin"
        url = f"{base}{path}" if path.startswith("/") else f"{base}/realms/{self.realm}/{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._admin_token()}", "Content-Type": "application/json"}
        answer = _send(method, url.rstrip("/"), data, headers)
        return json.loads(answer) if answer else None

    def create_user(
        self,
        username: str = "",
        *,
        groups: Iterable[str] = ("htc-users",),
        totp: bool = True,
        email: str = "",
        **representation: Any,
    ) -> DemoUser:
        """Somebody new, with one-time codes of their own (or, `totp=False`, still to be enrolled).

        A test that logs in should do it with somebody new: Keycloak takes each code once.
        """
        name = username or f"person{next(_NUMBERS)}-{secrets.token_hex(2)}"
        raw_key = secrets.token_hex(10)
        credentials: list[dict[str, Any]] = [{"type": "password", "value": f"{name}-pw"}]
        if totp:
            credentials.append(demo_realm.totp_credential(raw_key))
        address = email or f"{secrets.token_hex(4)}@example.org"
        entry = {
            "username": name,
            "enabled": True,
            "email": address,
            "emailVerified": True,
            "firstName": "Given",
            "lastName": "Family",
            "groups": list(groups),
            "credentials": credentials,
            **representation,
        }
        self.admin("POST", "users", entry)
        key = demo_realm.base32_key(raw_key) if totp else ""
        return DemoUser(name, f"{name}-pw", "Given Family", address, tuple(groups), key)

    def user_id(self, username: str) -> str:
        """Keycloak's id of a user, the `sub` of their tokens."""
        found = self.admin("GET", f"users?exact=true&username={urllib.parse.quote(username)}")
        return str(found[0]["id"])

    async def forgotten(self, username: str, *, left: int = 0) -> None:
        """Returns when it has no more than so many sessions of this user: it is told of an end in the background when
        it doesn't answer soon."""

        async def few() -> bool:
            return len(self.admin("GET", f"users/{self.user_id(username)}/sessions")) <= left

        await eventually(few, within=60, every=0.2, what=f"the end of {username}'s sessions at Keycloak")

    def change_client(self, **attributes: str) -> None:
        """Set attributes of the gateway's client; dots are written as two underscores."""
        (found,) = self.admin("GET", f"clients?clientId={urllib.parse.quote(self.client_id)}")
        found["attributes"] |= {name.replace("__", "."): value for name, value in attributes.items()}
        self.admin("PUT", f"clients/{found['id']}", found)

    def create_realm(self, name: str, changes: Mapping[str, Any] | None = None) -> KeycloakProvider:
        """Another realm like the demo's, with other names and secrets; `changes` replace top-level keys."""
        document = demo_realm.document() | {"realm": name} | dict(changes or {})
        document["clients"][0]["secret"] = secrets.token_urlsafe(24)
        for user in document["users"]:
            user.pop("id", None)  # unique over all realms
        self.admin("POST", "/realms", document)
        return KeycloakProvider.of(self.server, document)

    def _admin_token(self) -> str:
        token, until = self._token
        if time.monotonic() < until:
            return token
        form = {
            "grant_type": "password",
            "client_id": "admin-cli",
            "username": self.admin_user,
            "password": self.admin_password,
        }
        url = f"{self.server.url}/realms/master/protocol/openid-connect/token"
        answer = json.loads(_send("POST", url, urllib.parse.urlencode(form).encode(), {}))
        self._token = (answer["access_token"], time.monotonic() + answer["expires_in"] / 2)
        return self._token[0]


def _send(method: str, url: str, data: bytes | None, headers: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers))
    try:
        with _OPENER.open(request, timeout=180) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from error
