"""Large bodies in both directions: everything arrives, and the process stays as large as it was."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubgate.upstream.connection import READ_AHEAD
from hubgate.upstream.http import Answer, ClientAborted, Timeouts
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, get

BOTH_LOOPS = True
BOTH_WAYS = True

BLOCK = bytes(range(256)) * 4096  # 1 MiB
MANY, SOME = 256, 16
"""256 MiB once each way; less where it is the same code on the other loop, or with chunks."""
GROWTH = 24 << 20
"""Bytes by which a process may grow that is hub, gateway and client at once, each with its buffers."""

BLOCK_SUM = hashlib.blake2b(BLOCK).digest()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """How much the process has grown at most."""

    def __init__(self) -> None:
        self._before = resident()
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, resident() - self._before)


async def blocks(reader: asyncio.StreamReader, count: int, watch: Watch) -> AsyncIterator[bytes]:
    """A stream in so many blocks."""
    for _ in range(count):
        watch.look()
        yield await reader.readexactly(len(BLOCK))


async def all_right(reader: asyncio.StreamReader, count: int, watch: Watch) -> bool:
    """Whether exactly what was sent has come."""
    return all([hashlib.blake2b(block).digest() == BLOCK_SUM async for block in blocks(reader, count, watch)])


def chunked(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block)


def how_many(framing: str) -> int:
    """Blocks for this framing on this loop."""
    return MANY if framing == "length" and "uvloop" in type(asyncio.get_running_loop()).__module__ else SOME


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_large_answers(framing: str) -> None:
    count = how_many(framing)
    size = count * len(BLOCK)

    async def script(peer: Peer) -> None:
        await peer.request()
        header = b"Content-Length: %d" % size if framing == "length" else b"Transfer-Encoding: chunked"
        await peer.send(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n")
        for _ in range(count):
            await peer.send(BLOCK if framing == "length" else chunked(BLOCK))
        if framing == "chunks":
            await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")  # a client that gets no chunks: its bytes are the body
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        watch = Watch()
        assert await all_right(client.reader, count, watch)
        assert watch.growth < GROWTH
        assert await door.outcome() == Answer(200, sent=size, keep_alive=False)


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_large_uploads(framing: str) -> None:
    watch = Watch()
    count = how_many(framing)
    size = count * len(BLOCK)

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        if framing == "length":
            same = await all_right(peer.reader, count, watch)
        else:
            total, same = 0, True
            while length := int(await peer.reader.readuntil(b"\r\n"), 16):
                piece = (await peer.reader.readexactly(length + 2))[:-2]
                offset = total % len(BLOCK)
                same &= (BLOCK + BLOCK)[offset : offset + length] == piece
                total += length
                watch.look()
            same &= total == size
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"same" if same else b"else"))
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        header = b"Content-Length: %d" % size if framing == "length" else b"Transfer-Encoding: chunked"
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\n" + header + b"\r\n\r\n")
        for _ in range(count):
            await client.send(BLOCK if framing == "length" else chunked(BLOCK))
        if framing == "chunks":
            await client.send(b"0\r\n\r\n")
        assert (await client.reply()).body == b"same"
        assert watch.growth < GROWTH
        outcome = await door.outcome()
        assert isinstance(outcome, Answer)
        assert outcome.received == size


async def test_a_client_that_does_not_read_stops_the_hub_and_is_left_in_the_end() -> None:
    sent = [0]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(BLOCK)
            sent[0] += len(BLOCK)

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(stall=0.3)) as door:
        client = await door.client()
        await client.send(get())
        await client.until(b"\r\n\r\n")
        watch = Watch()
        outcome = await door.outcome()
        watch.look()
        assert isinstance(outcome, ClientAborted)
        assert outcome.code == "client_stalled"
        assert sent[0] < 64 << 20  # the kernel's buffers, and ours
        assert watch.growth < GROWTH
        await (await hub.peer()).gone()


async def test_a_hub_that_does_not_read_stops_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        watch = Watch()
        sent, before = 0, -1
        while sent != before:
            before = sent
            try:
                async with asyncio.timeout(0.2):
                    while True:
                        await client.send(BLOCK)
                        sent += len(BLOCK)
            except TimeoutError:
                watch.look()
        assert sent < 64 << 20
        assert watch.growth < GROWTH
        hub.peers[0].cue()
        assert (await client.reply()).status == 200


PIPELINED = {
    "in many pieces": (b"Content-Length: %d\r\n\r\n" % READ_AHEAD) + b"x" * READ_AHEAD,
    "in one piece": b"Content-Length: 30000\r\n\r\n" + b"x" * 30_000,
    "in one piece, chunked": b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * 30_000) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("answer", PIPELINED.values(), ids=PIPELINED.keys())
async def test_pipelined_answers_to_a_client_that_does_not_read_do_not_pile_up(answer: bytes) -> None:
    answered = [0]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n" + answer)
            answered[0] += 1

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(stall=0.3), send_buffer=8192) as door:
        client = await door.client(receive_buffer=4096)
        await client.send(get() * 400)
        await client.until(b"\r\n\r\n")
        watch = Watch()
        async with asyncio.timeout(60):
            while not any(isinstance(outcome, ClientAborted) for outcome in door.outcomes):
                watch.look()
                await asyncio.sleep(0.01)
        # The mark of a transport's buffer is 64 KiB.
        assert answered[0] <= 10
        assert watch.growth < GROWTH
