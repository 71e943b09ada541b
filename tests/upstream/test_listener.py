"""The browsers' side: time limits, sizes, plain refusals, TLS, and an end that cuts nobody short."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest
from aiohttp import web

from hubgate.web.listener import BrowserConnection
from tests.kit.certificates import Authority
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, get, ok, post

BOTH_LOOPS = True
BOTH_WAYS = True
STATE = web.AppKey("state", str)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: h\r\n", b"GET / HTTP/1.1\r\nHost: h\r\nX: y"])
async def test_a_head_that_stays_incomplete(sent: bytes) -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, header_timeout=0.1) as door:
        client = await door.client()
        await client.send(sent)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        assert not hub.peers


async def test_a_second_head_that_stays_incomplete() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, header_timeout=0.5) as door:
        client = await door.client()
        await client.send(get())
        assert (await client.reply()).status == 200
        await client.send(b"GET /second HTTP/1.1\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_trickling_does_not_help() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, header_timeout=0.2) as door:
        client = await door.client()
        await client.send(b"GET / HTTP/1.1\r\n")
        ended = asyncio.create_task(client.rest())
        while not ended.done():
            client.writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        assert b" 408 " in await ended


async def test_an_idle_connection_is_not_a_slow_head() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, header_timeout=0.8) as door:
        client = await door.client()
        for request in (get(), post(b"abc"), get("/pages/none")):
            await client.send(request)
            await client.reply()
            await asyncio.sleep(1.0)  # longer than a head may take
        await client.send(get())
        assert (await client.reply()).status == 200


async def test_a_slow_answer_is_not_a_slow_head() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, header_timeout=0.8) as door:
        client = await door.client()
        await client.send(get())
        await hub.peer()
        await asyncio.sleep(1.0)
        hub.peers[0].cue()
        assert (await client.reply()).status == 200


async def test_a_slow_body_is_not_a_slow_head() -> None:
    async def script(peer: Peer) -> None:
        while await peer.until(b"hello"):
            await peer.send(ok())

    async with RawUpstream(script) as hub, gate(hub, header_timeout=0.8) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        for letter in b"hello":
            await asyncio.sleep(0.2)
            await client.send(bytes([letter]))
        assert (await client.reply()).status == 200
        await asyncio.sleep(1.0)
        await client.send(post(b"hello"))
        assert (await client.reply()).status == 200


async def test_a_connection_without_an_address_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset before it was accepted: its request can still be read, but the kernel may have forgotten whose it was."""
    heard: list[str] = []
    listening = BrowserConnection.data_received

    def data_received(browser: BrowserConnection, data: bytes) -> None:
        heard.append(browser.address)
        listening(browser, data)

    monkeypatch.setattr(BrowserConnection, "data_received", data_received)
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", door.port)) as gone:
                gone.sendall(get())
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert (await door.ask(get())).status == 200
        assert set(heard) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (get("/", b"X: " + b"x" * 20_000), 431),
        (get("/", b"X" * 20_000 + b": x"), 431),
        (get("/", *[b"X: y"] * 200), 400),
        (b"GARBAGE\r\n\r\n", 400),
    ],
    ids=["line", "value", "name", "count", "garbage"],
)
async def test_what_is_too_large_is_refused_plainly(
    request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        client.writer.write(request_)
        reply = await client.reply()
        assert reply.status == status
        assert b"xxx" not in reply.body
        assert await client.rest() == b""
        assert not hub.peers
    assert "Traceback" not in caplog.text


async def test_a_megabyte_of_head_is_not_read_to_its_end() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        client.writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + b"x" * (1 << 20))
        assert b" 431 " in await client.rest()
        assert not hub.peers


async def test_everything_over_tls_as_well(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    serving, trusting = authority.serving(), authority.trusting()
    async with (
        RawUpstream(always(ok(b"x" * 100_000))) as hub,
        gate(hub, serving=serving, trusting=trusting, header_timeout=0.2) as door,
    ):
        client = await door.client()
        for _ in range(3):
            await client.send(get())
            assert len((await client.reply()).body) == 100_000
        await client.send(b"GET")
        assert b" 408 " in await client.rest()


async def test_pages_are_an_ordinary_application() -> None:
    said: list[str] = []

    @web.middleware
    async def middleware(request: web.Request, handler: object) -> web.StreamResponse:
        said.append(request.path)
        try:
            return await handler(request)  # type: ignore[operator, no-any-return]
        except web.HTTPException as error:
            return web.Response(status=error.status, text="ours")

    async def page(request: web.Request) -> web.Response:
        form = await request.post()
        return web.Response(text=f"{request.match_info['name']} {form.get('a')} {request.app[STATE]}")

    async def lifetime(app: web.Application) -> object:
        app[STATE] = "started"
        yield
        said.append("cleaned up")

    pages = web.Application(middlewares=[middleware])
    pages.cleanup_ctx.append(lifetime)  # type: ignore[arg-type]
    pages.router.add_post("/pages/{name}", page)
    async with RawUpstream(always(ok())) as hub, gate(hub, pages=pages) as door:
        form = b"Content-Type: application/x-www-form-urlencoded"
        reply = await door.ask(post(b"a=b", form).replace(b"POST /", b"POST /pages/one"))
        assert reply.body == b"one b started"
        assert (await door.ask(get("/pages/two"))).body == b"ours"
    assert said == ["/pages/one", "/pages/two", "cleaned up"]


async def test_the_end_waits_for_answers_and_uploads() -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).startswith(b"PUT"):
            await peer.exactly(10)
            await peer.send(ok(b"stored"))
        else:
            await peer.cued()
            await peer.send(ok(b"late"))
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, shutdown_timeout=10.0) as door:
        idle, slow, upload = [await door.client() for _ in range(3)]
        await idle.send(get("/pages/none"))
        await idle.reply()
        await slow.send(get())
        first = await hub.peer(0)
        await upload.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
        await (await hub.peer(1)).saw(b"hello")
        ending = asyncio.create_task(door.runner.cleanup())
        assert await idle.rest() == b""  # closed at once
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", door.port), timeout=1).close()
        await upload.send(b"world")
        reply = await upload.reply()
        assert (reply.body, reply.field("Connection")) == (b"stored", b"close")
        first.cue()
        assert (await slow.reply()).body == b"late"
        assert await upload.rest() == b""
        assert await slow.rest() == b""
        await ending


async def test_the_end_does_not_wait_for_ever() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub, shutdown_timeout=0.1) as door:
        client = await door.client()
        await client.send(get())
        peer = await hub.peer()
        await peer.saw(b"\r\n\r\n")
        await door.runner.cleanup()
        assert await client.rest() == b""
        await peer.gone()
