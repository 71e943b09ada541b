"""Whose is this token? The hub that gave it out is asked, by the token itself (`GET hub/api/user`).

JupyterHub answers that to every token that it knows, whatever else the token may do there, and 403 to all others. A
hub that says neither is silent: nothing is known then, least of all that a token is no good.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from hubgate.core.site import Pool, Upstream
from hubgate.upstream.hubclient import HubClient, failed

_TIMEOUT = 10.0  # seconds
_LARGEST = 1024 * 1024  # bytes: somebody may be in thousands of groups


@dataclass(frozen=True, slots=True)
class Owner:
    """`name`: as the hub calls them. `person`: no service. `browser`: the token hangs on a browser's session at the
    hub, and ends with it. `id`: the token's name at the hub, "" where the hub doesn't tell (JupyterHub 4)."""

    name: str
    person: bool
    browser: bool
    id: str


class TokenOwners(HubClient):
    """Asks hubs, while entered. `tls`: what to trust and to show when a hub is reached by https."""

    def __init__(self, tls: Callable[[Upstream], ssl.SSLContext | None]) -> None:
        super().__init__(timeout=_TIMEOUT)
        self._tls = tls

    async def ask(self, pool: Pool, upstream: Upstream, token: str) -> Owner | None:
        """Who it is to this hub; None: nobody. Raises UpstreamFault `hub_api_failed`: it didn't say."""
        try:
            async with self._call(
                "GET", upstream.url, f"{pool.path}hub/api/user", token=token, tls=self._tls(upstream)
            ) as response:
                if response.status in {401, 403}:
                    return None
                if response.status != 200:
                    raise failed(upstream.name, str(response.status))
                return _owner(json.loads(await _read(response)))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise failed(upstream.name, type(error).__name__) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(_LARGEST + 1)
    while len(body) <= _LARGEST and (more := await response.content.read(_LARGEST)):
        body += more
    if len(body) > _LARGEST:
        raise ValueError("larger than any user")
    return body


def _owner(model: dict[str, Any]) -> Owner:
    if not isinstance(model["name"], str):
        raise TypeError("a name that is no text")
    # JupyterHub says `kind` since 1.x; whoever doesn't say that it is a person is none.
    return Owner(
        model["name"],
        person=model.get("kind") == "user",
        browser=bool(model.get("session_id")),
        id=str(model.get("token_id") or "")[:64],
    )
