"""How much later does a person see JupyterLab through the gateway than without it?

A real JupyterHub with its configurable-http-proxy, a running notebook server, and Chromium with nothing in its cache.
The same files of the same server are asked for through the gateway, and at the hub's own port without anybody before
it. The cookies for that are those that the hub gave out: the gateway tags them on their way to the browser, and here
the tags are taken off again. The two ways are taken in turn, each in a window of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from playwright.async_api import Browser, async_playwright

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs
from hubgate.ops.demo.child import free_ports
from tests.bench.figures import Figure, scene
from tests.bench.measure import Spread, interleaved, ratios
from tests.bench.sites import pool, site
from tests.bench.workbench import Bench
from tests.kit import chromium
from tests.kit.notebooks import Notebooks
from tests.kit.person import Person

_PATIENCE = 90_000.0  # milliseconds
_FILES = "performance.getEntriesByType('resource').length"


@scene("page")
async def page(bench: Bench) -> list[Figure]:
    """From the navigation until the launcher can be clicked on."""
    path = chromium.executable()
    if path is None:
        return [Figure("page", [], "there is no chromium here")]
    try:
        made = hubs.environment(hubs.NEWEST, bench.progress)
    except OperatorFault as fault:
        return [Figure("page", [], fault.message)]
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    hub = hubs.Hub(made, bench.folder / "page", name="page01", path="/page/", gateway_url=url)
    bench.ends(hub)
    gateway = site(bench, "page", [pool("page", {"page01": hub.url})], url=url, wait=False).gateway
    hub.start()  # after the gateway, whose keys it asks for
    hub.ready()
    gateway.sees(["page01"])
    user = bench.provider.create_user()
    async with Person(url, bench.provider.origin) as person, async_playwright() as playwright:
        home = await person.login(f"{url}/page/hub/home", user)
        if home.status != 200 or not home.url.endswith("/hub/home"):
            raise OperatorFault("bench_page", f"nobody can log in at the hub: {home}\n{hub.tail(40)}")
        notebooks = Notebooks(person, f"{url}/page/", user.username)
        await notebooks.spawn()
        await notebooks.lab()
        given = [
            {"name": cookie.key, "value": cookie.value, "domain": "127.0.0.1", "path": cookie["path"] or "/"}
            for cookie in person.session.cookie_jar
        ]
        ways = {
            "gateway": (gateway.url, given),
            "directly": (
                hub.url,
                [each | {"value": _untagged(each)} for each in given if "hubgate" not in each["name"]],
            ),
        }
        browser = await playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        files: dict[str, int] = {}

        async def once(way: str) -> float:
            address, cookies = ways[way]
            seconds, files[way] = await _seen(browser, f"{address}/page/user/{user.username}/lab?reset", cookies)
            return seconds

        with bench.progress.step("page", "JupyterLab in Chromium", "measured"):
            found = await interleaved(list(ways), once, rounds=bench.rounds + 2)
        await browser.close()
        await notebooks.stop()
    direct = Spread.of(found["directly"]).median
    note = (
        f"{files['gateway']} files ({files['directly']} directly) in {direct:.2f} s directly, Chromium's work included"
    )
    return [Figure("page", ratios(found["gateway"], found["directly"]), note)]


async def _seen(browser: Browser, url: str, cookies: list[dict[str, str]]) -> tuple[float, int]:
    """Seconds until JupyterLab is there, in a window that has never been anywhere, and of how many files it is made."""
    window = await browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        await window.add_cookies(cookies)  # type: ignore[arg-type]  # playwright's own type for the same
        tab = await window.new_page()
        began = time.perf_counter()
        await tab.goto(url, wait_until="commit", timeout=_PATIENCE)
        await tab.locator(".jp-LauncherCard").first.wait_for(timeout=_PATIENCE)
        seconds = time.perf_counter() - began
        return seconds, int(await tab.evaluate(_FILES))
    finally:
        await window.close()


def _untagged(cookie: Mapping[str, str]) -> str:
    """The value that the hub gave out (`core/cookies.py`)."""
    value = cookie["value"]
    if not cookie["name"].startswith("jupyterhub"):
        return value
    inner = value.strip('"').partition(".")[2]
    return f'"{inner}"' if value.startswith('"') else inner
