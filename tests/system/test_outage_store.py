"""Redis goes away, comes back, forgets, refuses: people who are known go on for a while, and nobody is logged out."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time

import pytest

from hubgate.ops.demo.child import answers
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.person import Page
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

GRACE = 3.0


def command(server: RedisServer, *words: str) -> str:
    """What Redis answers to a command of the operator's."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as wire:
        for each in (("AUTH", server.password), words, ("QUIT",)):
            parts = b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in each)
            wire.sendall(b"*%d\r\n%b" % (len(each), parts))
        return b"".join(iter(lambda: wire.recv(65536), b"")).decode("utf-8", "replace")


def kind(page: Page) -> None:
    """A page for a person about the store: what to do, a request id, and no cookie taken away."""
    assert page.status == 503, page
    assert "We can’t look up your session" in page.text
    assert "Nobody is logged out by that" in page.text
    assert re.search(r'<code class="request-id">[0-9a-f]+-[0-9a-f]+</code>', page.text), page
    assert int(page.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in page.headers


async def status(somebody: Visitor, path: str = "/htc/hub/home") -> int:
    return (await somebody.get(path)).status


async def serves(somebody: Visitor) -> bool:
    return await status(somebody) == 200


async def serves_not(somebody: Visitor) -> bool:
    return await status(somebody) == 503


async def new_login(scene: Scene, gateway: RunningGateway) -> bool:
    return (await scene.visitor(gateway).arrive()).status == 200


class Away:
    """A Redis that says nothing."""

    def begin(self, server: RedisServer) -> None:
        server.send(signal.SIGSTOP)

    def end(self, server: RedisServer) -> None:
        server.send(signal.SIGCONT)


class Dead:
    """A Redis that crashed, and is started again with what it wrote to disk."""

    def begin(self, server: RedisServer) -> None:
        server.kill()

    def end(self, server: RedisServer) -> None:
        server.start()


@pytest.mark.parametrize("outage", [Away(), Dead()], ids=["stopped", "killed"])
async def test_known_people_go_on_for_the_grace_then_wait_and_nobody_is_logged_out(
    scene: Scene, fresh_redis: RedisServer, outage: Away | Dead
) -> None:
    hubs = scene.hub("htc01"), scene.hub("htc02")
    gateway = scene.gateway(
        pool("htc", *hubs), store_url=fresh_redis.url, store={"outage_grace": f"{GRACE}s"}, session={"idle": "1h"}
    )
    somebody, watcher = await scene.logged_in(gateway), await scene.logged_in(gateway)
    home = await somebody.hub()
    wire = await somebody.socket()
    before = somebody.cookies

    outage.begin(fresh_redis)
    began = time.monotonic()
    while time.monotonic() < began + GRACE / 2:
        assert await somebody.hub() == home
        assert (await somebody.get("/")).status == 200
        assert (await somebody.fetch(method="POST", data=b"x")).status == 200
        assert await wire.echoes()
        await asyncio.sleep(0.2)
    # Somebody new: a page, whichever way they come, and a script gets a document.
    stranger = scene.visitor(gateway)
    kind(await stranger.browser.get(stranger.at("/htc/hub/home")))
    forged = {"Cookie": f"hubgate={'A' * 43}"}
    kind(await stranger.get(headers=forged))
    told = await stranger.fetch(headers=forged)
    assert (told.status, json.loads(told.text)["code"]) == (503, "store_unavailable")
    assert int(told.headers["Retry-After"]) > 0
    assert answers(f"{gateway.ops_url}/healthz")
    assert not answers(f"{gateway.ops_url}/readyz")

    # The grace is over: pages and scripts wait, sockets are closed, no cookie is taken away.
    await eventually(lambda: serves_not(somebody), within=GRACE + SOON, what="503")
    assert time.monotonic() - began > GRACE - 1
    kind(await somebody.get())
    assert (await somebody.fetch()).status == 503
    assert (await somebody.fetch(method="POST", data=b"x")).status == 503
    assert await wire.ended(SOON)
    kind(await somebody.get("/"))
    assert somebody.cookies == before

    outage.end(fresh_redis)
    fresh_redis.ready()
    await eventually(lambda: serves(somebody), within=SOON, what="recovery")
    assert await somebody.hub() == home
    assert await serves(watcher)
    assert await (await somebody.socket()).echoes()
    await eventually(lambda: new_login(scene, gateway), within=SOON, what="a new login")
    assert answers(f"{gateway.ops_url}/readyz")
    assert somebody.cookies == before
    # What became of it is told once per outage, not per request.
    assert len(gateway.events("store_subscription_down")) == 1
