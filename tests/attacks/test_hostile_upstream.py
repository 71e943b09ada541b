"""Answers of a hostile notebook server, judged by what this client and the next one received. The next one's answer
must never hold a byte that the hub sent for somebody else."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.errors import UpstreamFault
from hubgate.upstream.http import Timeouts, UpstreamAborted
from tests.kit.gate import Gate, gate
from tests.kit.raw import Peer, RawUpstream, Script, get, ok, post

BOTH_LOOPS = True

FORGED = b"HTTP/1.1 200 OK\r\nX-Forged: yes\r\nContent-Length: 6\r\n\r\nforged"
STATUS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
FOR_EVER = Timeouts(keep_alive=3600.0)
"""A connection that ends under this didn't end by its age."""


def hostile(answer: bytes) -> Script:
    """Answers the first request on every connection like this, for the path /evil; all others in good order."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(answer if request.startswith((b"GET /evil", b"HEAD /evil", b"POST")) else ok(b"good"))

    return script


async def the_next_one_is_safe(door: Gate, client: Peer | None = None) -> None:
    """Further requests, on this client's connection and on others, get their own answers."""
    clients = [client] if client is not None else []
    clients += [await door.client(), await door.client()]
    for each in clients:
        for _ in range(2):
            await each.send(get("/good"))
            reply = await each.reply()
            assert (reply.status, reply.body) == (200, b"good")
            assert b"orged" not in reply.head


# Refused whole: the client gets a 502 and keeps its connection.
REFUSED = {
    "two lengths": STATUS + b"Content-Length: 2\r\nContent-Length: 100\r\n\r\nok" + FORGED,
    "length and chunks": STATUS + b"Content-Length: 2\r\n" + CHUNKED + b"0\r\n\r\n" + FORGED,
    "malformed length": STATUS + b"Content-Length: 2,2\r\n\r\nok" + FORGED,
    "negative length": STATUS + b"Content-Length: -2\r\n\r\nok" + FORGED,
    "odd coding": STATUS + b"Transfer-Encoding: chunked, x\r\n\r\nok" + FORGED,
    "folded line": STATUS + b"X: a\r\n Content-Length: 2\r\n\r\nok" + FORGED,
    "bare LF": STATUS + b"X: a\nContent-Length: 2\r\n\r\nok" + FORGED,
    "bare LF all over": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok" + FORGED.replace(b"\r", b""),
    "bare CR in a value": STATUS + b"X: a\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": STATUS + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "blank before the colon": STATUS + b"Content-Length : 2\r\n\r\nok",
    "a megabyte of head": STATUS + b"X: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "ten thousand fields": STATUS + b"X: yyyyyyy\r\n" * 10_000 + b"\r\n",
    "flood of 1xx": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + FORGED,
    "HTTP/0.9": b"<html>no head at all</html>\n",
    "HTTP/2": b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "chunks over HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"0\r\n\r\n" + FORGED,
    "broken first chunk": STATUS + CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n" + FORGED,
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED.keys())
async def test_answers_with_two_readings_are_refused_whole(answer: bytes) -> None:
    async with RawUpstream(hostile(answer)) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get("/evil"))
        reply = await client.reply()
        assert (reply.status, reply.body) == (502, b"upstream_malformed")
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamFault)
        assert outcome.repeatable  # a GET: the gateway may ask another hub
        await the_next_one_is_safe(door, client)
        assert hub.received.count(b"/evil") == 1


# In order up to its end, with more behind it: cut there, and the connection is not used again.
SURPLUS = {
    "behind a length": (STATUS + b"Content-Length: 2\r\n\r\nok", b"ok"),
    "behind an empty body": (STATUS + b"Content-Length: 0\r\n\r\n", b""),
    "behind chunks": (STATUS + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok"),
    "behind trailers": (STATUS + CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: y\r\n\r\n", b"ok"),
    "behind a 204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "behind a 204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 100\r\n\r\n", b""),
    "behind a 304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", b""),
}
EXTRA = {
    "an answer": FORGED,
    "a byte": b"x",
    "an empty line": b"\r\n",
    "a chunk": b"0\r\n\r\n",
    "many bytes": b"y" * 300_000,
}


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA.keys())
@pytest.mark.parametrize(("answer", "body"), SURPLUS.values(), ids=SURPLUS.keys())
async def test_surplus_is_cut_and_its_connection_dropped(answer: bytes, body: bytes, extra: bytes) -> None:
    async with RawUpstream(hostile(answer + extra)) as hub, gate(hub, limits=FOR_EVER) as door:
        client = await door.client()
        await client.send(get("/evil"))
        assert (await client.reply()).body == body
        await (await hub.peer()).gone()
        await the_next_one_is_safe(door, client)
        assert b"/good" not in hub.peers[0].received


@pytest.mark.parametrize("extra", [FORGED, b"x", b"\r\n"], ids=["answer", "byte", "blank"])
async def test_a_body_behind_a_head_answer_is_cut(extra: bytes) -> None:
    async with (
        RawUpstream(hostile(STATUS + b"Content-Length: 6\r\n\r\n" + extra)) as hub,
        gate(hub, limits=FOR_EVER) as door,
    ):
        client = await door.client()
        await client.send(get("/evil").replace(b"GET", b"HEAD"))
        assert (await client.reply("HEAD")).status == 200
        await (await hub.peer()).gone()
        await the_next_one_is_safe(door, client)


@pytest.mark.parametrize("extra", [FORGED, b"x", b"\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_whatever_comes_while_a_connection_waits_ends_it(extra: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"good"))
        await peer.cued()
        await peer.send(extra)
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=FOR_EVER) as door:
        client = await door.client()
        await client.send(get("/good"))
        await client.reply()
        assert door.pool.waiting == 1
        hub.peers[0].cue()
        await hub.peers[0].gone()
        await client.send(get("/good"))
        reply = await client.reply()
        assert (reply.body, len(hub.peers)) == (b"good", 2)


async def test_an_answer_before_its_question_is_not_given_to_anybody() -> None:
    """The hub races: its surplus arrives when the connection is waiting, together with the next client's request."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(b"good"))
            await peer.send(FORGED)

    async with RawUpstream(script) as hub, gate(hub) as door:
        clients = [await door.client() for _ in range(5)]
        for _ in range(10):
            for client in clients:
                await client.send(get("/good"))
            for client in clients:
                reply = await client.reply()
                # The forged bytes can only follow what they followed on the wire: a read that is over.
                assert reply.status in {200, 502}
                assert b"orged" not in reply.head + reply.body


BROKEN_LATER = {
    "bad chunk size": b"zz\r\n",
    "chunk without its end": b"3\r\nabcX",
    "bare LF": b"3\nabc\r\n",
    "length in the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
    "new head in a chunk's place": FORGED,
}


@pytest.mark.parametrize("later", BROKEN_LATER.values(), ids=BROKEN_LATER.keys())
async def test_chunks_that_break_after_the_beginning_reset_the_client(later: bytes) -> None:
    async def script(peer: Peer) -> None:
        while (await peer.request()).startswith(b"GET /good"):
            await peer.send(ok(b"good"))
        await peer.send(STATUS + CHUNKED + b"2\r\nok\r\n")
        await peer.cued()
        await peer.send(later)
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get("/evil"))
        await client.until(b"2\r\nok\r\n")
        hub.peers[0].cue()
        rest = await client.rest()
        assert b"HTTP/1.1" not in rest
        assert not rest.endswith(b"0\r\n\r\n")
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamAborted)
        assert outcome.code == "upstream_malformed"
        await the_next_one_is_safe(door)


async def test_an_endless_head_is_cut_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STATUS)
        while True:
            await peer.send(b"X: y\r\n" * 100)

    async with RawUpstream(script) as hub, gate(hub) as door:
        assert (await door.ask(get())).status == 502


async def test_endless_1xx_are_cut_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")

    async with RawUpstream(script) as hub, gate(hub) as door:
        assert (await door.ask(get())).status == 502


async def test_a_trickled_head_ends_at_its_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 200 OK\r\n" if peer._taken else b"")
            await peer.send(b"X: y\r\n")
            await asyncio.sleep(0.02)

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(head=0.2)) as door:
        assert (await door.ask(get())).status in {502, 504}


async def test_two_answers_to_a_post_are_one() -> None:
    async with RawUpstream(hostile(ok(b"one") + ok(b"two"))) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(post(b"x"))
        assert (await client.reply()).body == b"one"
        await the_next_one_is_safe(door, client)
        assert client.unread == b""


async def test_hop_by_hop_and_framing_fields_of_a_hub_do_not_pass() -> None:
    fields = (
        b"Connection: X-Secret, keep-alive",
        b"X-Secret: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Trailer: X",
        b"Upgrade: h2c",
        b"TE: x",
        b"Proxy-Connection: keep-alive",
    )
    async with RawUpstream(hostile(ok(b"ok", *fields))) as hub, gate(hub) as door:
        reply = await door.ask(get("/evil"))
        assert reply.head == b"HTTP/1.1 200 OK\r\nX-Rewritten: 200\r\nContent-Length: 2"


async def test_users_never_get_each_others_answers() -> None:
    """Many users on one pool; the hub resets, lies and lingers as it likes; every answer names the path it is for."""

    async def script(peer: Peer) -> None:
        served = 0
        while True:
            path = (await peer.request()).split()[1]
            served += 1
            mood = (hash(path) + served) % 7
            body = b"for " + path
            if mood == 0:
                peer.reset()
                return
            if mood == 1:
                await peer.send(ok(body) + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfor /none")
            elif mood == 2:
                await peer.send(STATUS + CHUNKED + b"%x\r\n%b\r\n0\r\n\r\nfor /none" % (len(body), body))
            elif mood == 3:
                await peer.send(STATUS + b"Content-Length: 1000\r\n\r\n" + body)
                return
            elif mood == 4:
                await peer.send(ok(body))
                await asyncio.sleep(0)
                await peer.send(FORGED)
            else:
                await peer.send(ok(body))

    async with RawUpstream(script) as hub, gate(hub) as door:
        good = 0

        async def user(name: int) -> None:
            nonlocal good
            client = await door.client()
            for number in range(40):
                path = f"/{name}/{number}"
                await client.send(get(path))
                try:
                    reply = await client.reply()
                except (EOFError, ConnectionError):
                    client = await door.client()  # a truncated answer, told as such
                    continue
                if reply.status == 200:
                    assert reply.body == b"for " + path.encode()
                    good += 1
                if number % 10 == name % 10:
                    await client.send(get(f"/{name}/left"))
                    client.reset()
                    client = await door.client()

        await asyncio.gather(*(user(name) for name in range(20)))
        assert good > 100
