"""Sessions end when people have gone, and not before: the whole gateway, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from hubgate.core.health import Observation
from hubgate.web.live import LiveSession
from tests.kit.background import eventually
from tests.kit.person import Page, Person
from tests.kit.stand import Stand, stand
from tests.web.people import Clock

MINUTE, HOUR, DAY = 60, 3600, 86400
ACCOUNT, STATE = "/_hubgate/account", "/_hubgate/session"
SERVER = "/htc/user/alice/"
CHANNELS = SERVER + "api/kernels/k/channels"
POLLS = ("api/kernels", "api/sessions", "api/terminals", "api/contents?content=1")


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
async def site(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    def adapt(document: dict[str, Any]) -> None:
        document["session"] = {"idle": "30m", "max": "36h"}
        document["health"] = {"interval": "50ms", "timeout": "30s", "fall": 1, "rise": 100}
        document["pools"][1]["idle"] = "10m"

    monkeypatch.setattr("hubgate.web.live._TICK", 0.01)
    # Sockets are listened to at once, and again at once: here, hours pass between two messages of a second.
    monkeypatch.setattr("hubgate.web.ear._GREETING", 0.0)
    monkeypatch.setattr("hubgate.web.ear._PAUSE", 0.0)
    async with stand(adapt, clock=clock) as made:
        yield made


@pytest.fixture
async def alice(site: Stand, clock: Clock) -> AsyncIterator[Person]:
    """She has her notebook open, and has just opened it."""
    async with await site.logged_in() as person:
        clock.now += 1
        page = await person.get(site.url + SERVER + "lab")
        assert page.status == 200
        yield person


def live(site: Stand, name: str = "alice") -> LiveSession:
    (found,) = [each for each in site.served.live._by_cookie.values() if each.session.identity.username == name]
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def socket(site: Stand, person: Person, path: str = CHANNELS) -> Any:
    return person.session.ws_connect(site.url + path, headers={"Origin": site.url})


async def heard(wire: aiohttp.ClientWebSocketResponse, text: str = "x = 1") -> None:
    """Say something, which has passed the gateway when its echo is back."""
    await wire.send_str(text)
    assert (await wire.receive(timeout=60)).data == text


async def poll(site: Stand, person: Person, path: str, method: str = "GET") -> Page:
    return await person.fetch(site.url + SERVER + path, method)


# -- a day


async def test_a_day_of_polls_goes_idle_on_time(site: Stand, clock: Clock, alice: Person) -> None:
    left = live(site).session.last_seen
    cookies = alice.cookies(site.url + SERVER)
    async with socket(site, alice) as wire:
        await heard(wire, "kernel_info_request")  # as JupyterLab says on every socket that it opens
        answered = []
        for minute in range(1, DAY // MINUTE):
            clock.now = left + minute * MINUTE
            page = await poll(site, alice, POLLS[minute % len(POLLS)])
            if page.status == 200:
                answered.append(minute)
                await wire.pong(b"")
                assert (await poll(site, alice, "lab/api/workspaces/default", "PUT")).status == 200
                assert live(site).session.last_seen == left
            elif minute == 30:
                assert json.loads(page.text)["code"] == "session_required"
                async with asyncio.timeout(60):
                    assert (await wire.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
            if minute == 6 * 60:
                clock.now = left + DAY  # the rest of the day is like this hour
                assert (await poll(site, alice, POLLS[0])).status == 401
                break
    assert answered == list(range(1, 30)), "for thirty minutes, and then never again"
    assert alice.cookies(site.url + SERVER) == cookies, "signing in again goes on where it was"


@pytest.mark.parametrize("path", [CHANNELS, SERVER + "terminals/websocket/1"])
async def test_a_slow_typist_stays_all_day(site: Stand, clock: Clock, alice: Person, path: str) -> None:
    began = clock.now
    async with socket(site, alice, path) as wire:
        while clock.now < began + DAY:
            for _ in range(5):
                clock.now += 5 * MINUTE
                assert (await poll(site, alice, POLLS[0])).status == 200
                await wire.pong(b"")
            await heard(wire)
            assert live(site).session.last_seen == clock.now
        sessions, last_said = site.served.live._sessions, clock.now
        async with asyncio.timeout(60):
            while True:
                found = await sessions.get(live(site).key)
                assert found is not None
                if found.session.last_seen == last_said:
                    break
                clock.now += 1
                await asyncio.sleep(0.02)
        assert clock.now <= last_said + 90, "every worker and every administrator knows within a minute or so"
        assert (await poll(site, alice, POLLS[0])).status == 200


async def test_an_autosave_is_taken_for_a_person(site: Stand, clock: Clock, alice: Person) -> None:
    for _ in range(6):
        clock.now += 20 * MINUTE
        page = await poll(site, alice, "api/contents/Untitled.ipynb", "PUT")
        assert page.status == 200
        assert live(site).session.last_seen == clock.now


async def test_a_page_that_connects_anew_by_itself_is_nobody(
    site: Stand, clock: Clock, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something between drops its sockets now and then; JupyterLab opens them again and greets the kernel."""
    seen = live(site).session.last_seen
    with monkeypatch.context() as patched:
        patched.setattr("hubgate.web.ear._GREETING", HOUR)
        for _ in range(3):
            clock.now += 5 * MINUTE
            async with socket(site, alice) as wire:
                await heard(wire, "kernel_info_request")
                assert live(site).session.last_seen == seen
    async with socket(site, alice) as wire:
        clock.now += 6
        await heard(wire)
    assert live(site).session.last_seen == clock.now


async def test_whoever_was_heard_is_not_listened_to_for_a_while(
    site: Stand, clock: Clock, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubgate.web.ear._PAUSE", HOUR)
    async with socket(site, alice) as wire:
        clock.now += MINUTE
        await heard(wire)
        first = clock.now
        clock.now += MINUTE
        await heard(wire)
        assert live(site).session.last_seen == first


async def test_a_socket_of_another_kind_is_nobody(site: Stand, clock: Clock, alice: Person) -> None:
    seen = live(site).session.last_seen
    async with socket(site, alice, SERVER + "api/collaboration/room/x") as wire:
        clock.now += MINUTE
        await heard(wire)
    assert live(site).session.last_seen == seen


async def test_the_page_on_which_people_wait_for_a_hub_is_nobody(site: Stand, clock: Clock, alice: Person) -> None:
    seen = live(site).session.last_seen
    for hub in site.hubs:
        site.served.registry.report(hub, Observation.UNREACHABLE, clock.now, reason="gone")
    clock.now += MINUTE
    page = await alice.get(site.url + SERVER + "lab")
    assert page.status == 503
    assert live(site).session.last_seen == seen


# -- limits of pools


async def test_a_pool_of_shorter_patience_holds_wherever_its_people_are(
    site: Stand, clock: Clock, alice: Person
) -> None:
    clock.now += 20 * MINUTE
    assert (await poll(site, alice, POLLS[0])).status == 200
    assert (await alice.get(site.url + "/hpc/hub/home")).status == 200
    async with socket(site, alice) as wire:
        clock.now += 10 * MINUTE - 1
        assert (await poll(site, alice, POLLS[0])).status == 200
        clock.now += 1
        assert (await poll(site, alice, POLLS[0])).status == 401
        async with asyncio.timeout(60):
            assert (await wire.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


# -- what people are told


async def state(site: Stand, person: Person, method: str = "GET", **headers: str) -> Any:
    page = await person.fetch(site.url + STATE, method, headers={"Origin": site.url, **headers})
    return page.status, json.loads(page.text)


async def test_asking_how_long_never_prolongs(site: Stand, clock: Clock, alice: Person) -> None:
    seen = live(site).session.last_seen
    clock.now = seen + 20 * MINUTE
    status, told = await state(site, alice)
    assert (status, told["seconds_left"], told["by_idling"], told["near"]) == (200, 600, True, False)
    assert (told["look_again"], "10 minutes" in told["left"]) == (60, True)
    clock.now = seen + 28 * MINUTE
    _, told = await state(site, alice)
    assert (told["seconds_left"], told["near"], told["look_again"]) == (120, True, 5)
    assert (await alice.get(site.url + STATE)).status == 200, "typed into the address bar"
    assert live(site).session.last_seen == seen
    clock.now = seen + 30 * MINUTE
    status, told = await state(site, alice)
    assert (status, told["code"]) == (401, "session_required")


async def test_somebody_says_that_they_are_there(site: Stand, clock: Clock, alice: Person) -> None:
    clock.now += 29 * MINUTE
    status, told = await state(site, alice, "POST")
    assert (status, told["seconds_left"], told["near"]) == (200, 1800, False)
    assert live(site).session.last_seen == clock.now


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
async def test_another_site_keeps_nobody_logged_in(site: Stand, clock: Clock, alice: Person, origin: str) -> None:
    seen = live(site).session.last_seen
    clock.now += MINUTE
    status, told = await state(site, alice, "POST", Origin=origin)
    assert (status, told["code"]) == (403, "csrf_failed")
    page = await alice.fetch(site.url + STATE, "POST")  # without any, as no browser sends it
    assert page.status == 403
    assert live(site).session.last_seen == seen


async def test_the_last_hour_of_all_is_told_as_it_is(site: Stand, clock: Clock, alice: Person) -> None:
    began = live(site).session.created
    while clock.now < began + 36 * HOUR - 20 * MINUTE:
        clock.now = min(clock.now + 20 * MINUTE, began + 36 * HOUR - 20 * MINUTE)
        assert (await state(site, alice, "POST"))[0] == 200
    _, told = await state(site, alice)
    assert (told["seconds_left"], told["by_idling"]) == (20 * MINUTE, False)
    assert "whatever you do" in told["left"]


async def test_the_account_page_counts_down_and_is_nobody_when_it_loads_itself(
    site: Stand, clock: Clock, alice: Person
) -> None:
    clock.now += 10 * MINUTE
    page = await alice.get(site.url + ACCOUNT)
    seen = live(site).session.last_seen
    assert seen == clock.now, "who opens it is there"
    assert "30 minutes" in page.text
    found = re.search(r'<noscript><meta http-equiv="refresh" content="(\d+); url=([^"]+)">', page.text)
    assert found is not None
    assert int(found[1]) <= 30
    again = site.url + found[2]
    clock.now += 20 * MINUTE
    page = await alice.get(again)
    assert "10 minutes" in page.text
    assert f'href="{ACCOUNT}"' in page.text, "the way to say that one is there, without JavaScript"
    assert live(site).session.last_seen == seen
    clock.now += 10 * MINUTE
    page = await alice.get(again, follow=False)
    assert page.status == 401, "not led to a provider that may remember them"
    assert "Please log in" in page.text


async def test_metrics_tell_how_many_are_there(site: Stand, clock: Clock, alice: Person) -> None:
    async def seen(*expected: int) -> bool:
        text = (await site.served.front.metrics.render()).decode()
        found = re.findall(r'hubgate_sessions_seen\{within="\w+"\} ([0-9.]+)', text)
        return [float(number) for number in found] == list(expected)

    async with socket(site, alice), await site.logged_in("bob") as bob:
        assert (await bob.get(site.url + "/htc/hub/home")).status == 200
        clock.now += 16
        await eventually(lambda: seen(2, 2, 2, 2), within=60)
        clock.now += 10 * MINUTE
        await bob.get(site.url + "/htc/hub/home")
        clock.now += 16
        await eventually(lambda: seen(1, 1, 2, 2), within=60)
