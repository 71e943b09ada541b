"""The browsers' connections, and the sockets on which they come in: aiohttp's server with our own manners.

A front handler sees every request first, and an ordinary application does the pages behind it, in one listener. Heads
have a time limit; what can't be parsed is refused plainly; whoever answers a client hears at once that it left; and an
end of the server lets answers and uploads finish. What is answered is gateway.py's business, how one request is handed
to the engine is wire.py's. The seams of aiohttp that this uses:

- `RequestHandler`: `connection_made`, `data_received`, `connection_lost`, `handle_error`, `close`, `force_close`; and,
  private, `_waiter`, `_messages`, `_request_count`, `_current_request`, `_loop`, `_paused`, `_drain_helper`,
  `_process_keepalive`, `_next_keepalive_close_time`, `_keepalive_timeout`;
- `BaseRequest._message`, and of it `chunked`, `upgrade`, `headers`, `should_close`, `_replace`;
- `Server.__call__`, `pre_shutdown`, `shutdown`, `request_handler`, `request_factory`, and, private, `_loop`, `_kwargs`;
- `AppRunner._make_server`, `_kwargs`; `SockSite.start`, `_runner`, `_sock`, `_ssl_context`, `_backlog`, `_server`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from hubgate.core.headers import canonical_address
from hubgate.errors import HubgateFault
from hubgate.upstream.outbox import Outbox
from hubgate.web.junction import Junction, may_become_plain
from hubgate.web.tls import serve_tls

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Front = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

READ_AHEAD = 256 * 1024
"""Bytes of a request's body that may wait for a slow hub before the client's socket is no longer read (aiohttp stops
at twice this)."""
_LAST_CALL = 2.0
"""Seconds for a handshake or a head that is on its way to a process that has just stopped listening."""
_LOOK_AGAIN = 0.25
_REFUSAL = {"Server": "hubgate", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Leaving(Protocol):
    """Whoever is being answered on a connection, and what is to be called when it is lost."""

    @property
    def gone(self) -> Callable[[], None] | None: ...


class Shortcut(Protocol):
    """Called with bytes that a client sent while nothing was going on: True when they were a request that it answers.
    It sets the connection's `ride` meanwhile. `outbox`: where its answers may still be."""

    @property
    def outbox(self) -> Outbox: ...

    def __call__(self, browser: BrowserConnection, data: bytes, /) -> bool: ...


class BrowserConnection(web.RequestHandler):
    """aiohttp's protocol, with a short way past it, a time limit for heads, plain refusals, and a word to the engine
    when it is lost.

    Which of the two ways a request takes is decided while both are at rest, where it certainly begins (junction.py).
    """

    __slots__ = (
        "_deadline",
        "_head_since",
        "_header_timeout",
        "_shortcut",
        "address",
        "client",
        "fault",
        "junction",
        "lost",
        "retiring",
        "ride",
    )

    def __init__(self, server: FrontServer, *, header_timeout: float, shortcut: Shortcut | None, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._header_timeout = header_timeout
        self._head_since = 0.0  # when the head began that we are waiting for; 0: none has begun
        self._deadline: asyncio.TimerHandle | None = None
        self._shortcut = shortcut
        self.junction = Junction(shared=shortcut is not None)
        self.address = ""
        self.client: Leaving | None = None
        self.ride: Leaving | None = None
        self.fault: HubgateFault | None = None
        self.retiring = False
        self.lost = False

    @property
    def idle(self) -> bool:
        """Whether no request is being handled or waits to be."""
        waiter = self._waiter
        return self.ride is None and waiter is not None and not waiter.done() and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head is due from now on, not from its first byte."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            cast(
                asyncio.Transport, transport
            ).abort()  # it was reset at once: nobody is there whose address we could name
            return
        self.address = canonical_address(str(peer[0]))
        self._head_begins()

    def data_received(self, data: bytes) -> None:
        """One of the two ways, or a wait for what is missing."""
        if self.ride is not None:
            self._hold(data)
            return
        junction = self.junction
        if junction.held:
            data = junction.taken() + data
        if self._shortcut is None or junction.owed or not self.idle or self._paused:
            self._long_way(data)
        elif self._shortcut(self, data):
            self._head_since = 0.0
        elif may_become_plain(data):
            junction.held = data
            if not self._head_since:
                self._head_begins()
        else:
            self._long_way(data)

    def _hold(self, data: bytes) -> None:
        self.junction.held += data
        if len(self.junction.held) > READ_AHEAD and self.transport is not None:
            self.transport.pause_reading()

    def rested(self, *, keep_alive: bool) -> None:
        """The short way is free again, and an answer has gone out on it."""
        self.ride = None
        if not keep_alive:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._go_on()

    def explain(self, data: bytes, fault: HubgateFault) -> None:
        """A request failed on the short way: the long way says why, to whom and how."""
        self.ride = None
        self.fault = fault
        self._long_way(data)
        self._go_on()

    def _go_on(self) -> None:
        """With what came in the meantime."""
        data = self.junction.taken()
        if data and not self.lost:
            if len(data) > READ_AHEAD and self.transport is not None:
                self.transport.resume_reading()
            self.data_received(data)

    def _long_way(self, data: bytes) -> None:
        """Past aiohttp's parser."""
        before = self._request_count
        current = self._current_request
        in_body = current is not None and not current.content.is_eof()
        super().data_received(data)
        new = self._request_count - before
        self.junction.count(data, new, self._messages[-1][0] if self._messages else None)
        if new:
            # A head that stays incomplete starts the clock; a complete one stops it.
            self._head_since = 0.0
            if in_body or len(self._messages) > 1:
                self._end_broken_bodies(current)
        elif data and not in_body and not self._head_since:
            self._head_begins()

    def force_close(self) -> None:
        """End the connection, after what was answered has gone out."""
        if self._shortcut is not None:
            self._shortcut.outbox.flush()
        super().force_close()

    def _process_keepalive(self) -> None:
        if self.ride is not None:  # which may take long
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def drain(self) -> None:
        """Wait until the client takes bytes again. Raises ConnectionError when it is gone."""
        await self._drain_helper()

    def _end_broken_bodies(self, current: web.BaseRequest | None) -> None:
        """A message behind an unfinished body is aiohttp's note that the body's framing broke. It doesn't tell the
        body's reader, who would wait for ever, and would send a second answer later: we tell, and send none."""
        bodies = [payload for _, payload in self._messages][:-1]
        if current is not None:
            bodies.append(current.content)
        broken = [body for body in bodies if not body.is_eof()]
        if not broken:
            return
        self._messages.pop()
        for body in broken:
            body.set_exception(web.RequestPayloadError("the body's framing is broken"))
            body.feed_eof()
        self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Whoever is answering this client hears of it at once."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.lost = True
        client, self.client = self.client, None
        super().connection_lost(exc)
        if client is not None and client.gone is not None:
            client.gone()

    def _head_begins(self) -> None:
        self._head_since = self._loop.time()
        if self._deadline is None and self._header_timeout > 0:
            self._deadline = self._loop.call_later(self._header_timeout, self._head_due)

    def _head_due(self) -> None:
        self._deadline = None
        if not self._head_since or self.transport is None:
            return
        left = self._head_since + self._header_timeout - self._loop.time()
        if left > 0.001 or not self.idle:
            # It began later than the clock did, or lies behind a request that is being answered.
            self._deadline = self._loop.call_later(left if left > 0.001 else 1.0, self._head_due)
            return
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.force_close()

    def retire(self) -> None:
        """Take no further request. aiohttp's `close()` would also stop reading the body of the present one."""
        self.last_call()
        if self.idle:
            self.force_close()

    def last_call(self) -> None:
        """Take one further request at most: its answer says that the connection ends."""
        self.retiring = True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that can't be parsed: said without quoting it, and without a traceback in the log."""
        if status != 400:
            response = super().handle_error(request, status, exc, message)
        else:
            status = 431 if isinstance(exc, LineTooLong) else 400
            response = web.Response(status=status, text="The request could not be understood.\n")
        response.headers.update(_REFUSAL)
        response.force_close()
        return response


class FrontServer(web.Server):
    """Makes `BrowserConnection`s, and lets them end in peace."""

    def __init__(self, handler: Any, *, header_timeout: float, shortcut: Shortcut | None, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._header_timeout = header_timeout
        self._shortcut = shortcut
        self._leaving = False

    def __call__(self) -> BrowserConnection:
        """One more connection."""
        connection = BrowserConnection(
            self, loop=self._loop, header_timeout=self._header_timeout, shortcut=self._shortcut, **self._kwargs
        )
        connection.retiring = self._leaving
        return connection

    def last_call(self) -> None:
        """Every connection, and each that still comes, takes one further request at most."""
        self._leaving = True
        for connection in self.connections:
            if isinstance(connection, BrowserConnection):
                connection.last_call()

    def pre_shutdown(self) -> None:
        """Close idle connections; the others after the answer that they are at."""
        for connection in self.connections:
            if isinstance(connection, BrowserConnection):
                connection.retire()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for answers in flight, then end what is left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout or 0.0)
        while self.connections and loop.time() < deadline:
            self.pre_shutdown()
            await asyncio.sleep(0.02)
        await super().shutdown(0.05)  # twice: to let handlers end, and to let them be cancelled


class FrontRunner(web.AppRunner):
    """Runs the pages' application, with `front` before it."""

    __slots__ = ("_front", "_front_server", "_header_timeout", "_shortcut")

    def __init__(
        self,
        pages: web.Application,
        front: Front,
        *,
        header_timeout: float,
        shortcut: Shortcut | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pages, **kwargs)
        self._front = front
        self._header_timeout = header_timeout
        self._shortcut = shortcut

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        application: Any = made.request_handler
        front = self._front

        async def pages(request: web.Request) -> web.StreamResponse:
            response: web.StreamResponse = await application(request)
            if cast(BrowserConnection, request.protocol).retiring:
                response.force_close()
            return response

        def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
            if request._message.chunked or request._message.upgrade:
                _end_behind(request)
            return front(request, pages)

        # Not cancelled when the client leaves: a login that has begun, or a command to the store, is not cut in the
        # middle (CVE-2023-28858). Exchanges hear of it by `ClientConnection.gone`.
        self._front_server = FrontServer(
            handle,
            header_timeout=self._header_timeout,
            shortcut=self._shortcut,
            request_factory=made.request_factory,
            handler_cancellation=False,
            **{key: value for key, value in self._kwargs.items() if key != "access_log_class"},
        )
        return self._front_server

    def last_call(self) -> None:
        """Go on as before, but tell every client to come back on another connection."""
        self._front_server.last_call()

    async def stop_listening(self) -> None:
        """Take no further connection: somebody else listens on the same sockets."""
        for site in self.sites:
            await site.stop()
        self.last_call()

    async def emptied(self) -> None:
        """After `stop_listening`: returns when the last connection has ended, but for tunnels, which it doesn't know.

        Whoever has just come, or is about to ask on a connection that was kept, is still answered. It may be cancelled
        at any time, and `cleanup()` is to be called afterwards.
        """
        await asyncio.sleep(_LAST_CALL)
        while self._front_server.connections:
            self._front_server.pre_shutdown()
            await asyncio.sleep(_LOOK_AGAIN)


def _end_behind(request: web.BaseRequest) -> None:
    """Make a request its connection's last, if aiohttp can't be trusted to read on behind it.

    3.14.5 puts the last trailer of a chunked body in front of the next request's fields, so that a client could speak
    in somebody else's request wherever a proxy in front of us shares connections. And it drops what came along with an
    offer to upgrade to anything but WebSocket: the client would wait for an answer in vain.
    """
    message = request._message
    if message.chunked or message.headers.get("Upgrade", "").lower() != "websocket":
        request._message = message._replace(should_close=True)


async def front_runner(
    pages: web.Application,
    front: Front,
    *,
    shortcut: Shortcut | None = None,
    header_timeout: float = 10.0,
    keepalive_timeout: float = 75.0,
    max_line_size: int = 16 * 1024,
    max_field_size: int = 16 * 1024,
    max_headers: int = 128,
    shutdown_timeout: float = 30.0,
) -> FrontRunner:
    """A runner that is set up: make a `Listener` of it for each socket, end it with `cleanup()`.

    `front(request, pages)` sees every request first and awaits `pages(request)` for what is not forwarded: `pages` is
    an ordinary application, with its middlewares, start-up and clean-up. `shortcut` sees what is on its way to either,
    and answers what it can. `cleanup()` stops listening, lets requests in
    flight end within `shutdown_timeout` seconds, closes kept-alive connections, then ends the application. It knows
    nothing about tunnels: whoever holds them closes them.
    """
    runner = FrontRunner(
        pages,
        front,
        header_timeout=header_timeout,
        shortcut=shortcut,
        shutdown_timeout=shutdown_timeout,
        keepalive_timeout=keepalive_timeout,
        max_line_size=max_line_size,
        max_field_size=max_field_size,
        max_headers=max_headers,
        access_log=None,
        auto_decompress=False,
        read_bufsize=READ_AHEAD,
    )
    await runner.setup()
    return runner


class Listener(web.SockSite):
    """One listening socket of a runner: `await Listener(runner, sock, ssl_context=…).start()`."""

    async def start(self) -> None:
        """Accept; TLS is our own transport's."""
        context: ssl.SSLContext | None = self._ssl_context
        if context is None:
            await super().start()
            return
        await web.BaseSite.start(self)
        server = cast(FrontServer, self._runner.server)  # set up, so not None
        self._server = await serve_tls(server, self._sock, context, backlog=self._backlog)
