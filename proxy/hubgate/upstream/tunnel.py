"""A WebSocket after its handshake: two transports that write what the other one reads.

(The engine is being written; the public names below are settled.)
"""

from __future__ import annotations

from collections.abc import Callable


class Tunnel:
    """Two spliced transports. Lives on its own: no task, request or handler is held while it is open.

    `bytes_up`: client to hub, `bytes_down`: hub to client, both since the handshake.
    """

    __slots__ = ("bytes_down", "bytes_up")

    bytes_up: int
    bytes_down: int

    @property
    def closed(self) -> bool:
        """Whether both sides are gone."""
        raise NotImplementedError

    def close(self) -> None:
        """End it by force: both TCP connections are aborted, nothing more is delivered. Idempotent."""
        raise NotImplementedError

    def add_done_callback(self, callback: Callable[[Tunnel], None]) -> None:
        """Call `callback(tunnel)` once when both sides are gone; at once if they already are."""
        raise NotImplementedError
