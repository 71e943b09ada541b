"""The way a scientist takes, in Chromium: one address, password and code, a notebook that computes, and out again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from hubgate.ops.demo.realm import DemoUser
from tests.kit.notebooks import Notebooks
from tests.kit.person import code_book
from tests.kit.site import RunningSite, Visitor

PATIENCE = 90_000.0
"""Milliseconds after which a step that hangs is given up; nothing is judged by it."""


@dataclass
class Scientist:
    """Somebody at a window of Chromium."""

    page: Page
    site: RunningSite
    user: DemoUser
    complaints: list[str]

    def at(self, path: str) -> str:
        return f"{self.site.url}{path}"

    async def log_in(self) -> None:
        """At Keycloak's forms."""
        await self.page.locator("#username").fill(self.user.username)
        await self.page.locator("#password").fill(self.user.password)
        await self.page.locator("#kc-login").click()
        await self.page.locator("#otp").fill(await code_book(self.user.totp_key).next())
        await self.page.locator("#kc-login").click()


@pytest.fixture
async def scientist(site: RunningSite, chromium: Browser) -> AsyncIterator[Scientist]:
    """What our own pages' policy refuses, or their scripts throw, is kept in `complaints`."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    somebody = Scientist(page, site, site.keycloak.create_user(groups=["htc-users", "hpc-users"]), [])

    def complain(text: str) -> None:
        if re.fullmatch(rf"{re.escape(site.url)}/(_hubgate/.*)?", page.url):
            somebody.complaints.append(text)

    page.on("console", lambda message: complain(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complain(str(error)))
    yield somebody
    await context.close()


@pytest.fixture
async def spawned(visitor: Callable[..., Visitor]) -> AsyncIterator[Callable[[Scientist], Any]]:
    """Stops the server of a scientist at the end, from a browser of its own."""
    there: list[Scientist] = []
    yield there.append
    for scientist in there:
        owner = visitor(user=scientist.user)
        await owner.arrive("/htc/hub/home")
        await Notebooks(owner.browser, owner.at("/htc/"), owner.user.username).stop()


async def test_from_the_address_to_a_computed_cell_and_out_again(
    scientist: Scientist, spawned: Callable[[Scientist], None]
) -> None:
    page = scientist.page
    await page.goto(scientist.at("/"))
    await scientist.log_in()
    await expect(page).to_have_url(scientist.at("/"), timeout=PATIENCE)
    await expect(page.locator("body")).to_contain_text(scientist.user.username)

    spawned(scientist)
    await page.locator('a[href$="/htc/"]').first.click()
    await page.wait_for_url(re.compile(r"/htc/user/.*/lab"), timeout=PATIENCE)
    await page.get_by_role("region", name="notebook content").or_(page.locator(".jp-Launcher")).first.wait_for()
    await page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    # A cell that is run before the kernel is connected is not run at all.
    await page.get_by_role("button", name="Python 3 (ipykernel) | Idle").wait_for()
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    await cell.click()
    await expect(cell).to_be_focused()
    await page.keyboard.insert_text("print(6 * 7)")
    await expect(cell).to_have_text("print(6 * 7)")
    await page.keyboard.press("Shift+Enter")
    await expect(page.locator(".jp-OutputArea-output").first).to_have_text(re.compile(r"^\s*42\s*$"), timeout=PATIENCE)

    await page.goto(scientist.at("/"))
    await page.locator('form[action$="/_hubgate/logout"] button').first.click()
    await page.wait_for_url(re.compile(r"/_hubgate/logged-out"))
    await scientist.site.keycloak.forgotten(scientist.user.username)
    await page.goto(scientist.at("/htc/hub/home"))
    await expect(page.locator("#username")).to_be_visible()
    assert scientist.complaints == []


async def test_a_deep_link_keeps_its_fragment_over_the_login(scientist: Scientist) -> None:
    link = scientist.at("/htc/hub/home?from=mail#section-3")
    await scientist.page.goto(link)
    await scientist.log_in()
    await scientist.page.wait_for_url(link, timeout=PATIENCE)
    assert await scientist.page.evaluate("location.hash") == "#section-3"
    assert scientist.complaints == []


async def test_a_second_login_in_another_tab_is_no_login_at_all(scientist: Scientist) -> None:
    await scientist.page.goto(scientist.at("/"))
    await scientist.log_in()
    await expect(scientist.page).to_have_url(scientist.at("/"), timeout=PATIENCE)
    other = await scientist.page.context.new_page()
    await other.goto(scientist.at("/htc/hub/home"))
    assert other.url == scientist.at("/htc/hub/home")
    await expect(other.locator("body")).to_contain_text(scientist.user.username)
