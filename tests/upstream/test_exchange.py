"""Requests and answers as they pass, in raw bytes: what the hub received and what the client received."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.upstream.http import Answer
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, answering, get, ok, post

BOTH_LOOPS = True
BOTH_WAYS = True
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_request_passes_as_it_is() -> None:
    async with RawUpstream(answering(ok(b"hello", b"X-A: b"))) as hub, gate(hub) as door:
        reply = await door.ask(get("/htc/a%2Fb/../c?x=%20+;y#", b"X-Odd: \xe4\xc3", b"Cookie: a=b"))
        assert hub.received == (
            b"GET /htc/a%2Fb/../c?x=%20+;y# HTTP/1.1\r\nHost: h\r\nX-Odd: \xe4\xc3\r\nCookie: a=b\r\n\r\n"
        )
        assert reply.body == b"hello"
        assert reply.head == b"HTTP/1.1 200 OK\r\nX-A: b\r\nX-Rewritten: 200\r\nContent-Length: 5"


async def test_connections_on_both_sides_are_used_again() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(5):
            await client.send(get())
            assert (await client.reply()).status == 200
            await door.at_rest()
        assert len(hub.peers) == 1
        assert door.pool.waiting == 1
        assert await door.outcome(4) == Answer(200, sent=2, keep_alive=True)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.send(ok((await peer.request()).split()[1]))

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"".join(get(f"/{number}") for number in range(100)))
        assert [(await client.reply()).body for _ in range(100)] == [b"/%d" % number for number in range(100)]


async def test_requests_at_once_get_connections_of_their_own() -> None:
    asked = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        request = await peer.request()
        asked.release()
        if request.startswith(b"GET /slow"):
            await peer.cued()  # never
        await peer.send(ok(request.split()[1]))
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        slow, fast = await door.client(), await door.client()
        await slow.send(get("/slow"))
        await asked.acquire()
        await fast.send(get("/fast"))
        assert (await fast.reply()).body == b"/fast"
        assert len(hub.peers) == 2


async def test_chunks_are_made_anew() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b'003;ext="1"\r\nabc\r\n')
        await peer.cued()
        await peer.send(b"1\r\nd\r\n2\r\nef\r\n0\r\nX-Trailer: 1\r\n\r\n")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        assert (await client.until(b"abc\r\n")).endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        hub.peers[0].cue()
        assert await client.until(b"0\r\n\r\n") == b"3\r\ndef\r\n0\r\n\r\n"
        assert await door.outcome() == Answer(200, sent=6, keep_alive=True)


async def test_a_chunked_answer_that_is_all_here_gets_a_length() -> None:
    async with RawUpstream(always(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            await door.at_rest()
            assert (reply.body, reply.field("Content-Length")) == (b"abc", b"3")
        assert len(hub.peers) == 1


async def test_an_answer_up_to_the_end_of_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nabc")

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            assert (reply.body, reply.field("Transfer-Encoding")) == (b"abc", b"chunked")
        assert len(hub.peers) == 2


async def test_a_hub_of_http10() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    async with RawUpstream(script) as hub, gate(hub) as door:
        reply = await door.ask(get())
        assert (reply.body, reply.head[:15]) == (b"abc", b"HTTP/1.1 200 OK")
        assert door.pool.waiting == 0


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"7"),
        (CHUNKED, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"0"),
    ],
)
async def test_head_has_no_body(answer: bytes, length: bytes | None) -> None:
    async with RawUpstream(answering(answer, ok())) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get().replace(b"GET", b"HEAD"))
        reply = await client.reply("HEAD")
        await door.at_rest()
        assert reply.field("Content-Length") == length
        assert reply.field("Transfer-Encoding") is None
        await client.send(get())
        assert (await client.reply()).body == b"ok"
        assert len(hub.peers) == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("framing", [b"", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_statuses_without_a_body(status: bytes, framing: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nETag: x\r\n" + framing + b"\r\n"
    async with RawUpstream(answering(answer, ok())) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        reply = await client.reply()
        await door.at_rest()
        assert reply.field("ETag") == b"x"
        assert reply.field("Content-Length") is None
        assert reply.field("Transfer-Encoding") is None
        await client.send(get())
        assert (await client.reply()).body == b"ok"
        assert len(hub.peers) == 1


async def test_a_head_in_single_bytes() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in ok(b"hello"):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        assert (await door.ask(get())).body == b"hello"


async def test_http10_clients_get_no_chunks() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.cued()
        await peer.send(b"3\r\ndef\r\n0\r\n\r\n")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.until(b"abc")).endswith(b"Connection: close\r\n\r\nabc")
        hub.peers[0].cue()
        assert await client.rest() == b"def"


async def test_http10_clients_are_kept_when_they_ask_for_it() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.reply()).field("Connection") == b"keep-alive"
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        assert (await client.reply()).field("Connection") == b"close"
        assert await client.rest() == b""
        assert hub.received.count(b" / HTTP/1.1\r\n") == 3


async def test_connection_close_is_honoured() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get("/", b"Connection: close"))
        reply = await client.reply()
        assert (reply.field("Connection"), reply.body) == (b"close", b"ok")
        assert await client.rest() == b""
        assert door.pool.waiting == 1  # the hub's connection is none of the client's business


async def test_a_hub_that_closes_is_asked_on_a_new_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"ok", b"Connection: close"))

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(3):
            await client.send(get())
            reply = await client.reply()
            assert (reply.body, reply.field("Connection")) == (b"ok", None)
        assert len(hub.peers) == 3


async def test_interim_answers_are_swallowed() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nSet-Cookie: a=b\r\n\r\n"
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + early * 3 + b"HTTP/1.1 102 Processing\r\n\r\n" + ok()
    async with RawUpstream(always(answer)) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            await door.at_rest()
            assert (reply.status, reply.body, reply.field("Link")) == (200, b"ok", None)
        assert len(hub.peers) == 1


@pytest.mark.parametrize("framing", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
async def test_server_sent_events_pass_at_once(framing: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + framing)
        for number in range(5):
            await peer.cued()
            event = b"data: %03d\n\n" % number
            await peer.send(b"b\r\n%b\r\n" % event if framing != b"\r\n" else event)
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.until(b"chunked\r\n\r\n")
        for number in range(5):
            # The hub says the next only after this one has come.
            hub.peers[0].cue()
            assert await client.until(b"\n\n\r\n") == b"b\r\ndata: %03d\n\n\r\n" % number


async def test_pages_and_forwarded_requests_share_a_connection() -> None:
    from aiohttp import web

    pages = web.Application()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"page {await request.text()}")

    pages.router.add_route("*", "/pages/{name}", page)
    async with RawUpstream(always(ok())) as hub, gate(hub, pages=pages) as door:
        client = await door.client()
        await client.send(
            get("/pages/a") + get("/b") + post(b"xyz").replace(b"POST /", b"POST /pages/c") + get("/pages")
        )
        bodies = [(await client.reply()).body for _ in range(4)]
        assert bodies == [b"page ", b"ok", b"page xyz", b"ok"]
        assert hub.received.count(b"HTTP/1.1") == 2
