"""A request on its way to the hub: its head in one write, its body at the pace of both sides.

Small bodies are here already when the head is: they go out with it, and no task is made. Everything else is sent by a
task beside the one that waits for the answer, because a hub may answer before it has read everything. Lengths are
verified, chunks are made anew. `Expect: 100-continue` is answered here, once the hub's connection stands, and never
sent on: a hub that treats it in its own way could not be kept in step (0.CL through Expect), and whoever gets this far
has been let in already.
"""

from __future__ import annotations

import asyncio

from hubgate.errors import ClientFault, HubgateFault
from hubgate.upstream.connection import Connection, Timeouts
from hubgate.upstream.framing import LAST_CHUNK, chunk
from hubgate.upstream.message import ClientAborted, Downstream, UpstreamRequest

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""What both heads of a WebSocket handshake say, RFC 6455, 4."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def bodiless(request: UpstreamRequest) -> bytes:
    """What ends the head of a request without a body."""
    if request.upgrade:
        return UPGRADE + b"\r\n"
    return b"\r\n" if request.length is None else b"Content-Length: 0\r\n\r\n"


class Upload:
    """A request with a body on its way to the hub.

    `complete`: everything has been handed to the hub's socket. `fault`: why it never will be; the connection is aborted
    then, which wakes whoever waits for the answer. `answered`: the answer has begun, deadlines are no longer ours.
    """

    __slots__ = ("_client", "_connection", "_limits", "_request", "_task", "answered", "complete", "fault", "received")

    def __init__(self, request: UpstreamRequest, client: Downstream, connection: Connection, limits: Timeouts) -> None:
        self._request = request
        self._client = client
        self._connection = connection
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self.received = 0
        self.complete = False
        self.answered = False
        self.fault: HubgateFault | None = None

    def start(self) -> None:
        """Send the head, and the body too if it is here already: one write, no task."""
        request, client = self._request, self._client
        if request.chunked:
            head = request.head + b"Transfer-Encoding: chunked\r\n\r\n"
        else:
            head = request.head + b"Content-Length: %d\r\n\r\n" % (request.length or 0)
        body = client.ready_body()
        if body is not None and (request.chunked or len(body) == request.length):
            self.received = len(body)
            self.complete = True
            self._connection.write(head + (chunk(body) + LAST_CHUNK if request.chunked else body))
            return
        self._connection.write(head)
        if request.expect_continue and not client.http10:  # RFC 9110, 10.1.1
            client.write(_CONTINUE)
        self._task = asyncio.create_task(self._send())

    def cancel(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Send no more, and have let go of the client's body."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _send(self) -> None:
        try:
            await self._pass()
        except TimeoutError:
            self.fault = ClientFault("body_timeout", "the client stopped sending its body", status=408)
        except ConnectionError:
            self.fault = ClientAborted("client_gone")
        except ClientFault as fault:
            self.fault = fault
        if self.fault is not None:
            self._connection.abort()

    async def _pass(self) -> None:
        request, connection = self._request, self._connection
        pieces = aiter(self._client.body())
        while not connection.lost:
            self._due_in(0)  # the client's turn
            async with asyncio.timeout(self._limits.stall or None):
                piece = await anext(pieces, b"")
            if not piece:
                break
            self.received += len(piece)
            if request.length is not None and self.received > request.length:
                break
            connection.write(chunk(piece) if request.chunked else piece)
            self._due_in(self._limits.head)  # the hub's
            await connection.drain()
        else:
            return  # an early answer, perhaps; whoever reads finds out
        if request.length is not None and self.received != request.length:
            raise ClientFault("body_malformed", "the body is not as long as it says")
        if request.chunked:
            connection.write(LAST_CHUNK)
        self.complete = True
        self._due_in(self._limits.head)

    def _due_in(self, seconds: float) -> None:
        if not self.answered:
            self._connection.due_in(seconds)
