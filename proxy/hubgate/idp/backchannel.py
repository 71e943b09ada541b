"""One question to the provider and its answer, bounded in time and size.

Everything that hubgate itself asks the provider goes through here, so that what a provider must never be able to do
(send us elsewhere, keep us waiting, fill our memory, set cookies) is prevented in one place. What an answer means isn't
known here.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from hubgate.errors import OperatorFault, ProviderFault

_LARGEST = 1024 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "hubgate"}


@dataclass(frozen=True, slots=True)
class Reply:
    """`document`: the JSON object in the body, or None when there is none."""

    status: int
    document: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        # The body of a token response is made of secrets.
        return f"Reply({self.status})"


class Backchannel:
    """Connections to the provider, while entered. `ca`: a PEM file to trust instead of the system's authorities;
    `timeout`: seconds for a whole exchange.
    """

    def __init__(self, *, ca: str = "", timeout: float = 8.0) -> None:
        self._ca = ca
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=min(timeout, 4.0))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_context(self._ca) if self._ca else True, limit=64),
            timeout=self._timeout,
            # A provider's cookies would be shared by everybody who logs in.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            max_line_size=8190,
            max_field_size=8190,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: str) -> Reply:
        """Raises ProviderFault `provider_unavailable` without an answer, `provider_error` for an outsized one."""
        return await self._ask("GET", url, None, {})

    async def post(self, url: str, *, body: str, headers: Mapping[str, str]) -> Reply:
        """POST of a form that is encoded already. Raises as `get` does."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", url, body.encode(), {**headers, **form})

    async def _ask(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        if self._session is None:
            raise RuntimeError("the back channel is used outside of its `async with`")
        try:
            # Redirects aren't followed: a body with secrets would be sent wherever the answer says.
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                received = await _bounded(response)
                return Reply(response.status, _document(received))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ProviderFault(
                "provider_unavailable",
                f"no answer from the identity provider at {url}: {type(error).__name__}",
                status=503,
                retry_after=5,
                evidence={"url": url, "error": type(error).__name__},
            ) from error


def tls_context(ca: str) -> ssl.SSLContext:
    """What to trust. Raises OperatorFault `ca_unusable` for a file that can't be read or holds no certificate."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError) as error:
        raise OperatorFault("ca_unusable", f"oidc.ca: {ca} can't be used: {error}") from error


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    received = bytearray()
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) > _LARGEST:
            response.close()
            raise ProviderFault(
                "provider_error",
                f"the identity provider answered with more than {_LARGEST} bytes",
                evidence={"reason": "too_large"},
            )
    return bytes(received)


def _document(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
