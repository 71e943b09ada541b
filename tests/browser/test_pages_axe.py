"""Every page, to everybody: WCAG 2.2 AA by axe, and by keyboard. What is in the gallery is tested here by itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page

from tests.gallery import every_language, gallery_app, samples, serving, shared_files
from tests.kit import axe

pytestmark = pytest.mark.chromium

PORTAL = "http://127.0.0.1"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AT_ONCE = 3
JUDGED = """async rules => {
    const found = await axe.run({resultTypes: ["violations", "incomplete"], runOnly: {type: "tag", values: rules}});
    const said = group => found[group].flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html}`));
    return [said("violations"), said("incomplete").filter(line => line.startsWith("color-contrast:"))];
}"""


@pytest.fixture
async def gallery() -> AsyncIterator[str]:
    async with serving(gallery_app(every_language(PORTAL), shared_files(PORTAL))) as address:
        yield address


@pytest.fixture(scope="session")
def axe_script() -> str:
    return axe.script()


async def opened(browser: Browser, *, dark: bool, width: int) -> BrowserContext:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    # Two pages go on by themselves, or away: they shall stay to be looked at.
    await context.route(re.compile(r"/(continue|renewed)\.js"), lambda route: route.abort())
    return context


async def judged(page: Page, script: str, *, cut_off: bool = False) -> list[str]:
    """What shuts people out. Colours that axe is not sure of count as well, but where names are `cut_off`: it takes the
    part that can't be seen for something in front of what is there.
    """
    await page.evaluate(script)
    faults, unsure = await page.evaluate(JUDGED, RULES)
    return [*faults, *([] if cut_off else unsure)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("language", "dark", "width"), [("en", False, 1280), ("en", True, 390), ("de", True, 1280), ("fr", False, 320)]
)
async def test_nobody_is_shut_out(
    chromium: Browser, gallery: str, axe_script: str, language: str, dark: bool, width: int
) -> None:
    """WCAG 2.2, levels A and AA, as far as a program can tell."""
    context = await opened(chromium, dark=dark, width=width)
    names = iter(samples(PORTAL, language))
    faults: dict[str, list[str]] = {}

    async def look() -> None:
        page = await context.new_page()
        for name in names:
            await page.goto(f"{gallery}/{language}/{name}")
            if found := await judged(page, axe_script, cut_off="long" in name or "hostile" in name):
                faults[name] = found

    await asyncio.gather(*(look() for _ in range(AT_ONCE)))
    await context.close()
    assert not faults


async def test_axe_would_see_it(chromium: Browser, axe_script: str) -> None:
    """The test above fails when there is something to find."""

    async def bad(_: web.Request) -> web.Response:
        text = '<!doctype html><title>x</title><img src="x.png"><p style="color:#999;background:#fff">pale</p>'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", bad)
    async with serving(app) as address:
        page = await chromium.new_page()
        await page.goto(address)
        found = "\n".join(await judged(page, axe_script))
        await page.close()
    for rule in ("html-has-lang", "image-alt", "color-contrast"):
        assert f"{rule}:" in found


NUMBERED = """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), summary")]
    .filter(e => e.checkVisibility()).map((e, index) => e.dataset.stop = index).length"""
STOP = """() => {
    const at = document.activeElement;
    if (at === document.body) return null;  // once around, by way of the browser's own controls
    const box = at.getBoundingClientRect();
    const widths = [null, "::after"].map(part => getComputedStyle(at, part))
        .map(style => style.outlineStyle == "none" ? 0 : parseInt(style.outlineWidth));
    return {
        html: at.outerHTML,
        stop: Number(at.dataset.stop),
        outline: Math.max(...widths),
        seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
}"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dark", [False, True])
async def test_every_control_is_reached_by_keyboard_and_seen(chromium: Browser, gallery: str, dark: bool) -> None:
    """WCAG 2.2, 2.1.1, 2.4.7 and 2.4.11: every control is a stop, with a mark around it, and none is off the screen."""
    context = await opened(chromium, dark=dark, width=390)
    page = await context.new_page()
    # All problems are one template; two of them stand for it.
    names = [name for name in samples(PORTAL) if not name.startswith("problem-")]
    for name in [*names, "problem-group-missing-pool", "problem-no-hub-available"]:
        await page.goto(f"{gallery}/en/{name}")
        controls: int = await page.evaluate(NUMBERED)
        reached: list[Any] = []
        for _ in range(controls + 2):
            await page.keyboard.press("Tab")
            if (stop := await page.evaluate(STOP)) is not None:
                reached.append(stop)
        assert {stop["stop"] for stop in reached} == set(range(controls)), name
        assert not [stop["html"] for stop in reached if stop["outline"] < 3 or not stop["seen"]], name
    await context.close()
