"""What do we ask a hub's administration for? (JupyterHub's REST API, with a service's token.)

When a session of ours ends, what the hub has made of it should end as well: the OAuth tokens behind the cookies of
notebook servers, which JupyterHub marks with the name of its own session, the hub's own login cookies, and, if the site
wants that, the servers.
Only hubs whose token was configured are asked, and never on the path of a request. What a person made by themselves
(tokens for programs) is theirs and stays, until they say that it is to end.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from hubgate.config import Secret
from hubgate.upstream.hubclient import HubClient, failed

_TIMEOUT = 20.0  # seconds for one call: a hub answers when a server has stopped, which takes it ten


@dataclass(frozen=True, slots=True)
class HubAccess:
    """`hub`: its name; `url`: of its proxy; `path`: its base_url; `tls`: for https, None for the usual."""

    hub: str
    url: str
    path: str
    token: Secret
    tls: ssl.SSLContext | None = None


class HubApis(HubClient):
    """The hubs that gave us a token, while entered. Methods raise UpstreamFault `hub_api_failed`."""

    def __init__(self, accesses: Iterable[HubAccess]) -> None:
        super().__init__(timeout=_TIMEOUT)
        self._accesses: Mapping[str, HubAccess] = {access.hub: access for access in accesses}

    def __repr__(self) -> str:
        return f"HubApis({', '.join(self._accesses)})"

    def __len__(self) -> int:
        return len(self._accesses)

    def __contains__(self, hub: object) -> bool:
        return hub in self._accesses

    async def end_session(self, hub: str, username: str, hub_session: str) -> None:
        """Revoke the tokens that hang on one session of the hub's. JupyterHub's own API can't: with one token it ends
        all of that person's at the same server. So hubgate-hub is asked; a hub without it leaves them for the last.
        """
        user, mark = quote(username, safe=""), quote(hub_session, safe="")
        await self._ask(hub, "DELETE", f"hubgate/users/{user}/sessions/{mark}")

    async def end_sessions(self, hub: str, username: str) -> None:
        """Revoke all that any browser has of this user: tokens that hang on a session, and the hub's login cookies.

        The latter is for hubgate-hub to do; at a hub without it, only tokens can be revoked.
        """
        user = f"users/{quote(username, safe='')}"
        if await self._ask(hub, "DELETE", f"hubgate/{user}/sessions") is not None:
            return
        found = await self._ask(hub, "GET", f"{user}/tokens")
        for token in found.get("api_tokens", ()) if isinstance(found, dict) else ():
            if token.get("session_id"):
                await self._ask(hub, "DELETE", f"{user}/tokens/{quote(str(token['id']), safe='')}")

    async def revoke_token(self, hub: str, username: str, token: str) -> bool:
        """Revoke a token by the hub's name for it; whether the hub did. It may not know the token any more, or keep it
        from us, as its roles have it.
        """
        place = f"users/{quote(username, safe='')}/tokens/{quote(token, safe='')}"
        return await self._answered(hub, "DELETE", place) is not None

    async def runs_servers(self, hub: str, username: str) -> bool:
        """Whether a server of this user may run there, or be on its way up or down; False: the hub says that none is.

        One that knows nobody of that name may only keep it from us, as its roles have it.
        """
        found = await self._ask(hub, "GET", f"users/{quote(username, safe='')}")
        return not isinstance(found, dict) or bool(found.get("servers", True))

    async def stop_servers(self, hub: str, username: str) -> int:
        """Have all servers of a user stopped. How many there were."""
        user = f"users/{quote(username, safe='')}"
        found = await self._ask(hub, "GET", user)
        servers = found.get("servers") or {} if isinstance(found, dict) else {}
        for name in servers:
            await self._ask(hub, "DELETE", f"{user}/servers/{quote(name, safe='')}" if name else f"{user}/server")
        return len(servers)

    async def _ask(self, hub: str, method: str, path: str) -> Any:
        """What the hub answers, None for nothing. Who or what isn't there any more is as good as ended."""
        body = await self._answered(hub, method, path)
        try:
            return json.loads(body or b"null")
        except ValueError as error:
            raise failed(hub, type(error).__name__) from error

    async def _answered(self, hub: str, method: str, path: str) -> bytes | None:
        """The body of an answer; None: there is no such thing."""
        access = self._accesses[hub]
        place = f"{access.path}hub/api/{path}"
        try:
            async with self._call(method, access.url, place, token=access.token.reveal(), tls=access.tls) as response:
                if response.status == 404:
                    return None
                if response.status >= 300:
                    raise failed(hub, str(response.status))
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failed(hub, type(error).__name__) from error
