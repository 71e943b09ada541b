"""One connection to a hub, and the pool of those that wait for the next request.

(The engine is being written; the public names below are settled.)
"""

from __future__ import annotations

from dataclasses import dataclass

from hubgate.core.site import Upstream


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 means no limit.

    `connect`: TCP and TLS. `head`: from the last byte of the request to the head of the answer (a hub may think for
    long about a spawn). `idle`: silence within an answer (none by default: event streams are silent, and a client that
    leaves ends them). `stall`: a client that neither takes nor sends a byte in the middle of a body. `keep_alive`: how
    long an idle connection may be used again; below configurable-http-proxy's 5 s.
    """

    connect: float = 5.0
    head: float = 300.0
    idle: float = 0.0
    stall: float = 120.0
    keep_alive: float = 4.0


class ConnectionPool:
    """The connections to one upstream."""

    def __init__(self, upstream: Upstream, *, limits: Timeouts | None = None, max_idle: int = 64) -> None:
        self.upstream = upstream
        self.limits = limits or Timeouts()
        self.max_idle = max_idle

    def close(self) -> None:
        """Close idle connections now and those in use when their answer is complete."""
        raise NotImplementedError
