"""Keycloak says that it is over: back-channel logout, by a real one, at two gateways on one Redis."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hubgate.ops.demo.realm import DemoUser
from hubgate.ops.demo.redis import RedisServer
from hubgate.web.renewals import _IN_DOUBT
from tests.kit.background import eventually
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider
from tests.kit.scene import SOON, Balancer, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]


class Sites:
    """Two gateways behind a balancer that log people in at a realm of their own, which calls them back."""

    def __init__(self, scene: Scene, redis: RedisServer, realm: KeycloakProvider, **more: Any) -> None:
        self.scene = scene
        self.realm = realm
        self.hub = scene.hub("htc01")
        self.balancer: Balancer
        self.balancer, self.gateways = scene.balanced(
            2, pool("htc", self.hub, **more), store_url=redis.url, provider=realm
        )
        self.url = self.gateways[0].url

    async def arrived(self, user: Any, *, at: int) -> Visitor:
        """Somebody in a browser whose connections all lead to one of the gateways."""
        self.balancer.choose(self.gateways[at])
        visitor = Visitor(self.gateways[at], Person(self.url, self.realm.origin), user, self.url)
        self.scene.people.append(visitor)
        page = await visitor.arrive()
        assert page.status == 200, page
        return visitor

    async def elsewhere(self, visitor: Visitor, *, at: int) -> Visitor:
        """The same browser at another gateway."""
        self.balancer.choose(self.gateways[at])
        other = await visitor.again()
        assert (await other.get()).status == 200
        return other

    def audited(self, event: str) -> list[dict[str, Any]]:
        return [line for gateway in self.gateways for line in gateway.events(event) if line.get("log") == "audit"]


@pytest.fixture
def sites(scene: Scene, fresh_redis: RedisServer, keycloak: KeycloakProvider) -> Sites:
    realm = keycloak.create_realm(f"ends{time.time_ns() % 10**9}")
    found = Sites(scene, fresh_redis, realm)
    realm.change_client(
        backchannel__logout__url=f"{found.url}/_hubgate/backchannel-logout",
        backchannel__logout__session__required="true",
    )
    return found


async def written(sites: Sites, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The lines of the audit log about this, once there are so many: they are written when all else is done."""

    async def lines() -> list[dict[str, Any]]:
        found = sites.audited(event)
        return found if len(found) >= count else []

    return await eventually(lines, within=SOON, what=f"what is written of {event}")


async def refused(visitor: Visitor) -> bool:
    return (await visitor.fetch()).status == 401


async def test_one_session_that_keycloak_ends_is_over_at_both_gateways(sites: Sites) -> None:
    ada, eve = sites.realm.create_user(), sites.realm.create_user()
    here = await sites.arrived(ada, at=0)
    subject = sites.realm.user_id(ada.username)
    (session,) = sites.realm.admin("GET", f"users/{subject}/sessions")
    also = await sites.elsewhere(here, at=1)
    home = await sites.arrived(ada, at=1)  # another browser, another session at Keycloak
    other = await sites.arrived(eve, at=1)
    sockets = [await here.socket(), await also.socket()]
    kept = [await home.socket(), await other.socket()]
    began = time.monotonic()
    sites.realm.admin("DELETE", f"sessions/{session['id']}")
    for socket in sockets:
        assert await socket.ended(SOON)
    print(f"closed {time.monotonic() - began:.3f} s after Keycloak was asked")
    assert await refused(here)
    assert await refused(also)
    for socket in kept:
        assert await socket.echoes()
    assert not await refused(home)
    assert not await refused(other)
    (line,) = await written(sites, "session_end")
    assert (line["outcome"], line["user"]) == ("backchannel", ada.username)
    assert line["connections"] == 2
    assert not sites.audited("backchannel_logout")
    await asyncio.sleep(sum(_IN_DOUBT) + 1)
    for socket in kept:
        assert await socket.echoes(), "what Keycloak didn't end goes on when it is asked"


async def all_of_somebody(sites: Sites) -> DemoUser:
    """Keycloak ends all sessions of somebody in two browsers; somebody else goes on. Who that was."""
    ada, eve = sites.realm.create_user(), sites.realm.create_user()
    browsers = [await sites.arrived(ada, at=0), await sites.arrived(ada, at=1)]
    other = await sites.arrived(eve, at=1)
    sockets = [await browser.socket() for browser in browsers]
    kept = await other.socket()
    sites.realm.admin("POST", f"users/{sites.realm.user_id(ada.username)}/logout")
    for socket in sockets:
        assert await socket.ended(SOON)
    for browser in browsers:
        assert await refused(browser)
    assert await kept.echoes()
    return ada


async def test_all_sessions_of_somebody_of_which_keycloak_names_one(sites: Sites) -> None:
    """With session required, as docs/keycloak.md has it, an administrator's "Sign out all" tells of one of them."""
    ada = await all_of_somebody(sites)
    lines = await written(sites, "session_end", 2)
    assert {line["user"] for line in lines} == {ada.username}
    assert {line["outcome"] for line in lines} <= {"backchannel", "tokens_refused"}


async def test_all_sessions_of_somebody_by_their_subject_alone(sites: Sites) -> None:
    sites.realm.change_client(backchannel__logout__session__required="false")
    ada = await all_of_somebody(sites)
    assert [line["user"] for line in await written(sites, "session_end", 2)] == [ada.username] * 2


async def test_what_is_said_while_the_store_is_away_is_done_when_it_is_back(
    sites: Sites, fresh_redis: RedisServer
) -> None:
    ada = sites.realm.create_user()
    browser = await sites.arrived(ada, at=0)
    wire = await browser.socket()
    fresh_redis.stop()
    sites.balancer.choose(sites.gateways[0])  # the gateway that is told
    sites.realm.admin("POST", f"users/{sites.realm.user_id(ada.username)}/logout")
    assert await wire.ended(SOON), "what this gateway held is let go of"
    fresh_redis.start()
    fresh_redis.ready()

    async def over() -> bool:
        return await refused(browser)

    await eventually(over, within=SOON, every=0.3, what="the end of the session")
    await written(sites, "session_end")
    assert {line["code"] for line in sites.audited("backchannel_logout")} <= {"store_unreachable"}


async def test_log_out_here_is_log_out_there(sites: Sites) -> None:
    """Keycloak's own session ends with Log Out, and its call back finds nothing left to do."""
    ada = sites.realm.create_user()
    browser = await sites.arrived(ada, at=0)
    also = await sites.elsewhere(browser, at=1)
    sockets = [await browser.socket(), await also.socket()]
    sites.balancer.choose(sites.gateways[0])
    page = await browser.log_out()
    assert "You are logged out" in page.text
    assert "2 open connections were closed" in page.text, "those at the other gateway count"
    for socket in sockets:
        assert await socket.ended(SOON)
    await sites.realm.forgotten(ada.username)
    (line,) = await written(sites, "logout")
    # A Keycloak that is busy for two seconds is not waited for.
    assert (line["outcome"] in {"ok", "provider_session_open"}, line["connections"]) == (True, 2)


async def test_nobody_else_can_say_it(sites: Sites) -> None:
    ada = sites.realm.create_user()
    browser = await sites.arrived(ada, at=0)
    page = await browser.browser.request(
        "POST", f"{sites.url}/_hubgate/backchannel-logout", data={"logout_token": "e30.e30.e30"}
    )
    assert page.status == 400
    assert page.headers["Cache-Control"] == "no-store"
    assert not await refused(browser)
    assert [line["outcome"] for line in await written(sites, "backchannel_logout")] == ["refused"]
