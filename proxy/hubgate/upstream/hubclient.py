"""How is a hub's REST API called? By a client of its own, beside the requests that are forwarded: calls are few.

No cookie is kept, no redirect followed: the Authorization field would go wherever the answer says. What is asked, and
what an answer means, is the caller's.
"""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from hubgate.errors import UpstreamFault


class HubClient:
    """Calls hubs, while entered. `timeout`: seconds for one call."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=16, force_close=True),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "hubgate", "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _call(
        self, method: str, url: str, path: str, *, token: str, tls: ssl.SSLContext | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One call. `url`: of the hub's proxy; `path`: percent-encoded, with the hub's base_url; `tls`: None for the
        usual."""
        if self._session is None:
            raise RuntimeError("hubs are asked outside of their `async with`")
        return self._session.request(
            method,
            URL(f"{url.rstrip('/')}{path}", encoded=True),
            headers={"Authorization": f"token {token}"},
            allow_redirects=False,
            ssl=tls or True,
        )


def failed(hub: str, why: str) -> UpstreamFault:
    """The hub did not do it, or didn't say."""
    return UpstreamFault("hub_api_failed", f"{hub}'s API: {why}", evidence={"upstream": hub, "why": why})
