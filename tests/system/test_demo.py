"""`hubgate demo`, as somebody at a terminal runs it: up, used, ended, and nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from hubgate.ops import demo
from hubgate.ops.demo import codes, realm, stand
from hubgate.ops.demo.child import descendants, free_ports, is_free
from hubgate.ops.demo.hubs import HubEnvironment
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.stand import Stand
from hubgate.ops.exits import Exit
from tests.kit.newcomer import COLUMNS, ROWS, Newcomer, Terminal

HUBGATE = str(Path(sys.executable).with_name("hubgate"))
ENDED = "nothing is left running"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HUBGATE, "demo", *words], capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def run_in_terminal(*words: str) -> Terminal:
        opened.append(Terminal([HUBGATE, "demo", *words]))
        return opened[-1]

    yield run_in_terminal
    for each in opened:
        if each.process.poll() is None:
            each.process.send_signal(signal.SIGTERM)
            each.process.wait(180)


@pytest.mark.redis
async def test_the_demo_comes_up_is_used_and_leaves_nothing(
    terminal: Callable[..., Terminal], hub_environment: Callable[..., HubEnvironment], chromium: Browser
) -> None:
    """From the landing page to a cell that ran, in both pools; somebody new enrols a phone, and the terminal can tell
    its codes from then on.
    """
    hub_environment()
    port = free_ports(1)[0]
    url, ours = f"http://127.0.0.1:{port}", ("--port", str(port))
    screen = terminal(*ours, "--provider", "embedded", "--mfa", "gateway")
    screen.wait_for("Ctrl-C ends all of it.", timeout=600)
    assert url in screen.text
    assert (
        len(descendants(screen.process.pid)) >= 8
    )  # three hubs with their proxies, a Redis, the provider, the gateway

    alice = Newcomer(await chromium.new_page(), url)
    await alice.give_password("alice", "alice-demo")
    await alice.give_code(run(*ours, "code", "alice").stdout.strip())
    await alice.page.wait_for_url(f"{url}/")
    for pool, printed in (("htc", "9592 primes"), ("hpc", "2 ranks, 2000 steps")):
        await alice.open_pool(pool)
        assert printed in await alice.run_cell(0)
    assert "alice" in await alice.run_cell(1)
    assert "refused: 403 assertion_missing" in await alice.run_cell(2)

    bob = Newcomer(await (await chromium.new_context()).new_page(), url)
    await bob.give_password("bob", "bob-demo")
    refused = run(*ours, "code", "bob")
    assert (refused.returncode, refused.stdout) == (Exit.START, "")
    key = await bob.typed_key()
    await bob.give_code(run(*ours, "code", key).stdout.strip())
    await bob.page.locator("form.ask").wait_for(state="detached")
    assert key in run(*ours, "qr", "bob").stdout

    family = descendants(screen.process.pid)
    screen.type("\x03")
    assert screen.ended(timeout=180) == Exit.OK
    assert ENDED in screen.text
    assert not family & descendants(1)
    assert is_free(port)


@pytest.mark.redis
@pytest.mark.parametrize("how", ["terminal closed", "twice Ctrl-C", "SIGTERM"])
def test_whoever_leaves_while_it_starts_leaves_nothing(
    terminal: Callable[..., Terminal], hub_environment: Callable[..., HubEnvironment], how: str
) -> None:
    hub_environment()
    screen = terminal("--port", str(free_ports(1)[0]), "--provider", "embedded")
    screen.wait_for("hpc01: starting", timeout=300)
    family = descendants(screen.process.pid)
    assert len(family) >= 4
    match how:
        case "terminal closed":
            screen.close()
        case "twice Ctrl-C":
            screen.type("\x03\x03")
        case _:
            screen.process.send_signal(signal.SIGTERM)
    number = {"terminal closed": signal.SIGHUP, "twice Ctrl-C": signal.SIGINT}.get(how, signal.SIGTERM)
    assert screen.ended(timeout=180) == 128 + number
    assert not family & descendants(1)


def test_what_is_printed_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(demo, "_ourselves", lambda port: f".venv/bin/hubgate demo --port {port}")
    for factor in ("keycloak", "gateway"):
        up = Stand(tmp_path / "demo" / "18800", 18800, "auto", Progress(quiet=True), factor=factor)
        up.provider = "Keycloak 26.5.6 at http://127.0.0.1:18801 (admin / admin-demo)"
        text = demo.welcome(up)
        lines = text.splitlines()
        assert len(lines) < ROWS, text
        assert max(map(len, lines)) <= COLUMNS, text
        for user in realm.users(realm.document()).values():
            assert user.username in text
            assert user.password in text
        for hub in ("htc01", "htc02", "hpc01"):
            assert hub in text


def test_a_port_that_is_taken_is_told_with_its_holder() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == Exit.START
    assert f"port {port} is taken" in done.stderr
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in done.stderr
    assert f"hubgate demo --port {port + 100}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["80", "70000", "many"])
def test_a_port_that_can_not_be_is_told(port: str) -> None:
    done = run("--port", port)
    assert done.returncode == Exit.USAGE
    assert "a port from 1024 to 65534" in done.stderr


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUBGATE_CACHE", str(tmp_path))
    monkeypatch.setitem(stand._ROOM, "first", 10**9)
    before = {number: signal.getsignal(number) for number in demo._SIGNALS}
    try:
        assert demo.main(["--port", str(free_ports(1)[0])]) == Exit.START
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        demo.command._abandoned.clear()
    said = capsys.readouterr().err
    assert "1000000000 MB are needed" in said
    assert "HUBGATE_CACHE" in said
    assert not (tmp_path / "envs").exists()


def test_codes_in_a_terminal() -> None:
    for code in (run("code", "carol"), run("--port", "2000", "code", "carol")):
        assert code.returncode == Exit.OK
        assert len(code.stdout.strip()) == 6
        assert "once" in code.stderr
    for nobody in ("bob", "mallory"):
        for word in ("code", "qr"):
            refused = run("--port", "2000", word, nobody)
            assert refused.returncode == Exit.START
            assert refused.stdout == ""
            assert "Traceback" not in refused.stderr


def test_soon_the_next_code_is_told_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    key = realm.users(realm.document())["alice"].totp_key
    monkeypatch.setattr(demo.time, "time", lambda: 1_000_000_015.0)
    assert demo.main(["--port", "2000", "code", "alice"]) == Exit.OK
    said = capsys.readouterr()
    assert said.out.strip() == codes.code(key, 1_000_000_015)
    assert f"good for 5 s, and once, then {codes.code(key, 1_000_000_020)}" in said.err


def test_a_qr_code_fits_a_terminal() -> None:
    shown = run("qr", "alice")
    lines = shown.stdout.splitlines()
    assert shown.returncode == Exit.OK
    assert len(lines) < ROWS
    assert max(map(len, lines)) <= COLUMNS
    assert "MFWG SY3F" in lines[-1]
