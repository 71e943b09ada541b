"""docs/install.md and docs/hubs.md, followed by their letters, from the first secret to the first notebook."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubgate.ops.demo import hubs, realm, redis
from hubgate.ops.demo.child import Child, free_ports
from hubgate.ops.demo.embedded import EmbeddedProvider
from tests.docs.letters import blocks, follow, placed, typed
from tests.docs.written import WrittenHub
from tests.kit.certificates import Authority
from tests.kit.notebooks import Notebooks
from tests.kit.person import Person
from tests.kit.running import RunningGateway

PAGE = "install.md"
pytestmark = [pytest.mark.redis, pytest.mark.jupyterhub]


@pytest.fixture
def parts() -> Any:
    started: list[Child] = []
    yield started
    for each in reversed(started):
        each.stop()


async def test_the_page_leads_from_nothing_to_the_first_notebook(
    tmp_path: Path, parts: list[Child], hub_environment: Callable[[str], hubs.HubEnvironment]
) -> None:
    port, ops, redis_port = free_ports(3)
    etc = tmp_path / "etc"
    provider = EmbeddedProvider(tmp_path)
    hub = WrittenHub(
        hub_environment(hubs.NEWEST),
        tmp_path / "htc01",
        name="htc01",
        path="/htc/",
        gateway_url=f"https://localhost:{port}",
    )
    nobody = free_ports(2)
    places = {
        "https://jupyter.example.org": f"https://localhost:{port}",
        "https://id.example.org/realms/site": provider.issuer,
        "http://10.0.0.11:8000": hub.url,
        "http://10.0.0.12:8000": f"http://127.0.0.1:{nobody[0]}",
        "http://10.0.1.11:8000": f"http://127.0.0.1:{nobody[1]}",
        "0.0.0.0:8443": f"127.0.0.1:{port}",
        "127.0.0.1:9090": f"127.0.0.1:{ops}",
        "127.0.0.1:6379": f"127.0.0.1:{redis_port}",
        "10.0.0.2": "127.0.0.1",
        "/etc/hubgate": etc,
    }

    def type_(text: str) -> str:
        return typed(placed(text, places), cwd=tmp_path)

    # 2 and 3: secrets, Redis
    type_(follow(PAGE, "secrets"))
    assert {path.stat().st_mode & 0o077 for path in (etc / "secrets").iterdir()} == {0}
    settings = tmp_path / "redis.conf"
    system = f"bind 127.0.0.1\nport {redis_port}\ndir {tmp_path}\n"
    settings.write_text(system + placed(follow(PAGE, "redis"), places))
    store = Child("redis", log=tmp_path / "redis.log")
    parts.append(store)
    store.launch([redis.executable(), str(settings)], cwd=tmp_path)
    store.wait_until(lambda: "PONG" in _or_nothing(type_, follow(PAGE, "redis-works")), timeout=60)

    # 4 is docs/keycloak.md, with a test of its own. The certificate comes from an authority.
    client_id, client_secret = realm.client(realm.document())
    assert client_id == "hubgate"
    authority = Authority(tmp_path)
    _brought(etc / "secrets" / "oidc-client-secret", client_secret + "\n")
    issued = authority.issue("localhost")
    _brought(etc / "tls.pem", Path(issued.certificate))
    _brought(etc / "secrets" / "tls-key.pem", Path(issued.key))
    parts.append(provider)
    provider.start()
    provider.ready()

    # 5 and 6: the configuration, and what is said about it
    config = etc / "config.toml"
    (written,) = (block.text for block in blocks(PAGE) if block.language == "toml")
    config.write_text(placed(written, places))
    said = type_(follow(PAGE, "check"))
    assert said == placed(follow(PAGE, "check-says"), places)
    assert follow(PAGE, "serve").strip() == "hubgate serve -c /etc/hubgate/config.toml"
    at = RunningGateway(
        config, url=f"https://localhost:{port}", ops_url=f"http://127.0.0.1:{ops}", log=tmp_path / "gateway.log"
    )
    parts.append(at)
    at.start()
    at.ready()
    assert type_(follow(PAGE, "ready")) == "ready\n"
    assert at.events("store_advice") == []

    # 7: the hub
    hub.written = placed(follow("hubs.md", "settings"), places)
    # The test's authority is known to no system; hub/README.md says what to do then.
    hub.env = {"SSL_CERT_FILE": authority.file}
    parts.append(hub)
    hub.start()
    hub.ready()
    (said,) = hub.complaints()
    assert f"logins for htc01 are taken from https://localhost:{port}" in said
    at.sees(["htc01"])

    # 8: what a person meets
    user = realm.users(realm.document())["alice"]
    async with Person(at.url, provider.issuer, ssl=ssl.create_default_context(cafile=authority.file)) as browser:
        page = await browser.login(at.url + "/", user)
        assert page.status == 200, page
        assert "High-performance computing" in page.text
        page = await browser.get(f"{at.url}/htc/hub/home")
        assert page.status == 200, page
        notebooks = Notebooks(browser, f"{at.url}/htc/", "alice")
        assert (await notebooks.spawn())[-1].get("ready")
        page = await browser.get(at.url + "/")
        await browser.submit(page, next(form for form in page.forms if form.action.endswith("/_hubgate/logout")))
        page = await browser.get(at.url + "/")
        assert page.form_with("password"), page


def _brought(place: Path, what: str | Path) -> None:
    """What comes from elsewhere: somebody has put it there with `umask 077`."""
    place.touch(mode=0o600)
    place.write_text(what if isinstance(what, str) else what.read_text())


def _or_nothing(type_: Callable[[str], str], text: str) -> str:
    try:
        return type_(text)
    except AssertionError:
        return ""
