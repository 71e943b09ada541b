"""A serving process, seen from outside: what it logs, where it listens, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

SCRIPT = Path(__file__).with_name("gateway_in_test.py")
PATIENCE = 60.0

CONFIG = """
[gateway]
public_url = "http://127.0.0.1:8080"
listen = {listen}
ops_listen = "127.0.0.1:0"
workers = {workers}
secret_keys = ["0123456789abcdef0123456789abcdef"]
[limits]
stop_grace = "{grace}"
stop_notice = "{notice}"
[log]
audit = "{audit}"
[oidc]
issuer = "https://id.example.org/realms/site"
client_id = "hubgate"
client_secret = "s"
[[pools]]
name = "htc"
path = "/htc/"
[[pools.hubs]]
name = "htc01"
url = "http://127.0.0.1:9"
{more}
"""


def write_config(
    directory: Path,
    *,
    listen: str = '["127.0.0.1:0"]',
    workers: int = 1,
    grace: str = "20s",
    notice: str = "0s",
    audit: str = "-",
    more: str = "",
) -> Path:
    """Without a [store] in `more`, one worker has memory:// and is all alone."""
    path = directory / "hubgate.toml"
    if workers == 1 and "[store]" not in more:
        more += '\n[store]\nurl = "memory://"\n'
    given = {"listen": listen, "workers": workers, "grace": grace, "notice": notice, "audit": audit}
    path.write_text(CONFIG.format(**given, more=more))
    return path


class Serving:
    """`python gateway_in_test.py CONFIG` (or another command), in a process group of its own."""

    def __init__(self, config: Path, *, env: Mapping[str, str] | None = None, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or [sys.executable, str(SCRIPT), str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Killed, it leaves its directory of metrics behind: in that of the test.
            env=os.environ | {"TMPDIR": str(config.parent)} | dict(env or {}),
            start_new_session=True,
        )
        self.errors: queue.Queue[str | None] = queue.Queue()
        self.output: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        for stream, lines in ((self.process.stderr, self.errors), (self.process.stdout, self.output)):
            threading.Thread(target=_read, args=(stream, lines), daemon=True).start()
        self.ports: list[tuple[str, int]] = []
        self.ops: tuple[str, int] = ("", 0)
        self.workers: list[int] = []

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        # Workers, too, and those of a parent that is gone.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def event(self, *names: str) -> dict[str, Any]:
        """Wait for the next log line about one of these events."""
        while (line := self.errors.get(timeout=PATIENCE)) is not None:
            self.seen.append(line)
            record: dict[str, Any] = json.loads(line)
            if record["event"] in names:
                return record
        raise AssertionError(f"ended without {names}:\n" + "\n".join(self.seen))

    def line(self, log: str) -> dict[str, Any]:
        """Wait for the next line of the access or audit log on standard output."""
        while (line := self.output.get(timeout=PATIENCE)) is not None:
            record: dict[str, Any] = json.loads(line)
            if record["log"] == log:
                return record
        raise AssertionError(f"ended without a line of {log}")

    def until_serving(self, workers: int = 1) -> Serving:
        for _ in range(workers):
            record = self.event("serving")
            self.workers.append(record["pid"])
        self.ports = [_address(text) for text in record["listen"]]
        (self.ops,) = (_address(text) for text in record["ops"])
        return self

    def ended(self) -> int:
        """Wait for the end; the exit status. All output is then in `seen`."""
        code = self.process.wait(PATIENCE)
        while (line := self.errors.get(timeout=PATIENCE)) is not None:
            self.seen.append(line)
        return code

    def get(
        self, path: str = "/", *, address: tuple[str, int] | None = None, tls: ssl.SSLContext | None = None
    ) -> tuple[int, str]:
        """Ask on a new connection; status and body."""
        host, port = address or self.ports[0]
        make: Callable[[], http.client.HTTPConnection] = (
            (lambda: http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=tls))
            if tls
            else (lambda: http.client.HTTPConnection(host, port, timeout=PATIENCE))
        )
        connection = make()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _read(stream: IO[bytes] | None, lines: queue.Queue[str | None]) -> None:
    assert stream is not None
    for line in stream:
        lines.put(line.decode().rstrip("\n"))
    lines.put(None)
