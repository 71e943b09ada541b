"""The browser's connection: everything that hubgate asks of aiohttp beyond its documentation, in one place.

(The engine is being written; the public names below are settled.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from hubgate.upstream.http import Answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class RequestFraming:
    """How the client's request is framed, checked: the same names as in `UpstreamRequest`."""

    length: int | None
    chunked: bool
    upgrade: bool
    expect_continue: bool


class ClientConnection:
    """The client's end of one request (implements `upstream.http.Downstream`)."""

    __slots__ = ("_protocol", "_request")

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._protocol = request.protocol

    @property
    def transport(self) -> asyncio.Transport | None:
        raise NotImplementedError

    @property
    def writing_paused(self) -> bool:
        raise NotImplementedError

    @property
    def http10(self) -> bool:
        raise NotImplementedError

    @property
    def keep_alive(self) -> bool:
        raise NotImplementedError

    @property
    def method(self) -> str:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError

    def body(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    def watch(self, gone: Callable[[], None] | None) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        raise NotImplementedError

    def finished(self, answer: Answer) -> web.StreamResponse:
        """What aiohttp wants back when everything is already on the wire (also after `Aborted`: `aborted()`)."""
        raise NotImplementedError

    def aborted(self) -> web.StreamResponse:
        """What aiohttp wants back when there is nobody left to answer."""
        raise NotImplementedError


def raw_target(request: web.BaseRequest) -> str:
    """The request target exactly as it was sent (surrogate-escaped): what is decided on and sent on."""
    raise NotImplementedError


def request_framing(request: web.BaseRequest) -> RequestFraming:
    """How the request's body is framed and whether it is a WebSocket handshake.

    Raises `ClientFault`: `method_refused` (405: CONNECT, TRACE), `framing_malformed` (400; 501 for transfer codings
    other than chunked), `upgrade_malformed` (400: a WebSocket handshake with a body, not by GET, over HTTP/1.0, with
    several or no keys).
    """
    raise NotImplementedError


def require_c_parser() -> None:
    """Raise `OperatorFault` when aiohttp runs its pure-Python parser, which is laxer than the one in C."""
    raise NotImplementedError


async def front_runner(
    pages: web.Application,
    front: Callable[[web.Request, Handler], Awaitable[web.StreamResponse]],
    *,
    header_timeout: float = 10.0,
    keepalive_timeout: float = 75.0,
    max_line_size: int = 16 * 1024,
    max_field_size: int = 16 * 1024,
    max_headers: int = 128,
    shutdown_timeout: float = 30.0,
) -> web.BaseRunner:
    """A runner that is set up: make sites of it (`web.SockSite(runner, sock, ssl_context=…)`), end it with `cleanup()`.

    `front(request, pages)` sees every request first and awaits `pages(request)` for what is not forwarded: `pages` is
    an ordinary application, with its middlewares, start-up and clean-up. `cleanup()` stops listening, lets requests in
    flight end within `shutdown_timeout` seconds, closes kept-alive connections, then ends the application. It knows
    nothing about tunnels: whoever holds them closes them.
    """
    raise NotImplementedError
