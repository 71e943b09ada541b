"""What a person reads while the demo installs and starts, and how installers end that nobody waits for any more."""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubgate.errors import OperatorFault
from hubgate.ops.demo import command, packages, ports
from hubgate.ops.demo.child import descendants
from hubgate.ops.demo.progress import Progress


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HUBGATE_CACHE", str(tmp_path))
    yield tmp_path
    command._abandoned.clear()


def work(progress: Progress) -> None:
    with progress.step("hub", "installing", "installed"), progress.step("keycloak", "unpacking", "unpacked"):
        time.sleep(0.4)
    progress.say("all", "well")


def test_a_log_gets_a_line_for_each_beginning_and_end() -> None:
    log = io.StringIO()
    work(Progress(log))
    lines = [line.split() for line in log.getvalue().splitlines()]
    assert [line[:3] for line in lines] == [
        ["hub", "installing", "…"],
        ["keycloak", "unpacking", "…"],
        ["keycloak", "unpacked,", lines[2][2]],
        ["hub", "installed,", lines[3][2]],
        ["all", "well"],
    ]
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()


def test_a_terminal_has_one_line_that_lives_and_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    shown = ""
    with os.fdopen(theirs, "w") as screen:
        progress = Progress(screen)
        with progress.step("hub", "installing", "installed"), progress.step("keycloak", "unpacking", "unpacked"):
            while not re.search(r"\r\x1b\[K  … hub: installing \d+ s · keycloak: unpacking \d+ s", shown):
                shown += os.read(ours, 65536).decode()
        progress.say("all", "well")
        while "well\r\n" not in shown:
            shown += os.read(ours, 65536).decode()
    os.close(ours)
    stayed = [line.rpartition("\r")[2].removeprefix("\x1b[K").split() for line in shown.split("\r\n") if line]
    assert [line[0] for line in stayed] == ["keycloak", "hub", "all"]


def test_a_terminal_that_was_closed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    os.close(ours)
    with os.fdopen(theirs, "w") as screen:
        work(Progress(screen))


def test_an_installer_that_fails_is_told_with_its_last_words_and_what_to_do() -> None:
    with pytest.raises(OperatorFault) as caught:
        command.run("the thing", [sys.executable, "-c", "print('no such host'); raise SystemExit(7)"])
    for words in ("the thing could not be installed (exit status 7)", "no such host", "PIP_INDEX_URL", "the-thing.log"):
        assert words in caught.value.message


def test_an_installer_that_is_not_there_is_told() -> None:
    with pytest.raises(OperatorFault, match=r"the thing could not be installed .*no-such-program"):
        command.run("the thing", ["/no-such-program"])


def test_installers_end_with_all_that_they_started_when_nobody_waits_any_more() -> None:
    faults: list[OperatorFault] = []
    before = descendants(os.getpid())

    def install() -> None:
        try:
            command.run("slow", ["sh", "-c", "sleep 600 & sleep 600"])
        except OperatorFault as fault:
            faults.append(fault)

    thread = threading.Thread(target=install)
    thread.start()
    deadline = time.monotonic() + 30
    while len(family := descendants(os.getpid()) - before) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.abandon()
    thread.join(30)
    assert [fault.code for fault in faults] == ["install_failed"]
    assert not family & descendants(1)
    with pytest.raises(OperatorFault) as caught:
        command.run("next", ["true"])
    assert caught.value.code == "abandoned"


def test_pip_takes_the_place_of_uv_where_that_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_uv", lambda: "/bin/false")
    packages.install("it", Path(sys.executable), ["--help"])
    assert (cache / "logs/it-uv.log").exists()
    assert "pip install" in (cache / "logs/it-pip.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_who_holds_a_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert ports.holder(port) == ""
        taken.listen()
        assert ports.holder(port).endswith(f"(pid {os.getpid()})")
    assert ports.holder(port) == ""
