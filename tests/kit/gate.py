"""The smallest gateway around the engine: forwards all to one upstream and remembers how each exchange ended.

It has the gateway's two ways: a GET without a body is dispatched (`SHORT_WAY`), everything else awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from hubgate.core.plain import LARGEST
from hubgate.core.site import Upstream
from hubgate.errors import ClientFault, HubgateFault, UpstreamFault
from hubgate.upstream.dispatch import Dispatch
from hubgate.upstream.http import Aborted, Answer, ConnectionPool, Downstream, Timeouts, UpstreamRequest, exchange
from hubgate.upstream.outbox import Outbox
from hubgate.upstream.tunnel import Tunnel
from hubgate.web.express import PlainClient
from hubgate.web.listener import BrowserConnection
from hubgate.web.wire import ClientConnection, FrontRunner, Handler, Listener, front_runner, raw_target, request_framing
from tests.kit.raw import PATIENCE, Peer, RawUpstream, Reply

_HOP = {"connection", "keep-alive", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"}

Outcome = Answer | BaseException


SHORT_WAY = True
"""Whether gates that are made from now on have one."""


@dataclass
class Gate:
    """A gateway that forwards every request to one upstream. `outcomes`: how the exchanges ended, in order; `due`: what
    requests that go the long way wait for first, as a gateway waits for its store."""

    pool: ConnectionPool
    runner: FrontRunner
    listener: Listener
    port: int
    outcomes: list[Outcome] = field(default_factory=list)
    tunnels: list[Tunnel] = field(default_factory=list)
    clients: list[Peer] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    due: asyncio.Event | None = None
    outbox: Outbox = field(default_factory=lambda: Outbox(asyncio.get_running_loop()))
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def front(self, request: web.Request, pages: Handler) -> web.StreamResponse:
        """Forward, unless it is one of the pages."""
        if raw_target(request).startswith("/pages/"):
            return await pages(request)
        client = ClientConnection(request)
        try:
            return await self._forward(request, client)
        except BaseException as outcome:
            self.outcomes.append(outcome)
            if isinstance(outcome, Aborted):
                return client.aborted()
            if isinstance(outcome, UpstreamFault | ClientFault):
                return web.Response(status=outcome.status, text=outcome.code)
            raise
        finally:
            self._ended.set()

    async def _forward(self, request: web.Request, client: ClientConnection) -> web.StreamResponse:
        if self.due is not None:
            await self.due.wait()
        if (fault := client.take_fault()) is not None:
            raise fault
        framing = request_framing(request)
        lines = [f"{request.method} {raw_target(request)} HTTP/1.1\r\n".encode()]
        lines += [b"%b: %b\r\n" % pair for pair in request.raw_headers if pair[0].decode().lower() not in _HOP]
        answer = await exchange(
            self.pool,
            UpstreamRequest(
                request.method,
                b"".join(lines),
                length=framing.length,
                chunked=framing.chunked,
                upgrade=framing.upgrade,
                expect_continue=framing.expect_continue,
            ),
            client,
            rewrite=self.rewrite,
            on_tunnel=self.tunnels.append,
        )
        self.outcomes.append(answer)
        return client.finished(answer)

    def __call__(self, browser: BrowserConnection, data: bytes) -> bool:
        """The short way."""
        head = data.removesuffix(b"\r\n\r\n")
        if _HEAD.fullmatch(head) is None or len(data) - len(head) != 4 or head.startswith(b"GET /pages/"):
            return False
        if len(data) > LARGEST or data.count(b"\r\n") > 100:
            return False
        names = {line.partition(b":")[0].strip().decode().lower() for line in head.split(b"\r\n")[1:]}
        if browser.transport is None or not names.isdisjoint(_HOP):
            return False
        browser.ride = browser.client = ride = _Ride(self, browser, browser.transport, data)
        ride.start()
        return True

    def rewrite(self, status: int, lines: list[bytes]) -> list[bytes]:
        """What the gateway's header rules would do: here, nothing but a mark that they were asked."""
        return [*lines, b"X-Rewritten: %d" % status]

    async def outcome(self, index: int = 0) -> Outcome:
        """How the exchange with this number ended, when it has."""
        async with asyncio.timeout(PATIENCE):
            while len(self.outcomes) <= index:
                self._ended.clear()
                await self._ended.wait()
        return self.outcomes[index]

    async def at_rest(self) -> None:
        """When the hub's connections can be used again: all sit in one loop here, where two turns pass unnoticed."""
        while self.pool._resting or self.pool._rested:
            await asyncio.sleep(0)

    async def client(self, *, receive_buffer: int = 0) -> Peer:
        """A new connection of a browser; `receive_buffer`: bytes that its kernel takes while nobody reads."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=self.tls,
            server_hostname="localhost" if self.tls else None,
            limit=receive_buffer or 1 << 18,
        )
        self.clients.append(Peer(reader, writer))
        return self.clients[-1]

    async def ask(self, request: bytes, method: str = "GET") -> Reply:
        """One request on a connection of its own; its answer."""
        client = await self.client()
        try:
            await client.send(request)
            return await client.reply(method)
        finally:
            client.close()


_HEAD = re.compile(rb"GET /[!-~]* HTTP/1\.1(\r\n[A-Za-z-]+:[ !-~]*)+")


class _Ride(Dispatch):
    """A dispatched request and how it ended."""

    def __init__(self, gate: Gate, browser: BrowserConnection, transport: asyncio.Transport, data: bytes) -> None:
        super().__init__(gate.pool, data, transport, gate.rewrite, gate.outbox)
        self._gate = gate
        self._browser = browser

    @property
    def keep_alive(self) -> bool:
        return not self._browser.retiring

    def client(self) -> Downstream:
        self._browser.client = client = PlainClient(self._browser)
        return client

    def answered(self, status: int, sent: int, *, keep_alive: bool) -> None:
        self._gate.outcomes.append(Answer(status, sent, 0, keep_alive))
        self._gate._ended.set()
        self._browser.rested(keep_alive=keep_alive)

    def failed(self, fault: HubgateFault) -> None:
        if isinstance(fault, Aborted):
            self._gate.outcomes.append(fault)
            self._gate._ended.set()
            self._transport.abort()
        else:
            self._browser.explain(self._head, fault)


@contextlib.asynccontextmanager
async def gate(
    upstream: RawUpstream | str,
    *,
    limits: Timeouts | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    pages: web.Application | None = None,
    header_timeout: float = 10.0,
    keepalive_timeout: float = 75.0,
    shutdown_timeout: float = 0.2,
    serving: ssl.SSLContext | None = None,
    trusting: ssl.SSLContext | None = None,
    max_idle: int = 64,
    send_buffer: int = 0,
) -> AsyncIterator[Gate]:
    """A `Gate` before this upstream. `serving`, `trusting`: TLS at its front, for it and for its clients.
    `send_buffer`: bytes that the kernel takes for a client that doesn't read."""
    url = upstream if isinstance(upstream, str) else upstream.url
    pool = ConnectionPool(
        Upstream("hub", url, "pool", ca=ca, certificate=certificate, key=key), limits=limits, max_idle=max_idle
    )
    made: list[Gate] = []
    astray: list[object] = []
    # What a callback raises is only logged otherwise.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: astray.append(context))

    async def front(request: web.Request, own: Handler) -> web.StreamResponse:
        return await made[0].front(request, own)

    class Shortcut:
        outbox = Outbox(asyncio.get_running_loop())

        def __call__(self, browser: BrowserConnection, data: bytes, /) -> bool:
            return made[0](browser, data)

    runner = await front_runner(
        pages or web.Application(),
        front,
        shortcut=Shortcut() if SHORT_WAY else None,
        header_timeout=header_timeout,
        keepalive_timeout=keepalive_timeout,
        shutdown_timeout=shutdown_timeout,
    )
    sock = socket.create_server(("127.0.0.1", 0))
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # accepted sockets have it too
    listener = Listener(runner, sock, ssl_context=serving)
    await listener.start()
    made.append(Gate(pool, runner, listener, sock.getsockname()[1], tls=trusting, outbox=Shortcut.outbox))
    try:
        yield made[0]
    finally:
        for tunnel in made[0].tunnels:
            tunnel.close()
        for client in made[0].clients:
            client.drop()
        pool.close()
        await runner.cleanup()
        assert not astray, astray
