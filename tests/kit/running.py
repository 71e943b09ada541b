"""A gateway process as a test sees it: its addresses, and what it wrote."""

from __future__ import annotations

import itertools
import json
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubgate.ops.demo import settings
from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.gateway import Gateway
from tests.kit.provider import Provider

SECRET_KEY = "for tests only, and the same in a whole run: hubs remember our keys"
"""`secret_keys` of every test's gateway, unless it says otherwise."""


class RunningGateway(Gateway):
    """A `hubgate serve` of a test's own. Access log, audit log and log all go to `log`."""

    def output(self) -> str:
        """Everything that it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines among it, but one that is just being written."""
        whole = self.output().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log and the audit log with this event."""
        return [line for line in self.lines() if line.get("event") == name]

    def reload(self) -> None:
        """Returns when workers with the configuration as it is now have taken over, and only they take people on.

        AssertionError when they were refused.
        """
        done, left, refused = (len(self.events(name)) for name in ("reloaded", "leaving", "reload_refused"))
        self.send(signal.SIGHUP)
        self.wait_until(
            lambda: len(self.events("reloaded") + self.events("reload_refused")) > done + refused, timeout=60
        )
        assert len(self.events("reload_refused")) == refused, self.tail()
        self.wait_until(lambda: len(self.events("leaving")) > left, timeout=60)

    @property
    def worker(self) -> int:
        """The process that serves, or of several the one that began last. `pid` may be its parent."""
        return int(self.events("serving")[-1]["pid"])


class Gateways:
    """Starts `hubgate serve` processes, with their files in `folder`, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[RunningGateway] = []
        self._numbers = itertools.count(1)

    def start(
        self,
        *,
        pools: Sequence[Mapping[str, Any]] = (),
        provider: Provider | None = None,
        store_url: str = "memory://",
        public_url: str = "",
        ready: bool = True,
        **tables: Mapping[str, Any],
    ) -> RunningGateway:
        """One more gateway.

        `pools` as in the TOML file; `provider` is who people log in at (None: nobody is there); further keywords are
        tables that are laid over the rest, e.g. `session={"idle": "2s"}`. With `ready=False` it need only run.
        """
        name = f"gateway{next(self._numbers)}"
        port, ops_port, nobody = free_ports(3)
        url = public_url or f"http://127.0.0.1:{port}"
        base = settings.gateway(
            public_url=url,
            listen=[url.partition("://")[2]],
            ops_listen=f"127.0.0.1:{ops_port}",
            secret_keys=[SECRET_KEY],
            store_url=store_url,
            issuer=provider.issuer if provider else f"http://127.0.0.1:{nobody}/nobody",
            client=provider.client if provider else ("hubgate", secrets.token_urlsafe(16)),
            pools=[dict(pool) for pool in pools],
        )
        config = self._folder / f"{name}.toml"
        config.write_text(settings.to_toml(settings.merged(base, tables)))
        config.chmod(0o600)
        ops_url = f"http://127.0.0.1:{ops_port}"
        running = RunningGateway(config, url=url, ops_url=ops_url, log=self._folder / f"{name}.log", name=name)
        self._started.append(running)
        running.start()
        running.listening()
        if ready and provider is not None:
            running.ready()
        return running

    def stop(self) -> None:
        """Ends those that still run."""
        for each in self._started:
            each.stop()
