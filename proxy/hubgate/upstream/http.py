"""One request to a hub and its answer, passed on as they come.

(The engine is being written; the public names below are settled.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from hubgate.errors import HubgateFault
from hubgate.upstream.connection import ConnectionPool, Timeouts
from hubgate.upstream.tunnel import Tunnel

__all__ = [
    "Aborted",
    "Answer",
    "ClientAborted",
    "ConnectionPool",
    "Downstream",
    "Timeouts",
    "UpstreamAborted",
    "UpstreamRequest",
    "exchange",
]

Rewrite = Callable[[int, list[bytes]], list[bytes]]
"""(status, header lines without CRLF, framing and hop-by-hop fields already gone) -> the lines that the client gets."""


class Aborted(HubgateFault):
    """The exchange ended and nobody is left to be answered: the client's transport is closed or aborted.

    Deliberately neither `ClientFault` nor `UpstreamFault`: whoever turns those into a page must not see this one.
    """

    default_status = 499


class ClientAborted(Aborted):
    """The client went away, or stopped taking bytes. Nobody's fault: never counts against the upstream."""


class UpstreamAborted(Aborted):
    """The upstream failed after the answer had begun."""

    default_status = 502


@dataclass(slots=True)
class UpstreamRequest:
    """What is sent on.

    `head`: request line and end-to-end lines (CRLF each), Host, Cookie, identity and X-Forwarded lines included;
    without framing, Connection, Upgrade, Expect and the empty line, which are the engine's.
    `length`: of the body as declared by the client, None without Content-Length. `chunked`: the client's body is
    chunked. Neither: no body. `upgrade`: a WebSocket handshake. `expect_continue`: the client waits for a 100.
    """

    method: str
    head: bytes
    length: int | None = None
    chunked: bool = False
    upgrade: bool = False
    expect_continue: bool = False


class Downstream(Protocol):
    """The client's end of one request, as the engine sees it (web/wire.py implements it over aiohttp)."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once the client is gone."""

    @property
    def writing_paused(self) -> bool:
        """Whether the client's socket is full."""

    @property
    def http10(self) -> bool:
        """Whether the request was HTTP/1.0: no chunked body, no 1xx."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants the connection kept, and we can keep it."""

    @property
    def method(self) -> str:
        """The request's method."""

    def write(self, data: bytes) -> None:
        """Send, buffering."""

    async def drain(self) -> None:
        """Wait until there is room again. Raises ConnectionError when the client is gone."""

    def body(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives. Raises when it ends too early."""

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call `gone` at once when the client's connection is lost; None ends it."""

    def abort(self) -> None:
        """Reset the client's connection."""

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Take the transport away from the server for good; with the bytes that the client sent after its request."""


@dataclass(slots=True)
class Answer:
    """What went over. `sent`: body bytes to the client; `received`: body bytes from the client.

    `keep_alive`: whether the client's connection may carry another request. `tunnel`: set after a 101.
    """

    status: int
    sent: int = 0
    received: int = 0
    keep_alive: bool = False
    upgraded: bool = False
    tunnel: Tunnel | None = None


async def exchange(
    pool: ConnectionPool,
    request: UpstreamRequest,
    client: Downstream,
    *,
    rewrite: Rewrite,
    on_tunnel: Callable[[Tunnel], None] | None = None,
) -> Answer:
    """Send `request` to the pool's upstream and pass the answer on to `client`.

    Returns when the answer is complete. After a 101 it returns AT ONCE with `upgraded` True and `tunnel` set, so that
    nothing of the request stays in memory as long as the socket lives: leases and log lines that should last as long
    as the tunnel hang on `tunnel.add_done_callback`. `on_tunnel` is called synchronously when the splice is in place,
    before a byte passes.

    Raises `UpstreamFault` while nothing has been sent to the client: codes `upstream_unreachable` (no connection; 502,
    or 504 when it took too long), `upstream_timeout` (504), `upstream_malformed` (502), `upstream_closed` (502);
    `repeatable` tells whether the same request may be sent elsewhere. `ClientFault` `body_timeout` (408) when the
    client stopped sending its body before anything was sent to it. `Aborted` when there is nobody to answer any more.
    """
    raise NotImplementedError
