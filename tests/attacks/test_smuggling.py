"""One request in is one request out: requests with two readings, judged by what the hub received and how many answers
the client got. Each vector hides a request for /smuggled where a laxer parser would find one."""

from __future__ import annotations

import asyncio

import pytest

from hubgate.upstream.http import Timeouts
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, ok
from tests.kit.strict import requests_in

INNER = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
HOST = b"Host: h\r\n"


def request(*fields: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1", host: bytes = HOST) -> bytes:
    """A request whose lines are joined by hand, since they are to be wrong."""
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


SIZE = b"Content-Length: %d" % len(INNER)
LAST = b"0\r\n\r\n"
TE = b"Transfer-Encoding: chunked"

# Refused, whatever way they are read: the client gets one error, the hub gets nothing.
REFUSED = {
    "CL.TE": request(b"Content-Length: %d" % len(LAST + INNER), TE, body=LAST + INNER),
    "TE.CL": request(TE, b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
    "two lengths": request(b"Content-Length: 0", SIZE, body=INNER),
    "two lengths, the longer first": request(SIZE, b"Content-Length: 0", body=INNER),
    "the same length twice": request(SIZE, SIZE, body=INNER),
    "list of lengths": request(b"Content-Length: 0, %d" % len(INNER), body=INNER),
    "length with plus": request(b"Content-Length: +%d" % len(INNER), body=INNER),
    "length with minus": request(b"Content-Length: -0", body=INNER),
    "length with underscore": request(b"Content-Length: 3_6", body=INNER),
    "hexadecimal length": request(b"Content-Length: 0x24", body=INNER),
    "empty length": request(b"Content-Length:", body=INNER),
    "length of blanks": request(b"Content-Length:   ", body=INNER),
    "length in words": request(b"Content-Length: zero", body=INNER),
    "huge length": request(b"Content-Length: 18446744073709551616", body=INNER),
    "full-width digits": request("Content-Length: ３".encode(), body=INNER),
    "blank before the colon": request(b"Content-Length : %d" % len(INNER), body=INNER),
    "tab before the colon": request(b"Transfer-Encoding\t: chunked", body=LAST + INNER),
    "folded length": request(b"Content-Length: 0\r\n 0", body=INNER),
    "folded coding": request(b"Transfer-Encoding:\r\n chunked", body=LAST + INNER),
    "blank before the first field": request(b"", host=b" X: y\r\nHost: h\r\n", body=INNER),
    "TE xchunked": request(b"Transfer-Encoding: xchunked", body=LAST + INNER),
    "TE in quotes": request(b'Transfer-Encoding: "chunked"', body=LAST + INNER),
    "TE with vertical tab": request(b"Transfer-Encoding:\x0bchunked", body=LAST + INNER),
    "TE with NUL": request(b"Transfer-Encoding: chunked\0", body=LAST + INNER),
    "TE identity": request(b"Transfer-Encoding: identity", SIZE, body=INNER),
    "TE chunked, identity": request(b"Transfer-Encoding: chunked, identity", body=LAST + INNER),
    "TE gzip, chunked": request(b"Transfer-Encoding: gzip, chunked", body=LAST + INNER),
    "TE chunked, chunked": request(b"Transfer-Encoding: chunked, chunked", body=LAST + INNER),
    "TE twice": request(TE, TE, body=LAST + INNER),
    "TE twice, one unknown": request(TE, b"Transfer-Encoding: x", body=LAST + INNER),
    "TE with a parameter": request(b"Transfer-Encoding: chunked;q=1", body=LAST + INNER),
    "TE empty": request(b"Transfer-Encoding:", SIZE, body=INNER),
    "TE over HTTP/1.0": request(TE, line=b"POST / HTTP/1.0", body=LAST + INNER),
    "TE behind bare LF": request(b"X: y\nTransfer-Encoding: chunked", body=LAST + INNER),
    "TE behind bare CR": request(b"X: y\rTransfer-Encoding: chunked", body=LAST + INNER),
    "length behind NUL": request(b"X: y\0\r\nContent-Length: 0", SIZE, body=INNER),
    "bare LF at the end of the head": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\n\n" + INNER,
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: h\n\n" + INNER,
    "bare CR in the target": b"GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n" + INNER,
    "NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n" + INNER,
    "blank in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n" + INNER,
    "two Hosts": request(b"Host: other", line=b"GET / HTTP/1.1", body=INNER),
    "no Host": request(line=b"GET / HTTP/1.1", host=b"X: y\r\n", body=INNER),
    "HTTP/0.9": b"GET /\r\n\r\n" + INNER,
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: h\r\n\r\n" + INNER,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + INNER,
    "CONNECT": b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n" + INNER,
    "TRACE": request(SIZE, line=b"TRACE / HTTP/1.1", body=INNER),
    "no name": request(b": 0", SIZE, body=INNER)[: -len(INNER)] + INNER,
    "no colon": request(b"Content-Length", body=INNER),
    "unknown expectation": request(b"Expect: 200-ok", SIZE, body=INNER),
}

# One reading: what looks like a second request is a body, and stays one.
PASSED = {
    "body on GET": request(SIZE, line=b"GET / HTTP/1.1", body=INNER),
    "body on HEAD": request(SIZE, line=b"HEAD / HTTP/1.1", body=INNER),
    "body on OPTIONS": request(SIZE, line=b"OPTIONS / HTTP/1.1", body=INNER),
    "body on DELETE": request(SIZE, line=b"DELETE / HTTP/1.1", body=INNER),
    "zeros before the length": request(b"Content-Length: 00%d" % len(INNER), body=INNER),
    "chunked in capitals": request(b"TRANSFER-ENCODING: CHUNKED", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
    "chunk size with zeros": request(TE, body=b"0000%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
    "chunk size in capitals": request(TE, body=b"%X\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
    "chunk extension": request(TE, body=b'%x;a="b;c"\r\n%b\r\n0\r\n\r\n' % (len(INNER), INNER)),
    "trailers": request(TE, body=b"%x\r\n%b\r\n0\r\nX-Smuggled: y\r\n\r\n" % (len(INNER), INNER)),
    "expect 100": request(b"Expect: 100-continue", SIZE, body=INNER),
    "empty Connection": request(b"Connection: , ,", SIZE, body=INNER),
    "Connection names the length": request(b"Connection: Content-Length", SIZE, body=INNER),
    "Connection names the coding": request(
        b"Connection: Transfer-Encoding", TE, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    ),
    "TE field": request(b"TE: trailers, chunked", SIZE, body=INNER),
    "method override": request(b"X-HTTP-Method-Override: GET", SIZE, body=INNER),
}

# The head is in order, the body is not: the hub gets one request that never ends, the client one error or none.
BROKEN_BODIES = {
    "chunk size with 0x": b"0x%x\r\n" % len(INNER),
    "chunk size with underscore": b"2_4\r\n",
    "negative chunk": b"-1\r\n",
    "chunk size with plus": b"+24\r\n",
    "huge chunk size": b"f" * 17 + b"\r\n",
    "blank before the chunk size": b" 0\r\n\r\n",
    "empty chunk size": b"\r\n",
    "bare LF behind the chunk size": b"0\n\n",
    "bare LF in a chunk extension": b"0;a\nb\r\n\r\n",
    "chunk longer than it says": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk without its end": b"3\r\nabc0\r\n\r\n",
    "length in the trailers": b"0\r\nContent-Length: 3\r\n\r\n",
    "coding in the trailers": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
}


def judge(received: bytes) -> None:
    """What the hub got is at most one request, and none that was hidden in another one."""
    requests = requests_in(received)
    assert len(requests) <= 1, requests
    for one in requests:
        assert b"smuggled" not in one.line


async def answer_strictly(peer: Peer) -> None:
    """A hub that reads like a strict server and answers each request that is complete."""
    answered = 0
    while await peer._more():
        requests = requests_in(peer.received)
        complete = [one for one in requests if not peer.received.endswith(b"100-continue")]
        while answered < len(complete):
            one = complete[answered]
            declared = one.values(b"Content-Length")
            if declared and len(one.body) < int(declared[0]):
                break
            if one.values(b"Transfer-Encoding") and not peer.received.endswith(b"0\r\n\r\n"):
                break
            await peer.send(ok()[:-2] if one.line.startswith(b"HEAD") else ok())
            answered += 1


async def attack(*pieces: bytes, patience: float = 0.05) -> tuple[bytes, bytes]:
    """What the hub and the client received, when everything has come to rest. `patience`: seconds that the gateway has
    for what isn't whole."""
    limits = Timeouts(head=60.0, stall=patience)
    async with (
        RawUpstream(answer_strictly) as hub,
        gate(hub, limits=limits, header_timeout=patience, keepalive_timeout=0.05) as door,
    ):
        client = await door.client()
        for piece in pieces:
            await client.send(piece)
            if piece is not pieces[-1]:
                await (await hub.peer()).saw(b"\r\n\r\n")
        received = await client.rest()
        return hub.received, received


def answers(received: bytes) -> list[int]:
    """The statuses of the final answers that a client got."""
    return [
        int(part[2:5]) for part in received.split(b"HTTP/1.")[1:] if not part.startswith((b"1 100", b"1 408", b"0 408"))
    ]


@pytest.mark.parametrize("vector", REFUSED.values(), ids=REFUSED.keys())
async def test_requests_with_two_readings_are_refused(vector: bytes) -> None:
    at_hub, at_client = await attack(vector)
    assert at_hub == b""
    statuses = answers(at_client)
    assert len(statuses) <= 1, at_client
    assert all(400 <= status < 500 or status == 501 for status in statuses)


@pytest.mark.parametrize("vector", PASSED.values(), ids=PASSED.keys())
async def test_bodies_stay_bodies(vector: bytes) -> None:
    at_hub, at_client = await attack(vector, patience=10.0)
    judge(at_hub)
    assert answers(at_client) == [200]
    (one,) = requests_in(at_hub)
    assert one.body == INNER
    assert not one.values(b"X-Smuggled")


@pytest.mark.parametrize("together", [True, False], ids=["at once", "in two"])
@pytest.mark.parametrize("broken", BROKEN_BODIES.values(), ids=BROKEN_BODIES.keys())
async def test_broken_bodies_end_their_request(broken: bytes, *, together: bool) -> None:
    head = request(TE)
    pieces = [head + broken + INNER] if together else [head, broken + INNER]
    at_hub, at_client = await attack(*pieces)
    judge(at_hub)
    assert not at_hub.endswith(LAST)  # the hub must not take it for a whole one
    statuses = answers(at_client)
    assert len(statuses) <= 1, at_client
    assert all(400 <= status < 500 for status in statuses)


async def test_a_refused_expectation_leaves_no_body_behind() -> None:
    """0.CL: the client never sends the body that it announced, and begins a new request."""
    async with RawUpstream(answer_strictly) as hub, gate(hub, limits=Timeouts(stall=0.5)) as door:
        client = await door.client()
        await client.send(request(b"Expect: 100-continue", b"Content-Length: 1000"))
        assert (await client.reply()).status == 100
        await client.send(INNER)
        assert (await client.reply()).status == 408
        await (await hub.peer()).gone()
        judge(hub.received)
        assert client.unread == b""


@pytest.mark.parametrize("name", [b"Cookie", b"X-Hubgate-Assertion", b"REMOTE_USER"])
async def test_trailers_do_not_come_back_as_fields_of_the_next_request(name: bytes) -> None:
    """aiohttp 3.14 puts a chunked body's last trailer in front of the next request's fields."""
    first = request(TE, body=b"3\r\nabc\r\n0\r\n" + name + b": forged\r\n\r\n")
    for pieces in ([first + request(line=b"GET /next HTTP/1.1")], [first, request(line=b"GET /next HTTP/1.1")]):
        at_hub, at_client = await attack(*pieces)
        assert b"forged" not in at_hub
        assert answers(at_client) == [200]


async def test_the_guard_is_guarded() -> None:
    """A proxy that passes bytes on as they are is caught by the judge that the others are judged by."""
    caught = []
    for name, vector in (REFUSED | PASSED).items():
        try:
            judge(vector)
        except AssertionError:
            caught.append(name)
    assert set(REFUSED) - set(caught) <= {"TRACE", "unknown expectation"}
    assert {"zeros before the length", "chunk extension", "trailers"} <= set(caught)


async def test_pipelined_requests_are_as_many_as_there_are() -> None:
    async with RawUpstream(answer_strictly) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"".join(request(line=b"GET /%d HTTP/1.1" % number) for number in range(200)))
        for _ in range(200):
            assert (await client.reply()).status == 200
        await asyncio.sleep(0)
        assert [one.line for one in requests_in(hub.received)] == [b"GET /%d HTTP/1.1" % n for n in range(200)]
