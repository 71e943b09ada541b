"""Clients that read or send slowly, leave in the middle, or ask for more than an answer, at the first plain GET of a
session and at the same one again: each has one outcome, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from hubgate.web.wire import front_runner
from tests.attacks.lane import TURNS, Lane, lane
from tests.attacks.test_smuggling import REFUSED
from tests.kit import stand
from tests.kit.raw import PATIENCE, WEBSOCKET_KEY, Peer, ok, switched
from tests.kit.strict import requests_in

BOTH_LOOPS = True

turns = pytest.mark.parametrize("before", TURNS.values(), ids=TURNS.keys())


@pytest.fixture
async def at() -> AsyncIterator[Lane]:
    async with lane() as made:
        yield made


async def until(condition: object) -> None:
    """Wait for what tells nobody when it happens."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


# -- slowly


@turns
async def test_a_head_that_comes_in_pieces_is_one_request(at: Lane, before: int) -> None:
    for size in (1, 7, 100):
        place, client = at.place(), await at.client()
        await at.goes_well(client, place, before)
        seen = len(at.requests)
        request = at.get(place)
        for begin in range(0, len(request), size):
            await client.send(request[begin : begin + size])
            await asyncio.sleep(0)
        await at.is_good(client)
        assert len(at.requests) == seen + 1
        await at.others_go_on(place, client)


@turns
async def test_a_head_that_never_ends_is_told_so(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(stand, "front_runner", functools.partial(front_runner, header_timeout=0.8))
    async with lane(5) as at:
        for part in (3, 40, -2):
            place, client = at.place(), await at.client()
            await at.goes_well(client, place, before)
            await client.send(at.get(place)[:part])
            await at.others_go_on(place)
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


@turns
async def test_who_rests_between_two_requests_is_not_slow(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(stand, "front_runner", functools.partial(front_runner, header_timeout=0.6))
    async with lane(2) as at:
        place, client = at.place(), await at.client()
        for _ in range(before + 1):
            await at.goes_well(client, place)
            await asyncio.sleep(0.8)
        await at.goes_well(client, place)


@turns
async def test_a_slow_reader_gets_everything_and_keeps_nobody_waiting(at: Lane, before: int) -> None:
    body = bytes(range(256)) * 8_000

    async def large(peer: Peer, _: bytes) -> None:
        await peer.send(ok(body))

    place, client = at.place(), await at.client(receive_buffer=4096)
    await at.goes_well(client, place, before)
    at.acts.append(large)
    await client.send(at.get(place))
    await client.until(b"\r\n\r\n")
    await at.others_go_on(place)
    got = [await client.exactly(50_000) for _ in range(len(body) // 50_000)]
    got.append(await client.exactly(len(body) % 50_000))
    assert b"".join(got) == body
    await at.others_go_on(place, client)


@turns
async def test_a_slow_reader_who_asks_on_gets_everything_in_order(at: Lane, before: int) -> None:
    """Answers of one piece each, until more of them wait than the client's socket takes."""

    async def large(peer: Peer, head: bytes) -> None:
        await peer.send(at.good(head).replace(b"X-Soon: y", b"X-Filler: " + b"x" * 30_000))

    place, client = at.place(), await at.client(receive_buffer=4096)
    await at.goes_well(client, place, before)
    at.acts.extend([large] * 40)
    seen = len(at.requests)
    for _ in range(40):
        await client.send(at.get(place))
        await asyncio.sleep(0)
    await at.others_go_on(at.place()) if not at.acts else None
    for _ in range(40):
        reply = await at.is_good(client)
        assert len(reply.head) > 30_000
    assert len(at.requests) >= seen + 40
    await at.others_go_on(place, client)


# -- not to the end


@turns
@pytest.mark.parametrize("how", ["reset", "close", "finish"])
@pytest.mark.parametrize("asked", [1, 3], ids=["one", "three"])
async def test_who_leaves_before_the_answer_takes_the_hubs_work_along_and_nothing_else(
    at: Lane, before: int, how: str, asked: int
) -> None:
    async def never(peer: Peer, _: bytes) -> None:
        await peer.gone()
        raise EOFError

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    at.acts.append(never)
    for _ in range(asked):
        await client.send(at.get(place))
    await until(lambda: not at.acts)
    left = at.speakers[-1]
    seen = len(at.requests)
    getattr(client, how)()
    await left.gone()
    assert len(at.requests) == seen  # what stood behind it went with it
    await at.others_go_on(place)


@turns
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_who_leaves_within_the_answer_takes_nothing_else_along(at: Lane, before: int, how: str) -> None:
    async def events(peer: Peer, _: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        await peer.gone()
        raise EOFError

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    at.acts.append(events)
    await client.send(at.get(place))
    await client.until(b"begun\r\n")
    left = at.speakers[-1]
    getattr(client, how)()
    await left.gone()
    await at.others_go_on(place)


@turns
async def test_who_leaves_when_the_answer_is_on_its_way_does_not_harm_the_next_one(at: Lane, before: int) -> None:
    """The hub's part is over, its connection serves somebody else already, and then the first one goes."""

    async def large(peer: Peer, _: bytes) -> None:
        await peer.send(ok(b"x" * 60_000))

    async def late(peer: Peer, head: bytes) -> None:
        await peer.cued()
        await peer.send(at.good(head))

    place, client, other = at.place(), await at.client(receive_buffer=4096), await at.client()
    await at.goes_well(client, place, before)
    await at.goes_well(other, place, before, user="bob")
    at.acts.append(large)
    await client.send(at.get(place))
    await client.until(b"\r\n\r\n")
    at.acts.append(late)
    await other.send(at.get(place, user="bob"))
    await until(lambda: not at.acts)
    waiting = at.speakers[-1]
    client.reset()
    await at.others_go_on(at.place())
    waiting.cue()
    await at.is_good(other, user="bob")
    await at.others_go_on(place, None)


# -- together


@turns
@pytest.mark.parametrize("apart", [0, 1, -3], ids=["one segment", "one each", "cut across"])
async def test_requests_sent_without_waiting_are_answered_in_order(at: Lane, before: int, apart: int) -> None:
    async def slowly(peer: Peer, head: bytes) -> None:
        await asyncio.sleep(0.05)
        await peer.send(at.good(head))

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    at.acts.append(slowly)
    body = b"five!"
    post = at.get(place, b"Content-Length: 5", line=b"POST %b HTTP/1.1") + body
    requests = [
        at.get(place),
        at.get(place),
        post,
        at.get(place),
        b"GET /_hubgate/jwks.json HTTP/1.1\r\nHost: %b\r\n\r\n",
    ]
    requests[-1] %= at.netloc
    requests.append(at.get(place))
    seen = len(at.requests)
    if apart == 0:
        await client.send(b"".join(requests))
    else:
        data, end = b"".join(requests), 0
        for request in requests:
            begin, end = max(0, end + min(apart, 0)), end + len(request)
            await client.send(data[begin : end + min(apart, 0)])
            await asyncio.sleep(0.005)
        await client.send(data[end + min(apart, 0) :] if apart < 0 else b"")
    for request in requests:
        if b"jwks" in request:
            assert (await client.reply()).body.startswith(b'{"keys"')
        else:
            await at.is_good(client)
    lines = [raw.partition(b" ")[0] for raw in at.requests[seen:]]
    assert lines == [b"GET", b"GET", b"POST", b"GET", b"GET"]
    await at.others_go_on(place, client)


# -- with more than a plain GET, between plain GETs


@turns
async def test_head_and_http10_between_them(at: Lane, before: int) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    await client.send(at.get(place, line=b"HEAD %b HTTP/1.1"))
    reply = await client.reply("HEAD")
    assert reply.status == 200
    assert int(reply.field("Content-Length") or 0) > 5
    await at.goes_well(client, place, 2)
    await client.send(at.get(place, b"Connection: keep-alive", line=b"GET %b HTTP/1.0"))
    assert (await at.is_good(client)).field("Connection") == b"keep-alive"
    await at.goes_well(client, place, 2)
    assert requests_in(at.requests[-1])[0].line == b"GET %b HTTP/1.1" % place
    await client.send(at.get(place, b"Connection: close"))
    assert (await at.is_good(client)).field("Connection") == b"close"
    assert await client.rest() == b""
    client = await at.client()
    await client.send(at.get(place, line=b"GET %b HTTP/1.0"))
    assert (await at.is_good(client)).field("Connection") == b"close"
    assert await client.rest() == b""
    await at.others_go_on(place)


@turns
async def test_expectations_between_them(at: Lane, before: int) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    upload = at.get(place, b"Expect: 100-continue", b"Content-Length: 5", line=b"PUT %b HTTP/1.1")
    for _ in range(2):
        await client.send(upload)
        assert (await client.reply()).status == 100
        await client.send(b"five!")
        await at.is_good(client)
        assert b"xpect" not in at.requests[-1]
        await at.goes_well(client, place, 2)
    # A GET has nothing to be continued with.
    await client.send(at.get(place, b"Expect: 100-continue"))
    await at.is_good(client)
    await at.goes_well(client, place, 2)
    await client.send(at.get(place, b"Expect: 200-ok", b"Content-Length: 5", line=b"PUT %b HTTP/1.1"))
    assert (await client.reply()).status == 417
    # Whether what follows is the body that was announced, nobody can tell: nothing more is read as a request.
    seen = len(at.requests)
    await client.send(at.get(place))
    client.finish()
    assert await client.rest() == b""
    assert len(at.requests) == seen
    await at.others_go_on(place)


@turns
async def test_trailers_and_chunk_extensions_between_them(at: Lane, before: int) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    seen = len(at.requests)
    upload = at.get(place, b"Transfer-Encoding: chunked", line=b"PUT %b HTTP/1.1")
    await client.send(
        upload + b'5;a="b;c"\r\nfive!\r\n0;x\r\nREMOTE_USER: mallory\r\nX-Trailer: y\r\n\r\n' + at.get(place)
    )
    reply = await at.is_good(client)
    # What stands behind a chunked body is not believed to be a request of this client's (web/listener.py).
    assert reply.field("Connection") == b"close"
    assert await client.rest() == b""
    assert len(at.requests) == seen + 1
    assert b"mallory" not in at.hub.received
    assert b"railer" not in at.hub.received
    assert b";a=" not in at.hub.received
    await at.others_go_on(place)


@turns
async def test_bodies_that_nobody_expects_between_them(at: Lane, before: int) -> None:
    """What looks like a request, in the body of a GET that is otherwise like those before it."""
    inner = at.get(b"/p0/hub/smuggled")
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    for together in (True, False):
        seen = len(at.requests)
        head = at.get(place, b"Content-Length: %d" % len(inner))
        if together:
            await client.send(head + inner + at.get(place))
        else:
            await client.send(head)
            await asyncio.sleep(0.02)
            await client.send(inner + at.get(place))
        await at.is_good(client)
        await at.is_good(client)
        assert [requests_in(raw)[0].line.split()[1] for raw in at.requests[seen:]] == [place, place]
    await at.others_go_on(place, client)


@turns
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 426 U\r\nContent-Length: 2\r\n\r\nno",
        ok(b"no"),
    ],
)
async def test_upgrades_that_are_refused_between_them(at: Lane, before: int, answer: bytes) -> None:
    async def refuse(peer: Peer, _: bytes) -> None:
        await peer.send(answer)

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, before)
    at.acts.append(refuse)
    handshake = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + WEBSOCKET_KEY,
    )
    await client.send(at.get(place, *handshake) + at.get(place))
    assert (await client.reply()).body == b"no"
    await at.is_good(client)
    await at.goes_well(client, place, 2)

    async def falsely(peer: Peer, _: bytes) -> None:
        await peer.send(switched(accept=b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="))

    at.acts.append(falsely)
    await client.send(at.get(place, *handshake))
    assert (await client.reply()).status == 502
    await at.others_go_on(place)
    # An offer of another protocol is an ordinary request, the last one on its connection.
    client = await at.client()
    await at.goes_well(client, place, before)
    await client.send(at.get(place, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"))
    await at.is_good(client)
    assert await client.rest() == b""
    assert b": h2c\r\n" not in at.hub.received
    assert b"HTTP2-Settings:" not in at.hub.received
    await at.others_go_on(place)


@turns
async def test_requests_with_two_readings_behind_them_reach_no_hub(at: Lane, before: int) -> None:
    """The vectors of test_smuggling.py, with a session: behind good requests, and in one segment with one."""
    place = at.place()
    warm = await at.client()
    await at.goes_well(warm, place, before)  # later connections find a session that is known
    for name, vector in REFUSED.items():
        sent = vector.replace(b"GET /smuggled", b"GET /p0/hub/smuggled").replace(b" / HTTP/", b" " + place + b" HTTP/")
        sent = sent.replace(b"Host: h\r\n", b"Host: " + at.netloc + b"\r\nCookie: " + at.cookies["alice"] + b"\r\n")
        for glued in (False, True):
            client = await at.client()
            if not glued:
                await at.goes_well(client, place, before)
            seen = len(at.requests)
            await client.send(at.get(place) + sent if glued else sent)
            if glued:
                reply = await client.reply()
                assert reply.status in {200, 400, 431, 501}, name  # refused with what stands behind it, or answered
                seen += reply.status == 200
            client.finish()
            rest = await client.rest()
            statuses = [int(part[2:5]) for part in rest.split(b"HTTP/1.")[1:]]
            assert len(statuses) <= 1, (name, rest)
            assert all(400 <= status < 500 or status == 501 for status in statuses), (name, rest)
            assert len(at.requests) == seen, (name, at.requests[seen:])
            assert b"smuggled" not in at.hub.received, name
            client.drop()
    await at.others_go_on(place)
