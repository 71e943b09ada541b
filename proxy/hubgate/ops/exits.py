"""How did it end? The exit status of `hubgate`, for shells and service managers (listed in docs/configuration.md)."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """A second SIGTERM or SIGINT ends at once, with 128 and the signal's number, as a shell would say it."""

    OK = 0
    CONFIG = 1
    UNWELL = 1
    """Of `hubgate health`: 1 is what Docker calls unhealthy, and it keeps 2 for itself."""
    USAGE = 2
    START = 3
    BROKEN = 4
