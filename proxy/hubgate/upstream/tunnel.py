"""A WebSocket after its handshake: two transports, each of which writes what the other one reads.

Nothing is parsed in here and nothing is copied; compression and masking are between browser and notebook. Back-pressure
is the transports' own: a side whose buffer is full stops the reading of the other. A tunnel stands alone: no task, no
request and no handler is kept in memory while it is open, which is what ten thousand idle kernels' sockets cost least
with.

It does not know who speaks, in which session, or why it may have to end; whoever knows calls `close()`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

LINGER = 15.0
"""Seconds that one direction may go on after the other has ended (a close frame's answer, bytes on their way)."""


class _Side(asyncio.Protocol):
    """One end. What is read here is written to the peer, without a line of Python in between: that would be a tenth of
    what a message costs, for each of its two ways."""

    __slots__ = ("_peer", "_tunnel", "data_received", "ended", "lost")

    def __init__(self, tunnel: Tunnel, peer: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._peer = peer
        self.data_received = peer.write  # type: ignore[method-assign]  # which is the point
        self.ended = False
        self.lost = False

    def pause_writing(self) -> None:
        self._peer.pause_reading()

    def resume_writing(self) -> None:
        self._peer.resume_reading()

    def eof_received(self) -> bool:
        return self._tunnel._ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._tunnel._lost(self)


class Tunnel:
    """Two spliced transports."""

    __slots__ = ("_callbacks", "_client", "_client_side", "_halves", "_hub", "_hub_side", "_linger")

    def __init__(self, client: asyncio.Transport, hub: asyncio.Transport, *, client_full: bool = False) -> None:
        """Take both transports over. `client_full`: the client's buffer is above its mark already."""
        self._client = client
        self._hub = hub
        self._callbacks: list[Callable[[Tunnel], None]] = []
        self._linger: asyncio.TimerHandle | None = None
        # TLS has no half-closed state that anybody honours; asyncio closes it altogether.
        self._halves = client.can_write_eof() and hub.can_write_eof()
        self._client_side = _Side(self, hub)
        self._hub_side = _Side(self, client)
        for transport, side in ((client, self._client_side), (hub, self._hub_side)):
            transport.set_protocol(side)
            _keep_alive(transport)
        if client_full:
            hub.pause_reading()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._linger else "open"
        return f"Tunnel({state})"

    @property
    def closed(self) -> bool:
        """Whether both sides are gone."""
        return self._client_side.lost and self._hub_side.lost

    def overhear(self, ear: Callable[[bytes], bool]) -> None:
        """Let `ear` know from now on what the client says, too, piece by piece, until it says that it has heard enough.
        Only so long does it cost anything."""
        if self._client_side.lost:
            return
        write = self._hub.write

        def both(data: bytes) -> None:
            write(data)
            if ear(data):
                self._deliver(write)

        self._deliver(both)

    def _deliver(self, take: Callable[[bytes], None]) -> None:
        self._client_side.data_received = take  # type: ignore[assignment,method-assign]  # as above
        self._client.set_protocol(self._client_side)  # a transport may have kept the other one

    def start(self, head: bytes, *, up: bytes, down: bytes) -> None:
        """Send the answer's head to the client, and what came with either handshake to whom it is for. Nothing, if it
        was closed meanwhile."""
        if self._client.is_closing():
            return
        self._client.write(head + down)
        if up:
            self._hub.write(up)

    def close(self) -> None:
        """End it by force: both TCP connections are aborted, nothing more is delivered. Idempotent."""
        for side, transport in ((self._client_side, self._client), (self._hub_side, self._hub)):
            if not side.lost:  # asyncio's transports break when they are aborted after their end
                transport.abort()

    def add_done_callback(self, callback: Callable[[Tunnel], None]) -> None:
        """Call `callback(tunnel)` once when both sides are gone; at once if they already are."""
        if self.closed:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _ended(self, side: _Side) -> bool:
        """One side sends no more. True keeps its transport open for what is still to be written to it."""
        side.ended = True
        other, transport = self._opposite(side)
        self._end_soon()
        if self._halves and not other.ended and not other.lost:
            transport.write_eof()  # after what is buffered
            return True
        transport.close()
        return False

    def _lost(self, side: _Side) -> None:
        _, transport = self._opposite(side)
        if not self.closed:
            transport.close()  # flushes; a peer that doesn't take it is aborted later
            self._end_soon()
            return
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _opposite(self, side: _Side) -> tuple[_Side, asyncio.Transport]:
        return (self._hub_side, self._hub) if side is self._client_side else (self._client_side, self._client)

    def _end_soon(self) -> None:
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self.close)


def _keep_alive(transport: asyncio.Transport) -> None:
    """Have the kernel find peers that vanished without a word: an idle tunnel has no other deadline."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
