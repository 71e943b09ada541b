"""A gateway of a scene's own before hubs of its own, and people whose sessions were put straight into its store.

Twenty thousand logins would take longer than what they are for: `people` writes their sessions with the gateway's own
code and keys, so that what the gateway finds is what a login would have left there. `login` is measured by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubgate.config import load
from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.ops.demo.redis import RedisServer
from hubgate.store import open_store
from hubgate.web.sessions import Sessions
from tests.bench.targets import Target
from tests.bench.workbench import Bench
from tests.kit.running import RunningGateway

_WRITERS = 16
_TOKEN = "t" * 1200  # as long as Keycloak's are
GROUP = "htc-users"


@dataclass(frozen=True)
class Site:
    """`gateway` and its Redis, before some hubs."""

    gateway: RunningGateway
    redis: RedisServer

    @property
    def port(self) -> int:
        """Where the gateway answers."""
        return int(self.gateway.url.rpartition(":")[2])

    def target(self, cookie: str) -> Target:
        """It as a target, for somebody with this session cookie."""
        name = self.gateway.name
        return Target(name, "the gateway", self.port, self.gateway.pid, {"hubgate": cookie})

    async def people(self, count: int, *, groups: int = 1) -> list[str]:
        """The session cookies of so many people, each with so many groups."""
        config = load(self.gateway.config)
        store = open_store(config.store.url.reveal())
        sessions = Sessions(store, Keyring(config.keys), config.session_limits(), host=config.site().host)
        more = tuple(f"group-of-people-{number:03}" for number in range(groups - 1))
        numbers = iter(range(count))
        cookies: list[str] = []

        async def write() -> None:
            for number in numbers:
                name = f"somebody{number:06}"
                identity = Identity(config.oidc.issuer, name, name, name.title(), f"{name}@example.org", (GROUP, *more))
                cookie, _ = await sessions.create(
                    identity,
                    Proof("mfa", ("pwd", "otp"), int(time.time())),
                    provider_sid=name,
                    id_token=_TOKEN,
                    refresh_token=_TOKEN,
                    address="127.0.0.1",
                    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                )
                cookies.append(cookie)

        try:
            await asyncio.gather(*(write() for _ in range(_WRITERS)))
        finally:
            await store.close()
        return cookies


def pool(name: str, hubs: Mapping[str, str]) -> dict[str, Any]:
    """A pool below `/name/` with these hubs (name: address), for those who are in `GROUP`."""
    entries = [{"name": hub, "url": url} for hub, url in hubs.items()]
    return {"name": name, "title": name.title(), "path": f"/{name}/", "groups": [GROUP], "hubs": entries}


def site(
    bench: Bench,
    name: str,
    pools: Sequence[Mapping[str, Any]],
    *,
    url: str = "",
    wait: bool = True,
    **tables: Mapping[str, Any],
) -> Site:
    """One that serves (at `url`, if that is given); it ends with the bench. `wait`: until it sees its hubs."""
    redis = RedisServer(bench.folder / f"{name}-redis", durable=True, name=f"{name}-redis")
    bench.ends(redis)
    redis.start()
    redis.ready()
    own: dict[str, Any] = {"session": {"idle": "12h", "max": "12h"}, "log": {"access": False}}
    gateway = bench.gateways.start(
        pools=pools, provider=bench.provider, store_url=redis.url, public_url=url, **{**own, **tables}
    )
    if wait:
        gateway.sees(hub["name"] for pool in pools for hub in pool["hubs"])
    return Site(gateway, redis)
