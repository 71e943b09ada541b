"""The whole site, real in every part: Keycloak, Redis, two HTC hubs and one HPC hub behind one gateway, for the run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubgate.ops.demo.hubs import Hub
from hubgate.ops.demo.realm import DemoUser
from hubgate.ops.demo.redis import RedisServer
from tests.kit.person import Page, Person
from tests.kit.provider import KeycloakProvider
from tests.kit.running import Gateways, RunningGateway


@dataclass(frozen=True)
class RunningSite:
    """What stands, and who can come."""

    gateway: RunningGateway
    keycloak: KeycloakProvider
    hubs: dict[str, Hub]

    @property
    def url(self) -> str:
        return self.gateway.url

    def browser(self) -> Person:
        """A browser that has never been here."""
        return Person(self.url, self.keycloak.origin)


@dataclass
class Visitor:
    """Somebody in a browser of their own."""

    site: RunningSite
    browser: Person
    user: DemoUser

    def at(self, path: str) -> str:
        return f"{self.site.url}{path}"

    async def arrive(self, path: str = "/") -> Page:
        """Go there, through the login if need be."""
        return await self.browser.login(self.at(path), self.user)

    async def log_out(self) -> Page:
        """By the button on the landing page."""
        page = await self.browser.get(self.at("/"))
        form = next(form for form in page.forms if form.action.endswith("/_hubgate/logout"))
        return await self.browser.submit(page, form)


@pytest.fixture(scope="session")
def site(
    stage: Path,
    public_url: str,
    redis_server: RedisServer,
    keycloak: KeycloakProvider,
    hub: Callable[..., Hub],
) -> Iterator[RunningSite]:
    running = {
        "htc01": hub("htc01", path="/htc/"),
        "htc02": hub("htc02", path="/htc/"),
        "hpc01": hub("hpc01", path="/hpc/"),
    }
    htc = {
        "name": "htc",
        "title": "High-throughput computing",
        "path": "/htc/",
        "section": "HTC",
        "hubs": [{"name": name, "url": running[name].url} for name in ("htc01", "htc02")],
    }
    hpc = {
        "name": "hpc",
        "title": "High-performance computing",
        "path": "/hpc/",
        "section": "HPC",
        "groups": ["hpc-users"],
        "help": "Write to the cluster's help desk.",
        "hubs": [{"name": "hpc01", "url": running["hpc01"].url}],
    }
    gateways = Gateways(stage)
    client_id, client_secret = keycloak.client
    gateway = gateways.start(
        pools=[htc, hpc],
        provider=keycloak,
        store_url=redis_server.url,
        public_url=public_url,
        keycloak={"client_id": client_id, "client_secret": client_secret},
    )
    yield RunningSite(gateway, keycloak, running)
    gateways.stop()


@pytest.fixture
async def visitor(site: RunningSite) -> AsyncIterator[Callable[..., Visitor]]:
    """`visitor()`: somebody new; keywords as for `create_user`. `visitor(user=…)`: another browser of that person."""
    met: list[Visitor] = []

    def meet(*, user: DemoUser | None = None, browser: Person | None = None, **about: object) -> Visitor:
        person = user or site.keycloak.create_user(**about)  # type: ignore[arg-type]  # passed through as given
        met.append(Visitor(site, browser or site.browser(), person))
        return met[-1]

    yield meet
    for each in met:
        await each.browser.session.close()
