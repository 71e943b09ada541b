"""What a real JupyterHub made of a session ends with it: OAuth tokens, by its API, and servers if the site says so."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hubgate.ops.demo import hubs
from hubgate.ops.demo.child import free_ports
from tests.kit.background import eventually
from tests.kit.embedded import EmbeddedProvider
from tests.kit.notebooks import Notebooks
from tests.kit.person import Person
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Visitor

pytest_plugins = ["tests.kit.scene_fixtures"]

TOKEN = "a-service-token-for-the-tests-alone"
SERVICE = f"""
c.Spawner.http_timeout = 120
c.JupyterHub.services = [{{"name": "hubgate", "api_token": {TOKEN!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "hubgate", "services": ["hubgate"], "scopes": ["tokens", "read:servers", "delete:servers"]}}
]
"""


def asked(hub: hubs.Hub, path: str) -> Any:
    request = urllib.request.Request(f"{hub.url}/htc/hub/api/{path}", headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def believed(hub: hubs.Hub, kept: str) -> bool:
    """Whether the hub takes this login cookie, kept from a browser, at its own port: notebooks can reach that."""
    _, _, value = kept.strip('"').partition(".")  # without what the gateway has put in front
    headers = {"Cookie": f'jupyterhub-hub-login="{value}"', "Sec-Fetch-Mode": "navigate"}
    request = urllib.request.Request(f"{hub.hub_url}/htc/hub/home", headers=headers)
    try:
        with urllib.request.build_opener(NoRedirects).open(request, timeout=20) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code not in {302, 403}:
            raise
        return False


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def session_marks(hub: hubs.Hub, user: str) -> set[str]:
    """The hub's sessions that tokens hang on."""
    return {token["session_id"] for token in asked(hub, f"users/{user}/tokens")["api_tokens"] if token["session_id"]}


async def test_tokens_end_with_their_session_and_servers_with_the_last(
    embedded: EmbeddedProvider,
    gateway: Callable[..., RunningGateway],
    hub_environment: Callable[[str], hubs.HubEnvironment],
    tmp_path: Path,
) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    own_hub = hubs.Hub(
        hub_environment(hubs.NEWEST), tmp_path / "hub", name="htc01", path="/htc/", gateway_url=url, extra=SERVICE
    )
    entry = {"name": "htc01", "url": own_hub.url, "api_token": TOKEN}
    running = gateway(
        pools=[{"name": "htc", "path": "/htc/", "hubs": [entry]}],
        provider=embedded,
        public_url=url,
        session={"stop_servers": True},
        health={"interval": "500ms", "timeout": "20s", "rise": 1},
    )
    # After the gateway, whose keys it asks for at its start.
    own_hub.start()
    user = embedded.create_user()
    people = [Visitor(running, Person(url, embedded.origin), user, url) for _ in range(2)]
    try:
        own_hub.ready()

        async def seen() -> bool:
            return (await people[0].fetch("/htc/hub/health")).status != 503

        await people[0].arrive("/")
        await eventually(seen, within=SOON, every=0.3, what="a hub that is up")
        marks: list[set[str]] = []
        for somebody in people:
            await somebody.arrive("/htc/hub/home")
            notebooks = Notebooks(somebody.browser, somebody.at("/htc/"), user.username)
            if not marks:
                await notebooks.spawn()
            assert (await notebooks.lab()).status == 200
            marks.append(session_marks(own_hub, user.username) - (marks[0] if marks else set()))
            assert len(marks[-1]) == 1, marks

        async def left(wanted: set[str]) -> None:
            """The hub is asked within two seconds, or a busy one afterwards."""

            async def they_are() -> bool:
                return session_marks(own_hub, user.username) == wanted

            await eventually(they_are, within=SOON, every=0.3, what=f"the end of all but {wanted}")

        first, second = people
        logins = [each.browser.cookies(each.at("/htc/hub/home"))["jupyterhub-hub-login"] for each in people]
        assert all(believed(own_hub, kept) for kept in logins)
        page = await first.log_out()
        assert "You are logged out" in page.text
        assert "your servers are stopped" in page.text
        await left(marks[1])
        notebooks = Notebooks(second.browser, second.at("/htc/"), user.username)
        assert (await notebooks.call("GET", "api/status")).status == 200
        await second.log_out()
        await left(set())

        async def servers() -> bool:
            return not asked(own_hub, f"users/{user.username}")["servers"]

        await eventually(servers, within=SOON, every=0.3, what="the end of the servers")
        assert not running.events("hub_session_open")
        assert not any(believed(own_hub, kept) for kept in logins)
    finally:
        for somebody in people:
            await somebody.__aexit__(None, None, None)
        own_hub.stop()
