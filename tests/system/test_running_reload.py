"""Deploys while people work: SIGHUP and restarts, before a real Redis, with logins and sockets under way."""

from __future__ import annotations

import asyncio
import json
import signal
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubgate.ops.demo.redis import RedisServer
from hubgate.ops.demo.settings import merged, to_toml
from tests.kit.background import eventually
from tests.kit.person import Page
from tests.kit.running import SECRET_KEY, RunningGateway
from tests.kit.scene import SOON, EchoHub, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]


def lay(gateway: RunningGateway, /, **tables: Any) -> None:
    """Lay tables over a gateway's configuration."""
    gateway.config.write_text(to_toml(merged(tomllib.loads(gateway.config.read_text()), tables)))


async def reloaded(gateway: RunningGateway, /, **tables: Any) -> None:
    """Lay tables over the configuration, and wait until only workers with it take people on."""
    lay(gateway, **tables)
    await asyncio.to_thread(gateway.reload)


async def half_way(somebody: Visitor, path: str = "/htc/hub/home") -> Page:
    """Up to the provider's question for a password."""
    page = await somebody.browser.get(somebody.at(path))
    assert page.form_with("password") is not None, page
    return page


async def rest_of_the_way(somebody: Visitor, page: Page, path: str = "/htc/hub/home") -> None:
    """From there, on a connection of its own, to where they wanted to go."""
    done = await somebody.browser.through(page, somebody.user)
    assert (done.status, done.url) == (200, somebody.at(path)), done


@pytest.fixture
def site(scene: Scene, fresh_redis: RedisServer) -> Callable[..., RunningGateway]:
    """One gateway of one worker before one hub."""
    return partial(scene.gateway, pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)


async def test_nobody_notices_a_reload_but_for_what_is_new(scene: Scene, site: Callable[..., RunningGateway]) -> None:
    gateway = site()
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    newcomer = scene.visitor(gateway)
    page = await half_way(newcomer)
    other = scene.hub("hpc01")

    await reloaded(
        gateway,
        pools=[*tomllib.loads(gateway.config.read_text())["pools"], pool("hpc", other)],
        announcements=[{"text": "The cafeteria is closed."}],
    )
    # Who was on the way in comes in, who was in is in, and both see what is new.
    await rest_of_the_way(newcomer, page)
    for each in (somebody, newcomer):
        there = await each.again()
        landing = await there.get("/")
        assert "The cafeteria is closed." in landing.text
        assert await there.hub("/hpc/hub/home") == "hpc01"
        assert await there.hub() == "htc01"
    assert await wire.echoes()


async def test_who_may_not_use_a_pool_any_more_has_nothing_open_in_it_wherever_it_was_opened(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    pools = [pool(name, scene.hub(f"{name}01"), groups=["htc-users"]) for name in ("htc", "hpc")]
    gateway = scene.gateway(*pools, store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    await somebody.arrive("/hpc/hub/home")
    path = "/hpc/user/x/api/kernels/k/channels"
    out, stays = [await somebody.socket(path)], [await somebody.socket()]
    await reloaded(gateway, portal={"title": "After"})
    there = await somebody.again()
    out.append(await there.socket(path))
    stays.append(await there.socket())
    assert all([await wire.echoes() for wire in (*out, *stays)])

    # Of three generations, the two before this one have a socket each in either pool.
    await reloaded(gateway, pools=[pools[0], pools[1] | {"groups": ["staff"]}])
    assert all(await asyncio.gather(*(wire.ended(SOON) for wire in out)))
    there = await somebody.again()
    assert (await there.fetch("/hpc/hub/api/x")).status == 403
    assert (await there.get("/hpc/hub/home")).status == 403
    assert await there.hub() == "htc01"
    assert all([await wire.echoes() for wire in stays])

    await reloaded(gateway, pools=pools)
    assert await (await (await somebody.again()).socket(path)).echoes()
    assert all([await wire.echoes() for wire in stays])


async def test_a_pool_that_is_taken_out_takes_nobody_on_and_cuts_nobody_off(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    pools = [pool(name, scene.hub(f"{name}01")) for name in ("htc", "hpc")]
    gateway = scene.gateway(*pools, store_url=fresh_redis.url)
    somebody = await scene.logged_in(gateway)
    await somebody.arrive("/hpc/hub/home")
    wire = await somebody.socket("/hpc/user/x/api/kernels/k/channels")
    await reloaded(gateway, pools=pools[:1])
    there = await somebody.again()
    assert (await there.get("/hpc/hub/home")).status == 404
    assert await there.hub() == "htc01"
    assert await wire.echoes()


async def test_pages_that_can_not_be_shown_are_refused_and_those_of_before_stay(
    scene: Scene, site: Callable[..., RunningGateway], tmp_path: Path
) -> None:
    own = tmp_path / "templates"
    (own / "messages").mkdir(parents=True)
    words = own / "messages" / "en.toml"
    gateway = site(gateway={"templates": str(own)})
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    words.write_text('[landing]\nheading_one = "Where to, Ada?"\n')
    await asyncio.to_thread(gateway.reload)
    assert "Where to, Ada?" in (await (await somebody.again()).get("/")).text

    words.write_text("[landing]\nheading_one = 7\n")
    gateway.send(signal.SIGHUP)
    await eventually(lambda: _refused(gateway), within=SOON, what="a refusal")
    assert "en.toml" in json.dumps(gateway.events("reload_refused") + gateway.events("cannot_start"))
    assert "Where to, Ada?" in (await (await somebody.again()).get("/")).text
    assert await wire.echoes()


async def test_a_log_out_ends_sockets_in_workers_that_are_leaving(
    scene: Scene, site: Callable[..., RunningGateway]
) -> None:
    gateway = site()
    somebody, stays = await scene.logged_in(gateway), await scene.logged_in(gateway)
    wires, kept = [await somebody.socket()], [await stays.socket()]
    for number in range(2):
        await reloaded(gateway, portal={"title": f"After {number}"})
        wires.append(await (await somebody.again()).socket())
        kept.append(await (await stays.again()).socket())
    assert len(set(serving(gateway))) == 3
    there = await somebody.again()
    page = await there.log_out()
    assert page.url.startswith(gateway.url + "/_hubgate/logged-out"), page
    assert all(await asyncio.gather(*(wire.ended(SOON) for wire in wires)))
    assert all([await wire.echoes() for wire in kept])
    # Each worker that had a share in it said so.
    assert "3" in page.text, page.text
    # With nobody left, they end.
    await (await stays.again()).log_out()
    await eventually(lambda: _stopped(gateway, 2), within=SOON, what="the end of who was leaving")


def serving(gateway: RunningGateway) -> list[int]:
    return [event["pid"] for event in gateway.events("serving")]


async def _stopped(gateway: RunningGateway, count: int) -> bool:
    return len(gateway.events("stopped")) == count


async def test_who_works_at_the_new_workers_is_not_idle_at_those_that_are_leaving(
    scene: Scene, site: Callable[..., RunningGateway]
) -> None:
    gateway = site(session={"idle": "20s", "max": "1h"})
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    await reloaded(gateway, portal={"title": "After"})
    there = await somebody.again()
    for _ in range(45):
        await asyncio.sleep(0.5)
        assert (await there.get()).status == 200
        assert await wire.echoes()
    # And who has gone is idle at both, as ever.
    assert await wire.ended(20 + SOON)


async def test_a_new_key_signs_and_old_sessions_are_still_good(
    scene: Scene, site: Callable[..., RunningGateway]
) -> None:
    gateway = site()
    somebody = await scene.logged_in(gateway)

    async def kids() -> set[str]:
        keys = (await (await somebody.again()).browser.fetch(gateway.url + "/_hubgate/jwks.json")).text
        return {part.partition('"')[0] for part in keys.replace(" ", "").split('"kid":"')[1:]}

    old = await kids()
    await reloaded(gateway, gateway={"secret_keys": [SECRET_KEY, "a new key for tests, longer than 32 characters"]})
    both = await kids()
    assert old < both
    assert (await (await somebody.again()).fetch()).status == 200
    newcomer = await scene.logged_in(gateway)
    # Who has come since hangs on the new key alone; who came before, on the old one.
    await reloaded(gateway, gateway={"secret_keys": ["a new key for tests, longer than 32 characters"]})
    assert await kids() == both - old
    assert (await (await newcomer.again()).fetch()).status == 200
    assert (await (await somebody.again()).fetch()).status != 200


async def test_a_login_goes_on_when_its_gateway_is_restarted_in_the_middle(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    balancer, (one, two) = scene.balanced(2, pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    balancer.choose(one)
    stays, moves = scene.visitor(one), scene.visitor(one)
    pages = [await half_way(each, "/htc/hub/home?deep=link") for each in (stays, moves)]
    # One of them comes back to the other gateway while its own is away, one to its own when that is back.
    one.stop()
    balancer.choose(two)
    await rest_of_the_way(moves, pages[1], "/htc/hub/home?deep=link")
    one.start()
    one.ready()
    balancer.choose(one)
    await rest_of_the_way(stays, pages[0], "/htc/hub/home?deep=link")
    assert (await (await moves.again()).fetch()).status == 200


async def test_gateways_are_restarted_one_after_another_and_nobody_waits(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    hub: EchoHub = scene.hub("htc01")
    notice = {"stop_notice": "10s", "stop_grace": "2s"}
    balancer, gateways = scene.balanced(2, pool("htc", hub), store_url=fresh_redis.url, limits=notice)
    balancer.choose(gateways[0])
    somebody = await scene.logged_in(gateways[0])
    wire = await somebody.socket()
    statuses: list[int] = []
    ending = asyncio.Event()

    async def ask(**headers: str) -> None:
        while not ending.is_set():
            statuses.append((await somebody.fetch(headers=headers)).status)

    # New connections, and one that is kept for as long as its gateway wants.
    asking = [asyncio.create_task(ask(**each)) for each in ({"Connection": "close"}, {"Connection": "close"}, {})]
    for at, other in (gateways, gateways[::-1]):
        newcomer = scene.visitor(at)
        page = await half_way(newcomer)
        stopping = asyncio.create_task(asyncio.to_thread(at.stop))
        # As a balancer does: it asks whether it is ready, and is told in time.
        await eventually(partial(_unready, at), within=SOON, what="a word to the balancer")
        balancer.choose(other)
        # Until the balancer knows, sockets go on, and then they come back at the other one.
        assert await wire.echoes()
        assert await wire.ended(SOON)
        wire = await (await somebody.again()).socket()
        assert await wire.echoes()
        await rest_of_the_way(newcomer, page)
        await stopping
        at.start()
        await asyncio.to_thread(at.ready)
    ending.set()
    await asyncio.gather(*asking)
    assert set(statuses) == {200}
    assert await wire.echoes()


async def _unready(gateway: RunningGateway) -> bool:
    return bool(gateway.events("stopping"))


async def test_a_wrong_provider_is_not_taken_over(scene: Scene, site: Callable[..., RunningGateway]) -> None:
    gateway = site()
    lay(gateway, oidc={"issuer": "http://127.0.0.1:9/nobody"})
    gateway.send(signal.SIGHUP)
    await eventually(lambda: _refused(gateway), within=90, what="a refusal")
    assert "oidc" in gateway.events("cannot_start")[0]["reason"]
    assert (await scene.logged_in(gateway)).cookies


async def _refused(gateway: RunningGateway) -> bool:
    return bool(gateway.events("reload_refused"))
