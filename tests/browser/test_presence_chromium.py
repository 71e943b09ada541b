"""Real JupyterLabs in Chromium: one that is left alone, one whose cell computes on, and one in use."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, Page, Response, WebSocket, expect

from hubgate.ops.demo.realm import DemoUser
from tests.kit.embedded import EmbeddedProvider
from tests.kit.notebooks import Notebooks
from tests.kit.person import Person
from tests.kit.running import RunningGateway

pytest_plugins = ["tests.kit.scene_fixtures"]

IDLE = 45.0
"""Seconds: longer than JupyterLab's polls are apart, shorter than its autosaves."""

PATIENCE = 90_000.0


@dataclass
class Tab:
    """A JupyterLab that somebody has opened. `closed`: when its kernel's socket was; `polls`: what it asked since."""

    page: Page
    notebooks: Notebooks
    user: DemoUser
    closed: list[float] = field(default_factory=list)
    polls: list[Response] = field(default_factory=list)

    async def run(self, code: str) -> float:
        """Write a cell and run it; not before when that was."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell .cm-content").last
        await cell.click()
        await expect(cell).to_be_focused()
        await self.page.keyboard.insert_text(code)
        now = time.monotonic()
        await self.page.keyboard.press("Shift+Enter")
        return now

    async def log_in(self) -> None:
        """In another browser; this page stays as it is."""
        page = await self.notebooks.browser.login(f"{self.notebooks.base}hub/home", self.user)
        assert page.status == 200, page

    async def ended(self) -> float:
        """When the gateway closed its socket."""
        async with asyncio.timeout(3 * IDLE):
            while not self.closed:
                await asyncio.sleep(0.2)
        return self.closed[0]


Lab = Callable[..., Awaitable[Tab]]


@pytest.fixture
async def lab(
    idle_gateway: Callable[..., RunningGateway],
    embedded: EmbeddedProvider,
    chromium: Browser,
) -> AsyncIterator[Lab]:
    """`await lab()`: somebody new with a notebook open whose kernel is ready; without our `extension` if so wished."""
    running = idle_gateway(IDLE, embedded)
    opened: list[Tab] = []

    async def come(*, extension: bool = True) -> Tab:
        user, person = embedded.create_user(), Person(running.url, embedded.origin)
        notebooks = Notebooks(person, f"{running.url}/htc/", user.username)
        context = await chromium.new_context(viewport={"width": 1280, "height": 800})
        if not extension:
            await context.route("**/lab/extensions/hubgate-hub/**", lambda route: route.abort())
        tab = Tab(await context.new_page(), notebooks, user)
        opened.append(tab)
        await tab.log_in()
        await notebooks.spawn()
        await context.add_cookies(
            [{"name": name, "value": value, "url": running.url} for name, value in person.cookies(running.url).items()]
        )
        tab.page.set_default_timeout(PATIENCE)

        def socket(wire: WebSocket) -> None:
            if re.search(r"/api/kernels/[^/]+/channels", wire.url):
                wire.on("close", lambda _: tab.closed.append(time.monotonic()))

        tab.page.on("websocket", socket)
        tab.page.on("response", lambda answer: tab.polls.append(answer) if "/api/" in answer.url else None)
        await tab.page.goto(f"{notebooks.server}lab")
        await tab.page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
        await tab.page.get_by_role("button", name="Python 3 (ipykernel) | Idle").wait_for()
        await asyncio.sleep(6)  # what is said in the first five seconds on a socket may be the page's own greeting
        return tab

    yield come
    for tab in opened:
        await tab.log_in()
        await tab.notebooks.stop()
        await tab.notebooks.browser.session.close()


async def test_alone_computing_and_in_use(lab: Lab) -> None:
    in_use = await lab()
    going = asyncio.Event()

    async def work() -> None:
        number = 0
        while not going.is_set():
            number += 1
            await in_use.run(f"{number} + {number}")
            await asyncio.sleep(10)

    working = asyncio.create_task(work())
    try:
        alone = await lab()
        left_alone = await alone.run("'left alone'")
        alone.polls.clear()
        computing = await lab()
        code = (
            "import pathlib, time\nfor n in range(70):\n    time.sleep(1)\npathlib.Path('computed').write_text('yes')"
        )
        left_computing = await computing.run(code)

        assert await alone.ended() >= left_alone + IDLE - 1.5, "kept to a second, which is what presence is kept to"
        assert [answer for answer in alone.polls if answer.status == 200], "it polled meanwhile"
        assert await computing.ended() >= left_computing + IDLE - 1.5
        for tab in (alone, computing):
            told = await tab.page.evaluate(
                "fetch('/_hubgate/session', {headers: {Accept: 'application/json'}}).then(answer => answer.status)"
            )
            assert told == 401
            assert re.search(r"/lab", tab.page.url), "nobody was led away from what they have typed"
            names = {cookie["name"] for cookie in await tab.page.context.cookies()}
            assert any(name.startswith("jupyterhub-") for name in names), "hub cookies stay"
        assert not working.done()
        assert in_use.closed == []
    finally:
        going.set()
        await working
    await computing.log_in()
    assert (await computing.notebooks.lab()).status == 200
    async with asyncio.timeout(120):
        while (found := await computing.notebooks.call("GET", "api/contents/computed?content=0")).status != 200:
            assert found.status == 404, found
            await asyncio.sleep(1)  # the cell computes on, though nobody was logged in


async def test_a_page_of_the_hub_tells_people_and_lets_them_stay(lab: Lab) -> None:
    tab = await lab(extension=False)  # which says it in its own way
    page = tab.page
    await page.add_script_tag(url="/_hubgate/static/session.js")
    bar = page.get_by_role("alert").and_(page.locator("#hubgate-session"))
    await expect(bar).to_contain_text("This session ends in", timeout=3 * IDLE * 1000)
    await bar.get_by_role("button", name="I’m still here").click()
    await expect(bar).to_have_count(0)
    left = json.loads(
        await page.evaluate("fetch('/_hubgate/session', {headers: {Accept: 'application/json'}}).then(a => a.text())")
    )
    assert left["seconds_left"] > IDLE / 2
    assert tab.closed == []
    await expect(bar.get_by_role("link", name="Please log in")).to_be_visible(timeout=3 * IDLE * 1000)
    assert await tab.ended()
