"""Tokens of a real Keycloak that rotates them: renewed once by two gateways, and what changes there shows here."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.provider import KeycloakProvider
from tests.kit.scene import SOON, Scene
from tests.system.test_ends_keycloak import Sites, refused, written

pytest_plugins = ["tests.kit.scene_fixtures"]

LIFESPAN = 20
"""Seconds that access tokens live: they are renewed at half of it, and looked at every ten seconds."""
RENEWED = LIFESPAN + SOON


@pytest.fixture
def sites(scene: Scene, fresh_redis: RedisServer, keycloak: KeycloakProvider) -> Sites:
    realm = keycloak.create_realm(
        f"renewals{time.time_ns() % 10**9}",
        {
            "accessTokenLifespan": LIFESPAN,
            # Rotation with reuse detection: a second use of a refresh token ends Keycloak's session.
            "revokeRefreshToken": True,
            "refreshTokenMaxReuse": 0,
            "eventsEnabled": True,
            "enabledEventTypes": ["REFRESH_TOKEN", "REFRESH_TOKEN_ERROR"],
        },
    )
    return Sites(scene, fresh_redis, realm, groups=["htc-users"])


def renewals(sites: Sites, user: Any) -> list[float]:
    """When this user's tokens were renewed, in seconds, as Keycloak wrote it down; that it refused none."""
    subject = sites.realm.user_id(user.username)
    found = sites.realm.admin("GET", f"events?user={subject}&type=REFRESH_TOKEN&type=REFRESH_TOKEN_ERROR&max=100")
    assert {event["type"] for event in found} <= {"REFRESH_TOKEN"}
    return sorted(event["time"] / 1000 for event in found)


async def test_a_hundred_requests_at_that_moment_and_one_renewal(sites: Sites) -> None:
    ada = sites.realm.create_user()
    here = await sites.arrived(ada, at=0)
    there = await sites.elsewhere(here, at=1)
    sockets = [await here.socket(), await there.socket()]
    statuses: set[int] = set()

    async def renewed() -> bool:
        pages = await asyncio.gather(*(each.fetch("/htc/hub/api/x") for each in (here, there) for _ in range(50)))
        statuses.update(page.status for page in pages)
        return bool(renewals(sites, ada))

    await eventually(renewed, within=RENEWED, every=0.2, what="a renewal")
    for _ in range(10):
        await renewed()
    assert statuses == {200}
    # And the next one, with the token that came of it, when that has lived for its half.
    await eventually(lambda: _count(sites, ada, 2), within=RENEWED, every=0.5, what="a second renewal")
    assert all(later - one > LIFESPAN / 4 for one, later in itertools.pairwise(renewals(sites, ada)))
    for socket in sockets:
        assert await socket.echoes()
    assert not sites.audited("session_end")


async def _count(sites: Sites, user: Any, count: int) -> bool:
    return len(renewals(sites, user)) >= count


async def _not_renewed(sites: Sites) -> bool:
    return any(gateway.events("tokens_not_renewed") for gateway in sites.gateways)


async def test_who_is_disabled_or_leaves_a_group_meets_it_where_they_are(sites: Sites) -> None:
    ada, eve = sites.realm.create_user(), sites.realm.create_user()
    one, two = await sites.arrived(ada, at=0), await sites.arrived(eve, at=1)
    adas, eves = await one.socket(), await two.socket()
    sites.realm.admin("PUT", f"users/{sites.realm.user_id(ada.username)}", {"enabled": False})
    subject = sites.realm.user_id(eve.username)
    (group,) = [each for each in sites.realm.admin("GET", f"users/{subject}/groups") if each["name"] == "htc-users"]
    sites.realm.admin("DELETE", f"users/{subject}/groups/{group['id']}")
    assert await adas.ended(RENEWED)
    assert await eves.ended(RENEWED)
    assert await refused(one)
    assert (await two.fetch()).status == 403, "still logged in, and not let into this pool"
    (line,) = await written(sites, "session_end")
    assert (line["outcome"], line["code"], line["user"]) == ("tokens_refused", "refresh_refused", ada.username)


async def test_keycloak_away_at_that_moment_ends_nothing(sites: Sites) -> None:
    ada = sites.realm.create_user()
    here = await sites.arrived(ada, at=0)
    wire = await here.socket()
    client = sites.realm.admin("GET", f"clients?clientId={sites.realm.client_id}")[0]
    # What a failing provider says to everybody: not this token, but this client now.
    sites.realm.admin("PUT", f"clients/{client['id']}", {**client, "enabled": False})
    await asyncio.sleep(LIFESPAN + 10)
    await eventually(lambda: _not_renewed(sites), within=RENEWED, what="the line that says so")
    assert not await refused(here)
    assert await wire.echoes()
    sites.realm.admin("PUT", f"clients/{client['id']}", {**client, "enabled": True})
    await eventually(lambda: _count(sites, ada, 1), within=RENEWED, every=1.0, what="a renewal after all")
    assert not await refused(here)


async def test_tabs_that_hang_on_one_session_of_keycloaks_rotate_their_tokens_each(sites: Sites) -> None:
    """Two logins of one browser: what one of them renews is no theft to the other."""
    ada = sites.realm.create_user()
    two = await sites.arrived(ada, at=0)
    one = await two.again()
    two.browser.session.cookie_jar.clear(lambda morsel: morsel.key.startswith("hubgate"))
    page = await two.browser.get(two.at("/htc/hub/home"))
    assert (page.status, page.url) == (200, two.at("/htc/hub/home")), "by Keycloak's single sign-on"
    assert one.cookies["hubgate"] != two.cookies["hubgate"]
    assert len(sites.realm.admin("GET", f"users/{sites.realm.user_id(ada.username)}/sessions")) == 1
    wires = [await one.socket(), await two.socket()]
    await eventually(lambda: _count(sites, ada, 4), within=2 * RENEWED, every=0.5, what="two renewals of each")
    for visitor, wire in zip((one, two), wires, strict=True):
        assert not await refused(visitor)
        assert await wire.echoes()
    assert not sites.audited("session_end")
