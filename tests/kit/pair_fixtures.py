"""Fixtures of tests that need a `Pair`, see pair.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from hubgate.ops.demo import hubs
from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import Background
from tests.kit.pair import Pair
from tests.kit.provider import KeycloakProvider
from tests.kit.running import Gateways
from tests.kit.scene import QUICK_HEALTH, Balancer, EchoHub

TOKEN = "a-service-token-for-the-tests-alone"
SERVICE = f"""
c.JupyterHub.services = [{{"name": "hubgate", "api_token": {TOKEN!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "hubgate", "services": ["hubgate"], "scopes": ["tokens", "read:servers", "delete:servers"]}}
]
"""


@pytest.fixture(scope="session")
def real_pair(
    background: Background,
    keycloak: KeycloakProvider,
    hub_environment: Callable[[str], hubs.HubEnvironment],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    redis = RedisServer(folder / "redis", durable=False)
    redis.start()
    redis.ready()
    realm = keycloak.create_realm(f"pair{time.time_ns() % 10**9}")
    ports = free_ports(2)
    balancer = Balancer(background, ports[0])
    url = f"http://127.0.0.1:{balancer.port}"
    hub = hubs.Hub(
        hub_environment(hubs.NEWEST), folder / "hub", name="htc01", path="/htc/", gateway_url=url, extra=SERVICE
    )
    entry = {"name": "htc01", "url": hub.url, "api_token": TOKEN}
    echo = EchoHub(background, "echo01")
    gateways = Gateways(folder)
    try:
        running = [
            gateways.start(
                pools=[
                    {"name": "htc", "path": "/htc/", "hubs": [entry]},
                    {"name": "echo", "path": "/echo/", "hubs": [echo.entry()]},
                ],
                provider=realm,
                store_url=redis.url,
                public_url=url,
                gateway={"listen": [f"127.0.0.1:{port}"]},
                mfa={"mode": "off"},  # codes can't be had as often as people log in here
                health=QUICK_HEALTH,
            )
            for port in ports
        ]
        balancer.ports = {each.name: port for each, port in zip(running, ports, strict=True)}
        hub.start()
        hub.ready()
        for each in running:
            each.sees(["htc01"])
        realm.change_client(
            backchannel__logout__url=f"{url}/_hubgate/backchannel-logout",
            backchannel__logout__session__required="true",
        )
        yield Pair(realm, balancer, running, hub, realm.create_user(totp=False), realm.create_user(totp=False))
    finally:
        hub.stop()
        gateways.stop()
        redis.stop()


@pytest.fixture
async def pair(real_pair: Pair) -> AsyncIterator[Pair]:
    """The site, with nobody logged in."""
    async with AsyncExitStack() as stack:
        real_pair.stack = stack
        yield real_pair
    for user in (real_pair.ada, real_pair.eve):
        real_pair.realm.admin("POST", f"users/{real_pair.realm.user_id(user.username)}/logout")
