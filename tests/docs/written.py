"""A real JupyterHub whose jupyterhub_config.py is what a document says, and what this machine needs besides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubgate.ops.demo.hubs import Hub, HubEnvironment


class WrittenHub(Hub):
    """`written`: the document's lines. `env`: for its process."""

    def __init__(self, made: HubEnvironment, folder: Path, *, name: str, path: str, gateway_url: str = "") -> None:
        super().__init__(made, folder, name=name, path=path, gateway_url=gateway_url)
        self.written = ""
        self.env: dict[str, str] = {}

    def launch(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        super().launch(argv, env={**(env or {}), **self.env}, cwd=cwd)

    def complaints(self) -> list[str]:
        """The lines of its log in which hubgate-hub says how it finds its settings."""
        return [line for line in self.log.read_text().splitlines() if "hubgate check:" in line]

    def _settings(self) -> str:
        lines: list[tuple[str, Any]] = [
            # Where it lives. A document may say so itself, below.
            ("JupyterHub.bind_url", f"{self.url}{self.path}"),
            ("JupyterHub.public_url", f"{self.gateway_url}{self.path}"),
            ("JupyterHub.trusted_downstream_ips", ["127.0.0.1"]),
            # Several hubs on one machine, with one account for everybody.
            ("JupyterHub.hub_bind_url", self.hub_url),
            ("ConfigurableHTTPProxy.api_url", f"http://127.0.0.1:{self.api_port}"),
            ("ConfigurableHTTPProxy.command", self.made.proxy),
            ("JupyterHub.spawner_class", "simple"),
            ("SimpleLocalProcessSpawner.home_dir_template", str(self.homes / "{username}")),
            ("Spawner.cmd", [str(self.made.bin / "jupyterhub-singleuser")]),
            ("Spawner.args", ["--allow-root"] if os.geteuid() == 0 else []),
        ]
        return (
            "c = get_config()\n" + "\n".join(f"c.{name} = {value!r}" for name, value in lines) + f"\n{self.written}\n"
        )
