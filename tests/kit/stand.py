"""A whole gateway in this process: the real front door with a store in memory, before servers that keep what they get.

The provider is the embedded one, over real HTTP. Nothing in here is a double of a part of the gateway.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pyotp
from aiohttp import web

from hubgate import app
from hubgate.audit import Audit
from hubgate.config import Surroundings, reading
from hubgate.core.keyring import Keyring
from hubgate.metrics import Metrics
from hubgate.ops import devidp
from hubgate.ops.demo.realm import DemoUser
from hubgate.store.base import Store
from hubgate.web.wire import Listener, front_runner
from tests.kit.echo import Echo
from tests.kit.person import Person

CLIENT = ("hubgate", "lab-secret")
SECRET = "a secret key of thirty-two characters at least"


def _people() -> dict[str, DemoUser]:
    """New keys for each stand, since a code is good once and a test must not wait for the next one."""
    return {
        name: DemoUser(name, f"{name}-pw", name.title(), f"{name}@example.org", groups, pyotp.random_base32())
        for name, groups in (("alice", ("htc-users", "hpc-users")), ("bob", ("htc-users",)))
    }


@dataclass
class Stand:
    """`url`: the portal's origin. `hubs`: by name. `lines`: the audit log."""

    url: str
    hubs: dict[str, Echo]
    served: app.Served
    lines: list[bytes]
    access: list[tuple[Any, ...]]
    provider: devidp.DevIdp
    users: dict[str, DemoUser]

    @property
    def provider_url(self) -> str:
        """The provider's issuer."""
        return self.provider.issuer

    @property
    def store(self) -> Store:
        """What the gateway keeps its records in."""
        return self.served.live._store

    @property
    def keyring(self) -> Keyring:
        """The gateway's keys."""
        return Keyring([SECRET.encode()])

    def person(self) -> Person:
        return Person(self.provider_url, self.url)

    async def logged_in(self, name: str = "alice") -> Person:
        """A browser whose person has just logged in."""
        person = self.person()
        page = await person.login(self.url + "/", self.users[name])
        assert page.status == 200, page
        assert page.url == self.url + "/", page
        return person

    def received(self) -> list[Any]:
        """What all hubs got, oldest first within a hub."""
        return [request for hub in self.hubs.values() for request in hub.received]


def free_socket() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def stand(
    adapt: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    disclose: str = "hub",
    own_factor: bool = False,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Stand]:
    """Bring everything up. `adapt` changes the configuration (as a TOML document's tables) before it is read.

    `own_factor`: the provider asks for the password alone, and the second factor is the gateway's.
    """
    async with contextlib.AsyncExitStack() as stack:
        people = _people()
        users = {u.username: devidp.DevUser(u.password, u.totp_key, u.groups, u.name, u.email) for u in people.values()}
        provider = await stack.enter_async_context(devidp.serving(users, *CLIENT, second_factor=not own_factor))
        hubs = {name: Echo(name) for name in ("htc01", "htc02", "hpc01")}
        for hub in hubs.values():
            runner = web.AppRunner(hub.app())
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            listener = free_socket()
            await web.SockSite(runner, listener).start()
            hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        front = free_socket()
        port = front.getsockname()[1]
        document: dict[str, Any] = {
            "gateway": {
                "public_url": f"http://127.0.0.1:{port}",
                "listen": [f"127.0.0.1:{port}"],
                "secret_keys": [SECRET],
                "ops_listen": "",
            },
            "store": {"url": "memory://"},
            "oidc": {"issuer": provider.issuer, "client_id": CLIENT[0], "client_secret": CLIENT[1]},
            "mfa": {"mode": "gateway" if own_factor else "keycloak", "issuer_label": "Example Lab"},
            "log": {"access": True},
            "pools": [
                {
                    "name": "htc",
                    "title": "High throughput",
                    "path": "/htc/",
                    "section": "HTC",
                    "disclose": disclose,
                    "hubs": [{"name": n, "url": hubs[n].url} for n in ("htc01", "htc02")],
                },
                {
                    "name": "hpc",
                    "title": "High performance",
                    "path": "/hpc/",
                    "section": "HPC",
                    "groups": ["hpc-users"],
                    "disclose": disclose,
                    "hubs": [{"name": "hpc01", "url": hubs["hpc01"].url}],
                },
            ],
        }
        adapt(document)
        settings = reading.read(document, Surroundings())
        lines: list[bytes] = []
        access: list[tuple[Any, ...]] = []
        served = await stack.enter_async_context(
            app.gateway(
                settings,
                metrics=Metrics(settings.site()),
                audit=Audit(lines.append),
                access_log=lambda caller, **line: access.append((caller, line)),
                clock=clock,
            )
        )
        runner = await front_runner(served.pages, served.front, shortcut=served.shortcut)
        stack.push_async_callback(runner.cleanup)
        await Listener(runner, front).start()
        yield Stand(settings.gateway.public_url, hubs, served, lines, access, provider, people)
