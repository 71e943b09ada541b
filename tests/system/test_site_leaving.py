"""Log Out, and whoever comes next in the same browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from tests.kit.notebooks import Notebooks
from tests.kit.person import Person
from tests.kit.site import RunningSite, Visitor


async def whoami(somebody: Visitor) -> str:
    """Whom the hub takes this browser for."""
    xsrf = somebody.browser.cookies(somebody.at("/htc/hub/")).get("_xsrf", "")
    told = await somebody.browser.fetch(somebody.at(f"/htc/hub/api/user?_xsrf={xsrf}"))
    assert told.status == 200, told
    return str(json.loads(told.text)["name"])


async def test_log_out_ends_the_session_its_cookies_and_keycloaks(
    site: RunningSite, visitor: Callable[..., Visitor]
) -> None:
    somebody = visitor()
    await somebody.arrive("/htc/hub/home")
    before = somebody.browser.cookies(somebody.at("/htc/hub/"))
    assert "hubgate" in before
    page = await somebody.log_out()
    assert page.status == 200
    assert page.url.startswith(somebody.at("/_hubgate/logged-out"))
    left = somebody.browser.cookies(somebody.at("/htc/hub/"))
    # What is left binds the next login to this browser, and says nothing about the last one.
    assert {name for name in left if name.startswith(("hubgate", "jupyterhub"))} <= {"hubgate-login"}

    # Whoever kept the cookies has nothing in hand.
    stolen = "; ".join(f"{name}={value}" for name, value in before.items())
    async with site.browser() as thief:
        assert (await thief.fetch(somebody.at("/htc/hub/api/user"), headers={"Cookie": stolen})).status == 401
    # Keycloak asks for the password again.
    await site.keycloak.forgotten(somebody.user.username)
    page = await somebody.browser.get(somebody.at("/htc/hub/home"))
    assert page.form_with("password") is not None, page


async def test_log_out_closes_what_is_open(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    await somebody.arrive("/htc/hub/home")
    notebooks = Notebooks(somebody.browser, somebody.at("/htc/"), somebody.user.username)
    await notebooks.spawn()
    await notebooks.lab()
    kernel = await notebooks.start_kernel()
    async with notebooks.socket(f"api/kernels/{kernel}/channels") as channels:
        assert await notebooks.run(channels, "print('open')") == "open\n"
        await somebody.log_out()
        async with asyncio.timeout(60):
            async for _ in channels:
                continue
        assert channels.closed


async def test_the_hubs_own_log_out_leaves_through_the_gateway(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    await somebody.arrive("/htc/hub/home")
    home = {"Referer": somebody.at("/htc/hub/home")}
    page = await somebody.browser.get(somebody.at("/htc/hub/logout"), headers=home)
    assert somebody.at("/_hubgate/logout") in [step.url.partition("?")[0] for step in page.trail]
    await somebody.site.keycloak.forgotten(somebody.user.username)
    page = await somebody.browser.get(somebody.at("/htc/hub/home"))
    assert page.form_with("password") is not None, page


async def test_the_next_person_in_this_browser_is_themselves(visitor: Callable[..., Visitor]) -> None:
    first = visitor()
    await first.arrive("/htc/hub/home")
    assert await whoami(first) == first.user.username
    await first.log_out()
    await first.site.keycloak.forgotten(first.user.username)
    second = visitor(browser=first.browser)
    await second.arrive("/htc/hub/home")
    assert await whoami(second) == second.user.username


async def test_a_switch_without_log_out_leaves_nothing_of_the_first(
    site: RunningSite, visitor: Callable[..., Visitor]
) -> None:
    first = visitor()
    await first.arrive("/htc/hub/home")
    notebooks = Notebooks(first.browser, first.at("/htc/"), first.user.username)
    await notebooks.spawn()
    assert (await notebooks.lab()).status == 200
    # The first one's session at Keycloak ends, and the gateway's cookie is lost; the hub's cookies stay.
    site.keycloak.admin("POST", f"users/{site.keycloak.user_id(first.user.username)}/logout")
    first.browser.session.cookie_jar.clear(lambda morsel: morsel.key == "hubgate")
    second = visitor(browser=first.browser)
    page = await second.arrive("/htc/hub/home")
    assert page.status == 200, page
    assert await whoami(second) == second.user.username
    page = await second.browser.get(notebooks.server + "api/status", follow=False)
    assert page.status in {302, 403, 404}, page
    owner = visitor(user=first.user)
    await owner.arrive("/htc/hub/home")
    await Notebooks(owner.browser, owner.at("/htc/"), owner.user.username).stop()


async def test_a_foreign_page_can_log_nobody_out(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    await somebody.arrive()
    browser: Person = somebody.browser
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    page = await browser.request("POST", somebody.at("/_hubgate/logout"), data={"csrf": "x"}, headers=foreign)
    assert page.status == 403
    page = await browser.request("GET", somebody.at("/_hubgate/logout"), headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status == 200
    page = await browser.get(somebody.at("/"))
    assert somebody.user.username in page.text
