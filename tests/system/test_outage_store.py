"""Redis goes away, comes back, forgets, refuses: people who are known go on for a while, and nobody is logged out."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import Mapping
from functools import partial

import pytest

from hubgate.ops.demo.child import answers, free_ports
from hubgate.ops.demo.redis import RedisServer
from hubgate.web.live import _CONFIRM_AFTER
from tests.kit.background import Relay, eventually
from tests.kit.person import Page, Person
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

GRACE = 12.0


def command(server: RedisServer, *words: str) -> str:
    """What Redis answers to a command of the operator's."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as wire:
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
    known = time.monotonic()
    somebody, watcher = await scene.logged_in(gateway), await scene.logged_in(gateway)
    home = await somebody.hub()
    wire = await somebody.socket()
    before = somebody.cookies

    outage.begin(fresh_redis)
    began = time.monotonic()
    while time.monotonic() < began + GRACE / 4:
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
    assert time.monotonic() - known > GRACE
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
    await eventually(lambda: _ready(gateway), within=SOON, what="readiness")
    assert somebody.cookies == before
    # What became of it is told once, not with every try and every round of upkeep, which comes each second.
    downs = len(gateway.events("store_subscription_down"))
    assert 1 <= downs <= len(gateway.events("store_subscription_up"))
    assert len(gateway.events("sessions_unconfirmed")) < GRACE / 4
    async with Person() as operator:
        metrics = (await operator.fetch(f"{gateway.ops_url}/metrics")).text
    assert float(re.findall(r"(?m)^hubgate_store_faults_total (\S+)", metrics)[0]) >= 3


async def test_strangers_in_masses_keep_nobody_waiting_while_redis_is_silent(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    stranger = scene.visitor(gateway)
    fresh_redis.send(signal.SIGSTOP)
    forged = [{"Cookie": f"hubgate={number:043}"} for number in range(200)]
    masses = asyncio.gather(*(stranger.fetch(headers=headers) for headers in forged))
    count = 0
    while not masses.done() or count < 20:
        async with asyncio.timeout(SOON):
            assert await serves(somebody)
        count += 1
    assert {page.status for page in await masses} == {503}
    fresh_redis.send(signal.SIGCONT)
    await eventually(lambda: new_login(scene, gateway), within=SOON, what="a new login")
    told = await stranger.fetch(headers=forged[0])
    assert told.status == 401


REFUSALS: Mapping[str, tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {
    "read-only": ([("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    "full": ([("CONFIG", "SET", "maxmemory", "1")], [("CONFIG", "SET", "maxmemory", "0")]),
    "no-replicas": (
        [("CONFIG", "SET", "min-replicas-to-write", "1")],
        [("CONFIG", "SET", "min-replicas-to-write", "0")],
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_redis_that_takes_no_writes_serves_whom_it_knows(
    scene: Scene, fresh_redis: RedisServer, refusal: str
) -> None:
    balancer, (first, second) = scene.balanced(
        2, pool("htc", scene.hub("htc01")), store_url=fresh_redis.url, store={"outage_grace": "2s"}
    )
    somebody, leaver = await scene.logged_in(first), await scene.logged_in(first)
    wire = await somebody.socket()
    landing = await leaver.browser.get(leaver.at("/"))
    before = somebody.cookies
    begin, end = REFUSALS[refusal]
    for words in begin:
        assert "+OK" in command(fresh_redis, *words)

    # Sessions can be read: there is no grace that could end, and a gateway that has not met them yet serves them, too.
    balancer.choose(second)
    elsewhere = await somebody.again()
    began = time.monotonic()
    while time.monotonic() < began + 4:
        for each in (somebody, elsewhere):
            assert await each.hub() == "htc01"
            assert (await each.get("/")).status == 200
        await asyncio.sleep(0.2)
    assert await wire.echoes()
    assert somebody.cookies == elsewhere.cookies == before
    stranger = scene.visitor(second)
    kind(await stranger.browser.get(stranger.at("/htc/hub/home")))

    # Log Out either happens or says that it did not: never a receipt for a session that lives on.
    form = next(form for form in landing.forms if form.action.endswith("/_hubgate/logout"))
    page = await leaver.browser.submit(landing, form)
    for words in end:
        assert "+OK" in command(fresh_redis, *words)
    if page.status == 503:
        kind(page)
        assert await serves(leaver)
    else:
        assert page.url.startswith(leaver.at("/_hubgate/logged-out"))
        assert await status(leaver) == 302
    await eventually(lambda: new_login(scene, second), within=SOON, what="a new login")
    assert await serves(somebody)


async def test_a_redis_that_forgot_everything_asks_people_to_log_in_again(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    assert "+OK" in command(fresh_redis, "FLUSHALL")
    # Whoever comes meanwhile isn't hindered by what was lost.
    assert await new_login(scene, gateway)
    # Entries in use are read again every ten seconds. Until then the session is as good as it was.
    seen: set[int] = set()

    async def asked_to_log_in() -> bool:
        seen.add(await status(somebody))
        return 302 in seen

    await eventually(asked_to_log_in, within=10 + SOON, every=0.2, what="the way to the login")
    assert seen <= {200, 302}
    assert await wire.ended(SOON)
    assert (await somebody.fetch()).status == 401
    assert (await somebody.arrive()).status == 200
    assert await somebody.hub() == "htc01"


async def test_a_redis_that_restarts_with_nothing_is_noticed_at_once(scene: Scene, fresh_redis: RedisServer) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    command(fresh_redis, "FLUSHALL")
    fresh_redis.kill()
    fresh_redis.start()
    fresh_redis.ready()
    assert await wire.ended(_CONFIRM_AFTER - 1), "not only when it is read again anyway"
    assert await status(somebody) == 302
    assert (await somebody.arrive()).status == 200


async def test_records_that_somebody_else_wrote_are_none(scene: Scene, fresh_redis: RedisServer) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    first, second = await scene.logged_in(gateway), await scene.logged_in(gateway)
    keys = re.findall(r"hubgate:\S+", command(fresh_redis, "KEYS", "hubgate:*"))
    sessions = [key for key in keys if key.startswith("hubgate:session:")]
    assert len(sessions) == 2
    sets = {"sessions-of", "sessions-at", "sessions-begun"}  # of names of sessions, which lead nowhere by themselves
    assert {key.split(":")[1] for key in keys} == {"session", "binding", "sticky", "username"} | sets
    # One session's record under the other's name, one that is no record, and all the rest with a byte changed.
    swap = "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]))"
    flip = "local v = redis.call('GET', KEYS[1]); return redis.call('SET', KEYS[1], string.sub(v, 1, -3) .. 'xx')"
    command(fresh_redis, "EVAL", swap, "2", *sessions)
    command(fresh_redis, "SET", sessions[1], "rubbish")
    for key in keys:
        if key not in sessions and key.split(":")[1] not in sets:
            assert "+OK" in command(fresh_redis, "EVAL", flip, "1", key)
    command(fresh_redis, "CLIENT", "KILL", "TYPE", "pubsub")
    for somebody in (first, second):
        await eventually(partial(is_asked, somebody), within=SOON, what="the way to the login")
        page = await somebody.arrive()
        assert page.status == 200, page
        told = dict(json.loads(page.text)["headers"])
        assert told["REMOTE_USER"] == somebody.user.username
    assert {event["purpose"] for event in gateway.events("store_tampered")} >= {"session", "binding", "username"}
    assert not [line for line in gateway.lines() if line.get("level") in {"error", "critical"}]


async def is_asked(somebody: Visitor) -> bool:
    return await status(somebody) == 302


@pytest.mark.parametrize("way", ["cut", "freeze"])
async def test_a_log_out_during_an_outage_of_one_gateway_holds_there_afterwards(
    scene: Scene, fresh_redis: RedisServer, way: str
) -> None:
    line = Relay(scene.background, fresh_redis.port)
    pools = pool("htc", scene.hub("htc01"))
    balancer, (near,) = scene.balanced(1, pools, store_url=fresh_redis.url)
    far_port = free_ports(1)[0]
    far = scene.gateway(
        pools,
        public_url=near.url,
        gateway={"listen": [f"127.0.0.1:{far_port}"]},
        store_url=fresh_redis.url.replace(f":{fresh_redis.port}/", f":{line.port}/"),
    )
    balancer.lead_to(far_port)
    somebody = await scene.logged_in(far)
    stays = await scene.logged_in(far)
    wire, other = await somebody.socket(), await stays.socket()
    getattr(line, way)()
    await eventually(lambda: _not_ready(far), within=SOON, what="the outage")
    balancer.choose(near)
    elsewhere = await somebody.again()
    page = await elsewhere.log_out()
    assert page.url.startswith(near.url + "/_hubgate/logged-out"), page
    balancer.lead_to(far_port)
    # It can't know yet. That is what the grace is about.
    assert await serves(somebody)
    line.mend()
    assert await wire.ended(SOON)
    assert (await somebody.fetch()).status == 401
    assert await status(somebody) == 302
    assert await other.echoes()
    assert await serves(stays)


async def _ready(gateway: RunningGateway) -> bool:
    return await asyncio.to_thread(answers, f"{gateway.ops_url}/readyz")


async def _not_ready(gateway: RunningGateway) -> bool:
    return not await _ready(gateway)


async def test_a_gateway_starts_while_redis_is_down_and_gives_its_advice_later(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    fresh_redis.kill()
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url, ready=False)
    await eventually(lambda: _only_store_missing(gateway), within=SOON, what="readiness but for the store")
    assert answers(f"{gateway.ops_url}/healthz")
    stranger = scene.visitor(gateway)
    kind(await stranger.browser.get(stranger.at("/htc/hub/home")))
    # Files of ours need no session: the page that says so has its colours, and hubs find our keys.
    assert (await stranger.get("/_hubgate/jwks.json")).status == 200
    assert (await stranger.get("/_hubgate/static/hubgate.css")).status == 200
    fresh_redis.durable = False
    fresh_redis.start("--maxmemory-policy", "allkeys-lru")
    fresh_redis.ready()
    await eventually(lambda: _arrives(stranger), within=SOON, what="the login")
    await eventually(lambda: _ready(gateway), within=SOON, what="readiness")
    # It is looked at again every five seconds.
    advice = await eventually(lambda: _advice(gateway), within=5 + SOON, what="advice")
    assert any("appendonly yes" in sentence for sentence in advice)
    assert any("noeviction" in sentence for sentence in advice)


async def _only_store_missing(gateway: RunningGateway) -> bool:
    async with Person() as probe:
        page = await probe.fetch(f"{gateway.ops_url}/readyz")
    return page.status == 503 and list(json.loads(page.text)["missing"]) == ["store"]


async def _arrives(somebody: Visitor) -> bool:
    page = await somebody.arrive()
    return page.status == 200 and page.url == somebody.at("/htc/hub/home")


async def _advice(gateway: RunningGateway) -> list[str]:
    return [line["advice"] for line in gateway.events("store_advice")]


async def test_a_redis_as_it_should_be_gets_no_advice(scene: Scene, fresh_redis: RedisServer) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    assert await new_login(scene, gateway)
    assert await _advice(gateway) == []
    assert fresh_redis.password not in gateway.output()


async def test_a_gateway_that_crashed_or_stops_during_an_outage_comes_back_as_it_was(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    before = somebody.cookies
    gateway.kill()
    gateway.start()
    gateway.ready()
    assert await serves(somebody)
    # An orderly stop doesn't wait for a Redis that says nothing.
    fresh_redis.send(signal.SIGSTOP)
    gateway.send(signal.SIGTERM)
    await eventually(lambda: _ended(gateway), within=2 * SOON, what="the end")
    assert gateway.returncode == 0
    gateway.start()
    gateway.listening()
    kind(await somebody.get())
    fresh_redis.send(signal.SIGCONT)
    await eventually(lambda: serves(somebody), within=SOON, what="recovery")
    assert somebody.cookies == before


async def _ended(gateway: RunningGateway) -> bool:
    return not gateway.alive
