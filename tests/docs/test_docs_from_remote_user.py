"""docs/from-remote-user.md, with the real jhub_remote_user_authenticator in a real hub, which then goes both steps."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubgate.ops.demo import hubs
from hubgate.ops.demo.child import free_ports
from tests.docs.letters import blocks, follow, placed
from tests.docs.written import WrittenHub
from tests.hub.playing import send
from tests.kit.notebooks import Notebooks
from tests.kit.scene import Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]
pytestmark = [pytest.mark.jupyterhub, pytest.mark.pypi]
PAGE = "from-remote-user.md"


@pytest.fixture
def old_hub(tmp_path: Path, hub_environment: Callable[[str], hubs.HubEnvironment]) -> Iterator[WrittenHub]:
    """A hub as the page finds it, behind an address that isn't served yet."""
    packages = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    subprocess.run([*pip, "jhub_remote_user_authenticator==0.1.0"], check=True, timeout=120)
    gateway_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    hub = WrittenHub(
        hub_environment(hubs.NEWEST), tmp_path / "htc01", name="htc01", path="/htc/", gateway_url=gateway_url
    )
    hub.env = {"PYTHONPATH": str(packages)}
    hub.written = follow(PAGE, "before")
    hub.start()
    hub.ready()
    yield hub
    hub.stop()


def known(hub: WrittenHub) -> list[str]:
    """Whom its database knows, by the page's question."""
    with sqlite3.connect(hub.folder / "jupyterhub.sqlite") as database:
        return [name for (name,) in database.execute("select name from users")]


async def test_people_keep_their_names_and_homes_in_both_steps(scene: Scene, old_hub: WrittenHub) -> None:
    user = scene.provider.create_user()

    # Before: whoever reaches the port is anybody.
    came = send(old_hub.url, "/htc/hub/login", [("REMOTE_USER", user.username)])
    assert came.status == 302
    assert known(old_hub) == [user.username]

    # Step 1
    (written,) = (tomllib.loads(block.text) for block in blocks(PAGE) if block.language == "toml")
    at = scene.gateway(
        pool("htc", {"name": "htc01", "url": old_hub.url}), public_url=old_hub.gateway_url, identity=written["identity"]
    )
    at.sees(["htc01"])
    somebody = scene.visitor(at, user=user)
    await works(somebody, "written at step 1")
    assert known(old_hub) == [user.username]
    forged = send(old_hub.url, "/htc/hub/login", [("REMOTE_USER", "mallory")])
    assert forged.status == 302, "this step has the weakness still, says the page"

    # Step 2
    old_hub.stop()
    old_hub.written = placed(follow(PAGE, "after"), {"https://jupyter.example.org": at.url})
    old_hub.start()
    old_hub.ready()
    at.sees(["htc01"])
    (said,) = old_hub.complaints()
    assert "logins for htc01 are taken from" in said
    again = await somebody.again()
    assert "written at step 1" in await works(again, "written at step 2")
    assert sorted(known(old_hub)) == sorted([user.username, "mallory"])
    forged = send(old_hub.url, "/htc/hub/login", [("REMOTE_USER", "mallory")])
    assert forged.status == 403
    assert "reason=assertion_missing" in old_hub.log.read_text()


async def works(somebody: Visitor, line: str) -> str:
    """Spawn, write a line into a file at home, and give what was in it before."""
    page = await somebody.arrive("/htc/hub/home")
    assert page.status == 200, page
    notebooks = Notebooks(somebody.browser, somebody.at("/htc/"), somebody.user.username)
    assert (await notebooks.spawn())[-1].get("ready")
    await notebooks.lab()
    before = await notebooks.call("GET", "api/contents/diary.txt")
    text = before.text if before.status == 200 else ""
    written = await notebooks.call(
        "PUT", "api/contents/diary.txt", {"type": "file", "format": "text", "content": f"{text}{line}\n"}
    )
    assert written.status in {200, 201}, written
    return text
