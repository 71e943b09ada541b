"""`hubgate demo`, as somebody at a terminal runs it: up, used, ended, and nothing left."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubgate.ops import demo
from hubgate.ops.demo import realm
from hubgate.ops.demo.child import Child, descendants, free_ports
from hubgate.ops.demo.hubs import HubEnvironment
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.stand import Stand
from tests.kit.person import Person

HUBGATE = Path(sys.executable).with_name("hubgate")
COLUMNS, ROWS = 80, 24


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HUBGATE, "demo", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Child]:
    child = Child("hubgate demo", log=tmp_path / "screen")
    yield child
    child.stop()


@pytest.mark.redis
async def test_the_demo_comes_up_is_used_and_leaves_nothing(
    terminal: Child,
    hub_environment: Callable[..., HubEnvironment],
    person: Callable[..., Person],
) -> None:
    hub_environment()
    port = free_ports(1)[0]
    terminal.launch([str(HUBGATE), "demo", "--port", str(port), "--provider", "embedded"])
    terminal.wait_until(lambda: "Ctrl-C ends all of it." in terminal.tail(40), timeout=240)
    url = f"http://127.0.0.1:{port}"
    assert url in terminal.tail(40)
    family = descendants(terminal.pid)
    assert len(family) >= 8  # three hubs with their proxies, a Redis, the provider, the gateway

    alice = realm.users(realm.document())["alice"]
    code = run("code", "alice")
    page = await person(url).login(f"{url}/hpc/hub/home", alice, code=code.stdout.strip())
    assert (page.status, page.url) == (200, f"{url}/hpc/hub/home"), page
    bob = realm.users(realm.document())["bob"]
    newcomer = person(url)
    page = await newcomer.login(f"{url}/htc/hub/home", bob)
    assert (page.status, page.url) == (200, f"{url}/htc/hub/home"), page
    assert newcomer.totp_key

    terminal.send(signal.SIGINT)
    terminal.wait_until(lambda: terminal.tail(1).endswith("nothing is left running"), timeout=60)
    terminal.stop()
    assert terminal.returncode == 0
    assert not family & descendants(1)


def test_what_is_printed_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand(tmp_path, demo.PORT, "auto", Progress(quiet=True))
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(demo, "_ourselves", lambda: ".venv/bin/hubgate")
    stand.provider = "Keycloak 26.5.6 at http://127.0.0.1:8889\n  (its administrator: admin / admin-demo)"
    stand.redis_version = "7.0.15"
    lines = demo.welcome(stand).splitlines()
    assert len(lines) < ROWS
    assert max(map(len, lines)) <= COLUMNS
    text = "\n".join(lines)
    for user in realm.users(realm.document()).values():
        assert user.username in text
        assert user.password in text


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is in use: choose another one with --port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["80", "70000", "many"])
def test_a_port_that_can_not_be_is_told(port: str) -> None:
    done = run("--port", port)
    assert done.returncode == 2
    assert "a port from 1024 to 65534" in done.stderr


def test_codes_in_a_terminal() -> None:
    code = run("code", "carol")
    assert code.returncode == 0
    assert len(code.stdout.strip()) == 6
    assert "once" in code.stderr
    for nobody in ("bob", "mallory"):
        refused = run("code", nobody)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert "Traceback" not in refused.stderr
