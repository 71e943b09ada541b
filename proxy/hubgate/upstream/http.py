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
    HEAD_END,
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
from hubgate.upstream.upload import UPGRADE, Upload, bodiless

__all__ = [
    "Aborted",
    "Answer",
    "ClientAborted",
    "ConnectionPool",
    "Downstream",
    "Exchange",
    "Rewrite",
    "Timeouts",
    "UpstreamAborted",
    "UpstreamRequest",
    "exchange",
]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, 9.2.2. PROPFIND and its like are left out: the client can ask again."""


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
    if client.transport is None:  # it left while something was waited for, and nobody would notice any more
        pool.release(connection)
        raise ClientAborted("client_gone")
    passing = Exchange(pool, request, client, connection, repeatable=repeatable)
    return await passing.through(rewrite, on_tunnel, sent=None)


class Exchange:
    """One request on one connection to the hub, and how far it has come. `answer`: what is passed on, once begun."""

    __slots__ = ("answer", "begun", "client", "connection", "pool", "repeatable", "request", "settled", "upload")

    answer: Answer

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
        self.upload: Upload | None = None

    async def through(
        self, rewrite: Rewrite, on_tunnel: Callable[[Tunnel], None] | None, *, sent: bytes | None
    ) -> Answer:
        """The whole of it, and nothing left behind. `sent`: what the hub said so far, if it has the request already."""
        self.client.gone = self.connection.abort
        try:
            if sent is None:
                self.send()
                sent = await self.connection.read()
            return await self.run(sent, rewrite, on_tunnel)
        except MalformedAnswer as error:
            raise self.fault("upstream_malformed", str(error)) from error
        finally:
            self.client.gone = None
            self.settle()

    def send(self) -> None:
        """Send the request, or the beginning of it."""
        self.connection.due_in(self.pool.limits.head)
        if self.request.chunked or self.request.length:
            self.upload = Upload(self.request, self.client, self.connection, self.pool.limits)
            self.upload.start()
        else:
            self.connection.write(self.request.head + bodiless(self.request))

    async def run(self, data: bytes, rewrite: Rewrite, on_tunnel: Callable[[Tunnel], None] | None) -> Answer:
        """From the first bytes of the answer on, whatever they are."""
        if not data:
            data = await self.send_again()
        head, data = await self.final_head(data)
        rest = data[len(head.raw) :]
        if head.status == 101:
            return self.splice(head, rest, rewrite, on_tunnel)
        body, chunked = self.begin(head, rest, rewrite)
        if not body.done:
            await self.pass_on(body, chunked=chunked)
        self.finish(head, body)
        if self.upload is not None:
            await self.upload.stop()  # lets go of the client's body
        if self.client.writing_paused:
            # Else a client that pipelines and never reads would have us buffer one answer after the other.
            await _drained(self.client, self.pool.limits.stall)
        return self.answer

    async def send_again(self) -> bytes:
        """The hub closed without a word. If it closed a connection that had waited, it has not seen the request (RFC
        9112, 9.3.1): once more then, on a new one. The first bytes of the answer."""
        if self.connection.reused and self.repeatable and not self._ended_by_us:
            self.connection = await self.pool.connect()
            if self.client.transport is None:  # it left meanwhile, and nobody would notice any more
                raise ClientAborted("client_gone")
            self.client.gone = self.connection.abort
            self.connection.due_in(self.pool.limits.head)
            self.connection.write(self.request.head + bodiless(self.request))
            data = await self.connection.read()
            if data:
                return data
        raise self._silence()

    async def final_head(self, data: bytes) -> tuple[AnswerHead, bytes]:
        """The final head, after any interim ones; and all bytes from there on."""
        interim = 0
        while True:
            end = data.find(HEAD_END, 0, MAX_HEAD)
            if end < 0:
                check_beginning(data)
                more = await self.connection.read()
                if not more:
                    raise self._silence()
                data += more
                continue
            head = parse_head(data[: end + 4])
            if not head.interim:
                return head, data
            data = data[end + 4 :]
            interim += 1
            if interim > MAX_INTERIM:
                raise MalformedAnswer("a flood of 1xx answers")

    def begin(self, head: AnswerHead, rest: bytes, rewrite: Rewrite) -> tuple[Body, bool]:
        """Send the answer's head and as much of its body as is here: the body, and whether it goes out in chunks."""
        client = self.client
        self.connection.due_in(self.pool.limits.idle)
        if self.upload is not None:
            self.upload.answered = True
        method = self.request.method
        body = body_of(head, method)
        piece = body.feed(rest) if rest else rest
        chunked = False
        length = head.length
        if not head.has_body(method):
            # A length is a statement about the answer to GET here, RFC 9110, 8.6; at 304 and 204 it only misleads.
            length = length if method == "HEAD" else None
        elif length is None and body.done:
            length = len(piece)
        elif length is None:
            chunked = not client.http10
        ends_by_itself = body.done or length is not None or chunked
        keep_alive = client.keep_alive and self.uploaded and ends_by_itself
        framing = framing_lines(length, keep_alive=keep_alive, http10=client.http10, chunked=chunked)
        lines = rewrite(head.status, head.lines)
        self.begun = True
        self.answer = Answer(head.status, len(piece), 0, keep_alive)
        client.write(b"\r\n".join((head.line, *lines, framing, chunk(piece) if chunked else piece)))
        return body, chunked

    async def pass_on(self, body: Body, *, chunked: bool) -> None:
        """The rest of the body, at the client's pace."""
        client, connection, idle = self.client, self.connection, self.pool.limits.idle
        while not body.done:
            if client.writing_paused:
                connection.due_in(0)
                await _drained(client, self.pool.limits.stall)
            if idle:
                connection.due_in(idle)
            data = await connection.read()
            if not data:
                if body.until_close and connection.error is None and not self._ended_by_us:
                    break
                raise self._silence()
            piece = body.feed(data)
            if piece:
                self.answer.sent += len(piece)
                client.write(chunk(piece) if chunked else piece)
        if chunked:
            client.write(LAST_CHUNK)

    @property
    def uploaded(self) -> bool:
        """Whether the hub has been given the whole request."""
        return self.upload is None or self.upload.complete

    def finish(self, head: AnswerHead, body: Body) -> None:
        """The answer is complete: give the hub's connection back, or up."""
        self.settled = True
        self.client.gone = None  # before the connection is another one's
        if self.upload is not None:
            self.answer.received = self.upload.received
        # Node (configurable-http-proxy) lets go of a connection on which an upgrade was offered, even if it refuses it.
        if body.clean and head.keep_alive and self.uploaded and not self.request.upgrade:
            self.pool.release(self.connection)
        else:
            self.connection.abort()

    def splice(
        self, head: AnswerHead, rest: bytes, rewrite: Rewrite, on_tunnel: Callable[[Tunnel], None] | None
    ) -> Answer:
        """The hub has switched to WebSocket, as it was asked to: from here on the two transports are one tunnel."""
        client, connection = self.client, self.connection
        if not self.request.upgrade:
            raise MalformedAnswer("a 101 that was not asked for")
        check_switch(head, self.request.head)
        switch = b"\r\n".join((head.line, *rewrite(101, head.lines), UPGRADE, b""))
        if client.transport is None or connection.lost:
            raise self._silence()
        client.gone = None
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

    def fault(
        self, code: str, message: str, *, status: int | None = None, repeatable: bool | None = None
    ) -> HubgateFault:
        """The hub's fault, told as far as it still can be."""
        if self.begun:
            return UpstreamAborted(code, message, evidence={"upstream": self.pool.upstream.name})
        repeatable = self.repeatable if repeatable is None else repeatable
        return self.pool.fault(code, message, status=status, repeatable=repeatable)

    @property
    def _ended_by_us(self) -> bool:
        """Whether the hub's connection ended by our own doing: for the client's sake, or because time was up."""
        uploading = self.upload is not None and self.upload.fault is not None
        return uploading or self.client.transport is None or self.connection.expired

    def _silence(self) -> HubgateFault:
        """Why the hub's connection has nothing more to say."""
        if self.upload is not None and self.upload.fault is not None:
            return ClientAborted(self.upload.fault.code) if self.begun else self.upload.fault
        if self.client.transport is None:
            return ClientAborted("client_gone")
        if self.connection.expired:
            return self.fault("upstream_timeout", "no answer in time", status=504)
        return self.fault("upstream_closed", "the connection ended before the answer did")

    def settle(self) -> None:
        """Leave nothing behind, whatever happened."""
        if not self.settled:
            if self.upload is not None:
                self.upload.cancel()
            self.connection.abort()
            if self.begun:
                self.client.abort()


async def _drained(client: Downstream, stall: float) -> None:
    """Wait until the client's socket takes bytes again; `ClientAborted` when it doesn't within `stall` seconds."""
    try:
        async with asyncio.timeout(stall or None):
            await client.drain()
    except TimeoutError as error:
        client.abort()
        raise ClientAborted("client_stalled") from error
    except ConnectionError as error:
        raise ClientAborted("client_gone") from error


def framing_lines(length: int | None, *, keep_alive: bool, http10: bool = False, chunked: bool = False) -> bytes:
    """Lines, CRLF each, that say how long an answer is, and what becomes of the client's connection."""
    framing = b"" if length is None else b"Content-Length: %d\r\n" % length
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    if not keep_alive:
        return framing + b"Connection: close\r\n"
    return framing + b"Connection: keep-alive\r\n" if http10 else framing
