"""An echo server in place of a hub: what a hub gets to see, and what it must never see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from hubgate.ops.demo.realm import DemoUser
from tests.kit.echo import Echo
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway

SPOOFS = [
    "REMOTE_USER",
    "remote_user",
    "Remote-User",
    "REMOTE-USER",
    "Http-Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Hubgate-Assertion",
    "X_Hubgate_Assertion",
]


@dataclass
class Scene:
    gateway: RunningGateway
    hub: Echo
    browser: Person
    user: DemoUser

    def at(self, path: str) -> str:
        return f"{self.gateway.url}{path}"


@pytest.fixture
async def scene(
    keycloak: KeycloakProvider, gateway: Callable[..., RunningGateway], echo_upstream: Echo
) -> AsyncIterator[Scene]:
    """Somebody who is logged in, before an echo server."""
    pool = {"name": "htc", "path": "/htc/", "hubs": [{"name": "htc01", "url": echo_upstream.url}]}
    running = gateway(pools=[pool], provider=keycloak)
    user = keycloak.create_user(groups=["htc-users", "portal-admins"])
    async with Person(running.url, keycloak.origin) as browser:
        page = await browser.login(f"{running.url}/htc/hub/home", user)
        assert page.status == 200, page
        yield Scene(running, echo_upstream, browser, user)


async def test_the_hub_sees_who_it_is_and_the_proof_of_it(scene: Scene) -> None:
    got = scene.hub.received[-1]
    assert got.target == "/htc/hub/home"
    assert got.values("REMOTE_USER") == [scene.user.username]
    assert len(got.values("X-Hubgate-Assertion")) == 1
    assert got.values("Host") == [scene.gateway.url.partition("://")[2]]


@pytest.mark.parametrize("name", SPOOFS)
async def test_nobody_speaks_in_our_name(scene: Scene, name: str) -> None:
    await scene.browser.fetch(scene.at("/htc/hub/api/x"), headers={name: "root", "Connection": f"close, {name}"})
    got = scene.hub.received[-1]
    assert got.values("REMOTE_USER") == [scene.user.username]
    assert len(got.values("X-Hubgate-Assertion")) == 1
    assert "root" not in [value for _, value in got.headers]


@pytest.mark.parametrize("path", ["/htc/user/x/lab", "/htc/user/x/api/status", "/htc/services/y/"])
async def test_a_notebook_learns_nothing(scene: Scene, path: str) -> None:
    await scene.browser.get(scene.at(path), follow=False)
    got = scene.hub.received[-1]
    assert got.target == path
    assert got.lookalikes("REMOTE_USER") == []
    assert got.lookalikes("X-Hubgate-Assertion") == []
    assert scene.user.username not in str(got.headers)


async def test_our_cookies_stay_with_us(scene: Scene) -> None:
    assert "hubgate" in scene.browser.cookies(scene.gateway.url)
    for path in ("/htc/hub/home", "/htc/user/x/lab"):
        await scene.browser.get(scene.at(path), headers={"X-Check": "1"}, follow=False)
        assert all("hubgate" not in value for value in scene.hub.received[-1].values("Cookie"))


@pytest.mark.parametrize(
    "path", ["/htc/hub/a%2Fb", "/htc/hub/a+b?x=%25&y=a+b", "/htc/user/x/files/%E6%97%A5.txt", "/htc/hub/a;b=c?d;e"]
)
async def test_the_target_arrives_as_it_was_sent(scene: Scene, path: str) -> None:
    page = await scene.browser.get(scene.at(path), follow=False)
    assert page.status == 200
    assert scene.hub.received[-1].target == path


async def test_where_a_request_came_from_is_told_once_and_by_us(scene: Scene) -> None:
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=203.0.113.9;proto=https",
        "X-Real-IP": "203.0.113.9",
        "X-Scheme": "https",
        "X-Original-URL": "/htc/hub/admin",
    }
    await scene.browser.fetch(scene.at("/htc/hub/api/x"), headers=claims)
    got = scene.hub.received[-1]
    assert got.values("X-Forwarded-Proto") == ["http"]
    assert got.values("X-Forwarded-For") == ["127.0.0.1"]
    told = json.dumps(got.headers)
    assert "203.0.113.9" not in told
    assert "evil.example" not in told
    assert got.values("X-Original-URL") == []


async def test_a_body_arrives_as_it_was_sent(scene: Scene) -> None:
    body = bytes(range(256)) * 5000
    page = await scene.browser.fetch(scene.at("/htc/hub/api/x"), "POST", data=body)
    assert page.status == 200
    assert scene.hub.received[-1].body == body


async def test_a_socket_carries_messages_both_ways(scene: Scene) -> None:
    headers = {"Origin": scene.gateway.url}
    async with scene.browser.session.ws_connect(scene.at("/htc/user/x/api/kernels/k/channels"), headers=headers) as ws:
        await ws.send_str("text")
        assert await ws.receive_str() == "text"
        await ws.send_bytes(b"\x00" * 1_000_000)
        assert await ws.receive_bytes() == b"\x00" * 1_000_000
    got = scene.hub.received[-1]
    assert got.lookalikes("REMOTE_USER") == []


async def test_who_is_not_logged_in_reaches_nothing(scene: Scene) -> None:
    before = len(scene.hub.received)
    async with Person(scene.gateway.url) as stranger:
        assert (await stranger.get(scene.at("/htc/hub/home"), follow=False)).status in {302, 303}
        assert (await stranger.fetch(scene.at("/htc/hub/api/x"), "POST", data=b"x")).status == 401
        assert (await stranger.fetch(scene.at("/htc/user/x/api/status"))).status == 401
    assert len(scene.hub.received) == before
