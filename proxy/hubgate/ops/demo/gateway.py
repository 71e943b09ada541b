"""The gateway as a process of its own, started from its configuration file as a site would."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from hubgate.ops.demo.child import Child, answers, text_at

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

    def listening(self, *, timeout: float = 60) -> None:
        """Returns when it runs, whether or not what it needs is there."""
        self.wait_until(lambda: answers(f"{self.ops_url}/healthz"), timeout=timeout)

    def ready(self, *, timeout: float = 60) -> None:
        """Returns when it says that it is ready to serve."""
        self.wait_until(lambda: answers(f"{self.ops_url}/readyz"), timeout=timeout)

    def sees(self, upstreams: Iterable[str], *, timeout: float = 60) -> None:
        """Returns when all these hubs are up for it: after its next probes, if they came later than the gateway."""
        wanted = set(upstreams)
        up = re.compile(r'^hubgate_upstream_up\{.*upstream="([^"]+)".*\} 1\.0$', re.MULTILINE)
        self.wait_until(lambda: wanted <= set(up.findall(text_at(f"{self.ops_url}/metrics") or "")), timeout=timeout)
