"""A gateway process before hubs that are echo servers, all of which can fail: what tests of faults and operation need.

Hubs and provider answer from a thread (background.py), the gateway is a real `hubgate serve`. The fixture `scene` comes
with `pytest_plugins = ["tests.kit.scene_fixtures"]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.realm import DemoUser
from tests.kit.background import Background, Place, Relay
from tests.kit.echo import Echo
from tests.kit.embedded import EmbeddedProvider
from tests.kit.person import Page, Person
from tests.kit.running import RunningGateway

SOON = 60.0
"""Seconds until a test gives up waiting for what is promised within one or two. Bounds hangs only: on a machine that
others use, too, nothing is judged by it."""

QUICK_HEALTH = {"interval": "200ms", "timeout": "10s", "rise": 2, "fall": 2, "move_after": "1h"}
"""Probes that see a change within a second, and that take no busy hub for one that is gone."""


class EchoHub(Echo):
    """An echo server at a place of its own."""

    def __init__(self, background: Background, name: str, **options: Any) -> None:
        super().__init__(name)
        self.place = Place(background, self.app, **options)
        self.url = self.place.url()

    def entry(self, **more: Any) -> dict[str, Any]:
        """As it stands in a pool's `hubs`."""
        return {"name": self.name, "url": self.url, **more}


def pool(name: str, *hubs: EchoHub | Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A pool below `/name/`."""
    entries = [dict(hub) if isinstance(hub, Mapping) else hub.entry() for hub in hubs]
    return {"name": name, "title": f"Pool {name}", "path": f"/{name}/", "hubs": entries, **more}


@dataclass
class Visitor:
    """Somebody in a browser of their own."""

    gateway: RunningGateway
    browser: Person
    user: DemoUser
    url: str
    sockets: AsyncExitStack = field(default_factory=AsyncExitStack)

    def at(self, path: str) -> str:
        return f"{self.url}{path}"

    async def arrive(self, path: str = "/htc/hub/home") -> Page:
        """Go there, through the login if need be."""
        return await self.browser.login(self.at(path), self.user)

    async def get(self, path: str = "/htc/hub/home", **options: Any) -> Page:
        return await self.browser.get(self.at(path), follow=False, **options)

    async def fetch(self, path: str = "/htc/hub/api/x", method: str = "GET", **options: Any) -> Page:
        return await self.browser.fetch(self.at(path), method, **options)

    async def hub(self, path: str = "/htc/hub/home") -> str:
        """The name of the hub that answers this."""
        page = await self.get(path)
        assert page.status == 200, page
        return str(json.loads(page.text)["upstream"])

    async def socket(self, path: str = "/htc/user/x/api/kernels/k/channels", **options: Any) -> Socket:
        """An open WebSocket; it ends with the visitor."""
        headers = {"Origin": self.url, **options.pop("headers", {})}
        opened = self.browser.session.ws_connect(
            self.at(path), headers=headers, ssl=self.browser._ssl, max_msg_size=0, **options
        )
        return Socket(await self.sockets.enter_async_context(opened))

    @property
    def cookies(self) -> dict[str, str]:
        return self.browser.cookies(self.url + "/")

    async def again(self) -> Visitor:
        """The same browser on new connections: with its cookies, and whichever gateway a balancer leads to now."""
        other = Person(self.url)
        other.session.cookie_jar.update_cookies(self.cookies, URL(self.url))
        return await self.sockets.enter_async_context(Visitor(self.gateway, other, self.user, self.url))

    async def log_out(self) -> Page:
        """By the button on the landing page."""
        page = await self.browser.get(self.at("/"))
        form = next(form for form in page.forms if form.action.endswith("/_hubgate/logout"))
        return await self.browser.submit(page, form)

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.sockets.aclose()
        await self.browser.session.close()


class Socket:
    """An echoing WebSocket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def echoes(self, text: str = "hello") -> bool:
        """Whether it still carries a message there and back."""
        if self.ws.closed:
            return False
        try:
            await self.ws.send_str(text)
        except ConnectionError:
            return False
        message = await self.ws.receive(timeout=SOON)
        return message.type is aiohttp.WSMsgType.TEXT and message.data == text

    async def ended(self, within: float) -> bool:
        """Whether the other side ends it within so many seconds."""
        try:
            async with asyncio.timeout(within):
                async for _ in self.ws:
                    continue
        except TimeoutError:
            return False
        return True


class Balancer(Relay):
    """What stands before several gateways; `choose` says which of them gets the next connections."""

    ports: Mapping[str, int] = {}

    def choose(self, gateway: RunningGateway) -> None:
        """Lead whoever connects from now on to this one."""
        self.lead_to(self.ports[gateway.name])


@dataclass
class Scene:
    """What stands behind and beside a test's gateways. `visitor(gateway)`: somebody new; `user=`: another browser."""

    background: Background
    provider: EmbeddedProvider
    start: Callable[..., RunningGateway]
    people: list[Visitor] = field(default_factory=list)

    def hub(self, name: str, **options: Any) -> EchoHub:
        return EchoHub(self.background, name, **options)

    def gateway(self, *pools: Mapping[str, Any], **options: Any) -> RunningGateway:
        """A gateway with probes that are quick, logging in at the embedded provider."""
        options["health"] = QUICK_HEALTH | dict(options.get("health", {}))
        return self.start(pools=pools, **{"provider": self.provider} | options)

    def balanced(self, count: int, *pools: Mapping[str, Any], **options: Any) -> tuple[Balancer, list[RunningGateway]]:
        """Several gateways of one site behind one address."""
        ports = free_ports(count)
        relay = Balancer(self.background, ports[0])
        url = f"http://127.0.0.1:{relay.port}"
        shared = options.pop("gateway", {})
        tables = [shared | {"listen": [f"127.0.0.1:{port}"]} for port in ports]
        gateways = [self.gateway(*pools, public_url=url, gateway=table, **options) for table in tables]
        relay.ports = {gateway.name: port for gateway, port in zip(gateways, ports, strict=True)}
        return relay, gateways

    def visitor(self, gateway: RunningGateway, *, user: DemoUser | None = None, url: str = "", **about: Any) -> Visitor:
        where = url or gateway.url
        browser = Person(where, self.provider.origin, **about)
        self.people.append(Visitor(gateway, browser, user or self.provider.create_user(), where))
        return self.people[-1]

    async def logged_in(self, gateway: RunningGateway, path: str = "/htc/hub/home", **options: Any) -> Visitor:
        """Somebody who has just come in, and was at a hub."""
        somebody = self.visitor(gateway, **options)
        page = await somebody.arrive(path)
        assert page.status == 200, page
        return somebody
