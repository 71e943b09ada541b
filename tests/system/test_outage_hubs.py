"""Hubs go away and come back: their users wait and are told, the others notice nothing, and moving is a choice."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser

from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.person import Form, Page, code_book
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, EchoHub, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

KERNEL = "/htc/user/x/api/kernels/k/channels"


Hub = Literal["well", "gone", "hung", "unrouted"]


class ProxiedHub(EchoHub):
    """A hub behind configurable-http-proxy, as the gateway sees it: `hub` says how it is with the hub itself.

    `gone`: the proxy answers 503 for what is the hub's. `hung`: it waits for the hub. `unrouted`: it was started anew,
    and the hub has not told it yet where it is. Notebooks go on either way.
    """

    hub: Hub = "well"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_chp_healthz":
            return web.json_response({"status": "OK"})
        if "/hub/" in request.path:
            match self.hub:
                case "gone":
                    return web.Response(status=503, text="<html>503 Service Unavailable</html>")
                case "hung":
                    await asyncio.sleep(3600)
                case "unrouted":
                    return web.Response(status=404, text="Not Found")
        return await super()._answer(request)


def waiting(page: Page, hub: str) -> None:
    """The page that waits with somebody: names the hub and since when, says what is safe, and looks again by itself."""
    assert page.status == 503, page
    assert f"<bdi>{hub}</bdi> is not answering" in page.text
    assert re.search(r"It stopped answering [^(.]+ ago\b[^(]*\((<bdi>)?<time", page.text), page
    assert "You stay logged in." in page.text
    assert int(page.headers["Retry-After"]) > 0
    assert "data-every=" in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text
    assert re.search(r"<code>[0-9a-f]+-[0-9a-f]+</code>", page.text), page
    assert "no-store" in page.headers["Cache-Control"]


def script_told(page: Page) -> None:
    """The same for a script."""
    assert page.status == 503, page
    assert page.headers["Content-Type"].startswith("application/problem+json")
    assert json.loads(page.text)["code"] == "hub_down"
    assert int(page.headers["Retry-After"]) > 0


async def handshake(somebody: Visitor, path: str = KERNEL) -> aiohttp.WSServerHandshakeError | None:
    """How a WebSocket was refused, if it was."""
    try:
        await somebody.socket(path)
    except aiohttp.WSServerHandshakeError as refused:
        return refused
    return None


async def waits(somebody: Visitor, path: str = "/htc/hub/home") -> bool:
    page = await somebody.get(path)
    return page.status == 503 and "is not answering" in page.text


async def served(somebody: Visitor, path: str = "/htc/hub/home") -> bool:
    return (await somebody.get(path)).status == 200


async def at_each(scene: Scene, gateway: RunningGateway, *names: str) -> list[Visitor]:
    """Somebody at each of these hubs."""
    found: dict[str, Visitor] = {}
    for _ in range(60):
        somebody = await scene.logged_in(gateway)
        found.setdefault(await somebody.hub(), somebody)
        if set(names) <= set(found):
            return [found[name] for name in names]
    raise AssertionError(f"nobody was placed at {set(names) - set(found)}")


async def test_users_of_a_hub_that_is_down_wait_and_go_on_when_it_is_back(scene: Scene) -> None:
    one, two = scene.hub("htc01"), scene.hub("htc02")
    gateway = scene.gateway(pool("htc", one, two))
    unlucky, lucky = await at_each(scene, gateway, "htc01", "htc02")
    lost, kept = await unlucky.socket(), await lucky.socket()
    before = unlucky.cookies
    one.place.down()
    # Whoever asks before a probe did is told the same.
    first, script = await unlucky.get(), await unlucky.fetch()
    waiting(first, "htc01")
    script_told(script)
    assert await lost.ended(SOON)
    await eventually(lambda: _condition(gateway, "htc01", "down"), within=SOON, what="the probes' judgement")

    page = await unlucky.get("/htc/user/x/lab?path=a%20b")
    waiting(page, "htc01")
    assert 'href="/htc/user/x/lab?path=a%20b"' in page.text
    assert not any("_hubgate/move" in form.action for form in page.forms)  # move_after is an hour
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
        told = await unlucky.fetch(method=method)
        assert told.status == 503
        assert int(told.headers["Retry-After"]) > 0
    script_told(await unlucky.fetch(method="POST", data=b"x"))
    refused = await handshake(unlucky)
    assert refused is not None
    assert refused.status == 503
    assert refused.headers is not None
    assert int(refused.headers["Retry-After"]) > 0

    # The others, and newcomers.
    assert await lucky.hub() == "htc02"
    assert await kept.echoes()
    newcomers = [await scene.logged_in(gateway) for _ in range(6)]
    assert {await somebody.hub() for somebody in newcomers} == {"htc02"}
    landing = await unlucky.get("/")
    assert landing.status == 200
    assert "some hubs down" in landing.text

    one.place.up()
    await eventually(lambda: served(unlucky), within=SOON, what="the hub")
    assert await unlucky.hub() == "htc01"
    assert await (await unlucky.socket()).echoes()
    assert unlucky.cookies == before
    assert await kept.echoes()
    assert {await somebody.hub() for somebody in newcomers} == {"htc02"}
    assert "some hubs down" not in (await unlucky.get("/")).text


async def _condition(gateway: RunningGateway, hub: str, condition: str) -> bool:
    events = [event for event in gateway.events("upstream_condition") if event["upstream"] == hub]
    return bool(events) and events[-1]["condition"] == condition


@pytest.mark.parametrize("how", ["gone", "hung", "unrouted"])
async def test_notebooks_go_on_while_only_their_hub_is_away(scene: Scene, how: Hub) -> None:
    one, two = ProxiedHub(scene.background, "htc01"), ProxiedHub(scene.background, "htc02")
    gateway = scene.gateway(pool("htc", one, two), health={"timeout": "2s", "move_after": "0s"})
    somebody, other = await at_each(scene, gateway, "htc01", "htc02")
    wire = await somebody.socket()
    one.hub = how
    await eventually(lambda: _condition(gateway, "htc01", "hub_down"), within=SOON, what="the probes' judgement")
    # What runs, runs: pages, scripts, sockets old and new.
    assert await somebody.hub("/htc/user/x/lab") == "htc01"
    assert (await somebody.fetch("/htc/user/x/api/contents/a", method="PUT", data=b"x")).status == 200
    assert await wire.echoes()
    assert await (await somebody.socket()).echoes()
    # What needs the hub waits, and newcomers go where they are taken.
    page = await somebody.get()
    waiting(page, "htc01")
    script_told(await somebody.fetch("/htc/hub/api/user"))
    assert await other.hub() == "htc02"
    assert await (await scene.logged_in(gateway)).hub() == "htc02"
    one.hub = "well"
    await eventually(lambda: served(somebody), within=SOON, what="the hub")
    assert await somebody.hub() == "htc01"
    assert await wire.echoes()


def the_choice(page: Page) -> Form | None:
    return next((form for form in page.forms if form.action.endswith("/_hubgate/move")), None)


async def test_moving_is_a_choice_of_the_person_and_holds_in_every_browser_and_gateway(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    one, two = scene.hub("htc01"), scene.hub("htc02")
    balancer, (first, second) = scene.balanced(
        2, pool("htc", one, two), health={"move_after": "8s"}, store_url=fresh_redis.url
    )
    somebody, neighbour = await at_each(scene, first, "htc01", "htc02")
    balancer.choose(second)
    desktop = await scene.logged_in(second, user=somebody.user)
    bystander = await scene.logged_in(second)
    place = await bystander.hub()
    assert await desktop.hub() == "htc01"
    balancer.choose(first)

    one.place.down()
    await eventually(lambda: waits(somebody), within=SOON, what="the waiting page")
    page = await somebody.get()
    assert the_choice(page) is None
    assert "you can choose here to be moved" in page.text
    # A form that was made up, or came too early, moves nobody.
    landing = await somebody.browser.get(somebody.at("/"))
    csrf = next(form.fields["csrf"] for form in landing.forms if "csrf" in form.fields)
    early = await _move(somebody, csrf)
    assert early.status == 303
    assert await waits(somebody)
    assert (await _move(somebody, "made-up")).status == 403

    page = await eventually(lambda: _offered(somebody), within=8 + SOON, what="the choice")
    form = the_choice(page)
    assert form is not None
    assert "Notebooks that run on <bdi>htc01</bdi> stay there" in page.text
    assert await waits(desktop)
    answer = await somebody.browser.submit(page, form)
    assert (answer.status, answer.url) == (200, somebody.at("/htc/hub/home"))
    assert json.loads(answer.text)["upstream"] == "htc02"
    # What the old hub issued is expired in that very answer, on the paths where hubs set it.
    moved = answer.trail[0]
    assert moved.status == 303
    expired = {
        (line.partition("=")[0], re.search(r"(?i)path=([^;]+)", line)[1])  # type: ignore[index]
        for line in moved.headers.getall("Set-Cookie")
        if "max-age=0" in line.lower()
    }
    name = somebody.user.username
    assert {
        ("jupyterhub-session-id", "/htc/"),
        ("jupyterhub-hub-login", "/htc/hub/"),
        (f"jupyterhub-user-{name}", f"/htc/user/{name}/"),
    } <= expired, expired

    # The person's other browser follows, on the other gateway; nobody else does.
    await eventually(lambda: served(desktop), within=SOON, what="the other browser")
    assert await desktop.hub() == "htc02"
    assert await neighbour.hub() == "htc02"
    if place == "htc01":
        assert await waits(bystander)
    # It stays that way when the old hub is back.
    one.place.up()
    await eventually(lambda: _condition(first, "htc01", "up"), within=SOON, what="the hub")
    await eventually(lambda: _condition(second, "htc01", "up"), within=SOON, what="the hub")
    assert {await each.hub() for each in (somebody, desktop)} == {"htc02"}
    assert await bystander.hub() == place
    assert [line["upstream"] for line in first.events("move")] == ["htc02"]


async def _offered(somebody: Visitor) -> Page | None:
    page = await somebody.get()
    return page if the_choice(page) is not None else None


async def _move(somebody: Visitor, csrf: str) -> Page:
    form = {"csrf": csrf, "pool": "htc", "next": "/htc/hub/home"}
    headers = {"Origin": somebody.url, "Sec-Fetch-Site": "same-origin"}
    return await somebody.browser.request(
        "POST", somebody.at("/_hubgate/move"), data=form, headers=headers, follow=False
    )


UNWATCHED = {"interval": "1h", "fall": 1000}
"""Probes that won't find out in time."""


async def test_who_is_placed_by_this_request_on_a_hub_that_refuses_is_placed_elsewhere(scene: Scene) -> None:
    one, two = scene.hub("htc01"), scene.hub("htc02")
    gateway = scene.gateway(pool("htc", one, two), health=UNWATCHED)
    settled, _ = await at_each(scene, gateway, "htc01", "htc02")
    one.place.down()
    arrived = []
    for _ in range(8):
        somebody = scene.visitor(gateway)
        page = await somebody.arrive()
        assert page.status == 200, page
        arrived.append(await somebody.hub())
    assert set(arrived) == {"htc02"}
    # Who was there before has servers there, perhaps: they wait.
    waiting(await settled.get(), "htc01")
    # When nobody takes them, they are told.
    two.place.down()
    somebody = scene.visitor(gateway)
    async with asyncio.timeout(SOON):
        page = await somebody.arrive()
    assert page.status == 503, page
    assert int(page.headers["Retry-After"]) > 0
    one.place.up()
    two.place.up()
    assert (await somebody.arrive()).status == 200


async def test_new_users_are_shared_out_by_weight(scene: Scene) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01").entry(weight=4.0), scene.hub("htc02").entry(weight=1.0)))
    shares: Counter[str] = Counter()
    for _ in range(6):
        arrived = await asyncio.gather(*(scene.logged_in(gateway) for _ in range(8)))
        shares.update([await somebody.hub() for somebody in arrived])
    # 48 users at 4 : 1. Fewer than 25, or all of them, would be chance once in ten thousand runs.
    assert shares.total() == 48
    assert 25 <= shares["htc01"] < 48, shares


class Mood(EchoHub):
    """A hub that fails in one of many ways; its health looks well."""

    mood: Literal["well", "hangs", "resets", "garbage", "truncates", "slow"] = "well"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if request.path.endswith("/hub/health") or transport is None:
            return await super()._answer(request)
        match self.mood:
            case "hangs":
                await asyncio.sleep(3600)
            case "resets":
                transport.abort()
            case "garbage":
                transport.write(b"\x00\xff" * 1000)
                await asyncio.sleep(3600)
            case "truncates":
                transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nno more than this")
                transport.close()
            case "slow":
                transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                for _ in range(1000):
                    transport.write(b"x")
                    await asyncio.sleep(0.5)
        return await super()._answer(request)


async def test_a_fault_of_one_hub_changes_nothing_for_the_others(scene: Scene) -> None:
    one, two, other = Mood(scene.background, "htc01"), scene.hub("htc02"), scene.hub("hpc01")
    gateway = scene.gateway(pool("htc", one, two), pool("hpc", other))
    victim, neighbour = await at_each(scene, gateway, "htc01", "htc02")
    assert await neighbour.hub("/hpc/hub/home") == "hpc01"
    wire = await neighbour.socket()
    moods: list[Any] = ["hangs", "resets", "garbage", "truncates", "slow"]
    for mood in moods:
        one.mood = mood
        suffering = [asyncio.create_task(_suffers(victim)) for _ in range(30)]
        for _ in range(20):
            async with asyncio.timeout(SOON):  # the hub would take for ever
                assert await neighbour.hub() == "htc02"
                assert await neighbour.hub("/hpc/hub/home") == "hpc01"
        assert await wire.echoes(mood)
        for task in suffering:
            task.cancel()
        told = [each for each in await asyncio.gather(*suffering, return_exceptions=True) if isinstance(each, int)]
        assert set(told) <= {502, 503, 504}, (mood, told)
    one.mood = "well"
    assert await victim.hub() == "htc01"
    assert not [line for line in gateway.lines() if line.get("level") in {"error", "critical"}]


async def _suffers(somebody: Visitor) -> int | None:
    try:
        return (await somebody.fetch("/htc/user/x/api/contents")).status
    except aiohttp.ClientError:
        return None  # cut off in the middle of an answer


async def test_a_pool_without_any_hub_says_so_and_the_rest_of_the_site_goes_on(scene: Scene) -> None:
    one, other = scene.hub("htc01"), scene.hub("hpc01")
    one.place.down()
    other.place.down()
    gateway = scene.gateway(pool("htc", one), pool("hpc", other))
    other.place.up()
    await eventually(lambda: _condition(gateway, "hpc01", "up"), within=SOON, what="the hub")
    somebody = scene.visitor(gateway)
    page = await somebody.arrive("/htc/hub/home")
    assert page.status == 503
    assert page.url == somebody.at("/htc/hub/home")
    assert "No hub is available right now" in page.text
    assert int(page.headers["Retry-After"]) > 0
    assert await somebody.hub("/hpc/hub/home") == "hpc01"
    assert "Not answering" in (await somebody.get("/")).text
    one.place.up()
    await eventually(lambda: served(somebody), within=SOON, what="the hub")
    assert await somebody.hub() == "htc01"


async def test_the_waiting_page_goes_on_by_itself_in_a_browser(scene: Scene, chromium: Browser) -> None:
    hub = scene.hub("htc01")
    gateway = scene.gateway(pool("htc", hub))
    user = scene.provider.create_user()
    page = await chromium.new_page()
    await page.goto(gateway.url + "/htc/hub/home?from=a+bookmark")
    await page.fill("input[name=username]", user.username)
    await page.fill("input[name=password]", user.password)
    await page.click("[type=submit]")
    await page.fill("input[name=otp]", await code_book(user.totp_key).next())
    await page.click("[type=submit]")
    await page.wait_for_url(gateway.url + "/htc/hub/home?from=a+bookmark")
    hub.place.down()
    answer = await page.reload()
    assert answer is not None
    assert answer.status == 503
    assert "htc01 is not answering" in await page.inner_text("h1")
    async with page.expect_event("load", timeout=1000 * SOON):
        hub.place.up()  # and nobody touches anything
    assert page.url == gateway.url + "/htc/hub/home?from=a+bookmark"
    assert '"upstream": "htc01"' in await page.inner_text("body")
