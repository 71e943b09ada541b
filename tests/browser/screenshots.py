"""README's pictures, taken of a demo that runs: `make screenshots` writes docs/images/*.png.

Small ones: a palette is enough for pages of few colours.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from hubgate.ops.demo import codes
from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.realm import document, users
from tests.kit import chromium
from tests.kit.newcomer import Newcomer, Terminal

TOP = Path(__file__).resolve().parents[2]
IMAGES = TOP / "docs" / "images"
WIDE = {"width": 1120, "height": 700}
TALL = {"width": 1120, "height": 980}
PHONE = {"width": 390, "height": 760}
"""CSS pixels."""
COLOURS = 128


async def shoot(page: Page, name: str) -> None:
    """One picture, smaller than the browser makes it."""
    place = IMAGES / f"{name}.png"
    await page.screenshot(path=place)
    Image.open(place).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(place, optimize=True)
    print(f"{place.relative_to(TOP)}  {place.stat().st_size // 1024} kB")


async def walk(browser: Browser, url: str) -> None:
    """Bob sets up his phone; alice works, on a wide screen and on a phone at night, and leaves."""
    people = users(document())
    page = await browser.new_page(viewport=TALL, color_scheme="light")
    bob = Newcomer(page, url)
    await bob.give_password("bob", people["bob"].password)
    await shoot(page, "second-factor")
    await page.context.close()

    page = await browser.new_page(viewport=WIDE, color_scheme="light")
    alice = Newcomer(page, url)
    await alice.give_password("alice", people["alice"].password)
    await alice.give_code(_code(people["alice"].totp_key))
    await page.wait_for_url(f"{url}/")
    await shoot(page, "landing")
    await alice.open_pool("htc")
    for number in range(2):
        await alice.run_cell(number)
    await page.locator(".jp-Notebook .jp-MarkdownCell").first.scroll_into_view_if_needed()
    await shoot(page, "notebook")
    await page.goto(url)
    state = await page.context.storage_state()
    phone = await browser.new_page(viewport=PHONE, color_scheme="dark", storage_state=state)
    await phone.goto(url)
    await shoot(phone, "landing-phone-dark")
    await page.locator('form[action$="/_hubgate/logout"] button').first.click()
    await page.wait_for_url("**/_hubgate/logged-out*")
    await shoot(page, "receipt")


def _code(key: str) -> str:
    return codes.code(key, time.time())


async def taken(url: str) -> None:
    """All of them."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium.executable(), args=chromium.FLAGS)
        await walk(browser, url)
        await browser.close()


def main() -> int:
    """The exit status."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    demo = [str(Path(sys.executable).with_name("hubgate")), "demo", "--port", str(port), "--mfa", "gateway", "--fresh"]
    terminal = Terminal(demo, cwd=TOP)
    try:
        terminal.wait_for("Ctrl-C ends all of it.", timeout=300)
        asyncio.run(taken(f"http://127.0.0.1:{port}"))
    finally:
        terminal.type("\x03")
        terminal.ended(timeout=60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
