"""Thousands of people at once, each with cookies of their own: visits, and WebSockets that come back when they end.

They come back when they are told that the hub is there again, all at once, which no real crowd would be so unkind to
do. Who is not let in tries again as JupyterLab does (`_reconnect` in services/kernel/default.ts): after a time that is
drawn from a range which doubles, seven times at most.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from tests.bench.load import Fault

_TRIES = 7
_AT_ONCE = 64
_PATIENCE = 120.0
_HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Answer(asyncio.Protocol):
    """A connection on which one request is sent. `head`: the head of its answer; `lost`: the connection has ended."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._came = b""
        self.transport: asyncio.Transport | None = None
        self.head: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.head.done():
            self._came += data
            if b"\r\n\r\n" in self._came:
                self.head.set_result(self._came)

    def close(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.head.done():
            self.head.set_result(b"")
        if not self.lost.done():
            self.lost.set_result(None)


async def _asked(port: int, request: bytes) -> tuple[Answer, str]:
    """The connection, and what came of it: a status, or why there is none."""
    _, answer = await asyncio.get_running_loop().create_connection(lambda: Answer(request), "127.0.0.1", port)
    async with asyncio.timeout(_PATIENCE):
        head = await answer.head
    return answer, head[9:12].decode() if head else "cut off"


async def visit(port: int, requests: Sequence[bytes]) -> None:
    """Each of these requests once, on a connection of its own. `Fault` unless all are answered with 200."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(request: bytes) -> None:
        async with turns:
            answer, status = await _asked(port, request)
            answer.close()
        if status != "200":
            raise Fault(f"{status}: {await answer.head!r}")

    await asyncio.gather(*map(one, requests))


class Crowd:
    """WebSockets of many people. `heads`: of their handshakes, without the fields of one.

    `up`: how many are open; `ended`: how many were and are no longer; `gave_up`: who tried too often; `answers`: how
    often what was answered to those who came back (a status, or why there is none).
    """

    def __init__(self, port: int, heads: Sequence[bytes]) -> None:
        self._port = port
        self._handshakes = [head + _HANDSHAKE for head in heads]
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.there = asyncio.Event()  # whether the hub is there, as far as the crowd knows
        self.up = self.ended = self.gave_up = 0
        self.answers: Counter[str] = Counter()

    @asynccontextmanager
    async def sitting(self) -> AsyncIterator[None]:
        """All are open, and come back when they end."""
        people = [asyncio.create_task(self._sit(handshake)) for handshake in self._handshakes]
        try:
            await self.back()
            yield
        finally:
            for each in people:
                each.cancel()
            await asyncio.gather(*people, return_exceptions=True)

    async def left(self, count: int) -> None:
        """Returns when so many have ended."""
        await self._until(lambda: self.ended >= count)

    async def back(self) -> None:
        """Returns when all that have not given up are open."""
        await self._until(lambda: self.up + self.gave_up == len(self._handshakes))

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not reached():
                await asyncio.sleep(0.01)

    async def _sit(self, handshake: bytes) -> None:
        async with self._turns:
            answer, status = await _asked(self._port, handshake)
        if status != "101":
            raise Fault(f"{status}: {await answer.head!r}")
        while True:
            self.up += 1
            try:
                await answer.lost
            finally:
                self.up -= 1
                answer.close()
            self.ended += 1
            returned = await self._return(handshake)
            if returned is None:
                self.gave_up += 1
                return
            answer = returned

    async def _return(self, handshake: bytes) -> Answer | None:
        await self.there.wait()
        for number in range(_TRIES):
            # The first time the range is none.
            await asyncio.sleep(random.uniform(0, 2**number - 1))
            answer, status = await _asked(self._port, handshake)
            self.answers[status] += 1
            if status == "101":
                return answer
            answer.close()
        return None
