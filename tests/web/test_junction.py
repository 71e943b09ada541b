"""Where the next request of a connection begins, as far as aiohttp and we agree."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from hubgate.web.junction import Junction, may_become_plain

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"


def parsed(head: bytes):
    """aiohttp's message of this head."""
    loop = asyncio.new_event_loop()
    try:
        messages, _, _ = HttpRequestParser(BaseProtocol(loop), loop, 2**16).feed_data(head)
    finally:
        loop.close()
    return messages[-1][0]


def test_what_is_owed_is_counted_to_the_byte():
    junction = Junction(shared=True)
    junction.count(GET, 1, parsed(GET))
    assert junction.owed == 0
    junction.count(POST + b"he", 1, parsed(POST))
    assert junction.owed == 3
    junction.count(b"l", 0, None)
    assert junction.owed == 2
    junction.count(b"lo", 0, None)
    assert junction.owed == 0


@pytest.mark.parametrize(
    ("data", "messages", "head"),
    [
        (GET + GET, 2, GET),  # which of them is at rest?
        (POST + b"hello" + GET[:5], 1, POST),  # the next one has begun already
        (GET, 1, None),  # it was handled already
        (GET[:9], 0, None),  # aiohttp holds the beginning of a head
        (b"\r\n" + GET, 1, GET),  # a blank line that one reader skips
        (GET.replace(b"Host: h\r\n", b"Host: h\n"), 1, GET),  # lines that end in two ways
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 1, ...),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1, ...),
    ],
)
def test_a_doubt_is_for_good(data, messages, head):
    junction = Junction(shared=True)
    junction.count(data, messages, parsed(data if head is ... else head) if head else None)
    assert junction.owed < 0
    junction.count(GET, 1, parsed(GET))
    assert junction.owed < 0


def test_a_body_behind_which_something_comes_leaves_a_doubt():
    junction = Junction(shared=True)
    junction.count(POST, 1, parsed(POST))
    junction.count(b"hello" + GET, 1, parsed(GET))
    assert junction.owed < 0


def test_with_one_reader_there_is_no_such_place():
    assert Junction(shared=False).owed < 0


def test_what_is_held_is_taken_once():
    junction = Junction(shared=True)
    junction.held += b"GET"
    assert (junction.taken(), junction.taken()) == (b"GET", b"")


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b"GET /x", True),
        (GET[:-2], True),
        (GET, False),
        (b"POST /", False),
        (b"GET", False),
        (b"GET / HTTP/1.1\nHost", False),
        (b"GET /" + b"x" * 2**20, False),
    ],
)
def test_what_may_become_plain(data, may):
    assert may_become_plain(data) is may
