"""The kit is held to what it promises: a part that lies would make every other test lie."""

from __future__ import annotations

import signal
import socket
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from hubgate.errors import OperatorFault
from hubgate.ops.demo import codes, hubs, realm, settings
from hubgate.ops.demo.child import Child, answers, descendants
from hubgate.ops.demo.redis import RedisServer
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider

# RFC 6238, appendix B: SHA-1, the last six of the eight digits.
RFC6238_KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
RFC6238 = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 20000000000: "353130"}


@pytest.mark.parametrize(("at", "code"), RFC6238.items())
def test_codes_are_those_of_the_rfc(at: int, code: str) -> None:
    assert codes.code(RFC6238_KEY, at) == code


def test_a_key_as_people_type_it() -> None:
    assert codes.code("gezd gnbv gy3t qojq gezd gnbv gy3t qojq", 59) == "287082"
    for wrong in ("", "  ", "mallory", "0189018901890189"):
        with pytest.raises(ValueError):
            codes.code(wrong, 59)


def test_a_code_lasts_to_the_end_of_its_period() -> None:
    assert [codes.seconds_left(at) for at in (0, 29, 30, 59.9)] == [30, 1, 30, 1]


def test_settings_survive_toml() -> None:
    value: dict[str, Any] = {
        "gateway": {"public_url": "http://127.0.0.1:1", "listen": ["a:1", "b:2"], "secret_keys": [{"env": "KEY"}]},
        "identity": {"map": {"x@y.z": 'quo"ted\n', "ü": "\x7f"}},
        "limits": {"n": 1, "f": 1.5, "on": True},
        "pools": [
            {"name": "a", "groups": [], "hubs": [{"name": "h", "url": "u"}, {"name": "i", "api_token": {"file": "t"}}]},
            {"name": "b", "hubs": [{"name": "j"}]},
        ],
    }
    text = settings.to_toml(value, "A heading\n\nof three lines")
    assert tomllib.loads(text) == value
    assert text.startswith("# A heading\n#\n# of three lines\n")


def test_settings_are_laid_over_table_by_table() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 3, "gone": {}}
    assert settings.merged(base, {"a": {"y": 4}, "c": 5, "gone": None}) == {"a": {"x": 1, "y": 4}, "b": 3, "c": 5}
    assert base["a"] == {"x": 1, "y": 2}


def test_the_realm_lets_the_client_return_where_it_is_told_and_nowhere_else() -> None:
    client = realm.for_addresses(["http://127.0.0.1:8888"])["clients"][0]
    assert client["redirectUris"] == ["http://127.0.0.1:8888/_hubgate/callback"]
    assert client["attributes"]["post.logout.redirect.uris"] == "http://127.0.0.1:8888/*"
    people = realm.users(realm.document())
    assert {name for name, user in people.items() if user.totp_key} == {"alice", "carol"}
    assert "hpc-users" not in people["bob"].groups


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = "import time; print('grandchild', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", grandchild], start_new_session=True)
time.sleep(600)
"""


def test_stopping_a_child_ends_its_whole_family(tmp_path: Path) -> None:
    child = Child("stubborn", log=tmp_path / "log")
    child.launch([sys.executable, "-c", FAMILY])
    child.wait_until(lambda: "grandchild" in child.tail(), timeout=60)
    family = descendants(child.pid)
    assert len(family) == 1
    child.stop(grace=0.2)
    assert not child.alive
    assert child.returncode == -signal.SIGKILL
    assert not family & descendants(1)
    child.stop()


def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child("shortlived", log=tmp_path / "log")
    child.launch([sys.executable, "-c", "print('so long'); raise SystemExit(3)"])
    with pytest.raises(OperatorFault, match=r"(?s)shortlived ended by itself \(3\).*so long"):
        child.wait_until(lambda: False, timeout=60)


def test_a_child_that_never_answers_is_told_too(tmp_path: Path) -> None:
    child = Child("mute", log=tmp_path / "log")
    child.launch([sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(OperatorFault, match="mute does not answer after 0 s"):
        child.wait_until(lambda: False, timeout=0.2)
    child.kill()
    assert child.returncode == -signal.SIGKILL


def test_redis_comes_back_on_its_port_with_what_it_had(fresh_redis: RedisServer) -> None:
    def ask(command: str) -> bytes:
        with socket.create_connection(("127.0.0.1", fresh_redis.port), timeout=60) as wire:
            wire.sendall(f"AUTH {fresh_redis.password}\r\n{command}\r\nQUIT\r\n".encode())
            return b"".join(iter(lambda: wire.recv(4096), b""))

    assert b"+OK" in ask("SET kept yes")
    fresh_redis.stop()
    fresh_redis.start()
    fresh_redis.ready()
    assert b"yes" in ask("GET kept")


async def test_a_scripted_login_passes_keycloak_with_password_and_code(
    keycloak: KeycloakProvider, person: Callable[..., Person]
) -> None:
    user = keycloak.create_user()
    page = await person(keycloak.origin).login(f"{keycloak.issuer}/account", user)
    assert page.status == 200
    assert page.form_with("password") is None
    assert keycloak.user_id(user.username)


async def test_keycloak_can_have_further_realms(keycloak: KeycloakProvider) -> None:
    other = keycloak.create_realm("another")
    assert answers(f"{other.issuer}/.well-known/openid-configuration")
    assert other.client_secret != keycloak.client_secret


def test_a_hub_answers_below_its_pool(hub: Callable[..., hubs.Hub]) -> None:
    running = hub("htc01")
    assert answers(f"{running.url}/htc/hub/api/")
    assert hub("htc01") is running


async def test_chromium_shows_a_page(chromium: Browser) -> None:
    page = await chromium.new_page()
    await page.goto("data:text/html,<title>hello</title>")
    assert await page.title() == "hello"


def test_a_hub_that_is_asked_to_end_takes_its_proxy_with_it(
    tmp_path: Path, hub_environment: Callable[..., hubs.HubEnvironment]
) -> None:
    """By itself, as when its parent was killed and nobody sweeps up."""
    hub = hubs.Hub(hub_environment(), tmp_path, name="h", path="/h/", gateway_url="http://127.0.0.1:9")
    hub.start()
    hub.ready()
    family = descendants(hub.pid)
    hub.send(signal.SIGTERM)
    with pytest.raises(OperatorFault, match="ended by itself"):
        hub.wait_until(lambda: False, timeout=60)
    assert family
    assert not family & descendants(1)
