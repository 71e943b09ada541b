"""A gateway process as a test sees it: its addresses, and what it wrote."""

from __future__ import annotations

import json
from typing import Any

from hubgate.ops.demo.gateway import Gateway


class RunningGateway(Gateway):
    """A `hubgate serve` of a test's own. Access log, audit log and log all go to `log`."""

    def output(self) -> str:
        """Everything that it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines among it."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log and the audit log with this event."""
        return [line for line in self.lines() if line.get("event") == name]
