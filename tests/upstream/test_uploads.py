"""Requests with a body: lengths kept, chunks made anew, early answers, and what happens when one side gives up."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.errors import ClientFault
from hubgate.upstream.http import Answer, ClientAborted, Timeouts, UpstreamAborted
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, answering, get, ok, post

BOTH_LOOPS = True
BOTH_WAYS = True


async def test_a_small_body_goes_out_with_its_head() -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"hello")
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        assert (await door.ask(post(b"hello"))).status == 200
        assert hub.received == b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        assert await door.outcome() == Answer(200, sent=2, received=5, keep_alive=True)


async def test_an_empty_body_stays_declared() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        await door.ask(post(b""))
        assert hub.received == b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


async def test_a_body_in_pieces() -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"\r\n\r\nab")
        await peer.until(b"cd")
        await peer.until(b"e")
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        head = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
        await client.send(head + b"ab")
        peer = await hub.peer()
        for piece in (b"cd", b"e"):
            while not peer.received.endswith((b"ab", b"cd")):
                await asyncio.sleep(0.001)
            await client.send(piece)
        assert (await client.reply()).status == 200
        assert hub.received == head + b"abcde"
        assert door.pool.waiting == 1


@pytest.mark.parametrize("whole", [True, False])
async def test_chunked_bodies_are_framed_anew(*, whole: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"0\r\n\r\n")
        await peer.send(ok())
        await peer.gone()

    parts = [b'003;ext="x"\r\nabc\r\n', b"2\r\nde\r\n", b"0\r\nX-Hubgate-Assertion: evil\r\n\r\n"]
    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        request = post(framing=b"Transfer-Encoding: Chunked")
        if whole:
            await client.send(request + b"".join(parts))
        else:
            for part in (request, *parts):
                await client.send(part)
                await asyncio.sleep(0.01)
        assert (await client.reply()).status == 200
        head, _, body = hub.received.partition(b"\r\n\r\n")
        assert head == b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked"
        assert body == (b"5\r\nabcde\r\n0\r\n\r\n" if whole else b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"])
async def test_a_body_on_any_method_is_one_request(method: str) -> None:
    inner = get("/smuggled")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.exactly(len(inner))
        await peer.send(ok() if method != "HEAD" else ok()[:-2])
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        reply = await door.ask(post(inner).replace(b"POST", method.encode()), method)
        assert reply.status == 200
        assert hub.received.count(b"Content-Length: %d\r\n" % len(inner)) == 1
        assert hub.received.endswith(b"\r\n\r\n" + inner)
        assert len(hub.peers) == 1


async def test_expect_is_answered_here_and_never_sent_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"hello")
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        interim = await client.reply()
        assert (interim.status, interim.head) == (100, b"HTTP/1.1 100 Continue")
        await client.send(b"hello")
        assert (await client.reply()).status == 200
        assert b"xpect" not in hub.received


async def test_expect_gets_no_100_when_the_hub_is_out_of_reach() -> None:
    async with gate("http://127.0.0.1:1") as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await client.reply()).status == 502


async def test_expect_over_http10_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.until(b"hello")
        await peer.send(ok())

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        await hub.peer()
        await client.send(b"hello")
        assert (await client.reply()).status == 200


async def test_an_unknown_expectation_is_refused() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        assert (await door.ask(post(b"x", b"Expect: 200-ok"))).status == 417
        assert not hub.peers


async def test_an_early_answer_ends_the_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nstart")
        reply = await client.reply()
        assert (reply.status, reply.body, reply.field("Connection")) == (413, b"big", b"close")
        await (await hub.peer()).gone()
        assert door.pool.waiting == 0
        # What the client still sends is no second request.
        await client.send(get("/smuggled"))
        client.finish()
        assert await client.rest() == b""
        assert b"smuggled" not in hub.received


async def test_both_directions_at_once() -> None:
    async def echo(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (size := await peer.until(b"\r\n")) != b"0\r\n":
            await peer.send(size + await peer.exactly(int(size, 16) + 2))
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with RawUpstream(echo) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(post(framing=b"Transfer-Encoding: chunked"))
        await client.until(b"\r\n\r\n")
        for word in (b"one", b"two"):
            await client.send(b"3\r\n%b\r\n" % word)
            assert await client.until(word) == b"3\r\n" + word
            await client.until(b"\r\n")
        await client.send(b"0\r\n\r\n")
        assert await client.until(b"0\r\n\r\n")


async def test_a_client_that_leaves_during_its_upload() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nstart")
        peer = await hub.peer()
        client.reset()
        await peer.gone()
        outcome = await door.outcome()
        assert isinstance(outcome, ClientAborted)
        assert len(door.pool) == 0


async def test_a_client_that_stops_sending_gets_a_408() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub, limits=Timeouts(stall=0.1)) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nstart")
        assert (await client.reply()).status == 408
        await (await hub.peer()).gone()
        outcome = await door.outcome()
        assert isinstance(outcome, ClientFault)
        assert outcome.code == "body_timeout"


async def test_a_client_that_stops_sending_while_it_is_answered_is_reset() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(stall=0.1)) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nstart")
        assert (await client.rest()).endswith(b"\r\n\r\n3\r\nabc\r\n")
        assert isinstance(await door.outcome(), ClientAborted)


async def test_broken_chunks_are_refused_and_the_hub_is_left() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(post(framing=b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        peer = await hub.peer()
        await peer.until(b"abc\r\n")
        await client.send(b"xyz\r\n" + get("/smuggled"))
        assert (await client.reply()).status == 400
        assert await client.rest() == b""
        await peer.gone()
        assert not peer.received.endswith(b"0\r\n\r\n")
        assert b"smuggled" not in hub.received


async def test_a_hub_that_resets_during_an_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nstart")
        assert (await client.reply()).status == 502
        outcome = await door.outcome()
        assert getattr(outcome, "code", "") == "upstream_closed"
        assert getattr(outcome, "repeatable", True) is False
        assert len(hub.peers) == 1


async def test_a_hub_that_dies_in_the_answer_to_an_unfinished_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        peer.close()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nstart")
        assert (await client.rest()).count(b"HTTP/1.1") == 1
        assert isinstance(await door.outcome(), UpstreamAborted)


async def test_a_post_is_never_sent_twice() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()  # and close without a word

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.reply()
        await client.send(post(b"x"))
        assert (await client.reply()).status == 502
        assert hub.received.count(b"POST") == 1


async def test_a_post_avoids_connections_that_have_waited() -> None:
    limits = Timeouts(keep_alive=3600.0)
    async with RawUpstream(always(ok())) as hub, gate(hub, limits=limits) as door:
        client = await door.client()
        await client.send(get())
        await client.reply()
        await door.at_rest()
        door.pool._waiting[0].idle_since -= 1801.0
        await client.send(post(b""))
        await client.reply()
        await door.at_rest()
        assert [peer.received[:4] for peer in hub.peers] == [b"GET ", b"POST"]
        await client.send(get())  # a GET takes any
        await client.reply()
        assert len(hub.peers) == 2


async def test_answering_without_reading_gives_the_connection_up() -> None:
    async with RawUpstream(answering(ok())) as hub, gate(hub) as door:
        client = await door.client()
        size = 8 << 20
        await client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        assert (await client.reply()).status == 200
        await (await hub.peer()).gone()
        assert door.pool.waiting == 0
