"""Two readers on one connection: aiohttp's parser, and the short way past it. Wherever a request begins for the one, it
begins for the other. Each vector is cut at every place that could matter, with pauses in which the connection is idle,
and what the hub got must be what one strict reader would have made of the bytes.

What is hidden in bodies is a request that the short way would take at once: same browser, same fields, same session.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.attacks.door import HANDSHAKE, Door, door
from tests.attacks.rides import Rides
from tests.kit.raw import PATIENCE, Peer, Reply

TARGET = b"/htc/hub/x"
PAUSE = 0.002  # long enough for a turn or two of the loop, in which everybody here lives


@pytest.fixture
async def at(rides: Rides) -> AsyncIterator[Door]:
    async with door() as found:
        plain = found.request(TARGET, user="alice", close=False)
        for expected in (0, 1):
            assert [reply.status for reply in await exchanged(found, [plain])] == [200, 200]
            assert rides.number == expected, "the first is judged, the second knows the way"
        found.received()
        yield found


async def connected(at: Door) -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 22)
    return Peer(reader, writer)


class Answers:
    """All final answers up to the end of a connection."""

    def __init__(self, peer: Peer, methods: Iterator[str]) -> None:
        self.replies: list[Reply] = []
        self._come = asyncio.Condition()
        self.over = False
        self.read = asyncio.ensure_future(self._read(peer, methods))

    async def _read(self, peer: Peer, methods: Iterator[str]) -> None:
        try:
            while True:
                method = next(methods, "GET")
                reply = await peer.reply(method)
                while reply.status < 200:
                    assert reply.status == 100
                    reply = await peer.reply(method)
                self.replies.append(reply)
                async with self._come:
                    self._come.notify_all()
        except (EOFError, ConnectionError):
            assert peer.unread == b""
        finally:
            self.over = True
            async with self._come:
                self._come.notify_all()

    async def come(self, number: int) -> None:
        """Wait until there are so many, or there will be no more."""
        async with asyncio.timeout(PATIENCE), self._come:
            await self._come.wait_for(lambda: self.over or len(self.replies) >= number)


async def exchanged(
    at: Door, pieces: Sequence[bytes], methods: Sequence[str] = (), due: Sequence[int] = ()
) -> list[Reply]:
    """Send these pieces with a pause after each, then ask for the connection's end: all answers. `due`: how many of
    them to wait for after each piece."""
    peer = await connected(at)
    try:
        answers = Answers(peer, iter(methods))
        for piece, number in itertools.zip_longest(pieces, due, fillvalue=0):
            if not answers.over:
                peer.writer.write(piece)
            await answers.come(number)
            await asyncio.sleep(PAUSE)
        if not answers.over:
            peer.writer.write(at.request(b"/htc/hub/last", user="alice"))
        await answers.read
        return answers.replies
    finally:
        peer.drop()


@dataclass(frozen=True)
class Message:
    """One request on the wire. `name`: what its target ends with; None if no hub must get it. `method`, `body`: what a
    strict reader has of it. `last`: the connection ends with it."""

    raw: bytes
    name: bytes | None
    method: bytes = b"GET"
    body: bytes = b""
    last: bool = False


class Vectors:
    """Messages of one connection; `tag` makes their targets its own."""

    def __init__(self, at: Door, tag: int) -> None:
        self._at = at
        self._tag = b"?c=%d" % tag
        self._numbers = itertools.count()

    def _made(
        self,
        *fields: bytes,
        method: bytes = b"GET",
        body: bytes = b"",
        sent: bytes | None = None,
        last: bool = False,
        name: bytes = b"",
    ) -> Message:
        name = name or b"%d" % next(self._numbers)
        head = self._at.request(TARGET + name + self._tag, *fields, method=method, user="alice", close=False)
        return Message(head + (body if sent is None else sent), name, method, body, last)

    @property
    def hidden(self) -> bytes:
        """A plain request that nobody may find."""
        return self._made(name=b"smuggled").raw

    def plain(self) -> Message:
        return self._made()

    def post(self) -> Message:
        body = b"a=b" + self.hidden + b"\r\n\r\n"
        return self._made(b"Content-Length: %d" % len(body), method=b"POST", body=body)

    def post_that_is_a_request(self) -> Message:
        body = self.hidden
        return self._made(b"Content-Length: %d" % len(body), method=b"POST", body=body)

    def empty_post(self) -> Message:
        return self._made(b"Content-Length: 0", method=b"POST")

    def _in_a_field(self, method: bytes) -> Message:
        """All of its head but the beginning is a plain request for whoever begins to read there."""
        name = b"%d" % next(self._numbers)
        line = b"%b %b%b%b HTTP/1.1\r\nX-Note: " % (method, TARGET, name, self._tag)
        return Message(line + self.hidden, name, method)

    def post_with_a_request_in_a_field(self) -> Message:
        return self._in_a_field(b"POST")

    def get_with_a_request_in_a_field(self) -> Message:
        return self._in_a_field(b"GET")

    def get_with_body(self) -> Message:
        body = self.hidden
        return self._made(b"Content-Length: %d" % len(body), body=body)

    def expecting(self) -> Message:
        body = self.hidden
        return self._made(b"Expect: 100-continue", b"Content-Length: %d" % len(body), method=b"PUT", body=body)

    def head(self) -> Message:
        return self._made(method=b"HEAD")

    def options(self) -> Message:
        return self._made(method=b"OPTIONS")

    def after_blank_lines(self) -> Message:
        made = self._made()
        return Message(b"\r\n\r\n" + made.raw, made.name)

    def blank_lines_after(self) -> Message:
        made = self._made()
        return Message(made.raw + b"\r\n", made.name)

    def chunked(self) -> Message:
        """The engine ends a connection behind chunks, since aiohttp can't be trusted there."""
        body = self.hidden
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return self._made(b"Transfer-Encoding: chunked", method=b"POST", body=body, sent=sent, last=True)

    def chunked_with_trailer(self) -> Message:
        sent = b"1\r\nx\r\n0\r\nX-T: y\r\n\r\n"
        return self._made(b"Transfer-Encoding: chunked", method=b"POST", body=b"x", sent=sent, last=True)

    def upgrade_to_something(self) -> Message:
        return self._made(b"Connection: Upgrade", b"Upgrade: h2c", last=True)

    def upgrade_that_is_denied(self) -> Message:
        """Before any hub hears of it."""
        made = self._made(*HANDSHAKE, b"Origin: http://evil.example.org")
        return Message(made.raw, None)

    def closing(self) -> Message:
        return self._made(b"Connection: close", last=True)

    def bare_lf(self) -> Message:
        return Message(self._made().raw.replace(b"\r\n", b"\n"), None, last=True)

    def bare_lf_in_a_field(self) -> Message:
        return Message(self._made(b"X: y\nZ: z").raw, None, last=True)

    def folded(self) -> Message:
        return Message(self._made(b"X: y", b" z").raw, None, last=True)

    def two_hosts(self) -> Message:
        return Message(self._made(b"Host: h").raw, None, last=True)

    def two_readings(self) -> Message:
        body = self.hidden
        return Message(
            self._made(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked", method=b"POST", body=body).raw,
            None,
            last=True,
        )

    def two_lengths(self) -> Message:
        body = self.hidden
        return Message(
            self._made(b"Content-Length: %d" % len(body), b"Content-Length: 0", body=body).raw, None, last=True
        )

    def connect(self) -> Message:
        return Message(self._made(method=b"CONNECT").raw, None, last=True)

    def own_page(self) -> Message:
        return Message(b"GET /_hubgate/nothing HTTP/1.1\r\nHost: " + self._at.netloc + b"\r\n\r\n", None)

    def own_page_that_reads_no_body(self) -> Message:
        body = self.hidden
        head = b"POST /_hubgate/nothing HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (
            self._at.netloc,
            len(body),
        )
        return Message(head + body, None)

    def denied_with_a_body(self) -> Message:
        """Answered before its body is here."""
        body = self.hidden
        head = b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (TARGET, self._at.netloc, len(body))
        return Message(head + body, None)


STREAMS = [
    *("plain plain", "plain plain plain", "post plain", "plain post plain", "post_that_is_a_request plain plain"),
    *("plain post_that_is_a_request plain", "post post plain", "empty_post plain", "get_with_body plain"),
    *("plain get_with_body plain", "expecting plain", "plain expecting plain", "head plain", "plain options plain"),
    *(
        "after_blank_lines plain",
        "plain after_blank_lines plain",
        "blank_lines_after plain",
        "plain blank_lines_after plain",
    ),
    *("chunked plain", "plain chunked plain", "chunked_with_trailer plain", "plain upgrade_to_something plain"),
    *(
        "upgrade_that_is_denied plain plain",
        "plain upgrade_that_is_denied plain",
        "closing plain",
        "plain closing plain",
    ),
    *("bare_lf plain", "plain bare_lf plain", "plain bare_lf_in_a_field plain", "plain folded plain"),
    *(
        "two_hosts plain",
        "plain two_hosts plain",
        "plain two_readings plain",
        "plain two_lengths plain",
        "connect plain",
    ),
    *("plain connect plain", "own_page plain", "plain own_page plain", "own_page_that_reads_no_body plain plain"),
    *("post_with_a_request_in_a_field plain", "plain post_with_a_request_in_a_field plain"),
    *("get_with_a_request_in_a_field plain", "plain get_with_a_request_in_a_field plain"),
    *("plain post_with_a_request_in_a_field", "post get_with_a_request_in_a_field"),
    *("denied_with_a_body plain plain", "plain denied_with_a_body plain"),
]


def interesting(messages: Sequence[Message]) -> list[int]:
    """Places to cut: all near the edges of heads and messages, some of the others."""
    stream = b"".join(message.raw for message in messages)
    edges = {0, len(stream)}
    for mark in (b"\r\n\r\n", b"\n\n", b"HTTP/1.1", b"GET /", b"Content-Length"):
        place = stream.find(mark)
        while place >= 0:
            edges |= {place, place + len(mark)}
            place = stream.find(mark, place + 1)
    near = {edge + offset for edge in edges for offset in (-2, -1, 0, 1)}
    return sorted(place for place in near | set(range(0, len(stream), 41)) if 0 < place < len(stream))


async def judged(at: Door, names: Sequence[str], cuts: Sequence[int], tag: int) -> None:
    """One connection, cut at these places."""
    vectors = Vectors(at, tag)
    messages: list[Message] = [getattr(vectors, name)() for name in names]
    stream = b"".join(message.raw for message in messages)
    edges = [0, *(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    ends = list(itertools.accumulate(len(message.raw) for message in messages))
    due = [sum(end <= edge for end in ends) for edge in edges[1:]]
    replies = await exchanged(at, pieces, [message.method.decode() for message in messages], due)
    what = (names, cuts)
    expected = list(itertools.takewhile(lambda message: not message.last, messages))
    ends_early = len(expected) < len(messages)
    if ends_early:
        expected.append(messages[len(expected)])
    mark = b"?c=%d " % tag
    got = [
        (request.line.split(b" ")[0], request.line[: -len(b" HTTP/1.1")].partition(TARGET)[2], request.body)
        for hub in at.hubs.values()
        for request in hub.requests
        if mark in request.line
    ]
    wanted = [
        (message.method, message.name + mark[:-1], message.body) for message in expected if message.name is not None
    ]
    refused = bool(replies) and replies[-1].field("Server") == b"hubgate" and replies[-1].status == 400
    if not refused:
        assert len(replies) == len(expected) + (not ends_early), (what, replies)
        assert got == wanted, what
        for message, reply in zip(expected, replies, strict=False):
            assert (reply.status == 200) is (message.name is not None), (what, reply)
    else:
        # At some place, and no further: what came before is what it was.
        assert len(replies) <= len(expected), (what, replies)
        assert got == wanted[: len(got)], what
        assert ends_early or "connect" in names, (what, replies)


@pytest.mark.parametrize(
    "names", [tuple(stream.split()) for stream in STREAMS], ids=[s.replace(" ", ",") for s in STREAMS]
)
async def test_a_stream_cut_anywhere_is_the_same_requests(at: Door, rides: Rides, names: tuple[str, ...]) -> None:
    messages = [getattr(Vectors(at, 100), name)() for name in names]
    chance = random.Random(str(names))
    places = interesting(messages)
    between = list(itertools.accumulate(len(message.raw) for message in messages))[:-1]
    every = [[place] for place in places[::2]]
    every += [sorted({place, *between}) for place in places]  # at rest wherever a message ends, and once more
    every += [sorted(chance.sample(places, 3)) for _ in range(10)]
    every.append(between)
    stream = b"".join(message.raw for message in messages)
    for place in (found.start() for found in re.finditer(rb"GET /", stream)):
        every += [[place], [place, *(edge for edge in between if edge > place)]]
    before = rides.number
    for start in range(0, len(every), 10):
        batch = every[start : start + 10]
        await asyncio.gather(*(judged(at, names, cuts, 100 + start + number) for number, cuts in enumerate(batch)))
        assert not any(b"smuggled" in request.line for request in at.received())
    if names[0] == "plain":
        assert rides.number - before >= len(every) / 4, "the short way was not tried"
