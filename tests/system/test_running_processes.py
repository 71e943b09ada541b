"""One gateway of several processes: what ends in one ends in all, and stopping or replacing one loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.person import Person
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, EchoHub, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]


def workers(gateway: RunningGateway) -> list[int]:
    """Process ids of those that serve now."""
    ended = {event["pid"] for event in gateway.events("worker_ended")}
    return [event["pid"] for event in gateway.events("serving") if event["pid"] not in ended]


@contextlib.contextmanager
def only(gateway: RunningGateway, pid: int) -> Iterator[None]:
    """While entered, new connections are taken by this worker."""
    others = [worker for worker in workers(gateway) if worker != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


async def at_worker(somebody: Visitor, pid: int) -> Visitor:
    """The same browser on a connection to this worker."""
    with only(somebody.gateway, pid):
        there = await somebody.again()
        assert (await there.get()).status == 200
    return there


async def prefix(somebody: Visitor) -> str:
    """Which process answers: request ids begin with a word of its own."""
    told = await somebody.fetch("/_hubgate/nothing-here")
    assert told.status == 404
    return str(json.loads(told.text)["request_id"]).partition("-")[0]


@pytest.fixture
async def two(scene: Scene, fresh_redis: RedisServer) -> tuple[RunningGateway, EchoHub]:
    """Two workers on one Redis before one hub."""
    hub = EchoHub(scene.background, "htc01")
    gateway = scene.gateway(
        pool("htc", hub), store_url=fresh_redis.url, gateway={"workers": 2}, limits={"stop_grace": "1m"}
    )
    await eventually(lambda: _count(gateway, 2), within=SOON, what="two workers")
    return gateway, hub


async def _count(gateway: RunningGateway, count: int) -> bool:
    return len(workers(gateway)) == count


async def test_a_log_out_at_one_worker_ends_session_and_sockets_at_the_other(
    scene: Scene, two: tuple[RunningGateway, EchoHub]
) -> None:
    gateway, _ = two
    somebody = await scene.logged_in(gateway)
    stays = await scene.logged_in(gateway)
    here, there = [await at_worker(somebody, pid) for pid in workers(gateway)]
    assert await prefix(here) != await prefix(there)
    bystander = [await at_worker(stays, pid) for pid in workers(gateway)]
    sockets, kept = [], []
    for pid, (one, other) in zip(workers(gateway), zip((here, there), bystander, strict=True), strict=True):
        with only(gateway, pid):
            sockets.append(await one.socket())
            kept.append(await other.socket())
    assert all([await socket.echoes() for socket in (*sockets, *kept)])

    page = await here.log_out()
    assert page.url.startswith(gateway.url + "/_hubgate/logged-out"), page
    assert all(await asyncio.gather(*(socket.ended(SOON) for socket in sockets)))
    assert (await there.fetch(headers={"Cookie": f"hubgate={somebody.cookies['hubgate']}"})).status == 401
    for each in bystander:
        assert (await each.fetch()).status == 200
    assert all([await socket.echoes() for socket in kept])


async def test_people_go_on_at_a_worker_that_has_never_seen_them(
    scene: Scene, two: tuple[RunningGateway, EchoHub]
) -> None:
    gateway, _ = two
    first, second = workers(gateway)
    with only(gateway, first):
        somebody = await scene.logged_in(gateway)
    elsewhere = await at_worker(somebody, second)
    page = await elsewhere.get("/")
    assert somebody.user.username in page.text
    # A login that one worker began is finished by the other.
    newcomer = scene.visitor(gateway)
    with only(gateway, first):
        page = await newcomer.browser.get(newcomer.at("/htc/hub/home?deep=link"))
    form = page.form_with("password")
    assert form is not None
    page = await newcomer.browser.submit(page, form, username=newcomer.user.username, password=newcomer.user.password)
    with only(gateway, second):
        moved = await newcomer.again()
        jar = newcomer.browser.session.cookie_jar
        moved.browser.session.cookie_jar.update_cookies({each.key: each for each in jar})
        done = await moved.browser._fill(page, newcomer.user, password="", code="")
    assert done is not None
    assert (done.status, done.url) == (200, newcomer.at("/htc/hub/home?deep=link"))


class Patient(EchoHub):
    """A hub whose answer to `/htc/hub/slow` ends when it is told to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.go = asyncio.Event()
        super().__init__(*args, **options)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/slow"):
            return await super()._answer(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun\n")
        body = await request.read()
        await self.go.wait()
        await response.write(b"done %d\n" % len(body))
        await response.write_eof()
        return response


@pytest.mark.parametrize("count", [1, 2])
async def test_sigterm_lets_requests_finish_and_closes_what_has_no_end(
    scene: Scene, fresh_redis: RedisServer, count: int
) -> None:
    hub = Patient(scene.background, "htc01")
    gateway = scene.gateway(
        pool("htc", hub), store_url=fresh_redis.url, gateway={"workers": count}, limits={"stop_grace": "1m"}
    )
    await eventually(lambda: _count(gateway, count), within=SOON, what="the workers")
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    more = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await more.wait()
        yield b"x" * 1000

    url = somebody.at("/htc/hub/slow")
    async with (
        somebody.browser.session.get(url) as download,
        somebody.browser.session.post(url, data=upload()) as sending,
    ):
        assert await download.content.readline() == b"begun\n"
        assert await sending.content.readline() == b"begun\n"
        gateway.send(signal.SIGTERM)
        await eventually(lambda: _stopping(gateway, count), within=SOON, what="the end's beginning")
        async with Person() as probe:
            await eventually(lambda: _refused(probe, gateway), within=SOON, what="a closed door")
        # What has been asked is answered, what is being sent is taken.
        more.set()
        scene.background.loop.call_soon_threadsafe(hub.go.set)
        assert await download.content.read() == b"done 0\n"
        assert await sending.content.read() == b"done 2000\n"
    assert await wire.ended(SOON)
    await eventually(lambda: _over(gateway), within=SOON, what="the end")
    assert gateway.returncode == 0
    assert not gateway.events("requests_cut")
    assert not [line for line in gateway.lines() if line.get("level") in {"error", "critical"}]
    # The session outlives the gateway.
    gateway.start()
    gateway.ready()
    assert (await somebody.get()).status == 200


async def _stopping(gateway: RunningGateway, count: int) -> bool:
    return len(gateway.events("stopping")) == count


async def _refused(probe: Person, gateway: RunningGateway) -> bool:
    try:
        await probe.fetch(gateway.url)
    except aiohttp.ClientConnectorError:
        return True
    except aiohttp.ClientError:
        return False  # it was in the queue of the door when that was closed
    return False


async def _over(gateway: RunningGateway) -> bool:
    return not gateway.alive


async def test_a_worker_that_is_replaced_loses_no_request(scene: Scene, two: tuple[RunningGateway, EchoHub]) -> None:
    gateway, _ = two
    somebody = await scene.logged_in(gateway)
    statuses: list[int] = []
    ending = asyncio.Event()

    async def ask() -> None:
        while not ending.is_set():
            page = await somebody.fetch(headers={"Connection": "close"})
            statuses.append(page.status)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for replaced, pid in enumerate(workers(gateway), start=1):
        os.kill(pid, signal.SIGTERM)
        await eventually(partial(_replaced, gateway, replaced), within=SOON, what="another worker")
        await eventually(partial(_more, statuses, len(statuses) + 20), within=SOON, what="answers")
    ending.set()
    await asyncio.gather(*asking)
    assert set(statuses) == {200}


async def _replaced(gateway: RunningGateway, count: int) -> bool:
    return len(gateway.events("worker_ended")) == count and await _count(gateway, 2)


async def _more(statuses: list[int], count: int) -> bool:
    return len(statuses) >= count


def ipv6_works() -> bool:
    """Whether this machine has an IPv6 loopback: containers often have none."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


async def test_every_address_that_is_listened_on_serves(scene: Scene) -> None:
    ports = free_ports(3)
    where = [f"127.0.0.1:{ports[0]}", f"127.0.0.2:{ports[1]}"]
    if ipv6_works():
        where.append(f"[::1]:{ports[2]}")
    gateway = scene.gateway(
        pool("htc", scene.hub("htc01")), public_url=f"http://127.0.0.1:{ports[0]}", gateway={"listen": where}
    )
    somebody = await scene.logged_in(gateway)
    cookie = "; ".join(f"{name}={value}" for name, value in somebody.cookies.items())
    async with Person() as browser:
        for address in where:
            headers = {"Host": where[0], "Cookie": cookie}
            page = await browser.fetch(f"http://{address}/htc/hub/api/x", headers=headers)
            assert page.status == 200, page
            # An address is no name: who isn't called by the site's own is not served.
            if address != where[0]:
                assert (await browser.fetch(f"http://{address}/")).status == 421
