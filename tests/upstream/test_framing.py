"""Answers' heads and bodies, byte for byte: what is believed, what is refused, and where a message ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.upstream.framing import (
    MAX_HEAD,
    ChunkedBody,
    EndlessBody,
    MalformedAnswer,
    SizedBody,
    body_of,
    check_beginning,
    check_switch,
    chunk,
    parse_head,
)
from tests.kit.raw import WEBSOCKET_KEY, handshake, switched

STATUS = b"HTTP/1.1 200 OK\r\n"


def test_an_ordinary_head() -> None:
    head = parse_head(
        STATUS + b"Server: x\r\nContent-Type:text/html\r\nX-Odd:  kept \r\nConnection: keep-alive\r\nKeep-Alive: "
        b"timeout=5\r\nContent-Length: 12\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"
    )
    assert (head.status, head.line, head.length, head.chunked, head.keep_alive) == (
        200,
        b"HTTP/1.1 200 OK",
        12,
        False,
        True,
    )
    assert head.lines == [
        b"Server: x",
        b"Content-Type:text/html",
        b"X-Odd:  kept ",
        b"Set-Cookie: a=b",
        b"Set-Cookie: c=d",
    ]


@pytest.mark.parametrize(
    ("fields", "keep_alive"),
    [
        (b"", True),
        (b"Connection: close\r\n", False),
        (b"Connection: Keep-Alive, CLOSE\r\n", False),
        (b"Connection: close\r\nConnection: keep-alive\r\n", False),
    ],
)
def test_whether_the_hub_keeps_the_connection(fields: bytes, *, keep_alive: bool) -> None:
    assert parse_head(STATUS + fields + b"Content-Length: 0\r\n\r\n").keep_alive is keep_alive


@pytest.mark.parametrize(("fields", "keep_alive"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
def test_http10_is_kept_only_when_it_says_so(fields: bytes, *, keep_alive: bool) -> None:
    assert parse_head(b"HTTP/1.0 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n").keep_alive is keep_alive


def test_what_connection_names_stays_on_its_hop() -> None:
    head = parse_head(STATUS + b"X-Hop: 1\r\nX-END: 2\r\nConnection: x-hop , close\r\nx-HOP: 3\r\n\r\n")
    assert head.lines == [b"X-END: 2"]


@pytest.mark.parametrize("name", ["TE", "Trailer", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade"])
def test_fields_of_one_hop_are_dropped(name: str) -> None:
    assert parse_head(STATUS + name.encode() + b": x\r\nA: b\r\n\r\n").lines == [b"A: b"]


REFUSED = {
    "two lengths": STATUS + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "the same length twice": STATUS + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "a list of lengths": STATUS + b"Content-Length: 3, 3\r\n\r\n",
    "plus": STATUS + b"Content-Length: +3\r\n\r\n",
    "minus": STATUS + b"Content-Length: -3\r\n\r\n",
    "underscore": STATUS + b"Content-Length: 3_0\r\n\r\n",
    "hexadecimal": STATUS + b"Content-Length: 0x3\r\n\r\n",
    "empty length": STATUS + b"Content-Length:\r\n\r\n",
    "huge length": STATUS + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length in words": STATUS + b"Content-Length: three\r\n\r\n",
    "length and chunks": STATUS + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and length": STATUS + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "chunked twice": STATUS + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked, chunked": STATUS + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "gzip, chunked": STATUS + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked, gzip": STATUS + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "identity": STATUS + b"Transfer-Encoding: identity\r\n\r\n",
    "xchunked": STATUS + b"Transfer-Encoding: xchunked\r\n\r\n",
    "vertical tab": STATUS + b"Transfer-Encoding:\x0bchunked\r\n\r\n",
    "empty coding": STATUS + b"Transfer-Encoding:\r\n\r\n",
    "chunks in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded line": STATUS + b"X: a\r\n b\r\n\r\n",
    "folded first line": STATUS + b" X: a\r\n\r\n",
    "bare LF": STATUS + b"X: a\nY: b\r\n\r\n",
    "bare CR": STATUS + b"X: a\rY: b\r\n\r\n",
    "NUL": STATUS + b"X: a\0b\r\n\r\n",
    "control byte": STATUS + b"X: a\x01b\r\n\r\n",
    "DEL": STATUS + b"X: a\x7f\r\n\r\n",
    "blank before the colon": STATUS + b"Content-Length : 3\r\n\r\n",
    "blank in a name": STATUS + b"X a: b\r\n\r\n",
    "no colon": STATUS + b"NoColon\r\n\r\n",
    "no name": STATUS + b": v\r\n\r\n",
    "status line with bare LF": b"HTTP/1.1 200 O\nK: v\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "status 20": b"HTTP/1.1 20 OK\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 OK\r\n\r\n",
    "ICE": b"ICE/1.1 200 OK\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "blank line first": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "switch to nothing": b"HTTP/1.1 101 S\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
def test_heads_that_are_refused(head: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        parse_head(head)


@pytest.mark.parametrize("status", [b"200", b"200 ", b"299 \xc3\xa4 \t!", b"599 x", b"999 Request denied"])
def test_status_lines_that_are_believed(status: bytes) -> None:
    head = parse_head(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert (head.line, head.status) == (b"HTTP/1.1 " + status, int(status[:3]))


@pytest.mark.parametrize(
    "data", [b"<html>", b"HTTP/2", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\nX: y", b"\r\n", b"\x15\x03"]
)
def test_what_can_never_become_a_head_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        check_beginning(data)


def test_a_head_in_pieces_is_waited_for() -> None:
    whole = STATUS + b"Server: x\r\n"
    for size in range(1, len(whole)):
        check_beginning(whole[:size])


def test_an_endless_head_is_refused() -> None:
    with pytest.raises(MalformedAnswer, match="more than"):
        check_beginning(STATUS + b"X: " + b"x" * MAX_HEAD)


@pytest.mark.parametrize(
    ("method", "head", "kind"),
    [
        ("GET", STATUS + b"Content-Length: 3\r\n\r\n", SizedBody),
        ("GET", STATUS + b"Transfer-Encoding: chunked\r\n\r\n", ChunkedBody),
        ("GET", STATUS + b"Transfer-Encoding: CHUNKED \r\n\r\n", ChunkedBody),
        ("GET", STATUS + b"\r\n", EndlessBody),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\n", EndlessBody),
    ],
)
def test_which_body_follows(method: str, head: bytes, kind: type) -> None:
    body = body_of(parse_head(head), method)
    assert type(body) is kind
    assert not body.done


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", STATUS + b"Content-Length: 3\r\n\r\n"),
        ("HEAD", STATUS + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", STATUS + b"\r\n"),
        ("GET", b"HTTP/1.1 204 N\r\nContent-Length: 3\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", STATUS + b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_answers_that_end_with_their_head(method: str, head: bytes) -> None:
    body = body_of(parse_head(head), method)
    assert body.done
    assert body.clean
    assert body.feed(b"more") == b""
    assert not body.clean


@given(content=st.binary(max_size=50), surplus=st.binary(max_size=5), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_a_sized_body_ends_where_it_says(content: bytes, surplus: bytes, cuts: list[int]) -> None:
    body = SizedBody(len(content))
    stream = content + surplus
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    got = b""
    for start, end in pairwise(edges):
        if not body.done or end > len(content):
            got += body.feed(stream[start:end])
    assert got == content
    assert body.done
    assert body.clean is (not surplus)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    cuts=st.lists(st.integers(0, 150), max_size=5),
    surplus=st.sampled_from([b"", b"x", b"\r\n", b"\n", b"HTTP/1.1 200 OK\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\n"]),
)
def test_a_chunked_body_ends_with_its_last_chunk(pieces: list[bytes], cuts: list[int], surplus: bytes) -> None:
    body = ChunkedBody()
    message = b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"
    stream = message + surplus
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    got = b""
    for start, end in pairwise(edges):
        if body.done:
            break
        got += body.feed(stream[start:end])
        if body.clean:
            # Clean means: exactly here, and nothing of what came behind it was in the same read.
            assert end == len(message)
    assert got == b"".join(pieces)
    assert body.done


@pytest.mark.parametrize("surplus", [b"x", b"\r\n", b"\n", b"\r", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\0"])
def test_surplus_behind_the_last_chunk_is_cut(surplus: bytes) -> None:
    body = ChunkedBody()
    assert body.feed(b"3\r\nabc\r\n0\r\n\r\n" + surplus) == b"abc"
    assert body.done
    assert not body.clean


def test_extensions_and_trailers_are_read_and_dropped() -> None:
    body = ChunkedBody()
    assert body.feed(b'3;a=b;c="d"\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n') == b"abc"
    assert body.done
    assert not body.clean  # costs a connection, proves nothing


@pytest.mark.parametrize(
    "data",
    [
        b"0x3\r\nabc\r\n",
        b"3_\r\nabc\r\n",
        b"-3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"\r\n3\r\nabc\r\n",
        b"fffffffffffffffff\r\nabc",
        b"3\nabc\r\n",
        b"3;x=\ny\r\nabc\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\r\n0\n\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\nBad Name: 5\r\n\r\n",
    ],
)
def test_chunks_that_are_refused(data: bytes) -> None:
    body = ChunkedBody()
    with pytest.raises(MalformedAnswer):
        body.feed(data)


def test_an_endless_body_ends_with_its_connection_only() -> None:
    body = EndlessBody()
    assert body.feed(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert body.until_close
    assert not body.done
    assert not body.clean


def test_no_chunk_is_made_of_nothing() -> None:
    assert chunk(b"") == b""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_the_switch_that_was_asked_for() -> None:
    check_switch(parse_head(switched()), handshake())


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (switched(accept=b""), handshake()),
        (switched(accept=b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="), handshake()),
        (switched(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), handshake()),
        (switched(b"Upgrade: h2c"), handshake()),
        (switched(b"Content-Length: 0"), handshake()),
        (switched(b"Transfer-Encoding: chunked"), handshake()),
        (switched().replace(b"websocket", b"h2c"), handshake()),
        (switched().replace(b"websocket", b"websocket, h2c"), handshake()),
        (switched(), handshake().replace(b"Sec-WebSocket-Key: " + WEBSOCKET_KEY + b"\r\n", b"")),
        (switched(), handshake(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")),
        (switched(), handshake().replace(WEBSOCKET_KEY, b"AAAAAAAAAAAAAAAAAAAAAA==")),
    ],
)
def test_switches_that_are_refused(answer: bytes, asked: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        check_switch(parse_head(answer), asked)


@pytest.mark.parametrize("fields", [b"Connection: close\r\nUpgrade: websocket\r\n", b"Upgrade: websocket\r\n"])
def test_a_switch_without_connection_upgrade_is_none(fields: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        parse_head(b"HTTP/1.1 101 S\r\n" + fields + b"\r\n")
