"""docs/from-apache.md: Apache as the page finds it, and hubgate as it leaves it, before the same hubs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubgate.ops.demo.child import Child, free_ports, is_free
from tests.docs.letters import follow, placed
from tests.kit.missing import missing
from tests.kit.person import Person
from tests.kit.scene import EchoHub, Scene

pytest_plugins = ["tests.kit.scene_fixtures"]
pytestmark = pytest.mark.apache
PAGE = "from-apache.md"
MODULES = (
    "mpm_event", "authn_core", "authz_core", "authz_user", "headers", "env", "slotmem_shm", "proxy",
    "proxy_http", "proxy_balancer", "lbmethod_byrequests", "proxy_wstunnel", "auth_openidc",
)  # fmt: skip


def program() -> str:
    found = shutil.which("apache2", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    if found is None:
        missing("apache", "no apache2: apt-get install apache2")
    if not Path("/usr/lib/apache2/modules/mod_auth_openidc.so").exists():
        missing("apache", "no mod_auth_openidc: apt-get install libapache2-mod-auth-openidc")
    return found


@pytest.fixture
def two_hubs(scene: Scene) -> list[EchoHub]:
    return [scene.hub("htc01"), scene.hub("htc02")]


@pytest.fixture
def apache(scene: Scene, two_hubs: list[EchoHub], tmp_path: Path) -> Iterator[str]:
    """The page's Apache; its address. Modules and folders are what a distribution's own files say around it."""
    binary, (port,) = program(), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    loads = "".join(f"LoadModule {each}_module /usr/lib/apache2/modules/mod_{each}.so\n" for each in MODULES)
    account = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    frame = (
        f"ServerRoot {tmp_path}\nPidFile {tmp_path}/pid\nErrorLog {tmp_path}/apache.log\nMutex sem\n{loads}{account}"
    )
    places = {
        "Listen 443": f"Listen 127.0.0.1:{port}",
        "https://id.example.org/realms/site": scene.provider.issuer,
        "https://jupyter.example.org": url,
        "CLIENT-SECRET": scene.provider.client_secret,
        "http://10.0.0.11:8000": two_hubs[0].url,
        "http://10.0.0.12:8000": two_hubs[1].url,
    }
    config = tmp_path / "apache2.conf"
    config.write_text(frame + placed(follow(PAGE, "before"), places))
    subprocess.run([binary, "-t", "-f", str(config)], check=True, capture_output=True, timeout=30)
    child = Child("apache", log=tmp_path / "apache-output.log")
    child.launch([binary, "-D", "FOREGROUND", "-f", str(config)])
    child.wait_until(lambda: not is_free(port), timeout=30)
    yield url
    child.stop()


async def test_the_same_person_is_the_same_to_the_hubs(
    scene: Scene, two_hubs: list[EchoHub], apache: str, tmp_path: Path
) -> None:
    user = scene.provider.create_user()
    async with Person(apache, scene.provider.origin) as browser:
        page = await browser.login(f"{apache}/htc/hub/home", user)
        assert page.status == 200, page
        (before,) = [got for hub in two_hubs for got in hub.received if got.target == "/htc/hub/home"]

    client, key = tmp_path / "client", tmp_path / "key"
    client.write_text(scene.provider.client_secret)
    key.write_text("for this test alone, and long enough for a key")
    after = placed(
        follow(PAGE, "after"),
        {
            "https://id.example.org/realms/site": scene.provider.issuer,
            "http://10.0.0.11:8000": two_hubs[0].url,
            "http://10.0.0.12:8000": two_hubs[1].url,
            "secrets/oidc-client-secret": client,
            "secrets/hubgate-key": key,
            'url = { file = "secrets/store-url" }': 'url = "memory://"',
            'public_url = "https://jupyter.example.org"': "",
            'listen = ["0.0.0.0:443"]': "",
        },
    )
    tables = tomllib.loads(after)
    at = scene.start(
        pools=tables.pop("pools"),
        provider=scene.provider,
        **{name: table for name, table in tables.items() if name != "store"},
    )
    at.sees(["htc01", "htc02"])
    somebody = scene.visitor(at, user=user)
    page = await somebody.arrive("/htc/hub/home")
    assert page.status == 200, page
    now = [got for hub in two_hubs for got in hub.received if got.target == "/htc/hub/home"][-1]

    assert before.values("REMOTE_USER") == now.values("REMOTE_USER") == [user.username]
    assert now.values("X-Hubgate-Assertion")
    # Sticky, as it was; and the socket that Apache's `upgrade=websocket` is for.
    assert {await somebody.hub() for _ in range(4)} == {await somebody.hub()}
    assert await (await somebody.socket()).echoes()
    # What a notebook is told differs: that is said in the table.
    await somebody.get("/htc/user/x/lab")
    last = [got for hub in two_hubs for got in hub.received if got.target == "/htc/user/x/lab"][-1]
    assert last.values("REMOTE_USER") == []
