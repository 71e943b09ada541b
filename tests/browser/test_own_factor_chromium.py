"""The gateway's own second factor in Chromium, without JavaScript: nothing that our policy refuses is needed for it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.kit.phone import Phone
from tests.kit.stand import Stand, stand


@pytest.fixture
async def site():
    async with stand(own_factor=True) as running:
        yield running


async def with_password(page: Page, site: Stand, path: str = "/") -> None:
    await page.goto(site.url + path)
    await page.locator("input[name=username]").fill("alice")
    await page.locator("input[name=password]").fill(site.users["alice"].password)
    await page.locator("input[name=password]").press("Enter")
    await page.wait_for_url(site.url + "/_hubgate/mfa")


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_from_the_password_to_the_hub_with_a_phone_that_is_new(site, chromium: Browser, width, scheme) -> None:
    context = await chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=False, accept_downloads=True
    )
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    await with_password(page, site, "/htc/hub/home")

    box = await page.locator("svg.qr").bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert 150 < box["width"] <= width
    await page.locator("summary").click()
    phone = Phone(await page.locator("code.key").inner_text())
    await page.get_by_label("Six-digit code").fill("000000")
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("alert")).to_contain_text("That code is not right")
    await expect(page.get_by_label("Six-digit code")).to_be_focused()
    code = await phone.code()
    await page.get_by_label("Six-digit code").fill(f"{code[:3]} {code[3:]}")
    await page.get_by_role("button", name="Confirm").click()

    await expect(page.locator("ol.codes code")).to_have_count(10)
    codes = await page.locator("ol.codes code").all_inner_texts()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Save as a file").click()
    saved = await download.value
    assert saved.suggested_filename == "recovery-codes.txt"
    assert (await saved.path()).read_text().split()[-10:] == codes
    await page.emulate_media(media="print")
    await expect(page.get_by_text("Recovery codes of alice for")).to_be_visible()
    await expect(page.get_by_role("link", name="Save as a file")).to_be_hidden()
    await page.emulate_media(media="screen")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("link", name="I have them, continue").click()
    await page.wait_for_url(site.url + "/htc/hub/home")

    await context.clear_cookies()
    await with_password(page, site)
    await expect(page.get_by_label("Six-digit code")).to_be_focused()
    await page.locator("summary").click()
    await page.get_by_label("Recovery code").fill(codes[0])
    await page.get_by_role("button", name="Use this recovery code").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Set up one-time codes"))
    assert [text for text in complaints if "Content Security Policy" in text] == []
    await context.close()


async def test_a_place_that_asks_again_is_reached_with_a_code_and_its_fragment(chromium: Browser) -> None:
    def guarded(raw: dict[str, Any]) -> None:
        raw["pools"][0] |= {"step_up": ["hub/admin"]}

    async with stand(guarded, own_factor=True) as site:
        context = await chromium.new_context()
        page = await context.new_page()
        await with_password(page, site)
        await page.locator("summary").click()
        phone = Phone(await page.locator("code.key").inner_text())
        await page.get_by_label("Six-digit code").fill(await phone.code())
        await page.get_by_role("button", name="Confirm").click()
        await page.get_by_role("link", name="I have them, continue").click()
        await page.wait_for_url(site.url + "/")
        for live in site.served.live._by_cookie.values():
            live.session = replace(live.session, proof=replace(live.session.proof, auth_time=1))
        await page.goto(site.url + "/htc/hub/admin?x=1#groups")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your one-time code, once more")
        await expect(page.get_by_label("Six-digit code")).to_be_focused()
        assert site.received() == []
        await page.get_by_label("Six-digit code").fill(await phone.code())
        await page.get_by_label("Six-digit code").press("Enter")
        await page.wait_for_url(site.url + "/htc/hub/admin?x=1#groups")
        assert [request.target for request in site.received()] == ["/htc/hub/admin?x=1"]
        await context.close()
