"""Fifty tabs of one browser, all of whose session has ended: programs are told at once, people pass through the login.

As after a night: each tab polls, some try to save, then all are loaded again at once, by way of both gateways.
"""

from __future__ import annotations

import asyncio
import json

import pytest
import redis.asyncio

from hubgate.config import load
from hubgate.ops.sessions import Choice, directory
from hubgate.store.redis import PREFIX
from tests.kit.pair import Pair
from tests.kit.person import Page
from tests.kit.scene import Visitor

pytest_plugins = ["tests.kit.scene_fixtures", "tests.kit.pair_fixtures"]
pytestmark = [pytest.mark.redis]

TABS = 50


async def kinds(pair: Pair) -> dict[str, int]:
    """How many records of each kind the store has."""
    counted: dict[str, int] = {}
    url = load(pair.gateways[0].config).store.url.reveal()
    async with redis.asyncio.from_url(url) as store:
        async for key in store.scan_iter(f"{PREFIX}*"):
            kind = key.decode().removeprefix(PREFIX).partition(":")[0]
            counted[kind] = counted.get(kind, 0) + 1
    return counted


async def night_falls(pair: Pair, somebody: Visitor) -> None:
    """The session meets a limit: it is gone, and nothing else is."""
    async with directory(load(pair.gateways[0].config)) as opened:
        found = await opened.chosen(Choice(user=somebody.user.username))
        assert found
        await opened.sessions.end([each.key for each in found])


async def test_fifty_tabs_come_back_after_a_night(pair: Pair) -> None:
    ada = await pair.browser(pair.ada, at=0)
    assert (await ada.arrive("/echo/hub/home")).status == 200
    await night_falls(pair, ada)
    before, cookies = await kinds(pair), ada.cookies

    async def program(number: int) -> Page:
        pair.balancer.choose(pair.gateways[number % 2])
        if number % 5:
            return await ada.fetch(f"/echo/user/x/api/status?{number}")
        return await ada.fetch(f"/echo/user/x/api/contents/{number}", method="PUT", data=b"{}")

    for page in await asyncio.gather(*map(program, range(TABS))):
        told = json.loads(page.text)
        assert (page.status, told["code"]) == (401, "session_required"), page
        assert told["login_url"].startswith(f"{pair.url}/_hubgate/login")
        assert "Set-Cookie" not in page.headers
    assert (await kinds(pair), ada.cookies) == (before, cookies), "who is told to log in leaves nothing behind"

    async def tab(number: int) -> Page:
        pair.balancer.choose(pair.gateways[number % 2])
        return await ada.browser.get(ada.at(f"/echo/user/x/tab{number}"))

    for number, page in enumerate(await asyncio.gather(*map(tab, range(TABS)))):
        assert (page.status, page.url) == (200, ada.at(f"/echo/user/x/tab{number}")), page
    after = await kinds(pair)
    assert after.get("login", 0) == before.get("login", 0), "each login that was begun was finished"
    assert set(ada.cookies) == set(cookies)
    for page in await asyncio.gather(*(ada.fetch(f"/echo/user/x/api/status?{number}") for number in range(TABS))):
        assert page.status == 200
    print(f"{TABS} tabs: {after['session']} sessions were begun")
    assert "You are logged out" in (await ada.log_out()).text
    async with directory(load(pair.gateways[0].config)) as opened:
        assert await opened.chosen(Choice(user=ada.user.username)) == [], "they were one browser's"
