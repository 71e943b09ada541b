"""The session ends while somebody works in JupyterLab; they log in beside it and go on, and nothing is lost.

In Chromium, with Keycloak and a JupyterHub. Ends are an administrator's, at this gateway alone: the hub's cookies stay,
as after an idle limit, unless a test takes them away. Tests in which somebody goes away have a real idle limit.
What the extension does in each order of events: test_extension_chromium.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from hubgate.ops.demo.hubs import Hub
from hubgate.ops.demo.realm import DemoUser
from tests.kit.background import eventually
from tests.kit.notebooks import Notebooks
from tests.kit.person import code_book
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway
from tests.kit.site import RunningSite, Visitor

PATIENCE = 90_000.0
"""Milliseconds after which a step that hangs is given up; nothing is judged by it."""

IDLE = 60
"""Seconds until somebody who went away is logged out, where a test waits for that; told in the last quarter of them."""

STILL_THERE = 5
"""Seconds between two words of somebody who is there, however slowly the machine does what they do."""

KERNEL_AT_REST = "Python 3 (ipykernel) | Idle"
NOT_SAVED = "what I was typing when it ended"
EMPTY = json.dumps(
    {
        "cells": [],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)


@dataclass
class Worker:
    """Somebody at a notebook in Chromium."""

    page: Page
    site: RunningSite
    user: DemoUser
    complaints: list[str]

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    @property
    def notebook(self) -> Path:
        """The file on the hub's disk."""
        return self.site.hubs["htc01"].homes / self.user.username / "work.ipynb"

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell .cm-content").nth(number)

    async def open_notebook(self) -> None:
        """Through the login to a notebook whose kernel knows x."""
        page = self.page
        self.notebook.parent.mkdir(parents=True)
        self.notebook.write_text(EMPTY)
        settings = self.notebook.parent / ".jupyter/lab/user-settings/@jupyterlab/docmanager-extension"
        settings.mkdir(parents=True)
        # Saved by hand: when is this file's business.
        (settings / "plugin.jupyterlab-settings").write_text('{"autosave": false}')
        await page.goto(f"{self.site.url}/htc/")
        await logs_in(page, self.user)
        await page.wait_for_url(re.compile(r"/htc/user/.*/lab"), timeout=PATIENCE)
        await page.goto(f"{self.site.url}/htc/user/{self.user.username}/lab/tree/work.ipynb")
        await page.get_by_role("button", name=KERNEL_AT_REST).wait_for()
        await self.run(0, "x = 41; print('known')", "known")
        await page.keyboard.press("Control+s")
        await eventually(self.saved("x = 41"), within=60, every=0.3, what="a first save")

    async def run(self, number: int, code: str, printed: str) -> None:
        """Type it and run it; it is done when that is printed."""
        cell = self.cell(number)
        await cell.click()
        await expect(cell).to_be_focused(timeout=PATIENCE)
        await self.page.keyboard.insert_text(code)
        await self.page.keyboard.press("Shift+Enter")
        output = self.page.locator(".jp-Cell").nth(number).locator(".jp-OutputArea-output")
        await expect(output).to_have_text(re.compile(rf"^\s*{re.escape(printed)}\s*$"), timeout=PATIENCE)

    async def type_without_saving(self) -> None:
        await self.cell(1).click()
        await expect(self.cell(1)).to_be_focused(timeout=PATIENCE)
        await self.page.keyboard.insert_text(f"note = {NOT_SAVED!r}")
        assert NOT_SAVED not in self.notebook.read_text()

    def saved(self, text: str) -> Callable[[], Any]:
        async def it_is() -> bool:
            return text in self.notebook.read_text()

        return it_is

    async def session_ends(self) -> None:
        config = self.site.gateway.config
        command = [sys.executable, "-m", "hubgate", "sessions", "end", "--user", self.user.username, "-c", str(config)]
        ending = await asyncio.create_subprocess_exec(*command)
        assert await ending.wait() == 0

    async def server_stops(self) -> None:
        """By its owner's wish, in another browser."""
        browser = self.site.browser()
        async with browser.session:
            await Visitor(self.site, browser, self.user).arrive("/htc/hub/home")
            await Notebooks(browser, f"{self.site.url}/htc/", self.user.username).stop()

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        """Whatever is done meanwhile, somebody is there."""

        async def says_so() -> None:
            while True:
                address, headers = f"{self.site.url}/_hubgate/session", {"Origin": self.site.url}
                await self.context.request.post(address, headers=headers, timeout=PATIENCE, max_retries=3)
                await asyncio.sleep(STILL_THERE)

        saying = asyncio.create_task(says_so())
        try:
            yield
        finally:
            saying.cancel()
            with suppress(asyncio.CancelledError):
                await saying

    async def leaves(self) -> None:
        """Types, and goes away for longer than Keycloak remembers, too. Whatever the page tells them is kept in it."""
        async with self.there():
            await self.open_notebook()
            await self.type_without_saving()
            await self.page.evaluate(
                """() => {
                    window.told = [];
                    const keep = () => window.told.push(document.getElementById("hubgate-session")?.textContent || "");
                    new MutationObserver(keep).observe(document.body, { childList: true, subtree: true });
                }"""
            )
        await self.context.clear_cookies(name=re.compile("^(KEYCLOAK|AUTH_SESSION)"))

    async def goes_on(self) -> None:
        """With the kernel that knows what it was told before the end."""
        await self.cell(1).click()
        await self.page.keyboard.press("Shift+Enter")
        await self.run(2, "print(x + 1, note)", f"42 {NOT_SAVED}")

    async def popup(self, said: str = "Your session has ended") -> Page:
        """The window that Enter opens while the dialog has the keyboard."""
        await expect(self.dialog).to_contain_text(said, timeout=PATIENCE)
        async with self.context.expect_page() as opening:
            await self.page.keyboard.press("Enter")
        popup = await opening.value
        popup.set_default_timeout(PATIENCE)
        return popup


async def logs_in(page: Page, user: DemoUser) -> None:
    """At Keycloak's forms; the window may close after the last one."""
    await page.locator("#username").fill(user.username)
    await page.locator("#password").fill(user.password)
    await page.locator("#kc-login").click()
    await page.locator("#otp").fill(await code_book(user.totp_key).next())
    await page.locator("#kc-login").click()


@asynccontextmanager
async def somebody(site: RunningSite, chromium: Browser) -> AsyncIterator[Worker]:
    """What our own pages' policy refuses, or their scripts throw, is kept in `complaints`."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    at_work = Worker(page, site, site.keycloak.create_user(groups=["htc-users"]), [])

    def watch(opened: Page) -> None:
        def complain(text: str) -> None:
            # What passes in the frame may forbid to be shown there, and is none of our pages.
            if "/_hubgate/" in opened.url and not re.search("frame-ancestors|status of 403", text):
                at_work.complaints.append(text)

        opened.on("console", lambda message: complain(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: complain(str(error)))

    context.on("page", watch)
    yield at_work
    await context.close()
    await at_work.server_stops()


@pytest.fixture
async def worker(site: RunningSite, chromium: Browser) -> AsyncIterator[Worker]:
    """Somebody at the site that all tests share."""
    async with somebody(site, chromium) as found:
        yield found


@pytest.fixture
async def leaver(
    idle_gateway: Callable[..., RunningGateway], keycloak: KeycloakProvider, own_hub: Hub, chromium: Browser
) -> AsyncIterator[Worker]:
    """Somebody whom a gateway of their own logs out once they went away for `IDLE` seconds."""
    running = idle_gateway(IDLE, keycloak)
    async with somebody(RunningSite(running, keycloak, {"htc01": own_hub}), chromium) as found:
        yield found


@pytest.mark.parametrize("hub_cookies", ["kept", "gone"])
async def test_the_page_goes_on_after_a_login_beside_it(worker: Worker, hub_cookies: str) -> None:
    await worker.open_notebook()
    await worker.type_without_saving()
    await worker.session_ends()
    if hub_cookies == "gone":  # as after an end that is more than idleness
        await worker.context.clear_cookies(name=re.compile("^jupyterhub-"))
    popup = await worker.popup()
    # A save of an ended session waits for the login, and is no failure.
    await worker.page.keyboard.press("Control+s")
    async with popup.expect_event("close"):
        await logs_in(popup, worker.user)
    await eventually(worker.saved(NOT_SAVED), within=60, every=0.3, what="the save that waited")
    await expect(worker.dialog).to_have_count(0, timeout=PATIENCE)
    await worker.goes_on()
    assert worker.complaints == []


async def test_whoever_went_away_is_told_before_and_goes_on_after_it(leaver: Worker) -> None:
    await leaver.leaves()
    popup = await leaver.popup()
    told = set(await leaver.page.evaluate("window.told"))
    assert any(text.startswith("This session ends in") for text in told), told
    await leaver.page.keyboard.press("Control+s")
    assert NOT_SAVED not in leaver.notebook.read_text()
    async with popup.expect_event("close"):
        await logs_in(popup, leaver.user)
    async with leaver.there():
        await eventually(leaver.saved(NOT_SAVED), within=60, every=0.3, what="the save that waited")
        await expect(leaver.dialog).to_have_count(0, timeout=PATIENCE)
        await leaver.goes_on()
        await expect(leaver.page.locator("#hubgate-session")).to_have_count(0, timeout=PATIENCE)
    assert leaver.complaints == []


async def test_without_the_extension_nothing_is_lost_either(worker: Worker) -> None:
    await without_the_extension(worker)
    await worker.open_notebook()
    await worker.type_without_saving()
    await worker.session_ends()
    await goes_on_by_hand(worker)


async def test_whoever_went_away_without_the_extension_loses_nothing_either(leaver: Worker) -> None:
    await without_the_extension(leaver)
    await leaver.leaves()
    await goes_on_by_hand(leaver)


async def without_the_extension(worker: Worker) -> None:
    await worker.context.route("**/lab/extensions/hubgate-hub/**", lambda route: route.abort())


async def goes_on_by_hand(worker: Worker) -> None:
    # JupyterLab takes the 401 for a dead kernel, and says so.
    await expect(worker.dialog).to_contain_text("Kernel died unexpectedly", timeout=PATIENCE)
    await worker.page.keyboard.press("Enter")
    await expect(worker.dialog).to_have_count(0, timeout=PATIENCE)
    other = await worker.context.new_page()
    other.set_default_timeout(PATIENCE)
    await other.goto(f"{worker.site.url}/_hubgate/login?popup=1&next=/htc/user/{worker.user.username}/")
    await logs_in(other, worker.user)
    # A tab that nobody's script opened may not be closed by one.
    await expect(other.locator("h1")).to_have_text("You are logged in again", timeout=PATIENCE)
    async with worker.there():
        await worker.cell(1).click()
        await worker.page.keyboard.press("Control+s")
        await eventually(worker.saved(NOT_SAVED), within=60, every=0.3, what="the save")
        await worker.page.reload()
        await worker.page.get_by_role("button", name=KERNEL_AT_REST).wait_for()
        await worker.goes_on()


async def test_a_server_that_was_stopped_meanwhile_is_nobody_else(worker: Worker) -> None:
    await worker.open_notebook()
    await worker.type_without_saving()
    await worker.session_ends()
    await expect(worker.dialog).to_contain_text("Your session has ended", timeout=PATIENCE)
    await worker.server_stops()
    popup = await worker.popup()
    async with popup.expect_event("close"):
        await logs_in(popup, worker.user)
    # JupyterLab's own words, and its own way to go on.
    await expect(worker.dialog).to_contain_text("is not running. Would you like to restart it?", timeout=PATIENCE)
    async with worker.context.expect_page() as opening:
        await worker.dialog.get_by_role("button", name="Restart").click()
    spawned = await opening.value
    await spawned.wait_for_url(re.compile(r"/htc/user/.*/lab"), timeout=PATIENCE)
    await spawned.close()

    async def saves() -> bool:
        if await worker.dialog.count():  # it has asked once more meanwhile
            await worker.page.keyboard.press("Escape")
        await worker.page.keyboard.press("Control+s")
        return NOT_SAVED in worker.notebook.read_text()

    await eventually(saves, within=90, every=2, what="the save")


async def test_somebody_else_who_logs_in_saves_nothing_into_the_first_ones_server(worker: Worker) -> None:
    await worker.open_notebook()
    await worker.type_without_saving()
    await worker.session_ends()
    popup = await worker.popup()
    await logs_in(popup, worker.site.keycloak.create_user(groups=["htc-users"]))
    await expect(popup.locator("h1")).to_have_text("You are logged in as somebody else", timeout=PATIENCE)
    await worker.cell(1).click()
    await worker.page.keyboard.press("Control+s")
    await expect(worker.dialog).to_contain_text("Somebody else is logged in now", timeout=PATIENCE)
    await expect(worker.dialog).to_contain_text(worker.user.username, timeout=PATIENCE)
    assert NOT_SAVED not in worker.notebook.read_text()
    # The first one comes back, and it is saved.
    await popup.get_by_role("link", name="Log Out").click()
    await (
        popup.get_by_role("main").get_by_role("button", name="Log Out").click()
    )  # a link of ours is no proof that it was meant
    await popup.wait_for_url(re.compile("/_hubgate/logged-out"))
    await popup.close()
    again = await worker.popup("Somebody else is logged in now")
    async with again.expect_event("close"):
        await logs_in(again, worker.user)
    await eventually(worker.saved(NOT_SAVED), within=60, every=0.3, what="the save that waited")
    await worker.goes_on()
