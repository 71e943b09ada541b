"""A provider that does as it is told, lies included, over real HTTP on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc.jwk import Key, RSAKey
from joserfc.jws import JWSRegistry

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})
ACCESS_TOKEN = "the-access-token"


@dataclass
class Asked:
    """One request that the provider received."""

    path: str
    headers: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)


class Provider:
    """What it says can be changed piece by piece: `metadata`, `keys`, `claims`, `header` and `reply` are laid over an
    honest provider's (None takes a piece away), and `answers` replaces what a whole path answers.
    """

    def __init__(self, now: Callable[[], float], issuer: str = "") -> None:
        self.now = now
        self.issuer = issuer
        self.base = ""
        self.nonce = ""
        self.signing: Key = KEY
        self.algorithm = "RS256"
        self.keys: list[Key] = [KEY]
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.reply: dict[str, Any] = {}
        self.status = 200
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked.path == path for asked in self.asked)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/realms/site")
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(Asked(path, dict(request.headers), form))
        honest = {
            "/.well-known/openid-configuration": self._discovery,
            "/certs": self._certs,
            "/token": self._token,
            "/logout": self._logout,
        }
        return await self.answers.get(path, honest[path])(request)

    async def _discovery(self, _: web.Request) -> web.Response:
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/auth",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/certs",
            "end_session_endpoint": self.issuer + "/logout",
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response(_laid_over(said, self.metadata), headers={"Set-Cookie": "tracked=everybody; Path=/"})

    async def _certs(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _token(self, _: web.Request) -> web.Response:
        said = {
            "token_type": "Bearer",
            "access_token": ACCESS_TOKEN,
            "refresh_token": "the-refresh-token",
            "expires_in": 60,
            "scope": "openid",
            "id_token": self.id_token(),
        }
        return web.json_response(_laid_over(said, self.reply), status=self.status)

    async def _logout(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    def id_token(self) -> str:
        now = int(self.now())
        said = {
            "iss": self.issuer,
            "sub": "subject-1",
            "aud": "hubgate",
            "azp": "hubgate",
            "typ": "ID",
            "iat": now,
            "exp": now + 60,
            "auth_time": now,
            "nonce": self.nonce,
            "at_hash": _b64(hashlib.sha256(ACCESS_TOKEN.encode()).digest()[:16]),
            "acr": "mfa",
            "amr": ["pwd", "otp"],
            "preferred_username": "alice",
        }
        header = _laid_over({"alg": self.algorithm, "typ": "JWT", "kid": self.signing.kid}, self.header)
        # Whatever the header says, and whatever a library would say to it.
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (header, _laid_over(said, self.claims)))
        return f"{signed}.{_b64(JWSRegistry.algorithms[self.algorithm].sign(signed.encode(), self.signing))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _laid_over(said: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (said | changes).items() if value is not None}


@asynccontextmanager
async def serving(provider: Provider, **how: Any) -> AsyncIterator[Provider]:
    """The provider answers below `/realms/site` of its own address, which becomes its issuer if it has none."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", provider.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **how)
    await site.start()
    scheme = "https" if how.get("ssl_context") else "http"
    provider.base = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/realms/site"
    provider.issuer = provider.issuer or provider.base
    try:
        yield provider
    finally:
        await runner.cleanup()
