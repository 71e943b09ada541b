"""A real JupyterHub behind configurable-http-proxy hangs, dies and is started again: whoever computes goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubgate.ops.demo.child import descendants, end, free_ports
from hubgate.ops.demo.hubs import Hub, HubEnvironment
from tests.kit.background import eventually
from tests.kit.notebooks import Notebooks
from tests.kit.running import RunningGateway
from tests.kit.scene import Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

# The proxy outlives its hub, and so do notebooks.
KEEP = """
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.cleanup_servers = False
"""


@pytest.fixture
def real_hub(hub_environment: Callable[[str], HubEnvironment], tmp_path: Path) -> Iterator[Hub]:
    """A hub of this test's own, not started yet."""
    gateway_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    made = hub_environment("6.1")
    hub = Hub(made, tmp_path / "htc01", name="htc01", path="/htc/", gateway_url=gateway_url, extra=KEEP)
    yield hub
    hub.stop()


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # it has ended by itself


async def condition(gateway: RunningGateway) -> str:
    events = gateway.events("upstream_condition")
    return str(events[-1]["condition"]) if events else ""


async def becomes(gateway: RunningGateway, wanted: str) -> None:
    async def there() -> bool:
        return await condition(gateway) == wanted

    await eventually(there, within=120, every=0.1, what=f"a hub that is {wanted}")


async def waits(somebody: Visitor) -> None:
    page = await somebody.get()
    assert page.status == 503, page
    assert "<bdi>htc01</bdi> is not answering" in page.text
    assert (await somebody.fetch("/htc/hub/api/user")).headers["Retry-After"]


async def test_notebooks_survive_their_hub(scene: Scene, real_hub: Hub) -> None:
    gateway = scene.gateway(
        pool("htc", {"name": "htc01", "url": real_hub.url}),
        public_url=real_hub.gateway_url,
        health={"timeout": "5s"},
    )
    real_hub.start()
    real_hub.ready()
    await becomes(gateway, "up")
    somebody = await scene.logged_in(gateway)
    work = Notebooks(somebody.browser, somebody.at("/htc/"), somebody.user.username)
    await work.spawn()
    assert (await work.lab()).status == 200
    kernel = await work.start_kernel()
    family: set[tuple[int, str]] = set()
    try:
        async with work.socket(f"api/kernels/{kernel}/channels") as channels:
            assert await work.run(channels, "x = 41; print(x)") == "41\n"

            # The hub hangs; its proxy takes requests for it and gets no answer.
            real_hub.send(signal.SIGSTOP)
            await becomes(gateway, "hub_down")
            await waits(somebody)
            assert await work.run(channels, "x += 1; print(x)") == "42\n"
            assert (await work.call("GET", "api/kernels")).status == 200
            real_hub.send(signal.SIGCONT)
            await becomes(gateway, "up")
            assert (await somebody.get()).status == 200

            # The hub dies; its proxy answers 503 for it.
            family = descendants(real_hub.pid)
            os.kill(real_hub.pid, signal.SIGKILL)
            await becomes(gateway, "hub_down")
            await waits(somebody)
            assert await work.run(channels, "x += 1; print(x)") == "43\n"
            assert (await work.call("GET", "api/kernels")).status == 200

        # It is started again, with another proxy: nobody logs in again, and the kernel has what it had.
        before = somebody.cookies
        end({each for each in family if "configurable-http-proxy" in command_line(each[0])})
        real_hub.start()
        await becomes(gateway, "up")
        assert (await somebody.get()).status == 200
        assert somebody.cookies == before
        async with work.socket(f"api/kernels/{kernel}/channels") as channels:
            assert await work.run(channels, "print(x)") == "43\n"
        await work.stop()
    finally:
        end(family)
