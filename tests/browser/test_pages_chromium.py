"""The pages in a real browser: what its rules refuse, what a keyboard reaches, what goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from hubgate.web.paths import LOGIN_PATH, LOGOUT_PATH, MOVE_PATH
from tests.gallery import (
    CHROMIUM,
    CHROMIUM_FLAGS,
    HPC,
    HTC,
    NOW,
    REQUEST,
    all_up,
    every_language,
    gallery_app,
    pages_for,
    samples,
    serving,
    session,
    shared_files,
)
from tests.kit.background import eventually

pytestmark = pytest.mark.chromium

PORTAL = "http://127.0.0.1"
REFUSALS = ("Content Security Policy", "Refused to", "violates the following")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def gallery() -> AsyncIterator[str]:
    async with serving(gallery_app(every_language(PORTAL), shared_files(PORTAL))) as address:
        yield address


def refusals(page: Page) -> list[str]:
    """What the browser refuses on this page from now on."""
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text) if any(r in message.text for r in REFUSALS) else None)
    return seen


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("de", "dark"), ("fr", "light")])
async def test_every_page_on_a_small_phone(browser: Browser, gallery: str, language: str, scheme: str) -> None:
    """320 px: nothing sticks out, nothing is refused, and a finger hits what it means (WCAG 2.2, 1.4.10 and 2.5.8)."""
    context = await browser.new_context(
        viewport={"width": 320, "height": 640}, color_scheme="dark" if scheme == "dark" else "light"
    )
    await context.route(f"**{LOGIN_PATH}*", lambda route: route.fulfill(body="login"))
    page = await context.new_page()
    refused = refusals(page)
    for name in samples(PORTAL):
        await page.goto(f"{gallery}/{language}/{name}")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 320, f"{name} is {wide} px wide"
        small = await page.evaluate(
            """[...document.querySelectorAll("button, .button, .brand, .card")]
               .filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"""
        )
        assert not small, name
        assert not refused, name
    await context.close()


async def test_the_watch_for_refusals_would_see_one(browser: Browser) -> None:
    async def broken(_: web.Request) -> web.Response:
        page = pages_for(HTC, public_url=PORTAL).landing(session(), state_of=all_up, request_id=REQUEST)
        assert isinstance(page.body, bytes)
        body = page.body.replace(b"</main>", b"<script>window.hurt = 1</script><p style='color:red'>x</p></main>")
        headers = {"Content-Security-Policy": page.headers["Content-Security-Policy"]}
        return web.Response(body=body, content_type="text/html", headers=headers)

    app = web.Application()
    app.router.add_get("/", broken)
    async with serving(app) as address:
        page = await browser.new_page()
        refused = refusals(page)
        await page.goto(address)
        assert await page.evaluate("window.hurt") is None

        async def two() -> bool:
            return len(refused) >= 2

        await eventually(two, within=60, what="what the browser says of both")


async def test_hostile_names_run_nothing(browser: Browser, gallery: str) -> None:
    page = await browser.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for name in (name for name in samples(PORTAL) if "hostile" in name):
        await page.goto(f"{gallery}/en/{name}")
        assert await page.locator("main img, header img, footer img").count() == 0
    assert not dialogs


async def test_by_keyboard_alone(browser: Browser, gallery: str) -> None:
    page = await browser.new_page()
    await page.goto(f"{gallery}/en/landing")
    reached = []
    for _ in range(12):
        await page.keyboard.press("Tab")
        name = await page.evaluate("document.activeElement.innerText.trim()")
        outline = await page.evaluate(
            """Math.max(...[null, "::after"]
               .map(part => getComputedStyle(document.activeElement, part))
               .map(style => style.outlineStyle == "none" ? 0 : parseInt(style.outlineWidth)))"""
        )
        assert outline >= 3, f"{name}: the focus can't be seen"
        reached.append(name)
        if name == "Help":
            break
    assert (
        reached
        == [
            "Skip to the content",
            "Example Lab Jupyter",
            "Log Out",
            "High-throughput computing",
            "High-performance computing",
            "https://help.example.org/ai",
            "jupyter-help@example.org",
            "jupyter-help@example.org",
            "Help",
        ]
        or reached[1] == "Example Lab Jupyter"
    )

    await page.goto(f"{gallery}/en/landing")
    await page.keyboard.press("Tab")
    assert await page.locator(".skip").is_visible()
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "content"
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.innerText") == "High-throughput computing"


async def test_nothing_moves_for_who_asked_for_that(browser: Browser, gallery: str) -> None:
    running = "document.getAnimations().filter(a => a.playState == 'running').length"
    for wish, expected in (("reduce", 0), ("no-preference", 1)):
        context = await browser.new_context(reduced_motion="reduce" if wish == "reduce" else "no-preference")
        page = await context.new_page()
        await page.goto(f"{gallery}/en/waiting")
        assert await page.evaluate(running) == expected
        await context.close()


class TestContinue:
    """A fragment never reaches a server: the page takes it along."""

    @pytest.fixture
    async def site(self) -> AsyncIterator[str]:
        pages = pages_for(HTC, public_url=PORTAL)

        async def deep(_: web.Request) -> web.Response:
            return pages.continue_login(f"{LOGIN_PATH}?on=1&next=%2Fdeep%3Fa%3D%252F%26b%3D2", request_id=REQUEST)

        async def login(request: web.Request) -> web.Response:
            return web.Response(text=f"next={request.query['next']} on={request.query['on']}")

        app = gallery_app({}, pages)
        app.router.add_get("/deep", deep)
        app.router.add_get(LOGIN_PATH, login)
        async with serving(app) as address:
            yield address

    async def test_with_script(self, browser: Browser, site: str) -> None:
        page = await browser.new_page()
        refused = refusals(page)
        await page.goto(f"{site}/deep?a=%2F&b=2#cell=3&x=%C3%A9 \"'<>")
        await page.wait_for_url(f"**{LOGIN_PATH}*")
        told = await page.inner_text("body")
        assert told == "next=/deep?a=%2F&b=2#cell=3&x=%C3%A9%20%22'%3C%3E on=1"
        assert not refused

    async def test_without_fragment(self, browser: Browser, site: str) -> None:
        page = await browser.new_page()
        await page.goto(f"{site}/deep?a=%2F&b=2")
        await page.wait_for_url(f"**{LOGIN_PATH}*")
        assert await page.inner_text("body") == "next=/deep?a=%2F&b=2 on=1"

    async def test_without_script(self, browser: Browser, site: str) -> None:
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(f"{site}/deep#cell=3")
        await page.wait_for_url(f"**{LOGIN_PATH}*")
        assert await page.inner_text("body") == "next=/deep?a=%2F&b=2 on=1"
        await context.close()

    async def test_back_leads_to_where_one_came_from(self, browser: Browser, site: str) -> None:
        page = await browser.new_page()
        await page.goto(f"{site}/")
        await page.goto(f"{site}/deep#cell=3")
        await page.wait_for_url(f"**{LOGIN_PATH}*")
        await page.go_back()
        assert page.url == f"{site}/"


class Hub:
    """A pool's address whose hub is away until somebody says otherwise."""

    def __init__(self) -> None:
        self.pages = pages_for(HTC, public_url=PORTAL)
        self.back = False
        self.may_move_at: float | None = None
        self.shown = 0
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if self.back:
            return web.Response(text="<h1>notebook</h1>", content_type="text/html")
        if "text/html" not in request.headers.get("Accept", ""):
            self.asked.set()
            return self.pages.problem_json("hub_down", 503, REQUEST, retry_after=1)
        self.shown += 1
        return self.pages.waiting(
            session=session(),
            pool=HTC,
            hub="htc01",
            since=NOW - 60,
            url="/htc/lab",
            retry_after=1,
            may_move_at=self.may_move_at,
            request_id=REQUEST,
        )

    def app(self) -> web.Application:
        app = gallery_app({}, self.pages)
        app.router.add_get("/htc/lab", self.answer)
        return app


class TestWaiting:
    async def test_it_goes_on_by_itself_and_disturbs_nobody_before(self, browser: Browser) -> None:
        hub = Hub()
        async with serving(hub.app()) as address:
            page = await browser.new_page()
            refused = refusals(page)
            await page.goto(f"{address}/htc/lab#cell=3")
            await asyncio.wait_for(hub.asked.wait(), 60)
            assert hub.shown == 1
            hub.back = True
            await page.wait_for_selector("text=notebook")
            assert page.url == f"{address}/htc/lab#cell=3"
            assert not refused

    async def test_without_script_too(self, browser: Browser) -> None:
        hub = Hub()
        async with serving(hub.app()) as address:
            context = await browser.new_context(java_script_enabled=False)
            page = await context.new_page()
            await page.goto(f"{address}/htc/lab")
            hub.back = True
            await page.wait_for_selector("text=notebook")
            await context.close()

    async def test_the_choice_appears_when_its_time_has_come(self, browser: Browser) -> None:
        hub = Hub()
        hub.may_move_at = NOW + 0.5
        async with serving(hub.app()) as address:
            page = await browser.new_page()
            await page.goto(f"{address}/htc/lab")
            assert await page.locator(f"form[action='{MOVE_PATH}']").count() == 0
            hub.may_move_at = NOW
            await page.wait_for_selector(f"form[action='{MOVE_PATH}']")


class TestForms:
    async def test_what_the_server_gets_to_see(self, browser: Browser) -> None:
        """An Origin that the CSRF check can use, and no address of ours in the Referer."""
        got: dict[str, Mapping[str, str]] = {}
        pages = pages_for(HTC, HPC, public_url=PORTAL)

        async def logout(request: web.Request) -> web.Response:
            got["headers"] = dict(request.headers)
            got["form"] = {name: str(value) for name, value in (await request.post()).items()}
            return pages.receipt(request_id=REQUEST)

        app = gallery_app({"en": samples(PORTAL)}, pages)
        app.router.add_post(LOGOUT_PATH, logout)
        async with serving(app) as address:
            page = await browser.new_page()
            await page.goto(f"{address}/en/landing?code=secret")
            await page.click("text=Log Out")
            await page.wait_for_selector("text=You are logged out")
        assert got["form"] == {"csrf": "csrf-token-of-this-session"}
        assert got["headers"]["Origin"] == address
        assert got["headers"].get("Referer", "") in {"", f"{address}/"}

    async def test_log_out_may_lead_to_the_provider_and_nowhere_else(self, browser: Browser) -> None:
        async def elsewhere(_: web.Request) -> web.Response:
            return web.Response(text="elsewhere")

        async def logout(_: web.Request) -> web.Response:
            raise web.HTTPSeeOther(target)

        other = web.Application()
        other.router.add_get("/end", elsewhere)
        async with serving(other) as provider:
            target = f"{provider}/end"
            for origins, arrives in (([f"{provider}/realms/site"], True), ([], False)):
                pages = pages_for(HTC, public_url=PORTAL, form_origins=origins)

                async def landing(_: web.Request, pages=pages) -> web.Response:  # type: ignore[no-untyped-def]  # a default
                    return pages.landing(session(), state_of=all_up, request_id=REQUEST)

                app = gallery_app({}, pages)
                app.router.add_get("/landing", landing)
                app.router.add_post(LOGOUT_PATH, logout)
                async with serving(app) as address:
                    page = await browser.new_page()
                    seen = refusals(page)
                    await page.goto(f"{address}/landing")
                    if arrives:
                        await page.click("text=Log Out")
                        await page.wait_for_url(target)
                    else:
                        async with page.expect_event("console", lambda message: "form-action" in message.text):
                            await page.click("text=Log Out")
                    assert bool(seen) is not arrives
                    await page.close()
