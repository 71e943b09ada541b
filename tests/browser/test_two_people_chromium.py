"""One browser, two people: ada was here, and left without a word; eve comes next. In Chromium, before a real hub.

Ada's tab stays open, with her notebook server in it: whatever it sends from now on is sent with eve's session.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from hubgate.ops.demo.realm import DemoUser
from tests.kit.pair import Pair

pytest_plugins = ["tests.kit.scene_fixtures", "tests.kit.pair_fixtures"]
pytestmark = [pytest.mark.redis]

PATIENCE = 120_000.0
"""Milliseconds after which a step that hangs is given up; nothing is judged by it."""

# What JupyterLab does for a notebook and a terminal; `open` are its sockets, `ended` how many of them are closed.
OPEN = """async (home) => {
    const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)[1];
    const post = async (path, body) => (await fetch(home + path, {
        method: "POST", body: JSON.stringify(body), headers: {"X-XSRFToken": xsrf, "Content-Type": "application/json"},
    })).json();
    const kernel = (await post("api/kernels", {name: "python3"})).id;
    const terminal = (await post("api/terminals", {})).name;
    const places = [`api/kernels/${kernel}/channels`, `terminals/websocket/${terminal}`];
    window.ended = 0;
    window.open_ = await Promise.all(places.map((place) => new Promise((resolve, reject) => {
        const socket = new WebSocket(home.replace("http", "ws") + place);
        socket.onopen = () => resolve(socket);
        socket.onerror = reject;
        socket.onclose = () => { window.ended += 1; };
    })));
    return places;
}"""

# What an old tab may try: statuses of fetches (0: a redirect, which is not followed), and whether a socket opens.
TRY = """async ([home, places]) => {
    const xsrf = (document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) || ["", ""])[1];
    const headers = {"X-XSRFToken": xsrf, "Content-Type": "application/json"};
    // Not the page's own: hubgate's extension holds back what is asked without a session.
    const frame = document.body.appendChild(document.createElement("iframe"));
    const plain = frame.contentWindow.fetch.bind(frame.contentWindow);
    const file = JSON.stringify({type: "file", format: "text", content: "of ada's tab"});
    const asks = [
        ["api/status"], ["api/contents"], ["api/contents/kept.txt", {method: "PUT", body: file}],
        ["api/kernels", {method: "POST", body: "{}"}], ["lab"],
    ];
    const found = {};
    for (const [path, more] of asks) {
        found[path + (more ? " " + more.method : "")] =
            (await plain(home + path, {redirect: "manual", headers, ...more})).status;
    }
    for (const place of places) {
        found[place] = await new Promise((resolve) => {
            const socket = new WebSocket(home.replace("http", "ws") + place);
            socket.onopen = () => resolve(101);
            socket.onerror = () => resolve(403);
        });
    }
    frame.remove();
    return found;
}"""


class Window:
    """A browser with one set of cookies, and whoever sits before it."""

    def __init__(self, pair: Pair, context: BrowserContext) -> None:
        self.pair = pair
        self.context = context

    def at(self, path: str) -> str:
        return f"{self.pair.url}{path}"

    def home(self, user: DemoUser) -> str:
        return self.at(f"/htc/user/{user.username}/")

    async def tab(self) -> Page:
        page = await self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.set_default_navigation_timeout(PATIENCE)
        return page

    async def log_in(self, page: Page, user: DemoUser, path: str = "/") -> None:
        await page.goto(self.at(path))
        await page.locator("#username").fill(user.username)
        await page.locator("#password").fill(user.password)
        await page.locator("#kc-login").click()
        await page.wait_for_url(lambda url: url.startswith(self.at("/")))

    async def to_the_lab(self, page: Page, user: DemoUser) -> None:
        """By way of the hub, which starts the server if need be."""
        await page.goto(self.at("/htc/hub/spawn"))
        await page.wait_for_url(re.compile(rf"/htc/user/{user.username}/lab"))
        await expect(page.locator(".jp-Launcher").first).to_be_visible(timeout=PATIENCE)

    async def hub_cookies(self) -> dict[tuple[str, str], str]:
        """Values by name and path."""
        found: dict[tuple[str, str], str] = {}
        for cookie in await self.context.cookies():
            if cookie["name"].startswith("jupyterhub-"):
                found[cookie["name"], cookie["path"]] = cookie["value"]
        return found


@pytest.fixture
async def window(pair: Pair, chromium: Browser) -> AsyncIterator[Window]:
    context = await chromium.new_context()
    yield Window(pair, context)
    await context.close()


async def test_the_second_person_gets_nothing_of_the_first_ones(pair: Pair, window: Window) -> None:
    adas = await window.tab()
    await window.log_in(adas, pair.ada)
    await window.to_the_lab(adas, pair.ada)
    places: list[str] = await adas.evaluate(OPEN, window.home(pair.ada))
    tried: dict[str, Any] = await adas.evaluate(TRY, [window.home(pair.ada), places])
    assert set(tried.values()) <= {101, 200, 201}, tried
    left = await window.hub_cookies()
    assert {name for name, _ in left} >= {"jupyterhub-hub-login", f"jupyterhub-user-{pair.ada.username}"}

    # Her session ends elsewhere, so nothing tells this browser's cookies.
    await pair.ended_by_administrator(pair.ada)
    await adas.wait_for_function("window.ended === 2")
    assert await window.hub_cookies() == left
    tried = await adas.evaluate(TRY, [window.home(pair.ada), places])
    assert set(tried.values()) <= {0, 401, 403}, tried

    eves = await window.tab()
    await window.log_in(eves, pair.eve, "/htc/hub/home")
    await expect(eves.locator("body")).to_contain_text(pair.eve.username)
    await expect(eves.locator("body")).not_to_contain_text(pair.ada.username)

    # Ada's tab, with eve's session.
    tried = await adas.evaluate(TRY, [window.home(pair.ada), places])
    assert set(tried.values()) <= {0, 403}, tried
    await adas.goto(window.home(pair.ada) + "lab")
    await expect(adas.locator(".jp-Launcher, .jp-LabShell")).to_have_count(0)
    await adas.go_back()
    await expect(adas.locator(".jp-Launcher, .jp-LabShell")).to_have_count(0)

    # And nothing of hers is left in the browser where eve has been.
    now = await window.hub_cookies()
    assert not set(now.values()) & set(left.values()), now

    # Eve's own server is eve's.
    await window.to_the_lab(eves, pair.eve)
    tried = await eves.evaluate(TRY, [window.home(pair.eve), []])
    assert set(tried.values()) <= {200, 201}, tried


async def test_after_log_out_the_back_button_shows_nothing(pair: Pair, window: Window) -> None:
    page = await window.tab()
    await window.log_in(page, pair.eve)
    await page.goto(window.at("/_hubgate/account"))
    await expect(page.locator("body")).to_contain_text(pair.eve.username)
    await page.goto(window.at("/htc/hub/home"))
    await expect(page.locator("body")).to_contain_text(pair.eve.username)
    await page.goto(window.at("/"))
    await page.locator('form[action$="/_hubgate/logout"] button').first.click()
    await page.wait_for_url(re.compile(r"/_hubgate/logged-out"))
    for _ in range(3):
        await page.go_back()
        await expect(page.locator("body")).not_to_contain_text(pair.eve.username)


async def test_log_out_of_hub_and_jupyterlab_is_asked_for_once(pair: Pair, window: Window) -> None:
    """What the gateway goes by, to tell it from a link somewhere else, is what browsers really say."""
    page = await window.tab()
    await window.log_in(page, pair.ada, "/htc/hub/home")
    await page.locator("#logout").click()
    await page.wait_for_url(re.compile(r"/_hubgate/logged-out"))
    await window.log_in(page, pair.ada)
    await window.to_the_lab(page, pair.ada)
    await page.get_by_role("menuitem", name="File", exact=True).click()
    await page.get_by_role("menuitem", name="Log Out", exact=True).click()
    await page.wait_for_url(re.compile(r"/_hubgate/logged-out"))
