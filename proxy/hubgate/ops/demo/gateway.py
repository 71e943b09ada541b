"""The gateway as a process of its own, started from its configuration file as a site would."""

from __future__ import annotations

import sys
from pathlib import Path

from hubgate.ops.demo.child import Child, answers

_SERVE = "import sys; from hubgate.ops.cli import main; sys.exit(main())"


class Gateway(Child):
    """`hubgate serve -c config`. `url` is what a browser types, `ops_url` where it says how it is."""

    def __init__(self, config: Path, *, url: str, ops_url: str, log: Path, name: str = "gateway") -> None:
        super().__init__(name, log=log)
        self.config = config
        self.url = url
        self.ops_url = ops_url

    def start(self) -> None:
        """Starts it, again after a stop."""
        self.launch([sys.executable, "-c", _SERVE, "serve", "-c", str(self.config)], cwd=self.config.parent)

    def listening(self, *, timeout: float = 30) -> None:
        """Returns when it runs, whether or not what it needs is there."""
        self.wait_until(lambda: answers(f"{self.ops_url}/healthz"), timeout=timeout)

    def ready(self, *, timeout: float = 60) -> None:
        """Returns when it says that it is ready to serve."""
        self.wait_until(lambda: answers(f"{self.ops_url}/readyz"), timeout=timeout)
