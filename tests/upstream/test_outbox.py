"""What is written in one turn goes out together, each to its own, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hubgate.upstream.outbox import Outbox
from tests.kit.raw import Peer, RawUpstream

BOTH_LOOPS = True


@pytest.fixture
async def ends() -> AsyncIterator[RawUpstream]:
    async with RawUpstream(Peer.gone) as hub:
        yield hub


def crowded() -> Outbox:
    """An outbox that has something to gather."""
    outbox = Outbox(asyncio.get_running_loop())
    outbox.busy = 2
    return outbox


async def connected(ends: RawUpstream) -> tuple[asyncio.Transport, Peer]:
    number = len(ends.peers)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", ends.port)
    return transport, await ends.peer(number)


async def test_letters_arrive_in_order_without_being_asked_for(ends: RawUpstream) -> None:
    outbox = crowded()
    first, one = await connected(ends)
    second, other = await connected(ends)
    for number in range(3):
        outbox.put(first, b"a%d" % number)
        outbox.put(second, b"b%d" % number)
    assert first.get_write_buffer_size() == 0
    await one.saw(b"a0a1a2")
    await other.saw(b"b0b1b2")
    outbox.put(first, b"later")
    await one.saw(b"later")
    first.abort()
    second.abort()


async def test_flushing_sends_at_once_and_once(ends: RawUpstream) -> None:
    outbox = crowded()
    transport, end = await connected(ends)
    outbox.put(transport, b"one ")
    outbox.flush()
    transport.write(b"two ")
    outbox.flush()
    outbox.put(transport, b"three")
    outbox.flush()
    transport.close()
    await end.gone()
    assert end.received == b"one two three"


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("ending", ["abort", "close"])
async def test_a_transport_that_has_ended_costs_nobody_else_a_letter(
    ends: RawUpstream, ending: str, turns: int
) -> None:
    """uvloop's raise when they are written to after their end; others' answers were behind it in the same turn."""
    outbox = crowded()
    ended, _ = await connected(ends)
    alive, end = await connected(ends)
    getattr(ended, ending)()
    for _ in range(turns):
        await asyncio.sleep(0)
    outbox.put(ended, b"to nobody")
    outbox.put(alive, b"to somebody")
    await end.saw(b"to somebody")
    alive.abort()


async def test_a_letter_alone_goes_out_at_once(ends: RawUpstream) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    transport, end = await connected(ends)
    outbox.busy = 1
    outbox.put(transport, b"one ")
    transport.write(b"two")
    await end.saw(b"one two")
    transport.abort()
    outbox.put(transport, b"to nobody")
