"""Log Out, and what outlives it in other proxies: streams, downloads, long polls, uploads (oauth2-proxy#2996).

Each is open at the moment at which its session ends, on the long way and on the short one, because of a Log Out in this
worker or of an end that was said elsewhere. Its client gets nothing more, the hub is rid of it, and others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.attacks.lane import TURNS, Lane, lane
from tests.attacks.test_short_way_sessions import ended_elsewhere, log_out, session_of
from tests.kit.raw import Peer

Begin = Callable[[Peer, bytes], Awaitable[None]]


@pytest.fixture
async def at() -> AsyncIterator[Lane]:
    async with lane(4) as made:
        yield made


async def nothing(_peer: Peer, _head: bytes) -> None:
    """A long poll: the hub thinks."""


async def half_a_head(peer: Peer, _head: bytes) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-")


async def events(peer: Peer, _head: bytes) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.send(b"9\r\ndata: 1\n\n\r\n")


async def download(peer: Peer, _head: bytes) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000)


BEGINS = {"poll": nothing, "half a head": half_a_head, "events": events, "download": download}
MORE = {"events": b"9\r\ndata: 2\n\n\r\n", "download": b"y" * 1000, "half a head": b"Length: 1\r\n\r\ny"}
ENDS = {"log out": log_out, "elsewhere": ended_elsewhere}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("began", BEGINS)
@pytest.mark.parametrize("turn", TURNS)
async def test_nothing_that_was_open_goes_on(
    at: Lane, turn: str, began: str, end: Callable[[Lane], Awaitable[None]]
) -> None:
    place, client, other = at.place(), await at.client(), await at.client()
    await at.goes_well(other, place, user="bob")
    await at.goes_well(client, place, TURNS[turn])
    hubs_end: list[Peer] = []

    async def act(peer: Peer, head: bytes) -> None:
        hubs_end.append(peer)
        await BEGINS[began](peer, head)
        await peer.gone()
        raise EOFError

    at.acts.append(act)
    await client.send(at.get(place))
    await at.last_request(len(at.requests) + len(at.acts))
    if began in {"events", "download"}:
        await client.saw(b"data: 1" if began == "events" else b"x" * 50_000)
    assert session_of(at, "alice").open
    await end(at)
    came = len(client.received)
    await client.gone()
    assert b"data: 2" not in client.received
    assert b"y" not in client.received[came:]
    async with asyncio.timeout(60):
        await hubs_end[0].gone()
    await at.goes_well(other, place, 3, user="bob")
    refused = await at.client()
    await refused.send(at.get(place))
    assert (await refused.reply()).status == 401


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_an_upload_ends_with_its_session(at: Lane, end: Callable[[Lane], Awaitable[None]]) -> None:
    place, client = at.place(), await at.client()
    hubs_end: list[Peer] = []

    async def act(peer: Peer, _head: bytes) -> None:
        hubs_end.append(peer)
        await peer.exactly(10)
        await peer.gone()
        raise EOFError

    at.acts.append(act)
    head = at.get(place, b"Content-Length: 1000", line=b"PUT %b HTTP/1.1")
    await client.send(head + b"0123456789")
    async with asyncio.timeout(60):
        while not hubs_end or b"0123456789" not in hubs_end[0].received:
            await asyncio.sleep(0.001)
    await end(at)
    await client.gone()
    assert client.received == b""
    async with asyncio.timeout(60):
        await hubs_end[0].gone()
    assert b"0123456789" + b"x" not in hubs_end[0].received


async def test_a_request_that_waits_for_its_hub_when_the_session_ends_is_never_sent(
    at: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound, and then the session ends before the connection to the hub is there: nobody may go on in its name."""
    place, client = at.place(), await at.client()
    gate = asyncio.Event()
    waiting = asyncio.Event()
    bind = at.site.served.front.bindings.bind

    async def slow(*args: object) -> object:
        waiting.set()
        await gate.wait()
        return await bind(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(at.site.served.front.bindings, "bind", slow)
    await client.send(at.get(place))
    async with asyncio.timeout(60):
        await waiting.wait()
    seen = len(at.requests)
    await log_out(at)
    gate.set()
    await client.gone()
    assert client.received == b""
    await asyncio.sleep(0.05)
    assert len(at.requests) == seen


async def test_what_has_been_answered_is_not_counted_as_open(at: Lane) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 5)
    assert session_of(at, "alice").open == {}
