"""Two gateways on one Redis before a real JupyterHub, with a real Keycloak: what tests of people and sessions need.

Logging in takes a password alone, since codes can't be had as often. The fixture `pair` comes with `pytest_plugins =
["tests.kit.scene_fixtures", "tests.kit.pair_fixtures"]`; what stands lasts for the run, and so do the notebook servers
of the two people in it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from hubgate.config import load
from hubgate.ops import sessions
from hubgate.ops.demo import hubs
from hubgate.ops.demo.realm import DemoUser
from hubgate.web.endings import Ended
from tests.kit.person import FETCH, NAVIGATION, Person
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway
from tests.kit.scene import Balancer, Visitor


@dataclass
class Pair:
    """The site, and the people in it."""

    realm: KeycloakProvider
    balancer: Balancer
    gateways: list[RunningGateway]
    hub: hubs.Hub
    ada: DemoUser
    eve: DemoUser
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        return self.gateways[0].url

    async def browser(self, user: DemoUser, *, at: int, browser: Person | None = None) -> Visitor:
        """Somebody who has just logged in at one of the gateways, in a browser of their own."""
        self.balancer.choose(self.gateways[at])
        visitor = Visitor(self.gateways[at], browser or Person(self.url, self.realm.origin), user, self.url)
        await self.stack.enter_async_context(visitor)
        page = await visitor.arrive("/")
        assert user.username in page.text, page
        return visitor

    def kept(self, visitor: Visitor, path: str) -> str:
        """The cookies that this browser has for a path, as a field."""
        return "; ".join(f"{name}={value}" for name, value in visitor.browser.cookies(visitor.at(path)).items())

    async def straight(self, number: int) -> Straight:
        """A client that asks one of the gateways, past the balancer."""
        gateway = self.gateways[number]
        url = URL(f"http://127.0.0.1:{self.balancer.ports[gateway.name]}")
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return Straight(await self.stack.enter_async_context(session), url, self.url)

    async def ended_by_administrator(self, user: DemoUser) -> Ended:
        """What `hubgate sessions end --user` does."""
        return await sessions.ended(load(self.gateways[0].config), sessions.Choice(user=user.username))


@dataclass
class Straight:
    """Asks a gateway with cookies that are given by hand, and with nothing but them."""

    session: aiohttp.ClientSession
    url: URL
    origin: str

    def _headers(self, cookies: str, **more: str) -> dict[str, str]:
        return {"Host": urlsplit(self.origin).netloc, "Origin": self.origin, "Cookie": cookies, **more}

    def _to(self, path: str) -> URL:
        return self.url.join(URL(path, encoded=True))

    async def socket(self, path: str, cookies: str) -> aiohttp.ClientWebSocketResponse:
        return await self.session.ws_connect(self._to(path), headers=self._headers(cookies), max_msg_size=0)

    async def status(self, path: str, cookies: str, *, method: str = "GET", navigate: bool = False) -> int:
        headers = self._headers(cookies, **(NAVIGATION if navigate else FETCH))
        async with self.session.request(method, self._to(path), headers=headers, allow_redirects=False) as answer:
            if answer.status in {302, 303}:
                where = answer.headers["Location"].removeprefix(self.origin)
                assert where.startswith(("/_hubgate/login", "/htc/hub/")), where
            return answer.status

    async def refused(self, path: str, cookies: str) -> int:
        """What a handshake is answered with."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.socket(path, cookies)
        return caught.value.status
