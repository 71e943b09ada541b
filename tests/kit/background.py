"""Servers that answer while a test waits: an event loop in a thread of its own, and applications on ports that stay.

Starting a gateway blocks the test's own loop, so whoever must answer it meanwhile (a provider, a hub) lives here. Each
can be taken down, as if its machine were off, and come back on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from hubgate.ops.demo.child import free_ports

T = TypeVar("T")
_PATIENCE = 60.0


class Background:
    """The thread. `run` is for callers outside of it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="background", daemon=True)
        self._endings: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for ending in reversed(self._endings):
                self.run(ending())
            self.run(self._end_tasks())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_PATIENCE)
            self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something that is done in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE)

    def at_end(self, ending: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done in the thread before it ends."""
        self._endings.append(ending)

    async def _end_tasks(self) -> None:
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class Place:
    """A port on loopback at which an application answers, or nobody.

    `make`: the application, asked for each time that it comes up.
    """

    def __init__(
        self,
        background: Background,
        make: Callable[[], web.Application],
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._background = background
        self._make = make
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self.port = port or free_ports(1)[0]
        background.at_end(self._leave)
        self.up()

    def url(self, host: str = "127.0.0.1") -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def up(self) -> None:
        """Answers from now on."""
        self._background.run(self._come())

    def down(self) -> None:
        """Nobody listens from now on, and whoever was connected is cut off: as when a machine is switched off."""
        self._background.run(self._leave())

    async def _come(self) -> None:
        if self._runner is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self._runner = web.AppRunner(self._make(), access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=self._tls, backlog=512).start()

    async def _leave(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()


class Relay:
    """A port that leads to another one, until the way is cut. Bytes pass as they are.

    `cut()`: connections end, and new ones are refused. `freeze()`: they stay, and nothing passes any more, as when a
    firewall forgot them. `mend()`: as before. `lead_to()`: new connections go elsewhere, open ones stay where they are.
    """

    def __init__(self, background: Background, port: int) -> None:
        self._background = background
        self._target = port
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = free_ports(1)[0]
        background.at_end(self._cut)
        self.mend()

    def lead_to(self, port: int) -> None:
        """Lead whoever connects from now on to this port."""
        self._target = port

    def mend(self) -> None:
        """Let everything pass."""
        self._background.run(self._mend())

    def cut(self) -> None:
        """End connections, and refuse new ones."""
        self._background.run(self._cut())

    def freeze(self) -> None:
        """Say nothing more, and accept whoever comes."""
        self._background.run(self._freeze())

    async def _mend(self) -> None:
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        self._passing.set()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _freeze(self) -> None:
        self._passing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            there, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(other)
            await asyncio.gather(self._pass(reader, other), self._pass(there, writer))
        except OSError:
            writer.transport.abort()
        finally:
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


async def eventually(
    condition: Callable[[], Awaitable[T]], *, within: float, every: float = 0.05, what: str = "what was awaited"
) -> T:
    """Ask until the answer is true, and give it: for what tells nobody when it happens. `within`: seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        found = await condition()
        if found:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"{what} did not come within {within} s, last: {found!r}")
        await asyncio.sleep(every)
