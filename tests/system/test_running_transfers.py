"""Large things pass through the gateway's process unchanged, at the pace of whoever takes them, and it stays small."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from yarl import URL

from hubgate.upstream.tunnel import LINGER
from tests.kit.background import Background, Place, eventually
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

MIB = 1 << 20
GROWTH = 24 * MIB
"""Bytes by which the process may grow for one large transfer, the allocator's share included."""
STALLED = 4 * MIB
"""The same for each of many that don't move."""

_PATTERN = bytes(range(256)) * (MIB // 256)

SIZES = [pytest.param(256, id="256 MiB"), pytest.param(1024, id="1 GiB", marks=pytest.mark.nightly)]


def block(number: int) -> bytes:
    """One MiB that is like no other one."""
    return number.to_bytes(8) + _PATTERN[8:]


def digest(count: int) -> str:
    """SHA-256 of so many blocks."""
    total = hashlib.sha256()
    for number in range(count):
        total.update(block(number))
    return total.hexdigest()


class Store:
    """In place of a notebook server: gives and takes large files, tells events when it is told to, floods sockets."""

    def __init__(self, background: Background) -> None:
        self.background = background
        self.written = 0
        """Bytes that it could pass on, of all downloads and floods."""
        self.taken = 0
        """Bytes that it has read, of all uploads."""
        self.reading = asyncio.Event()
        self.reading.set()
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.place = Place(background, self._application)

    def tell(self, event: str) -> None:
        """Let whoever listens hear this."""
        self.background.loop.call_soon_threadsafe(self.events.put_nowait, event)

    def read_on(self) -> None:
        """Go on reading uploads."""
        self.background.loop.call_soon_threadsafe(self.reading.set)

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=0)
        for path, handler in (
            ("/htc/hub/health", self._well),
            ("/htc/user/x/down", self._down),
            ("/htc/user/x/up", self._up),
            ("/htc/user/x/events", self._events),
            ("/htc/user/x/echo", self._echo),
            ("/htc/user/x/flood", self._flood),
            ("/{rest:.*}", self._well),
        ):
            app.router.add_route("*", path, handler)
        return app

    async def _well(self, _: web.Request) -> web.Response:
        return web.Response(text="well")

    async def _down(self, request: web.Request) -> web.StreamResponse:
        count = int(request.query["blocks"])
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if "chunked" in request.query:
            response.enable_chunked_encoding()
        else:
            response.content_length = count * MIB
        await response.prepare(request)
        for number in range(count):
            await response.write(block(number))
            self.written += MIB
        await response.write_eof()
        return response

    async def _up(self, request: web.Request) -> web.Response:
        total, size = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            await self.reading.wait()
            total.update(piece)
            size += len(piece)
            self.taken += len(piece)
        return web.json_response({"sha256": total.hexdigest(), "size": size})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        while event := await self.events.get():
            await response.write(f"data: {event}\n\n".encode())
        return response

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    async def _flood(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        with contextlib.suppress(ConnectionError):
            for number in range(int(request.query["blocks"])):
                await ws.send_bytes(block(number))
                self.written += MIB
            await ws.close()
        return ws


class Watch:
    """How much a process has grown at most since this began, as its kernel counts."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        (self._folder / "clear_refs").write_text("5")  # proc(5): the peak begins anew
        self._before = self._field("VmRSS")

    @property
    def growth(self) -> int:
        """Bytes."""
        return self._field("VmHWM") - self._before

    def _field(self, name: str) -> int:
        status = (self._folder / "status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


@pytest.fixture
def store(background: Background) -> Iterator[Store]:
    made = Store(background)
    yield made
    made.read_on()
    made.tell("")
    made.place.down()


@pytest.fixture
async def work(scene: Scene, store: Store) -> tuple[RunningGateway, Visitor]:
    """Somebody who is logged in."""
    gateway = scene.gateway(pool("htc", {"name": "htc01", "url": store.place.url()}))
    somebody = await scene.logged_in(gateway)
    # What is made once (buffers, tables, code) is no growth.
    await _download(somebody, 8)
    await _upload(somebody, 8, chunked=True)
    return gateway, somebody


def _url(somebody: Visitor, path: str) -> URL:
    return URL(somebody.at(f"/htc/user/x/{path}"), encoded=True)


async def _download(somebody: Visitor, count: int, *, chunked: bool = False) -> str:
    total = hashlib.sha256()
    async with somebody.browser.session.get(
        _url(somebody, f"down?blocks={count}{'&chunked' if chunked else ''}")
    ) as response:
        assert response.status == 200
        assert response.headers.get("Content-Length") == (None if chunked else str(count * MIB))
        async for piece in response.content.iter_any():
            total.update(piece)
    return total.hexdigest()


async def _upload(somebody: Visitor, count: int, *, chunked: bool) -> tuple[str, int]:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(count):
            yield block(number)

    headers = {} if chunked else {"Content-Length": str(count * MIB)}
    async with somebody.browser.session.put(_url(somebody, "up"), data=pieces(), headers=headers) as response:
        assert response.status == 200
        told = await response.json()
    return told["sha256"], told["size"]


@pytest.mark.parametrize("count", SIZES)
async def test_large_files_go_down_and_up_unchanged(work: tuple[RunningGateway, Visitor], count: int) -> None:
    gateway, somebody = work
    expected = digest(count)
    watch = Watch(gateway.pid)
    assert await _download(somebody, count) == expected
    assert await _download(somebody, count, chunked=True) == expected
    assert watch.growth < GROWTH
    for chunked in (False, True):
        assert await _upload(somebody, count, chunked=chunked) == (expected, count * MIB)
    assert watch.growth < GROWTH
    lines = [line for line in gateway.lines() if line.get("path") == "/htc/user/x/down"]
    assert [line["sent"] for line in lines[-2:]] == [count * MIB] * 2


async def test_events_arrive_one_by_one(work: tuple[RunningGateway, Visitor], store: Store) -> None:
    _, somebody = work
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    async with somebody.browser.session.get(_url(somebody, "events"), headers=headers) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        for number in range(20):
            # The next one is told only when this one has come: whoever gathers would wait for ever.
            store.tell(f"event {number}")
            async with asyncio.timeout(SOON):
                assert await response.content.readline() == f"data: event {number}\n".encode()
                assert await response.content.readline() == b"\n"
        store.tell("")
        assert await response.content.read() == b""


async def test_an_upload_arrives_as_it_is_sent(work: tuple[RunningGateway, Visitor], store: Store) -> None:
    _, somebody = work
    before = store.taken

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(20):
            yield b"x" * 100
            await eventually(lambda: _taken(store, before + 100 * (number + 1)), within=SOON, what="the piece")  # noqa: B023

    async with somebody.browser.session.put(_url(somebody, "up"), data=pieces()) as response:
        assert (await response.json())["size"] == 2000


async def _taken(store: Store, size: int) -> bool:
    return store.taken >= size


async def settled(count: Callable[[], int]) -> int:
    """A number that has stopped growing: the same for a second."""
    last, since = -1, time.monotonic()
    while time.monotonic() < since + 1:
        if count() != last:
            last, since = count(), time.monotonic()
        await asyncio.sleep(0.05)
    return last


READERS = 10


async def test_readers_that_stop_reading_hold_up_their_hub_and_nobody_else(
    scene: Scene, work: tuple[RunningGateway, Visitor], store: Store
) -> None:
    gateway, somebody = work
    watch = Watch(gateway.pid)
    before = store.written
    cookie = "; ".join(f"{name}={value}" for name, value in somebody.cookies.items())
    host = gateway.url.removeprefix("http://")
    lazy = []
    for _ in range(READERS):
        reader, writer = await asyncio.open_connection(*host.split(":"), limit=64 * 1024)
        writer.write(f"GET /htc/user/x/down?blocks=64 HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
        lazy.append((reader, writer))
    # Sockets on both sides of the gateway take some MiB each; what they don't take must stay with the hub.
    sent = await settled(lambda: store.written) - before
    assert sent < READERS * 32 * MIB
    assert watch.growth < READERS * STALLED
    assert (await somebody.fetch("/htc/user/x/")).status == 200
    # One goes on reading and gets the whole; the others leave, and take their share with them.
    reader, _ = lazy[0]
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    total = hashlib.sha256()
    for _ in range(64):
        total.update(await reader.readexactly(MIB))
    assert total.hexdigest() == digest(64)
    for _, writer in lazy:
        writer.transport.abort()
    assert watch.growth < READERS * STALLED
    assert (await somebody.fetch("/htc/user/x/")).status == 200


async def test_a_hub_that_stops_reading_holds_up_its_senders_and_nobody_else(
    work: tuple[RunningGateway, Visitor], store: Store
) -> None:
    gateway, somebody = work
    watch = Watch(gateway.pid)
    store.reading.clear()
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for number in range(64):
            yield block(number)
            sent += MIB

    async def upload() -> str:
        async with somebody.browser.session.put(_url(somebody, "up"), data=pieces()) as response:
            return str((await response.json())["sha256"])

    uploads = [asyncio.create_task(upload()) for _ in range(READERS)]
    assert await settled(lambda: sent) < READERS * 32 * MIB
    assert watch.growth < READERS * STALLED
    assert (await somebody.fetch("/htc/user/x/")).status == 200
    store.read_on()
    assert set(await asyncio.gather(*uploads)) == {digest(64)}
    assert watch.growth < READERS * STALLED


async def test_sockets_carry_large_messages_both_ways(work: tuple[RunningGateway, Visitor]) -> None:
    gateway, somebody = work
    wire = await somebody.socket("/htc/user/x/echo")
    watch = Watch(gateway.pid)
    for count in (1, 16, 64):
        message = b"".join(map(block, range(count)))
        await wire.ws.send_bytes(message)
        assert await wire.ws.receive_bytes(timeout=SOON) == message
    many = [block(number) for number in range(32)]
    sending = asyncio.gather(*map(wire.ws.send_bytes, many))
    assert [await wire.ws.receive_bytes(timeout=SOON) for _ in many] == many
    await sending
    assert watch.growth < GROWTH


async def test_a_socket_that_never_reads_holds_up_its_sender(
    work: tuple[RunningGateway, Visitor], store: Store
) -> None:
    gateway, somebody = work
    before = store.written
    wires = [await somebody.socket("/htc/user/x/flood?blocks=64") for _ in range(READERS)]
    watch = Watch(gateway.pid)
    # Nobody asks these sockets for a message, so they stop reading.
    assert await settled(lambda: store.written) - before < READERS * 32 * MIB
    assert watch.growth < READERS * STALLED
    assert (await somebody.fetch("/htc/user/x/")).status == 200
    # Log Out ends them, although they take nothing.
    began = time.monotonic()
    page = await somebody.log_out()
    assert page.url.startswith(gateway.url + "/_hubgate/logged-out")
    written = await settled(lambda: store.written)
    assert written - before < READERS * 40 * MIB
    assert time.monotonic() - began < LINGER, "nobody waits until they take it"
    for wire in wires:
        assert await wire.ended(SOON)
