"""What the extension for JupyterLab lets through, and what never, whoever is logged in and whatever answers.

In Chromium, with as much of JupyterLab as the extension takes hold of, and with answers of this file's own, so that
every order of events can be had. With real parts: test_popup_chromium.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, Route

from tests.docs.letters import TOP
from tests.kit.background import eventually

ORIGIN = "https://jupyter.example.org"
SERVER = "/htc/user/alice/"
LOGIN = f"{ORIGIN}/_hubgate/login?next=%2Fhtc%2F"
EXTENSION = (TOP / "hub" / "labextension" / "static" / "session.js").read_text()
ELSE = "Somebody else is logged in now"
ENDED = "Your session has ended"

LAB = """<!doctype html><title>JupyterLab</title>
<script id="jupyter-config-data" type="application/json">%s</script>
<script src="/extension.js"></script>
<script type="module">
  window.said = []; // titles of dialogs and notifications
  window.opened = []; // addresses of windows
  window.open = url => window.opened.push(String(url));
  class Dialog {
    static cancelButton = () => ({ accept: false });
    static okButton = () => ({ accept: true });
    constructor({ title }) { this.title = title; }
    launch() {
      window.said.push(this.title);
      return new Promise(answer => {
        window.answer = accept => answer({ button: { accept } });
        this.reject = () => answer({ button: { accept: false } });
      });
    }
    reject() {}
  }
  const Notification = { dismiss() {}, manager: { has: () => false }, warning: title => window.said.push(title) };
  const manager = { refreshRunning: async () => {} };
  const app = {
    serviceManager: { kernels: manager, sessions: manager, terminals: manager },
    shell: { widgets: () => [] },
  };
  const container = window._JUPYTERLAB["hubgate-hub"];
  const get = async () => () => ({ Dialog, Notification });
  container.init({ "@jupyterlab/apputils": { "4.0.0": { loaded: true, get } } });
  (await container.get("./extension"))().default.activate(app);
  window.ready = true;
</script>
"""


def _refusal(login_url: str = LOGIN) -> dict[str, Any]:
    document = {"type": "urn:hubgate:problem:session_required", "code": "session_required", "login_url": login_url}
    return {"status": 401, "content_type": "application/problem+json", "body": json.dumps(document)}


@dataclass
class World:
    """Gateway and notebook server. `session`: who is logged in; `running`: the server runs; `knows`: it has a cookie of
    who is logged in; `arrived`: what came to it, or to the hub in its place, but questions who is there: by whom."""

    page: Page
    session: str = "alice"
    running: bool = True
    knows: bool = True
    login_url: str = LOGIN
    arrived: list[tuple[str, str, str]] = field(default_factory=list)
    looks: int = 0
    refused: int = 0

    async def answer(self, route: Route, request: Request) -> None:
        url = urlsplit(request.url)
        if url.path == SERVER + "lab":
            config = json.dumps({"baseUrl": SERVER, "hubUser": "alice"})
            await route.fulfill(content_type="text/html", body=LAB % config)
        elif url.path == "/extension.js":
            await route.fulfill(content_type="text/javascript", body=EXTENSION)
        elif not self.session:
            self.refused += 1
            await route.fulfill(**_refusal(self.login_url))
        elif url.path == "/_hubgate/session":
            self.looks += 1
            await route.fulfill(json={"another": parse_qs(url.query)["was"] != [self.session]})
        elif url.path.startswith(SERVER):
            await self._served(route, request, url.path.removeprefix(SERVER))
        else:
            await route.fulfill(status=404)

    async def _served(self, route: Route, request: Request, path: str) -> None:
        if path == "api/me":
            self.looks += 1
        else:
            self.arrived.append((self.session, request.method, path))
        if not self.running:
            await route.fulfill(status=424, json={"message": "no longer running"})
        elif self.session != "alice" or not self.knows:
            await route.fulfill(status=403, json={"message": "Forbidden"})
        else:
            await route.fulfill(json={"identity": {"username": "alice"}})

    async def send(self, method: str, path: str) -> None:
        """The page sends it; `window.answers` has what it is answered."""
        code = """([method, path]) => {
            window.answers ??= {};
            fetch(path, { method }).then(answer => (window.answers[path] = answer.status));
        }"""
        await self.page.evaluate(code, [method, SERVER + path])

    async def answered(self, path: str) -> int:
        found = await self.page.wait_for_function("path => window.answers[path]", arg=SERVER + path)
        return int(await found.json_value())

    async def held(self, *requests: str) -> None:
        """The session has ended, and these wait."""
        self.session, self.refused = "", 0
        for each in requests:
            await self.send(*each.split())
        await self.says(ENDED)
        await self.page.evaluate("window.answer(false)")  # later

    async def hears(self, message: object = "logged-in") -> None:
        """The page is told that somebody has logged in, and has looked who it is."""
        before = self.looks + self.refused
        code = "message => { const c = new BroadcastChannel('hubgate'); c.postMessage(message); c.close(); }"
        await self.page.evaluate(code, message)

        async def looked() -> bool:
            return self.looks + self.refused > before

        await eventually(looked, within=60, every=0.02, what="a look")
        await self.page.evaluate("fetch('/_hubgate/x').then(answer => answer.text())")  # and has drawn its conclusions

    async def says(self, title: str) -> None:
        await self.page.wait_for_function("title => window.said.at(-1) === title", arg=title)

    async def said(self) -> list[str]:
        return list(await self.page.evaluate("window.said"))


@pytest.fixture
async def world(chromium: Browser) -> AsyncIterator[World]:
    """JupyterLab of alice, opened while she was logged in."""
    context = await chromium.new_context(locale="en-GB", base_url=ORIGIN)
    page = await context.new_page()
    page.set_default_timeout(60_000)
    made = World(page)
    await context.route("**/*", made.answer)
    await page.goto(SERVER + "lab")
    await page.wait_for_function("window.ready")
    yield made
    await context.close()


WRITES = ("PUT api/contents/work.ipynb", "DELETE api/sessions/1", "POST api/kernels/1/restart")


async def test_what_was_held_is_sent_once_when_the_same_person_is_back(world: World) -> None:
    await world.held(*WRITES)
    assert world.arrived == []
    world.session = "alice"
    await world.hears()
    for each in WRITES:
        assert await world.answered(each.split()[1]) == 200
    assert sorted(world.arrived) == sorted(("alice", *each.split()) for each in WRITES)
    assert ELSE not in await world.said()


@pytest.mark.parametrize("running", [True, False], ids=["server-runs", "server-stopped"])
async def test_a_replay_of_held_requests_under_another_name(world: World, running: bool) -> None:
    """Not even to be refused: neither the server nor the hub in its place gets anything of alice's page as mallory."""
    await world.held(*WRITES)
    world.session, world.running = "mallory", running
    await world.hears()
    await world.says(ELSE)
    await world.send("PUT", "api/contents/later.ipynb")
    await world.hears()
    await world.hears("alice")
    assert world.arrived == []
    world.session, world.running = "alice", True
    await world.hears()
    assert await world.answered("api/contents/later.ipynb") == 200
    assert {who for who, *_ in world.arrived} == {"alice"}
    assert len(world.arrived) == len(WRITES) + 1


async def test_a_forged_word_that_somebody_logged_in(world: World) -> None:
    """Every page of the origin can post on the channel, a notebook's own output among them: it is never believed."""
    await world.held(*WRITES)
    for message in ("logged-in", "alice", {"identity": {"username": "alice"}}, None):
        await world.hears(message)
    assert world.arrived == []


async def test_a_server_that_was_stopped_is_nobody_else(world: World) -> None:
    """What was held goes on to the hub, which answers 424: JupyterLab knows what to do with that."""
    await world.held(*WRITES)
    world.session, world.running = "alice", False
    await world.hears()
    for each in WRITES:
        assert await world.answered(each.split()[1]) == 424
    assert ELSE not in await world.said()


async def test_a_missing_cookie_of_the_server_is_nobody_else(world: World) -> None:
    """Logged in again on the landing page, say, which doesn't pass by the server: it waits until that has happened."""
    await world.held(*WRITES)
    world.session, world.knows = "alice", False
    await world.hears()
    await world.hears()
    assert world.arrived == []
    assert ELSE not in await world.said()
    world.knows = True
    await world.hears()
    assert await world.answered("api/contents/work.ipynb") == 200


async def test_somebody_else_is_noticed_without_anything_held(world: World) -> None:
    world.session = "mallory"
    await world.hears()
    await world.says(ELSE)
    await world.send(*WRITES[0].split())
    await world.hears()
    assert world.arrived == []


async def test_the_window_is_the_gateways_login_and_nothing_else(world: World) -> None:
    world.session = ""
    await world.send("GET", "api/kernels")
    await world.says(ENDED)
    await world.page.evaluate("window.answer(true)")
    await world.page.wait_for_function("window.opened.length")
    url = urlsplit((await world.page.evaluate("window.opened"))[0])
    assert (f"{url.scheme}://{url.netloc}", url.path) == (ORIGIN, "/_hubgate/login")
    assert parse_qs(url.query) == {"popup": ["1"], "next": [SERVER], "was": ["alice"]}


FALSE_LOGINS = (
    "https://evil.example/_hubgate/login?next=/",
    "//evil.example/_hubgate/login?next=/",
    f"{ORIGIN}@evil.example/_hubgate/login?next=/",
    f"{ORIGIN}.evil.example/_hubgate/login?next=/",
    f"{ORIGIN}{SERVER}proxy/8000/_hubgate/login?next=/",
    f"{ORIGIN}/_hubgate/login/../..{SERVER}proxy/8000/?",
    f"{ORIGIN}/_hubgate/loginx?",
    "javascript:alert(1)",
    "http://[",
    "",
)


async def test_a_false_login_url_opens_no_window(world: World) -> None:
    """A program behind the notebook server answers as the gateway would, and names a form of its own."""
    world.session = ""
    for number, world.login_url in enumerate(FALSE_LOGINS):
        await world.send("GET", f"proxy/8000/{number}")
        assert await world.answered(f"proxy/8000/{number}") == 401, "as it came"
    assert await world.said() == []
