"""Every way to end a session, with what people have open in it: when is the last socket closed, and what is served?

Real throughout: Keycloak, a JupyterHub, Redis, two gateways before it. Ada is in two browsers, each with a kernel at
one gateway and a terminal at the other. The figures are printed; what is asserted is that it ends, what goes on, and
that whatever somebody kept opens nothing, at neither gateway.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from hubgate.web.sessions import fingerprint
from tests.kit.notebooks import Notebooks
from tests.kit.pair import Pair
from tests.kit.person import Person
from tests.kit.scene import Socket, Visitor

pytest_plugins = ["tests.kit.scene_fixtures", "tests.kit.pair_fixtures"]
pytestmark = [pytest.mark.redis]

PATIENCE = 60.0
"""Seconds after which something that doesn't happen is given up; nothing is judged by it."""


class Seat:
    """A browser in which ada has a kernel and a terminal open."""

    def __init__(self, pair: Pair, visitor: Visitor) -> None:
        self.pair = pair
        self.visitor = visitor
        self.notebooks = Notebooks(visitor.browser, visitor.at("/htc/"), visitor.user.username)
        self.paths: list[str] = []
        self.sockets: list[aiohttp.ClientWebSocketResponse] = []
        self.cookies: dict[str, str] = {}
        self.provider_sid = ""

    @property
    def home(self) -> str:
        return f"/htc/user/{self.visitor.user.username}/"

    async def sit_down(self, at: int) -> None:
        """Open both, the kernel at this gateway and the terminal at the other."""
        await self.visitor.arrive("/htc/hub/home")
        await self.notebooks.spawn()
        page = await self.notebooks.lab()
        assert (page.status, urlsplit(page.url).path) == (200, f"{self.home}lab"), page
        kernel = await self.notebooks.start_kernel()
        terminal = json.loads((await self.notebooks.call("POST", "api/terminals", {})).text)["name"]
        self.paths = [f"{self.home}api/kernels/{kernel}/channels", f"{self.home}terminals/websocket/{terminal}"]
        self.cookies = {path: self.pair.kept(self.visitor, path) for path in ("/", self.home, "/htc/hub/home")}
        for number, path in zip((at, 1 - at), self.paths, strict=True):
            straight = await self.pair.straight(number)
            self.sockets.append(await straight.socket(path, self.cookies[self.home]))
        await self.works()

    async def works(self) -> None:
        """Both carry what is typed, there and back."""
        kernel, terminal = self.sockets
        assert await self.notebooks.run(kernel, "print(6 * 7)") == "42\n"
        await terminal.send_str(json.dumps(["stdin", "echo $((6 * 7))\r"]))
        heard = ""
        async with asyncio.timeout(PATIENCE):
            while "42" not in heard:
                kind, *text = json.loads((await terminal.receive()).data)
                heard += text[0] if kind == "stdout" else ""

    async def closed(self) -> float:
        """When the last of them is closed, by the clock of `time.monotonic`."""

        async def one(socket: aiohttp.ClientWebSocketResponse) -> float:
            async for _ in socket:
                continue
            return time.monotonic()

        async with asyncio.timeout(PATIENCE):
            return max(await asyncio.gather(*map(one, self.sockets)))


async def ada_at_work(pair: Pair, *, at: int) -> Seat:
    seat = Seat(pair, await pair.browser(pair.ada, at=at))
    await seat.sit_down(at)
    return seat


# -- the ways. Each gets ada's two browsers, and answers which of them it ends.


async def log_out(_: Pair, here: Seat, __: Seat) -> Sequence[Seat]:
    page = await here.visitor.log_out()
    assert "You are logged out" in page.text, page
    return [here]


async def the_hubs_own_log_out(_: Pair, here: Seat, __: Seat) -> Sequence[Seat]:
    home = {"Referer": here.visitor.at("/htc/hub/home")}
    page = await here.visitor.browser.get(here.visitor.at("/htc/hub/logout"), headers=home)
    assert "You are logged out" in page.text, page
    return [here]


async def account_page(pair: Pair, here: Seat, there: Seat) -> Sequence[Seat]:
    """From the other browser."""
    page = await there.visitor.browser.get(there.visitor.at("/_hubgate/account"))
    handle = fingerprint(here.visitor.cookies["hubgate"])[:16]
    (form,) = [form for form in page.forms if form.fields.get("end") == handle]
    page = await there.visitor.browser.submit(page, form)
    assert "?ended=1&closed=" in page.url, page
    return [here]


async def administrator(pair: Pair, here: Seat, there: Seat) -> Sequence[Seat]:
    done = await pair.ended_by_administrator(pair.ada)
    assert done.closed.sessions >= 2
    return [here, there]


async def keycloak_ends_a_session(pair: Pair, here: Seat, _: Seat) -> Sequence[Seat]:
    """Back-channel logout by `sid`."""
    pair.realm.admin("DELETE", f"sessions/{here.provider_sid}")
    return [here]


async def keycloak_ends_a_person(pair: Pair, here: Seat, there: Seat) -> Sequence[Seat]:
    """All of somebody's sessions, of which Keycloak tells by the `sid` of one."""
    pair.realm.admin("POST", f"users/{pair.realm.user_id(pair.ada.username)}/logout")
    return [here, there]


async def somebody_else_logs_in(pair: Pair, here: Seat, _: Seat) -> Sequence[Seat]:
    """Eve at ada's browser, which is logged in still."""
    browser = here.visitor.browser
    browser.session.cookie_jar.clear(lambda morsel: morsel["path"].startswith("/realms/"))
    page = await browser.login(f"{pair.url}/_hubgate/login?max_age=0", pair.eve)
    assert pair.eve.username in page.text, page
    return [here]


WAYS: list[Callable[[Pair, Seat, Seat], Awaitable[Sequence[Seat]]]] = [
    log_out,
    the_hubs_own_log_out,
    account_page,
    administrator,
    keycloak_ends_a_session,
    keycloak_ends_a_person,
    somebody_else_logs_in,
]


async def served(pair: Pair, seat: Seat, cookies: Callable[[str], str]) -> dict[str, int]:
    """What is answered to what this seat had, at each of the gateways."""
    found: dict[str, int] = {}
    for number in range(2):
        straight = await pair.straight(number)
        at_hub, at_home = cookies("/htc/hub/home"), cookies(seat.home)
        found |= {
            f"hub page {number}": await straight.status("/htc/hub/home", at_hub, navigate=True),
            f"hub API {number}": await straight.status("/htc/hub/api/user", at_hub),
            f"lab {number}": await straight.status(f"{seat.home}lab", at_home, navigate=True),
            f"contents {number}": await straight.status(f"{seat.home}api/contents", at_home),
            f"save {number}": await straight.status(f"{seat.home}api/contents/x.txt", at_home, method="PUT"),
            f"kernel {number}": await straight.refused(seat.paths[0], at_home),
            f"terminal {number}": await straight.refused(seat.paths[1], at_home),
        }
    return found


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
async def test_what_is_open_is_closed_and_what_was_kept_opens_nothing(
    pair: Pair, way: Callable[[Pair, Seat, Seat], Awaitable[Sequence[Seat]]], record_property: Any
) -> None:
    here = await ada_at_work(pair, at=0)
    (session,) = pair.realm.admin("GET", f"users/{pair.realm.user_id(pair.ada.username)}/sessions")
    here.provider_sid = session["id"]
    there = await ada_at_work(pair, at=1)
    eve = await pair.browser(pair.eve, at=1)
    assert (await eve.arrive("/echo/hub/home")).status == 200
    wire: Socket = await eve.socket("/echo/user/x/api/kernels/k/channels")
    waiting = {seat: asyncio.ensure_future(seat.closed()) for seat in (here, there)}
    pair.balancer.choose(pair.gateways[0])

    began = time.monotonic()
    ended_seats = await way(pair, here, there)
    answered = time.monotonic() - began
    last = max([await waiting[seat] for seat in ended_seats]) - began
    count = sum(len(seat.sockets) for seat in ended_seats)
    told = f"{way.__name__}: the last of {count} sockets closed after {last:.3f} s, answered after {answered:.3f} s"
    print(told)
    record_property("measured", told)

    for seat in ended_seats:
        # Nothing of the session: not at the gateway that was asked, nor at the other.
        statuses = await served(pair, seat, seat.cookies.__getitem__)
        for what, status in statuses.items():
            assert status == (302 if what.startswith(("hub page", "lab")) else 401), statuses
        # Nor with a session of somebody else: what the hub gave ada doesn't pass.
        eves = f"hubgate={eve.cookies['hubgate']}"

        def mixed(path: str, seat: Seat = seat, eves: str = eves) -> str:
            kept = seat.cookies[path].split("; ")
            return "; ".join([eves, *(each for each in kept if not each.startswith("hubgate"))])

        statuses = await served(pair, seat, mixed)
        assert {status for what, status in statuses.items() if not what.startswith("hub")} <= {302, 403}, statuses
    assert await wire.echoes(), "whoever is somebody else goes on"
    if there not in ended_seats:
        waiting[there].cancel()
        await asyncio.wait([waiting[there]])
        await there.works()

    # And ada comes back to what went on meanwhile.
    async with Visitor(pair.gateways[0], Person(pair.url, pair.realm.origin), pair.ada, pair.url) as again:
        await again.arrive("/htc/hub/home")
        notebooks = Notebooks(again.browser, again.at("/htc/"), again.user.username)
        await notebooks.lab()
        kernels = json.loads((await notebooks.call("GET", "api/kernels")).text)
        assert {path.split("/")[-2] for path in (here.paths[0], there.paths[0])} <= {each["id"] for each in kernels}
