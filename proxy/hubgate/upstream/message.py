"""What passes between a browser's connection and a hub's: the request, the answer, and how an exchange may end.

Types only: they are what the engine and the browser's side (web/wire.py) agree on, and neither needs to know the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from hubgate.errors import HubgateFault
from hubgate.upstream.tunnel import Tunnel

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

    gone: Callable[[], None] | None
    """Called at once when the client's connection is lost. An attribute, since it is set twice per request."""

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

    def write(self, data: bytes) -> None:
        """Send, buffering."""

    async def drain(self) -> None:
        """Wait until there is room again. Raises ConnectionError when the client is gone."""

    def ready_body(self) -> bytes | None:
        """The whole body if it is here already."""

    def body(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives. Raises ConnectionError when the client leaves, `ClientFault` when the body
        is malformed."""

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
