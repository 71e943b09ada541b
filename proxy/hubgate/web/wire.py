"""One request of a browser, as the engine needs it: everything that is asked of aiohttp beyond its documentation.

aiohttp parses requests, keeps connections alive and runs our own pages; answers of hubs go past it, straight into the
client's transport, because building them as responses would cost more than all the rest. The seams that this needs are
used here and, for connections and listening, in listener.py; nowhere else. tests/upstream/test_wire_canary.py says
which of them an update has moved:

- `RequestHandler`: `transport`, `writing_paused`, `set_parser`, `connection_lost`, `close`;
- `BaseRequest`: `raw_path`, `content`, and, private, `_message` and `_protocol`;
- what the server's loop asks of a response: `prepare`, `write_eof`, `keep_alive`.

It doesn't know what is forwarded where, nor who asks.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import http_parser, web
from aiohttp.http import HttpVersion10, RawRequestMessage

from hubgate.errors import ClientFault, HubgateFault, OperatorFault
from hubgate.upstream.message import Answer
from hubgate.web.listener import BrowserConnection, FrontRunner, Handler, Listener, Shortcut, front_runner

__all__ = [
    "ClientConnection",
    "ClientEnd",
    "FrontRunner",
    "Handler",
    "Listener",
    "RequestFraming",
    "Shortcut",
    "front_runner",
    "peer_address",
    "raw_target",
    "request_framing",
    "require_c_parser",
]


@dataclass(frozen=True, slots=True)
class RequestFraming:
    """How the client's request is framed, checked: the same names as in `UpstreamRequest`."""

    length: int | None = None
    chunked: bool = False
    upgrade: bool = False
    expect_continue: bool = False


_NO_BODY = RequestFraming()
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)


def raw_target(request: web.BaseRequest) -> str:
    """The request target exactly as it was sent (surrogate-escaped): what is decided on and sent on. `path`, `path_qs`
    and `url` have been rewritten by yarl."""
    return request.raw_path


def peer_address(request: web.BaseRequest) -> str:
    """Who is connected. aiohttp's `remote` asks the socket, which has forgotten it once the client is gone."""
    return cast(BrowserConnection, request._protocol).address


def request_framing(request: web.BaseRequest) -> RequestFraming:
    """How the request's body is framed and whether it is a WebSocket handshake.

    llhttp has refused what has two readings; this refuses what has one reading that we can't pass on. Raises
    `ClientFault`: `method_refused` (405: CONNECT, TRACE), `framing_malformed` (400; 501 for transfer codings other
    than chunked), `expectation_refused` (417), `upgrade_malformed` (400: a WebSocket handshake with a body, not by GET,
    over HTTP/1.0, with several or no keys). The connection then ends with the answer that tells it: where a request
    ends that we don't understand, the client may think otherwise.
    """
    try:
        return _framing(request._message)
    except ClientFault:
        request._protocol.close()
        raise


def _framing(message: RawRequestMessage) -> RequestFraming:
    headers = message.headers
    if message.method in {"CONNECT", "TRACE"}:
        raise ClientFault("method_refused", f"{message.method} is not for a gateway", status=405)
    length = headers.get("Content-Length")
    chunked = "Transfer-Encoding" in headers
    upgrade = bool(message.upgrade) and headers.get("Upgrade", "").lower() == "websocket"
    if length is None and not chunked and not upgrade:
        return _NO_BODY
    http10 = message.version.minor == 0
    if chunked:
        codings = headers.getall("Transfer-Encoding")
        if length is not None or http10:
            raise ClientFault("framing_malformed", "Transfer-Encoding with Content-Length, or over HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != "chunked":
            raise ClientFault("framing_malformed", "a transfer coding other than chunked", status=501)
    if length is not None and not _DIGITS.fullmatch(length):
        raise ClientFault("framing_malformed", "Content-Length is not a number")
    size = None if length is None else int(length)
    if upgrade:
        if message.method != "GET" or http10 or chunked or size:
            raise ClientFault("upgrade_malformed", "a WebSocket handshake is a GET without a body over HTTP/1.1")
        if len(headers.getall("Upgrade")) != 1 or len(headers.getall("Sec-WebSocket-Key", ())) != 1:
            raise ClientFault("upgrade_malformed", "a WebSocket handshake has one Upgrade and one Sec-WebSocket-Key")
        return RequestFraming(upgrade=True)
    expect = headers.get("Expect")
    if expect is not None and expect.lower() != "100-continue":
        raise ClientFault("expectation_refused", "only 100-continue can be expected", status=417)
    return RequestFraming(size, chunked, expect_continue=expect is not None and not http10)


class _Early:
    """Takes what the client sent behind its handshake; in the place where aiohttp would put its WebSocket reader."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The connection is lost, as far as aiohttp knows."""


class _Written(web.StreamResponse):
    """What aiohttp wants back when everything is on the wire already. Two of them serve all requests."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._kept = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may carry another request."""
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to be sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


_KEEP = _Written(keep_alive=True)
_CLOSE = _Written(keep_alive=False)


class ClientEnd:
    """The client's end of one request, as far as it is the connection's."""

    __slots__ = ("_transport", "gone", "protocol")

    def __init__(self, protocol: BrowserConnection) -> None:
        self.protocol = protocol
        self._transport = protocol.transport
        self.gone: Callable[[], None] | None = None

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once the client is gone."""
        return self.protocol.transport

    @property
    def writing_paused(self) -> bool:
        """Whether the client's socket is full."""
        return self.protocol.writing_paused

    @property
    def keep_alive(self) -> bool:
        """Whether we can keep the connection; a plain request's client wants it."""
        return not self.protocol.retiring

    def write(self, data: bytes) -> None:
        """Send, buffering; silently nothing once the client is gone."""
        transport = self.protocol.transport
        if transport is not None:
            transport.write(data)

    async def drain(self) -> None:
        """Wait until there is room again. Raises ConnectionError when the client is gone."""
        await self.protocol.drain()

    def abort(self) -> None:
        """Reset the client's connection."""
        if self._transport is not None and not self.protocol.lost:
            self._transport.abort()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Take the transport away from the server for good; with the bytes that the client sent after its request.

        For aiohttp this connection is lost from now on, which frees request, parser and handler while the tunnel lives.
        """
        protocol = self.protocol
        transport = protocol.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        early = _Early()
        protocol.set_parser(early)  # type: ignore[arg-type]  # any object with feed_data and feed_eof will do
        protocol.transport = None  # else it would be closed with the rest
        protocol.connection_lost(None)
        return transport, early.data


class ClientConnection(ClientEnd):
    """The client's end of a request that aiohttp has parsed (implements `upstream.http.Downstream`).

    Only for requests that came in by `front_runner`.
    """

    __slots__ = ("_fault", "_request", "ended", "http10")

    def __init__(self, request: web.BaseRequest) -> None:
        protocol = request._protocol
        if not isinstance(protocol, BrowserConnection):
            raise TypeError("a request of another server than front_runner's")
        super().__init__(protocol)
        self._request = request
        self.ended = False
        protocol.client = self  # to hear of its loss
        self._fault, protocol.fault = protocol.fault, None
        self.http10 = request._message.version is HttpVersion10

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants the connection kept, and we can keep it."""
        return super().keep_alive and not self._request._message.should_close

    def abort(self) -> None:
        """Reset the client's connection."""
        if self.http10 and self.transport is not None:
            # For HTTP/1.0 an answer may end where its connection does: only a reset tells that this one is incomplete.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        super().abort()

    def close(self) -> None:
        """The session under which this request came has ended: it is not to be sent on, nor answered."""
        self.ended = True
        self.abort()

    def take_fault(self) -> HubgateFault | None:
        """Why this request failed on the short way, once."""
        fault, self._fault = self._fault, None
        return fault

    def ready_body(self) -> bytes | None:
        """The whole body if it is here already."""
        content = self._request.content
        if content.exception() is not None or not content.is_eof():
            return None
        return content.read_nowait(-1)

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives. Raises ConnectionError when the client leaves, `ClientFault` when the body
        is malformed."""
        content = self._request.content
        while True:
            try:
                data = await content.readany()
            except Exception as error:
                if self.protocol.transport is None:
                    raise ConnectionResetError("the client left") from error
                if isinstance(error, web.RequestPayloadError):
                    raise ClientFault("body_malformed", "the body's framing is broken") from error
                raise
            if not data:
                return
            yield data

    def finished(self, answer: Answer) -> web.StreamResponse:
        """What aiohttp wants back after `exchange`."""
        return _KEEP if answer.keep_alive else _CLOSE

    def aborted(self) -> web.StreamResponse:
        """What aiohttp wants back after `Aborted`: nobody is left to answer."""
        self.abort()
        return _CLOSE


def require_c_parser() -> None:
    """Raise `OperatorFault` when aiohttp runs its pure-Python parser, which is laxer than the one in C."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise OperatorFault(
            "aiohttp_without_c",
            "aiohttp's C extension is missing (AIOHTTP_NO_EXTENSIONS, or a build without it); its parser in Python "
            "lets requests pass that have two readings. Install aiohttp from a wheel.",
        )
