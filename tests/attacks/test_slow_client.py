"""Clients that take their time, or never come to an end: bounded in number of bytes held, and no cost to the others.
Time itself is never asserted, only that the others are served while the slow ones hang."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.upstream.http import Answer, ClientAborted, Timeouts
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, get, ok, post

BOTH_LOOPS = True


@pytest.mark.parametrize(
    "piece",
    [b"", b"G", b"GET / HTTP/1.1\r\n", get("/", b"X: y")[:-2]],
    ids=["silent", "a letter", "a line", "a head without its end"],
)
async def test_many_slow_heads_cost_the_others_nothing_and_end(piece: bytes) -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, header_timeout=2.0) as door:
        slow = []
        for _ in range(150):
            slow.append(await door.client())
            await slow[-1].send(piece)
        client = await door.client()
        for _ in range(50):
            await client.send(get())
            assert (await client.reply()).status == 200
        endings = await asyncio.gather(*(each.rest() for each in slow))
        assert all(b" 408 " in ending for ending in endings)
        await client.send(get())
        assert (await client.reply()).status == 200
        assert hub.received.count(b"GET / ") == 51


async def test_slow_bodies_hold_one_hub_connection_each_and_end() -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).startswith(b"PUT"):
            await peer.gone()
        else:
            await peer.send(ok())
            await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(stall=0.5, keep_alive=0.1)) as door:
        slow = [await door.client() for _ in range(30)]
        for each in slow:
            await each.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nslow")
        assert (await door.ask(get())).status == 200
        statuses = [(await each.reply()).status for each in slow]
        assert statuses == [408] * 30
        for peer in hub.peers:
            await peer.gone()
        assert len(door.pool) == 0


async def test_slow_readers_end_and_free_their_hub() -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).startswith(b"GET /large"):
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"x" * 1_000_000)
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(stall=0.5, keep_alive=0.1)) as door:
        for _ in range(5):
            await (await door.client()).send(get("/large"))
        assert (await door.ask(get())).status == 200
        async with asyncio.timeout(60):
            while sum(isinstance(outcome, ClientAborted) for outcome in door.outcomes) < 5:
                await asyncio.sleep(0.02)
        for peer in hub.peers:
            await peer.gone()


async def test_a_slow_reader_that_goes_on_gets_everything() -> None:
    body = bytes(range(256)) * 40_000
    async with RawUpstream(always(ok(body))) as hub, gate(hub, limits=Timeouts(stall=5.0)) as door:
        client = await door.client()
        await client.send(get())
        await client.until(b"\r\n\r\n")
        got = b""
        while len(got) < len(body):
            got += await client.exactly(min(1_000_000, len(body) - len(got)))
            await asyncio.sleep(0.01)
        assert got == body
        assert await door.outcome() == Answer(200, sent=len(body), keep_alive=True)


@pytest.mark.parametrize("size", [60_000, 600_000], ids=["in one piece", "in many"])
async def test_a_reader_that_leaves_late_does_not_take_the_hubs_connection_with_it(size: int) -> None:
    """Its answer is complete as far as the hub is concerned, and another one's request is on that connection."""

    async def script(peer: Peer) -> None:
        while True:
            if (await peer.request()).startswith(b"GET /large"):
                await peer.send(ok(b"x" * size))
            else:
                await peer.cued()
                await peer.send(ok(b"late"))

    async with RawUpstream(script) as hub, gate(hub, send_buffer=8192) as door:
        slow = await door.client(receive_buffer=4096)
        count = 3 if size < 65_536 else 1  # so that more than 64 KiB wait in the end: the mark of a transport's buffer
        await slow.send(get("/large") * count)
        await slow.until(b"\r\n\r\n")
        async with asyncio.timeout(60):
            # Until the hub's part is over, and ours is not.
            while not door.pool.waiting or hub.received.count(b"/large") < min(count, 2):
                if count == 1:
                    await slow.exactly(4096)
                await asyncio.sleep(0)
        other = await door.client()
        await other.send(get("/other"))
        await hub.peers[0].saw(b"GET /other")
        slow.reset()
        assert door.runner.server is not None
        async with asyncio.timeout(60):
            while sum(browser.transport is not None for browser in door.runner.server.connections) > 1:
                await asyncio.sleep(0.01)
        hub.peers[0].cue()
        assert (await other.reply()).body == b"late"
        assert len(hub.peers) == 1


async def test_two_hundred_pipelined_requests_and_an_eager_hub() -> None:
    async with RawUpstream(always(ok(b"x" * 1000))) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get() * 200)
        for _ in range(200):
            assert len((await client.reply()).body) == 1000
        assert len(hub.peers) == 1


async def test_a_pipeline_without_end_is_read_only_as_it_is_answered() -> None:
    """aiohttp holds 32 requests of a connection; what comes after them waits in the client's socket."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        block = get("/" + "x" * 8000) * 100
        sent, before = 0, -1
        while sent != before:
            before = sent
            try:
                async with asyncio.timeout(0.2):
                    while True:
                        await client.send(block)
                        sent += len(block)
            except TimeoutError:
                pass
        assert sent < 64 << 20
        assert door.runner.server is not None
        (browser,) = door.runner.server.connections
        assert len(browser._messages) <= 32


async def test_clients_that_vanish_leave_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()  # never

    async with RawUpstream(script) as hub, gate(hub) as door:
        clients = [await door.client() for _ in range(50)]
        for number, client in enumerate(clients):
            await client.send(get() if number % 2 else post(b"x" * 100))
        await hub.peer(49)
        for client in clients:
            client.reset()
        for number in range(50):
            assert isinstance(await door.outcome(number), ClientAborted)
        assert len(door.pool) == 0
        assert door.runner.server is not None
        async with asyncio.timeout(60):
            while door.runner.server.connections:
                await asyncio.sleep(0.01)
