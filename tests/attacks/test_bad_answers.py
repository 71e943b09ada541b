"""Hubs that answer early, late, too much, too little, twice or never, to the first plain GET of a session and to the
same one again: each has one outcome, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

import hubgate.app
from hubgate.upstream.connection import Timeouts
from tests.attacks.lane import TURNS, Act, Lane, lane
from tests.kit.raw import Peer, ok, switched

BOTH_LOOPS = True

STATUS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = STATUS + b"Transfer-Encoding: chunked\r\n\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nX-Forged: yes\r\nContent-Length: 6\r\n\r\nforged"

turns = pytest.mark.parametrize("before", TURNS.values(), ids=TURNS.keys())


@pytest.fixture
async def at() -> AsyncIterator[Lane]:
    async with lane() as made:
        yield made


def saying(*pieces: bytes, then: str = "wait") -> Act:
    """These bytes, each piece in a segment of its own. `then`: `wait` for the next request, `close`, `reset` or `stay`
    silent."""

    async def act(peer: Peer, _: bytes) -> None:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.02)
            await peer.send(piece)
        if then == "reset":
            await asyncio.sleep(0.02)  # lest the reset overtakes what was said
            peer.reset()
        if then in {"close", "reset"}:
            raise EOFError
        if then == "stay":
            await peer.gone()
            raise EOFError

    return act


# What the client gets is the answer, complete, and nothing of what stands behind it.
COMPLETE = {
    "two in one": (saying(ok(b"fine") + FORGED), 200, b"fine"),
    "a byte more": (saying(ok(b"fine") + b"x"), 200, b"fine"),
    "a blank line more": (saying(ok(b"fine") + b"\r\n"), 200, b"fine"),
    "much more": (saying(ok(b"fine") + b"y" * 200_000), 200, b"fine"),
    "more behind nothing": (saying(ok(b"") + FORGED), 200, b""),
    "more behind chunks": (saying(CHUNKED + b"4\r\nfine\r\n0\r\n\r\n" + FORGED), 200, b"fine"),
    "more behind trailers": (saying(CHUNKED + b"4\r\nfine\r\n0\r\nX-T: y\r\n\r\n" + FORGED), 200, b"fine"),
    "more behind a 204": (saying(b"HTTP/1.1 204 No Content\r\n\r\n" + FORGED), 204, b""),
    "more behind a 304": (saying(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nforged"), 304, b""),
}
# In order, whatever it looks like, and the hub's connection may be used again or not.
ORDERLY = {
    "interim": (
        saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + ok(b"fine")),
        200,
        b"fine",
    ),
    "interim, then silence, then the answer": (saying(b"HTTP/1.1 102 P\r\n\r\n", ok(b"fine")), 200, b"fine"),
    "head and body apart": (saying(STATUS + b"Content-Length: 4\r\n\r\n", b"fine"), 200, b"fine"),
    "in three": (saying(STATUS, b"Content-Length: 4\r\n\r\nfi", b"ne"), 200, b"fine"),
    "in chunks": (saying(CHUNKED + b"4\r\nfine\r\n0\r\n\r\n"), 200, b"fine"),
    "in chunks that come apart": (saying(CHUNKED + b"2\r\nfi\r\n", b"2\r\nne\r\n", b"0\r\n", b"\r\n"), 200, b"fine"),
    "chunk extensions": (saying(CHUNKED + b'4;a="b;c"\r\nfine\r\n0;x\r\n\r\n'), 200, b"fine"),
    "trailers": (saying(CHUNKED + b"4\r\nfine\r\n0\r\nX-Trailer: y\r\nSet-Cookie: a=b\r\n\r\n"), 200, b"fine"),
    "trailers that come later": (saying(CHUNKED + b"4\r\nfine\r\n", b"0\r\nX-Trailer: y\r\n", b"\r\n"), 200, b"fine"),
    "up to the end": (saying(STATUS + b"\r\nfine", then="close"), 200, b"fine"),
    "HTTP/1.0": (saying(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", then="close"), 200, b"fine"),
    "HTTP/1.0 up to the end": (saying(b"HTTP/1.0 200 OK\r\n\r\nfi", b"ne", then="close"), 200, b"fine"),
    "HTTP/1.0 that says it stays": (
        saying(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nfine"),
        200,
        b"fine",
    ),
    "close": (saying(ok(b"fine", b"Connection: close"), then="close"), 200, b"fine"),
    "empty": (saying(ok(b"")), 200, b""),
    "204": (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b""),
    "204 with a length": (saying(b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"), 204, b""),
    "304": (saying(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"), 304, b""),
    "304 with a length": (saying(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"), 304, b""),
    "304 with a coding": (saying(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"), 304, b""),
    "an odd status": (saying(b"HTTP/1.1 299 Odd\r\nContent-Length: 4\r\n\r\nfine"), 299, b"fine"),
    "no reason": (saying(b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nfine"), 200, b"fine"),
    "an upgrade on offer": (saying(ok(b"fine", b"Upgrade: h2c", b"Connection: Upgrade")), 200, b"fine"),
}
# Refused whole.
REFUSED = {
    "two lengths": saying(STATUS + b"Content-Length: 4\r\nContent-Length: 100\r\n\r\nfine" + FORGED),
    "length and chunks": saying(STATUS + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + FORGED),
    "malformed length": saying(STATUS + b"Content-Length: 4,4\r\n\r\nfine" + FORGED),
    "odd coding": saying(STATUS + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "folded": saying(STATUS + b"X: a\r\n Content-Length: 4\r\n\r\nfine"),
    "bare LF": saying(STATUS + b"X: a\nContent-Length: 4\r\n\r\nfine"),
    "bare CR": saying(STATUS + b"X: a\rSet-Cookie: e=1\r\nContent-Length: 4\r\n\r\nfine"),
    "NUL": saying(STATUS + b"X: a\0b\r\nContent-Length: 4\r\n\r\nfine"),
    "HTTP/0.9": saying(b"<html>no head</html>\n"),
    "HTTP/2": saying(b"HTTP/2 200\r\nContent-Length: 4\r\n\r\nfine"),
    "another protocol": saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "chunks over HTTP/1.0": saying(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a broken first chunk": saying(CHUNKED + b"0x4\r\nfine\r\n0\r\n\r\n"),
    "a flood of 1xx": saying(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500 + ok(b"fine")),
    "a megabyte of head": saying(STATUS + b"X: " + b"x" * (1 << 20) + b"\r\n\r\n"),
    "a 101 that nobody asked for": saying(switched()),
    "a 101 to another protocol": saying(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "closed in the head": saying(STATUS + b"Content-", then="close"),
    "reset in the head": saying(STATUS + b"Content-", then="reset"),
    "closed after a 1xx": saying(b"HTTP/1.1 103 Early Hints\r\n\r\n", then="close"),
}
# Cut, so that it can be seen.
TOO_LITTLE = {
    "of a length": (STATUS + b"Content-Length: 11\r\n\r\nbegun",),
    "nothing of a length": (STATUS + b"X-Begun: begun\r\nContent-Length: 11\r\n\r\n",),
    "of chunks": (CHUNKED + b"5\r\nbegun\r\n",),
    "of a chunk": (CHUNKED + b"9\r\nbegun",),
    "all but the last line": (CHUNKED + b"5\r\nbegun\r\n0\r\n",),
    "then nonsense": (CHUNKED + b"5\r\nbegun\r\n", b"zz\r\n" + FORGED),
}


async def asked(at: Lane, before: int, act: Act) -> tuple[bytes, Peer, int]:
    """A client whose next request will meet this: the place, the client, and how many requests the hub had."""
    place = at.place()
    client = await at.client()
    await at.goes_well(client, place, before)
    at.acts.append(act)
    await client.send(at.get(place))
    return place, client, len(at.requests)


@turns
@pytest.mark.parametrize("table", [COMPLETE, ORDERLY], ids=["surplus", "orderly"])
async def test_whole_answers_are_passed_on_and_nothing_else_is(
    at: Lane, before: int, table: dict[str, tuple[Act, int, bytes]]
) -> None:
    for name, (act, status, body) in table.items():
        place, client, _ = await asked(at, before, act)
        reply = await client.reply()
        assert (reply.status, reply.body) == (status, body), name
        assert b"X-Trailer" not in reply.head, name
        assert b"X-Forged" not in reply.head, name
        if table is COMPLETE:
            spoilt = at.hub.peers[-1]
            await spoilt.gone()  # nobody's request may meet what was left on it
        at.hub.peers.clear()
        await at.others_go_on(place, client)
        assert client.unread == b"", name


@turns
async def test_answers_that_can_not_be_believed_are_refused_whole(at: Lane, before: int) -> None:
    for name, act in REFUSED.items():
        place, client, seen = await asked(at, before, act)
        reply = await client.reply()
        assert reply.status == 502, name
        assert reply.field("Content-Type") == b"application/problem+json", name
        assert b"fine" not in reply.body + reply.head, name
        assert b"orged" not in reply.body + reply.head, name
        assert len(at.requests) - seen <= 1, name
        await at.others_go_on(place, client)
        assert client.unread == b"", name


@turns
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_too_little_is_cut_where_it_ends(at: Lane, before: int, then: str) -> None:
    for name, said in TOO_LITTLE.items():
        place, client, seen = await asked(at, before, saying(*said, then=then))
        await client.send(at.get(place))  # and whoever waits behind it gets no answer on top of a begun one
        rest = await client.rest()
        assert b"begun" in rest, name
        assert rest.count(b"HTTP/1.1") == 1, name
        assert not rest.endswith(b"\n0\r\n\r\n"), name
        assert b"orged" not in rest, name
        assert len(at.requests) - seen <= 2, name  # the one behind may have been sent on, its client is gone then
        at.acts.clear()
        await at.others_go_on(place)


@turns
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_hub_that_ends_without_a_word_is_asked_once_more_where_that_is_safe(
    at: Lane, before: int, then: str
) -> None:
    for times in (1, 2):
        for _ in range(5):
            place, client, seen = await asked(at, before, saying(then=then))
            at.acts.extend([saying(then=then)] * (times - 1))
            reply = await client.reply()
            # A connection that had waited: the hub may not have seen the request (RFC 9112, 9.3.1), once more then.
            waited = at.speakers.count(at.speakers[seen]) > 1
            assert reply.status == (200 if waited and times == 1 else 502)
            assert len(at.requests) == seen + 1 + waited
            at.acts.clear()
            await at.others_go_on(place, client)


@turns
async def test_a_late_answer_is_still_the_clients_own(at: Lane, before: int) -> None:
    """Other people's requests at the same hub are not kept waiting, and requests behind it wait for their turn."""

    async def act(peer: Peer, head: bytes) -> None:
        await peer.cued()
        await peer.send(at.good(head))

    place, client, _ = await asked(at, before, act)
    async with asyncio.timeout(60):
        while at.acts:
            await asyncio.sleep(0.001)
    late = at.speakers[-1]
    await client.send(at.get(place))
    await at.others_go_on(place)
    assert client.received.count(b"HTTP/1.1") == before
    late.cue()
    first = await client.reply()
    second = await client.reply()
    numbers = [int(reply.body.split(b" ")[0]) for reply in (first, second)]
    assert numbers == sorted(numbers)
    client.last = numbers[1]  # type: ignore[attr-defined]
    await at.others_go_on(place, client)


@turns
async def test_a_hub_that_never_answers_is_waited_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(hubgate.app, "Timeouts", functools.partial(Timeouts, head=0.8))
    async with lane(5) as at:
        for said in (b"", STATUS + b"Content-"):
            place, client, seen = await asked(at, before, saying(said, then="stay"))
            reply = await client.reply()
            assert reply.status == 504, said
            assert len(at.requests) <= seen + 1
            await at.others_go_on(place, client)


@turns
async def test_a_hub_that_falls_silent_in_its_answer_is_cut_off(before: int) -> None:
    async with lane(5, limits={"idle_timeout": "800ms"}) as at:
        for said in (STATUS + b"Content-Length: 11\r\n\r\nbegun", CHUNKED + b"5\r\nbegun\r\n"):
            place, client, _ = await asked(at, before, saying(said, then="stay"))
            rest = await client.rest()
            assert b"begun" in rest
            assert not rest.endswith(b"\n0\r\n\r\n")
            await at.others_go_on(place)


@turns
@pytest.mark.parametrize("said", [FORGED, b"x", b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_an_answer_before_its_question_is_nobodys(at: Lane, before: int, said: bytes) -> None:
    place, client = at.place(), await at.client()

    async def act(peer: Peer, head: bytes) -> None:
        await peer.send(at.good(head))
        await peer.cued()
        await peer.send(said)
        await peer.gone()
        raise EOFError

    await at.goes_well(client, place, before)
    at.acts.append(act)
    await at.goes_well(client, place)
    speaking = at.speakers[-1]
    speaking.cue()
    await speaking.gone()  # the gateway has let go of it, before anybody asked
    await at.others_go_on(place, client)
    assert b"orged" not in client.received


@turns
async def test_what_follows_a_head_answer_is_cut(at: Lane, before: int) -> None:
    for extra in (b"forged", FORGED, b"\r\n"):
        place, client = at.place(), await at.client()
        await at.goes_well(client, place, before)
        at.acts.append(saying(STATUS + b"Content-Length: 6\r\n\r\n" + extra))
        await client.send(at.get(place, line=b"HEAD %b HTTP/1.1"))
        reply = await client.reply("HEAD")
        assert (reply.status, reply.field("Content-Length")) == (200, b"6")
        await at.others_go_on(place, client)
        for _ in range(2):
            await client.send(at.get(place, line=b"HEAD %b HTTP/1.1"))
            assert (await client.reply("HEAD")).status == 200
        await at.others_go_on(place, client)
