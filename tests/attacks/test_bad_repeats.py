"""Requests that look almost like one that was let through a moment ago: each must be read as if it came first.

A gateway that recognises requests by their bytes may be led by their likeness. So every variant has its outcome written
down, and must have it on a fresh connection of somebody who has never been there, and between the very requests that it
resembles, again and again; what the hub gets of it is the same each time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.attacks.lane import Lane, lane
from tests.kit.strict import Request, requests_in

BOTH_LOOPS = True


@dataclass(frozen=True)
class Variant:
    """`old` in the plain request becomes `new`, once; `status`: of the answer. `seen`: a line or field at the hub."""

    old: bytes
    new: bytes
    status: int = 200
    seen: tuple[bytes, bytes] | None = None
    unseen: bytes = b""
    stays: bool = True


LINE = b" HTTP/1.1\r\n"
ACCEPT = b"Accept: */*\r\n"
AGENT = b"User-Agent: "

PASSED = {
    "as it is": Variant(ACCEPT, ACCEPT, seen=(b"Accept", b"*/*")),
    "another value": Variant(ACCEPT, b"Accept: text/css\r\n", seen=(b"Accept", b"text/css")),
    "another spelling": Variant(ACCEPT, b"aCCept: */*\r\n", seen=(b"aCCept", b"*/*")),
    "no blank": Variant(ACCEPT, b"Accept:*/*\r\n", seen=(b"Accept", b"*/*")),
    "many blanks": Variant(ACCEPT, b"Accept: \t  */* \t\r\n", seen=(b"Accept", b"*/*")),
    "an empty value": Variant(ACCEPT, b"Accept:\r\n", seen=(b"Accept", b"")),
    "a field twice": Variant(ACCEPT, ACCEPT + b"Accept: text/css\r\n", seen=(b"Accept", b"text/css")),
    "one field fewer": Variant(ACCEPT, b"", unseen=b"Accept"),
    "bytes above ASCII": Variant(ACCEPT, b"X: \xe4\xff\r\n", seen=(b"X", b"\xe4\xff")),
    "a condition": Variant(ACCEPT, b'If-None-Match: "x"\r\n', seen=(b"If-None-Match", b'"x"')),
    "a range": Variant(ACCEPT, b"Range: bytes=0-1\r\n", seen=(b"Range", b"bytes=0-1")),
    "credentials": Variant(ACCEPT, b"Authorization: token x\r\n", seen=(b"Authorization", b"token x")),
    "another query": Variant(LINE, b"?v=1" + LINE),
    "an odd query": Variant(LINE, b"?a=%2e%2e/&b=\"'|{}" + LINE),
    "an encoded letter": Variant(b"file.js", b"%66ile.js"),
    "a longer path": Variant(b"file.js", b"file.js/more"),
    "a semicolon": Variant(b"file.js", b"file.js;v=1"),
    "a cookie of another kind": Variant(b"Cookie: ", b"Cookie: x=y; ", seen=(b"Cookie", b"x=y")),
    "another cookie at the end": Variant(b"\r\n\r\n", b"; x=y\r\n\r\n", seen=(b"Cookie", b"x=y")),
    "two Cookie fields": Variant(ACCEPT, b"Cookie: x=y\r\n", seen=(b"Cookie", b"x=y")),
    "cookie in another spelling": Variant(ACCEPT, b"cookie: x=y\r\n", seen=(b"Cookie", b"x=y")),
    "a hub cookie without its tag": Variant(b"Cookie: ", b"Cookie: jupyterhub-x=y; ", unseen=b"Cookie"),
    "REMOTE_USER": Variant(ACCEPT, b"REMOTE_USER: bob\r\n"),
    "remote-user": Variant(ACCEPT, b"remote-user: bob\r\n", unseen=b"remote-user"),
    "Http.Remote.User": Variant(ACCEPT, b"Http.Remote.User: bob\r\n", unseen=b"Http.Remote.User"),
    "an assertion": Variant(ACCEPT, b"X-Hubgate-Assertion: forged\r\n"),
    "an assertion in another spelling": Variant(ACCEPT, b"x_hubgate_assertion: f\r\n", unseen=b"x_hubgate_assertion"),
    "a proxy's word": Variant(ACCEPT, b"X-Forwarded-For: 192.0.2.1\r\n", seen=(b"X-Forwarded-For", b"127.0.0.1")),
    "Forwarded": Variant(ACCEPT, b"Forwarded: for=192.0.2.1;host=evil\r\n"),
    "an original URL": Variant(ACCEPT, b"X-Original-URL: /admin\r\n", unseen=b"X-Original-URL"),
    "a method override": Variant(ACCEPT, b"X-HTTP-Method-Override: PUT\r\n", unseen=b"X-HTTP-Method-Override"),
    "a listed field": Variant(ACCEPT, b"Connection: keep-alive, X-Y\r\nX-Y: z\r\n", unseen=b"X-Y"),
    "a listed field of ours": Variant(ACCEPT, b"Connection: keep-alive, REMOTE_USER, Cookie\r\n"),
    "TE": Variant(ACCEPT, b"TE: trailers\r\n", unseen=b"TE"),
    "Keep-Alive": Variant(ACCEPT, b"Keep-Alive: timeout=5\r\n", unseen=b"Keep-Alive"),
    "Upgrade without Connection": Variant(ACCEPT, b"Upgrade: h2c\r\n", unseen=b"Upgrade"),
    "an empty body": Variant(ACCEPT, b"Content-Length: 0\r\n"),
    "keep-alive": Variant(ACCEPT, b"Connection: keep-alive\r\n", unseen=b"Connection"),
    "close": Variant(ACCEPT, b"Connection: close\r\n", unseen=b"Connection", stays=False),
    "Close": Variant(ACCEPT, b"connection: Close\r\n", unseen=b"connection", stays=False),
    "close among others": Variant(ACCEPT, b"Connection: x, close\r\n", unseen=b"Connection", stays=False),
    "two Connections": Variant(ACCEPT, b"Connection: keep-alive\r\nConnection: close\r\n", stays=False),
    "OPTIONS": Variant(b"GET ", b"OPTIONS "),
    "DELETE": Variant(b"GET ", b"DELETE "),
    "a method of its own": Variant(b"GET ", b"PROPFIND "),
    "absolute form": Variant(b"GET ", b"GET http://%HOST%"),
    # What llhttp lets pass, and what has one reading: it goes on as a request of ours like any other.
    "two blanks in the line": Variant(b"GET ", b"GET  "),
    "HTTP/2.0": Variant(b"HTTP/1.1", b"HTTP/2.0", stays=False),
    "a lower-case host": Variant(b"Host: ", b"host: "),
    "a hundred fields": Variant(
        ACCEPT, b"".join(b"X-%d: y\r\n" % number for number in range(100)), seen=(b"X-99", b"y")
    ),
}
REFUSED = {
    "two Hosts": Variant(ACCEPT, b"Host: %HOST%\r\n", 400),
    "another Host": Variant(b"Host: ", b"Host: evil.", 421),
    "no Host": Variant(b"Host: ", b"X-Host: ", 400),
    "two Hosts in one": Variant(b"Host: ", b"Host: evil, ", 400),
    "a user in Host": Variant(b"Host: ", b"Host: x@", 400),
    "absolute form, another host": Variant(b"GET ", b"GET http://evil.example", 400),
    "a folded field": Variant(ACCEPT, b"Accept: a\r\n b\r\n", 400),
    "bare LF": Variant(ACCEPT, b"Accept: a\nX: y\r\n", 400),
    "bare CR": Variant(ACCEPT, b"Accept: a\rX: y\r\n", 400),
    "NUL": Variant(ACCEPT, b"Accept: a\0b\r\n", 400),
    "a bell": Variant(ACCEPT, b"Accept: a\x07b\r\n", 400),
    "DEL": Variant(ACCEPT, b"Accept: a\x7fb\r\n", 400),
    "a blank before the colon": Variant(ACCEPT, b"Accept : y\r\n", 400),
    "a blank before the name": Variant(ACCEPT, b" Accept: y\r\n", 400),
    "no colon": Variant(ACCEPT, b"Accept\r\n", 400),
    "no name": Variant(ACCEPT, b": y\r\n", 400),
    "a name that is none": Variant(ACCEPT, b"X(y): z\r\n", 400),
    "HTTP/1.2": Variant(b"HTTP/1.1", b"HTTP/1.2", 400),
    "lower-case version": Variant(b"HTTP/1.1", b"http/1.1", 400),
    "lower-case method": Variant(b"GET ", b"get ", 400),
    "dots": Variant(b"file.js", b"../../p1/hub/file.js", 400),
    "encoded dots": Variant(b"file.js", b"%2e%2e/file.js", 400),
    "a backslash": Variant(b"/hub/", b"\\hub\\", 400),
    "a byte in the target": Variant(b"file.js", b"f\xe4le.js", 400),
    "NUL in the target": Variant(b"file.js", b"f\0le.js", 400),
    "an encoded NUL": Variant(b"file.js", b"f%00le.js", 400),
    "half an escape": Variant(b"file.js", b"file%2.js", 400),
    "a pool that is none": Variant(b"/hub/", b"x/hub/", 404),
    "an encoded pool": Variant(b"/hub/", b"%2fhub/", 400),
    "two lengths": Variant(ACCEPT, b"Content-Length: 0\r\nContent-Length: 5\r\n", 400),
    "length and chunks": Variant(ACCEPT, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    "a coding that is none": Variant(ACCEPT, b"Transfer-Encoding: xchunked\r\n", 400),
    "a signed length": Variant(ACCEPT, b"Content-Length: +0\r\n", 400),
    "CONNECT": Variant(b"GET ", b"CONNECT ", 405),
    "TRACE": Variant(b"GET ", b"TRACE ", 405),
    "no session": Variant(b"Cookie: hubgate=", b"Cookie: hubgat=", 401),
    "a session too many": Variant(b"Cookie: ", b"Cookie: hubgate=%s; " % (b"A" * 43), 401),
    "a session too many, behind": Variant(b"\r\n\r\n", b"; hubgate=%s\r\n\r\n" % (b"A" * 43), 401),
    "a session cut off": Variant(b"Cookie: hubgate=", b"Cookie: hubgate=x", 401),
    "a huge field": Variant(ACCEPT, b"X: " + b"x" * 20_000 + b"\r\n", 431),
    "too many fields": Variant(ACCEPT, b"X: y\r\n" * 200, 400),
}


@pytest.fixture
async def at() -> AsyncIterator[Lane]:
    async with lane(2 * len(PASSED | REFUSED) + 2) as made:
        yield made


def made(at: Lane, place: bytes, variant: Variant) -> bytes:
    """The request."""
    plain = at.get(place)
    assert variant.old in plain
    head, mark, rest = plain.partition(variant.old)
    assert mark
    return head + variant.new.replace(b"%HOST%", at.netloc) + rest


_NEVER_THE_SAME = re.compile(rb"(?m)^X-Hubgate-Assertion: .*\r\n")


async def once(at: Lane, variant: Variant, place: bytes, *, before: int) -> bytes:
    """Send it behind so many plain requests; what the hub got of it."""
    client = await at.client()
    await at.goes_well(client, place, before)
    for _ in range(3 if variant.status == 200 and variant.stays else 1):
        seen = len(at.requests)
        await client.send(made(at, place, variant))
        reply = await client.reply()
        assert reply.status == variant.status, reply
        if reply.status != 200:
            assert len(at.requests) == seen
            assert b"for alice" not in reply.body
            continue
        assert reply.body.endswith(b" for alice")
        assert len(at.requests) == seen + 1
        assert (reply.field("Connection") == b"close") is not variant.stays
        if variant.stays:
            await at.goes_well(client, place)  # one that it resembles, in between
            at.requests.pop()
    client.drop()
    return b"" if variant.status != 200 else _NEVER_THE_SAME.sub(b"", at.requests[-1])


def judged(at: Lane, variant: Variant, raw: bytes) -> None:
    """What reached the hub says what it may, and nothing else does."""
    (request,) = requests_in(raw)
    assert request.values(b"Host") == [at.netloc]
    assert request.values(b"REMOTE_USER") == [b"alice"]
    assert request.values(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert len(request.values(b"Forwarded")) == 1
    assert b"hubgate=" not in raw
    if variant.seen is not None:
        assert variant.seen in _fields(request), request
    assert not variant.unseen or variant.unseen not in [name for name, _ in request.fields], request


def _fields(request: Request) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in request.fields]


@pytest.mark.parametrize("table", [PASSED, REFUSED], ids=["passed", "refused"])
async def test_what_is_almost_the_same_is_read_as_if_it_came_first(at: Lane, table: dict[str, Variant]) -> None:
    wrong: list[str] = []
    for name, variant in table.items():
        try:
            first = await once(at, variant, at.place(), before=0)
            place = at.place()
            later = await once(at, variant, place, before=3)
            if variant.status == 200:
                judged(at, variant, first)
                judged(at, variant, later)
                assert re.sub(rb"/p\d+/", b"/p/", first) == re.sub(rb"/p\d+/", b"/p/", later)
        except (AssertionError, EOFError) as error:
            wrong.append(f"{name}: {error}"[:600])
        at.acts.clear()
    assert not wrong, "\n\n".join(wrong)


async def test_what_one_may_see_is_not_told_to_another(at: Lane) -> None:
    """Two users in the same words on one connection, by turns, then without a session: a cookie's place in the bytes is
    all that differs."""
    place, client = at.place(), await at.client()
    for _ in range(5):
        for user in ("alice", "bob"):
            await at.goes_well(client, place, 2, user=user)
            assert requests_in(at.requests[-1])[0].values(b"REMOTE_USER") == [user.encode()]
        seen = len(at.requests)
        nobody = at.get(place).replace(b"hubgate=", b"hubgone=")
        await client.send(nobody)
        assert (await client.reply()).status == 401
        await client.send(re.sub(rb"Cookie: [^\r]*\r\n", b"", at.get(place)))
        assert (await client.reply()).status == 401
        assert len(at.requests) == seen
