"""A GET without a body and its answer, passed on without waiting for anything.

`exchange` (http.py) awaits: that costs a task, and a future for each wait, more than everything that it does for an
answer that comes in one piece. Here such an answer is passed on right where it arrives, by a callback. Whatever else
arrives, be it the beginning of something long, or nothing, is left to an `Exchange`, which then has a task of its own.
"""

from __future__ import annotations

import asyncio
import logging

from hubgate.errors import HubgateFault, UpstreamFault
from hubgate.upstream.connection import Connection, ConnectionPool
from hubgate.upstream.framing import BODILESS, HEAD_END, MAX_HEAD, MalformedAnswer, parse_head
from hubgate.upstream.http import Exchange, framing_lines
from hubgate.upstream.message import Answer, ClientAborted, Downstream, Rewrite, UpstreamRequest
from hubgate.upstream.outbox import Outbox

log = logging.getLogger(__name__)


class Dispatch:
    """One request that is sent by `start`. Whoever makes one says in a subclass who is answered.

    `head`: complete, with its empty line. `transport`: the client's.
    """

    __slots__ = ("_connection", "_head", "_outbox", "_pool", "_rewrite", "_transport", "_waits")

    _connection: Connection

    def __init__(
        self, pool: ConnectionPool, head: bytes, transport: asyncio.Transport, rewrite: Rewrite, outbox: Outbox
    ) -> None:
        self._pool = pool
        self._waits = False
        self._head = head
        self._transport = transport
        self._rewrite = rewrite
        self._outbox = outbox

    # What a subclass says.

    @property
    def keep_alive(self) -> bool:
        """Whether the client's connection may carry another request."""
        raise NotImplementedError

    def client(self) -> Downstream:
        """The client's end of this request, for an answer that takes longer."""
        raise NotImplementedError

    def answered(self, status: int, sent: int, *, keep_alive: bool) -> None:
        """The answer is complete: the same as in `Answer`."""
        raise NotImplementedError

    def failed(self, fault: HubgateFault) -> None:
        """There is none, and why: what `exchange` would have raised."""
        raise NotImplementedError

    # What happens.

    def start(self) -> None:
        """Send the request. Ends with one call of `answered` or `failed`, never before this returns."""
        connection = self._pool.take(repeatable=True)
        if connection is None:
            self._pool.look_after(self._connect())
        else:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self._waits = True
        connection.due_in(self._pool.limits.head)
        connection.taker = self._take
        self._outbox.busy += 1
        self._outbox.put(connection.transport, self._head)

    async def _connect(self) -> None:
        try:
            connection = await self._pool.connect()
        except UpstreamFault as fault:
            self.failed(fault)
            return
        except Exception:
            log.exception("dispatch_failed", extra={"upstream": self._pool.upstream.name})
            self.failed(HubgateFault("internal"))
            return
        if self._transport.is_closing():
            self._pool.release(connection)
            self.failed(ClientAborted("client_gone"))
        else:
            self._send(connection)

    def gone(self) -> None:
        """The client has left."""
        if self._waits:
            self._connection.abort()

    def _take(self, data: bytes) -> None:
        """The first bytes of the answer, mostly all of it."""
        self._waits = False  # from here on the connection may become another one's
        try:
            try:
                passed = self._passed_on(data)
            finally:
                self._outbox.busy -= 1
        except MalformedAnswer as error:
            self._connection.abort()
            self.failed(self._pool.fault("upstream_malformed", str(error), repeatable=True))
        except Exception:
            log.exception("dispatch_failed", extra={"upstream": self._pool.upstream.name})
            self._connection.abort()
            self.failed(HubgateFault("internal"))
        else:
            if passed is None:
                client = self.client()
                client.gone = self._connection.abort  # at once: the task begins later
                self._pool.look_after(self._exchange(data, client))
            else:
                # Out of the `try`: whatever fails from here on, a second answer is none.
                self.answered(passed.status, passed.sent, keep_alive=passed.keep_alive)

    def _passed_on(self, data: bytes) -> Answer | None:
        """The answer, if it is complete and has been sent to the client."""
        end = data.find(HEAD_END, 0, MAX_HEAD) + 4
        if end < 4:
            return None
        head = parse_head(data[:end])
        status = head.status
        bodiless = status in BODILESS
        length = None if bodiless else head.length
        if status < 200 or len(data) - end != (length or 0) or (length is None and not bodiless):
            return None
        keep_alive = self.keep_alive
        framing = framing_lines(length, keep_alive=keep_alive)
        lines = self._rewrite(status, head.lines)
        self._outbox.put(self._transport, b"\r\n".join((head.line, *lines, framing, data[end:])))
        if head.keep_alive:
            self._pool.release(self._connection)
        else:
            self._connection.abort()
        return Answer(status, length or 0, keep_alive=keep_alive)

    async def _exchange(self, data: bytes, client: Downstream) -> None:
        request = UpstreamRequest("GET", self._head[:-2])
        rest = Exchange(self._pool, request, client, self._connection, repeatable=True)
        try:
            answer: Answer = await rest.through(self._rewrite, None, sent=data)
        except HubgateFault as fault:
            self.failed(fault)
        except Exception:
            log.exception("dispatch_failed", extra={"upstream": self._pool.upstream.name})
            self.failed(HubgateFault("internal"))
        else:
            self.answered(answer.status, answer.sent, keep_alive=answer.keep_alive)
