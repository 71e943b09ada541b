"""hubgate as an operator runs it: `hubgate serve` with one worker, a real Redis of its own, somebody logged in.

Each variant is a process of its own, and so is its Redis, whose CPU is nobody's. The somebody logged in at the
development provider, checks included that a site has: second factor, a group that the pool demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hubgate.errors import OperatorFault
from hubgate.ops.demo import settings
from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.redis import RedisServer
from tests.bench.backend import BASE
from tests.bench.targets import Target
from tests.kit.person import Person
from tests.kit.running import RunningGateway

if TYPE_CHECKING:
    from tests.bench.workbench import Bench

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gateway": ("access log off", {"log": {"access": False}}),
    "gateway-log": ("access log on", {"log": {"access": True}}),
    "gateway-tls": ("TLS, access log off", {"log": {"access": False}}),
}
"""What is said about it, and the tables that are laid over the configuration. Metrics can't be turned off."""


async def started(bench: Bench, variant: str, name: str) -> Target:
    """A variant under a name, serving and with somebody logged in."""
    told, tables = VARIANTS[variant]
    gateway, redis = start(bench, name, tables)
    bench.running[name], bench.redis[name] = gateway, redis
    user = bench.provider.create_user()
    cookies = await logged_in(bench, gateway, user)
    tls = gateway.url.startswith("https:")
    return Target(
        name,
        f"hubgate {version('hubgate')}, {told}",
        int(gateway.url.rpartition(":")[2]),
        gateway.pid,
        cookies,
        user=user.username,
        ca=bench.authority.file if tls else "",
    )


def start(bench: Bench, name: str, tables: Mapping[str, Any]) -> tuple[RunningGateway, RedisServer]:
    """A gateway before the backend, and its Redis. Its address is https where the name says `tls`."""
    redis = RedisServer(bench.folder / f"{name}-redis", durable=True, name=f"{name}-redis")
    bench.ends(redis)
    redis.start()
    redis.ready()
    own: dict[str, Any] = {"session": {"idle": "12h", "max": "12h"}}
    url = ""
    if "tls" in name:
        port = free_ports(1)[0]
        url = f"https://localhost:{port}"
        own |= {
            "gateway": {"listen": [f"127.0.0.1:{port}"]},
            "tls": {"certificate": bench.issued.certificate, "key": bench.issued.key},
        }
    hub = {"name": "hub01", "url": bench.backend.url}
    pool = {"name": "bench", "title": "Bench", "path": BASE, "groups": ["htc-users"], "hubs": [hub]}
    laid = settings.merged(own, tables)
    gateway = bench.gateways.start(pools=[pool], provider=bench.provider, store_url=redis.url, public_url=url, **laid)
    gateway.sees(["hub01"])
    return gateway, redis


async def logged_in(bench: Bench, gateway: RunningGateway, user: Any) -> dict[str, str]:
    """The cookies of a browser that logged in and was at the hub."""
    tls = bench.authority.trusting() if gateway.url.startswith("https:") else True
    async with Person(gateway.url, bench.provider.origin, ssl=tls) as person:
        page = await person.login(f"{gateway.url}{BASE}hub/home", user)
        if page.status != 200 or page.body != b"home":
            raise OperatorFault("bench_login", f"nobody can log in at {gateway.name}: {page}\n{gateway.tail()}")
        return person.cookies(f"{gateway.url}{BASE}hub/200")
