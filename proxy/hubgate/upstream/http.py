"""One request to a hub and its answer, passed on as they come.

The head of the request goes out in one write; bodies pass in both directions at once, each at the pace of whoever
takes it; the answer is framed anew, so that a client never sees framing that a hub wrote. Every way in which it can
fail ends in exactly one of three things: a fault while the client has got nothing yet (so that a page can tell it),
`Aborted` when there is nobody to tell, or a client connection that was reset because its answer could not be finished.
A second answer on top of a begun one is never possible.

Which hub, which headers, and what a client may see are decided elsewhere; this module knows HTTP/1.1 and two sockets.

Interim answers are swallowed, which every client must cope with (RFC 9110, 15.2); only a 101 means something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hubgate.errors import HubgateFault
from hubgate.upstream.connection import Connection, ConnectionPool, Timeouts
from hubgate.upstream.framing import (
    LAST_CHUNK,
    MAX_HEAD,
    MAX_INTERIM,
    AnswerHead,
    Body,
    MalformedAnswer,
    body_of,
    check_beginning,
    check_switch,
    chunk,
    parse_head,
)
from hubgate.upstream.message import (
    Aborted,
    Answer,
    ClientAborted,
    Downstream,
    Rewrite,
    UpstreamAborted,
    UpstreamRequest,
)
from hubgate.upstream.tunnel import Tunnel
from hubgate.upstream.upload import UPGRADE, Upload

__all__ = [
    "Aborted",
    "Answer",
    "ClientAborted",
    "ConnectionPool",
    "Downstream",
    "Rewrite",
    "Timeouts",
    "UpstreamAborted",
    "UpstreamRequest",
    "exchange",
]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, 9.2.2. PROPFIND and its like are left out: the client can ask again."""
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


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
    `repeatable` tells whether the same request may be sent elsewhere. `ClientFault` when the client's body is at fault
    and nothing was sent to it: `body_timeout` (408), `body_malformed` (400). `Aborted` when there is nobody to answer.
    """
    has_body = request.chunked or bool(request.length)
    repeatable = not has_body and request.method in _IDEMPOTENT
    # A handshake gets a connection of its own: it would not come back to the pool anyway.
    connection = None if request.upgrade else pool.take(repeatable=repeatable)
    if connection is None:
        connection = await pool.connect()
    passing = _Exchange(pool, request, client, connection, repeatable=repeatable)
    try:
        head, rest = await passing.ask()
        if head.status == 101:
            return passing.splice(head, rest, rewrite, on_tunnel)
        return await passing.relay(head, rest, rewrite)
    except MalformedAnswer as error:
        raise passing.fault("upstream_malformed", str(error)) from error
    finally:
        passing.settle()


class _Exchange:
    """One request on one connection to the hub, and how far it has come."""

    __slots__ = ("begun", "client", "connection", "pool", "repeatable", "request", "settled", "upload")

    def __init__(
        self,
        pool: ConnectionPool,
        request: UpstreamRequest,
        client: Downstream,
        connection: Connection,
        *,
        repeatable: bool,
    ) -> None:
        self.pool = pool
        self.request = request
        self.client = client
        self.connection = connection
        self.repeatable = repeatable
        self.begun = False
        self.settled = False
        self.upload = Upload(request, client, connection, pool.limits)

    async def ask(self) -> tuple[AnswerHead, bytes]:
        """Send the request; the final head of its answer, and the bytes that came behind it."""
        received = await self._ask_once()
        if received is None and self.connection.reused and self.repeatable and not self._explained:
            # The hub closed it before it saw the request (RFC 9112, 9.3.1). Once, and on a new connection.
            self.connection = await self.pool.connect()
            self.upload = Upload(self.request, self.client, self.connection, self.pool.limits)
            received = await self._ask_once()
        if received is None:
            raise self._silence()
        return received

    async def _ask_once(self) -> tuple[AnswerHead, bytes] | None:
        self.client.watch(self.connection.abort)
        if self.client.transport is None:
            raise ClientAborted("client_gone")
        self.upload.start()
        data = await self.connection.read()
        return await self._receive_head(data) if data else None

    async def _receive_head(self, data: bytes) -> tuple[AnswerHead, bytes]:
        interim = 0
        while True:
            end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
            if end < 0:
                check_beginning(data)
                more = await self.connection.read()
                if not more:
                    raise self._silence()
                data += more
                continue
            head = parse_head(data[: end + 4])
            data = data[end + 4 :]
            if not head.interim:
                return head, data
            interim += 1
            if interim > MAX_INTERIM:
                raise MalformedAnswer("a flood of 1xx answers")

    async def relay(self, head: AnswerHead, rest: bytes, rewrite: Rewrite) -> Answer:
        """Pass an ordinary answer on."""
        client, connection, upload = self.client, self.connection, self.upload
        upload.answered = True
        connection.due_in(self.pool.limits.idle)
        body = body_of(head, self.request.method)
        piece = body.feed(rest) if rest else rest
        keep_alive = client.keep_alive and upload.complete
        chunked = False
        if not head.has_body(self.request.method):
            # A length is a statement about the answer to GET here, RFC 9110, 8.6; at 304 and 204 it only misleads.
            framing = b"" if head.length is None or self.request.method != "HEAD" else _length(head.length)
        elif head.length is not None:
            framing = _length(head.length)
        elif body.done:
            framing = _length(len(piece))
        elif client.http10:
            framing = b""
            keep_alive = False
        else:
            framing = _CHUNKED
            chunked = True
        if not keep_alive:
            framing += b"Connection: close\r\n"
        elif client.http10:
            framing += b"Connection: keep-alive\r\n"
        out = _head_bytes(head, rewrite(head.status, head.lines), framing)
        self.begun = True
        client.write(out + (chunk(piece) if chunked else piece))
        sent = len(piece)
        if not body.done:
            sent += await self._pass(body, chunked=chunked)
        await self._finish(head, body)
        return Answer(head.status, sent, upload.received, keep_alive)

    async def _pass(self, body: Body, *, chunked: bool) -> int:
        """The rest of the body, at the client's pace; how many bytes it was."""
        client, connection, idle = self.client, self.connection, self.pool.limits.idle
        sent = 0
        while not body.done:
            if client.writing_paused:
                connection.due_in(0)
                await self._drain()
            if idle:
                connection.due_in(idle)
            data = await connection.read()
            if data:
                piece = body.feed(data)
                sent += len(piece)
                client.write(chunk(piece) if chunked else piece)
            elif body.until_close and connection.error is None and not self._explained:
                break
            else:
                raise self._silence()
        if chunked:
            client.write(LAST_CHUNK)
        return sent

    async def _finish(self, head: AnswerHead, body: Body) -> None:
        """The answer is complete: give the connection back or up, and see that the client takes what is buffered."""
        self.settled = True
        if body.clean and head.keep_alive and self.upload.complete:
            self.pool.release(self.connection)
        else:
            await self.upload.stop()
            self.connection.abort()
        if self.client.writing_paused:
            # Else a client that pipelines and never reads would have us buffer one answer after the other.
            await self._drain()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.pool.limits.stall or None):
                await self.client.drain()
        except TimeoutError as error:
            self.client.abort()
            raise ClientAborted("client_stalled") from error
        except ConnectionError as error:
            raise ClientAborted("client_gone") from error

    def splice(
        self, head: AnswerHead, rest: bytes, rewrite: Rewrite, on_tunnel: Callable[[Tunnel], None] | None
    ) -> Answer:
        """The hub has switched to WebSocket, as it was asked to: from here on the two transports are one tunnel."""
        client, connection = self.client, self.connection
        if not self.request.upgrade:
            raise MalformedAnswer("a 101 that was not asked for")
        check_switch(head, self.request.head)
        switch = _head_bytes(head, rewrite(101, head.lines), UPGRADE)
        if client.transport is None or connection.lost:
            raise self._silence()
        client.watch(None)
        self.settled = True
        full = client.writing_paused
        transport, early = client.detach()
        down = rest + connection.take()
        self.pool.forget(connection)
        tunnel = Tunnel(transport, connection.transport, client_full=full)
        try:
            if on_tunnel is not None:
                on_tunnel(tunnel)
        except BaseException:
            tunnel.close()
            raise
        tunnel.start(switch, up=early, down=down)
        return Answer(101, upgraded=True, tunnel=tunnel)

    def fault(self, code: str, message: str, *, status: int | None = None) -> HubgateFault:
        """The hub's fault, told as far as it still can be."""
        if self.begun:
            return UpstreamAborted(code, message, evidence={"upstream": self.pool.upstream.name})
        return self.pool.fault(code, message, status=status, repeatable=self.repeatable)

    @property
    def _explained(self) -> bool:
        """Whether the hub's connection ended by our own doing."""
        return self.upload.fault is not None or self.client.transport is None or self.connection.expired

    def _silence(self) -> HubgateFault:
        """Why the hub's connection has nothing more to say."""
        if self.upload.fault is not None:
            return ClientAborted(self.upload.fault.code) if self.begun else self.upload.fault
        if self.client.transport is None:
            return ClientAborted("client_gone")
        if self.connection.expired:
            return self.fault("upstream_timeout", "no answer in time", status=504)
        return self.fault("upstream_closed", "the connection ended before the answer did")

    def settle(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.client.watch(None)
        if not self.settled:
            self.upload.cancel()
            self.connection.abort()
            if self.begun:
                self.client.abort()


def _head_bytes(head: AnswerHead, lines: list[bytes], framing: bytes) -> bytes:
    """`framing`: whole lines, CRLF each."""
    return b"\r\n".join((b"HTTP/1.1 %d%b" % (head.status, head.reason), *lines, framing + b"\r\n"))


def _length(length: int) -> bytes:
    return b"Content-Length: %d\r\n" % length
