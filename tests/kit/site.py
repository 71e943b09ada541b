"""The whole site, real in every part, and somebody who visits it (fixtures `site` and `visitor`)."""

from __future__ import annotations

from dataclasses import dataclass

from hubgate.ops.demo.hubs import Hub
from hubgate.ops.demo.realm import DemoUser
from tests.kit.person import Page, Person
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway


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
