"""A part of the stand: a program of somebody else's that runs as our child.

It starts in a session of its own (a Ctrl-C in the terminal is ours to handle, in our order), writes to a log file, is
ready when it answers, and ends with everything that it started: JupyterHub puts each notebook server in a session of
its own, so the whole family is taken down by ancestry, not by group. Nothing here knows what the program is.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hubgate.errors import OperatorFault

_LEASH = Path(__file__).with_name("leash.py")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_POLL = 0.1
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_PORTS = (20_000, 32_000)  # below what Linux, macOS and the BSDs give to outgoing connections
_GIVEN: set[int] = set()
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


class Child:
    """One running program. `name` is what people read about it, `log` where its output goes."""

    def __init__(self, name: str, *, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, {f'pid {self.pid}' if self.alive else 'not running'}>"

    @property
    def pid(self) -> int:
        """Process id; 0 when it was never started."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    def launch(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Starts it. `env` is added to what we have ourselves. Call from the main thread: the leash is tied to it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *argv],
                env=clean_environment() | dict(env or {}),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Returns when `ready()` says so. OperatorFault when the program ends before that, or after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.alive:
                raise OperatorFault(
                    "part_ended", f"{self.name} ended by itself ({self.returncode}), its log says:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise OperatorFault(
                    "part_silent", f"{self.name} does not answer after {timeout:.0f} s, its log says:\n{self.tail()}"
                )
            time.sleep(_POLL)  # a foreign program has no event to wait for

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program itself, not to what it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, *, grace: float = 20) -> None:
        """Asks it to end, then sees to it, with all of its descendants. Safe to call twice."""
        if self._process is None:
            return
        family = descendants(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                family |= descendants(self._process.pid)
                self._process.kill()
                self._process.wait()
        end(family)

    def kill(self) -> None:
        """Ends it and its descendants at once, as a crash would."""
        if self._process is None:
            return
        family = descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        end(family)


def clean_environment(*, keep_proxies: bool = False) -> dict[str, str]:
    """Our environment without what would lead another program astray: our virtual environment, and web proxies.

    `keep_proxies` is for installers, which talk to the outside.
    """
    kept = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    if keep_proxies:
        return kept
    return {k: v for k, v in kept.items() if k.lower() not in _PROXIES} | {"NO_PROXY": "127.0.0.1,localhost"}


def descendants(pid: int) -> set[tuple[int, str]]:
    """Everything that `pid` started, and what that started: process id and start time (together never reused)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        found = _stat(int(entry.name))
        if found is not None:
            children.setdefault(found[0], []).append((int(entry.name), found[1]))
    family: set[tuple[int, str]] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            family.add(child)
            waiting.append(child[0])
    return family


def end(family: set[tuple[int, str]]) -> None:
    """Kills those of `family` that are still the processes that they were; returns when they are gone."""
    deadline = time.monotonic() + 10
    left = family
    while left and time.monotonic() < deadline:
        left = {(pid, started) for pid, started in left if (_stat(pid) or ("", ""))[1] == started}
        for pid, _ in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself just now
        if left:
            time.sleep(0.01)  # they are not our children: there is nothing to wait on


def _stat(pid: int) -> tuple[int, str] | None:
    """Parent and start time of a process, proc(5); None when there is none, or only its exit status is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, all different, and never the same twice.

    Not those that the system hands out (bind to 0): it gives them to outgoing connections as well, and a hub that
    starts some seconds later would find one taken.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(*_PORTS)  # noqa: S311  (a spread, no secret)
        if port not in _GIVEN and is_free(port):
            _GIVEN.add(port)
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    """Whether a listener on loopback could have this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def text_at(url: str, *, timeout: float = 2) -> str | None:
    """What a GET is answered with; None without an answer that means success."""
    try:
        with _DIRECT.open(url, timeout=timeout) as response:
            return str(response.read().decode("utf-8", "replace")) if 200 <= int(response.status) < 300 else None
    except (urllib.error.URLError, OSError, ValueError):
        return None


def answers(url: str, *, timeout: float = 2) -> bool:
    """Whether a GET is answered with success."""
    return text_at(url, timeout=timeout) is not None
