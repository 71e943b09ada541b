"""A program with a token of a real JupyterHub, behind two gateways on one Redis, from its first request to its end."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from hubgate.config import load
from hubgate.ops import sessions
from hubgate.ops.demo import hubs
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.notebooks import Notebooks
from tests.kit.running import RunningGateway
from tests.kit.scene import Scene

pytest_plugins = ["tests.kit.scene_fixtures"]

SERVICE = "a-service-token-for-the-tests-alone"
SETTINGS = f"""
c.Spawner.http_timeout = 120
c.JupyterHub.services = [{{"name": "tester", "api_token": {SERVICE!r}}}]
c.JupyterHub.load_roles = [{{"name": "tester", "services": ["tester"], "scopes": ["tokens", "admin:users"]}}]
"""


def service(hub: hubs.Hub, method: str, path: str, body: object = None) -> Any:
    """Asked at the hub itself, past any gateway."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"token {SERVICE}"}
    request = urllib.request.Request(f"{hub.url}/htc/hub/api/{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = answer.read()
    return json.loads(said) if said else None


class Program:
    """A plain client that knows one address and one token."""

    def __init__(self, gateway: RunningGateway, port: int, token: str) -> None:
        self.base = f"http://127.0.0.1:{port}/htc/"
        # As if a balancer had led it here.
        self.headers = {"Authorization": f"token {token}", "Host": gateway.url.partition("://")[2]}

    async def ask(self, path: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.base + path, headers=self.headers, json=body) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def is_refused(self, code: str) -> bool:
        status, told = await self.ask("hub/api/user")
        assert status in {200, 401, 403}, told  # 403: the hub's own, to a token that it revoked a moment ago
        return status == 401 and told["code"] == code


async def test_a_night_of_a_program(
    scene: Scene,
    fresh_redis: RedisServer,
    hub_environment: Callable[[str], hubs.HubEnvironment],
    tmp_path: Path,
) -> None:
    hub = hubs.Hub(hub_environment(hubs.NEWEST), tmp_path / "hub", name="htc01", path="/htc/", gateway_url="")
    entry = {"name": "htc01", "url": hub.url, "api_token": SERVICE}
    htc = {"name": "htc", "title": "Pool", "path": "/htc/", "hubs": [entry], "api_tokens": True}
    relay, gateways = scene.balanced(2, htc, store_url=fresh_redis.url)
    hub.gateway_url, hub.extra = gateways[0].url, SETTINGS
    first, second = gateways

    def at(gateway: RunningGateway, token: str) -> Program:
        return Program(gateway, relay.ports[gateway.name], token)

    hub.start()
    try:
        hub.ready()
        for gateway in gateways:
            gateway.sees({"htc01": "/htc/"})
        relay.choose(first)
        alice = await scene.logged_in(first)
        name = alice.user.username
        given = [service(hub, "POST", f"users/{name}/tokens", {"note": f"night job {n}"}) for n in range(2)]
        one, other = (str(token["token"]) for token in given)
        assert "You are logged out" in (await alice.log_out()).text

        # Log Out was the evening. Of two gateways it makes no difference which is asked.
        status, told = await at(second, one).ask("hub/api/user")
        assert (status, told["name"]) == (200, name)
        program = at(first, one)
        status, told = await program.ask(f"hub/api/users/{name}/server", "POST")
        assert status in {201, 202}, told

        async def is_up() -> bool:
            status, told = await program.ask(f"hub/api/users/{name}")
            assert status == 200, told
            return bool(told["servers"].get("", {}).get("ready"))

        await eventually(is_up, within=180, every=0.5, what="a server that runs")
        cell = {"type": "file", "format": "text", "content": "over night"}
        assert (await program.ask(f"user/{name}/api/contents/a%20b.txt", "PUT", cell))[0] == 201
        status, told = await at(second, other).ask(f"user/{name}/api/contents/a%20b.txt")
        assert (status, told["content"]) == (200, "over night")
        status, kernel = await program.ask(f"user/{name}/api/kernels", "POST", {"name": "python3"})
        assert status == 201, kernel

        path = f"user/{name}/api/kernels/{kernel['id']}/channels"
        run = Notebooks(alice.browser, alice.at("/htc/"), name).run
        async with aiohttp.ClientSession() as plain:
            by_one = await plain.ws_connect(program.base + path, headers=program.headers)
            theirs = at(second, other)
            by_other = await plain.ws_connect(theirs.base + path, headers=theirs.headers)
            assert await run(by_one, "print(6 * 7)") == "42\n"
            assert await run(by_other, "print(6 * 8)") == "48\n"

            # One of them is revoked at the hub: known here within half a minute.
            service(hub, "DELETE", f"users/{name}/tokens/{given[0]['id']}")
            for gateway in gateways:
                unknown = partial(at(gateway, one).is_refused, "token_unknown")
                await eventually(unknown, within=120, every=0.5, what="the end of a token that was revoked")
            await ended(by_one)
            assert await run(by_other, "print(6 * 9)") == "54\n"

            # And an administrator ends the other's owner.
            done = await sessions.ended(load(second.config), sessions.Choice(user=name))
            assert done.closed.sessions == 0  # they had logged out
            await ended(by_other)
        for gateway in gateways:
            away = partial(at(gateway, other).is_refused, "token_owner_away")
            await eventually(away, within=60, what="the end of all programs")

        # In the morning the same token goes on.
        relay.choose(first)
        assert (await alice.arrive()).status == 200
        assert (await at(second, other).ask("hub/api/user"))[0] == 200
        page = await alice.browser.get(alice.at("/_hubgate/account"))
        assert f"<bdi>{given[1]['id']}</bdi>" in page.text

        # What is somebody else's is not theirs: that is the hub's to say, and it hears in whose name they come.
        service(hub, "POST", "users/somebody")
        assert (await at(second, other).ask("hub/api/users/somebody"))[0] in {403, 404}

        # They end it themselves: here, and at the hub that gave it out.
        form = next(form for form in page.forms if form.fields.get("end_token"))  # the one that was used last
        page = await alice.browser.submit(page, form)
        assert "its API token was revoked at the hub" in page.text
        for gateway in gateways:
            status, said = await at(gateway, other).ask("hub/api/user")
            assert (status, said["code"]) in {(401, "token_ended"), (401, "token_unknown")}
        kept = {token["id"] for token in service(hub, "GET", f"users/{name}/tokens")["api_tokens"]}
        assert not kept & {given[0]["id"], given[1]["id"]}

        told = [line for gateway in gateways for line in gateway.lines() if line.get("log") == "access"]
        assert {(line["user"], line["upstream"]) for line in told if line.get("auth") == "token"} >= {(name, "htc01")}
        accepted = [event.get("token") for gateway in gateways for event in gateway.events("api_token")]
        assert {given[0]["id"], given[1]["id"]} <= set(accepted)
        for token in (one, other):
            assert not any(token in gateway.output() for gateway in gateways)
    finally:
        hub.stop()


async def ended(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Return when the other side has ended it."""
    while (await socket.receive(timeout=120)).type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
        continue
