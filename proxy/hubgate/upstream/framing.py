"""Where an answer ends, and whether it may be believed.

Every answer of a hub comes past here, because behind a hub stand notebook servers that anybody may have written, and
because the next user's answer travels on the same connection. `httptools` (llhttp, strict) judges every head and every
chunk; what it leaves open is decided here, and whatever has two readings (RFC 9112, 6.3 and 11.2) is refused. Bytes
beyond the end of a message are never handed out: a body says `clean` only when it ended exactly where the bytes did.

Bytes in, bytes out: nothing in here knows sockets, clients or time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import httptools

MAX_HEAD = 64 * 1024
"""Bytes of one head. JupyterHub's largest (cookies and a policy) stay below 4 KiB."""
HEAD_END = b"\r\n\r\n"
MAX_INTERIM = 16
"""1xx answers in front of one final answer, RFC 9110, 15.2; more is a flood."""


class MalformedAnswer(ValueError):
    """The hub's answer is no HTTP/1.x message, or one with two readings. The text quotes nothing of it."""


BODILESS = frozenset({204, 304})


# What a field means for the hop: plain numbers, since an Enum's members cost more to look up than all the rest.
_END_TO_END, _LENGTH, _CODING, _CONNECTION, _HOP = range(5)
_FIELDS = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    # RFC 9110, 7.6.1, and what older proxies knew; trailers are not passed on, so they aren't announced either.
    b"keep-alive": _HOP,
    b"proxy-connection": _HOP,
    b"proxy-authenticate": _HOP,
    b"proxy-authentication-info": _HOP,
    b"te": _HOP,
    b"trailer": _HOP,
    b"upgrade": _HOP,
}
# Whole lines that llhttp has found good as part of a head, and what they mean: nearly all lines of an answer came a
# moment ago with another one. Emptied when full, since hubs choose what is in it.
_MOST_LINES = 2048
_LONGEST_LINE = 512
_harmless: set[bytes] = set()
_lines: dict[bytes, int] = {}
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
_LENGTH_LINE = re.compile(rb"[Cc]ontent-[Ll]ength: ?([0-9]{1,18})")


def _remember(line: bytes, means: int) -> None:
    if len(line) <= _LONGEST_LINE and _FIELD.fullmatch(line):
        if len(_harmless) + len(_lines) >= _MOST_LINES:
            _harmless.clear()
            _lines.clear()
        if means == _END_TO_END:
            _harmless.add(line)
        else:
            _lines[line] = means


@dataclass(slots=True)
class AnswerHead:
    """A head that may be believed.

    `line`: its status line, as one of HTTP/1.1. `lines`: end-to-end fields as they came; both without CRLF. `length`:
    Content-Length. `keep_alive`: whether the hub will take another request on this connection, given that the answer
    ends where it says. `named`: the options of Connection. `raw`: all of it.
    """

    status: int
    line: bytes
    lines: list[bytes]
    length: int | None
    chunked: bool
    keep_alive: bool
    named: frozenset[bytes]
    raw: bytes

    @property
    def interim(self) -> bool:
        """Whether another head follows, RFC 9110, 15.2."""
        return self.status < 200 and self.status != 101

    def has_body(self, method: str) -> bool:
        """RFC 9112, 6.3, rules 1 and 2."""
        return method != "HEAD" and self.status >= 200 and self.status not in BODILESS


class _HeadWitness:
    """Whether llhttp saw the end of the head. It can't have seen it earlier than we did: strict as it is, only CRLF
    ends a line, and blank lines in front, which it skips, are no status line to us."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])((?: [\t\x20-\x7e\x80-\xff]*)?)")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_NOTHING: frozenset[bytes] = frozenset()
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b""})


@lru_cache(maxsize=256)
def _status_line(line: bytes) -> tuple[bool, int, bytes]:
    """Whether it is HTTP/1.1, the status, and the line as one of HTTP/1.1 (RFC 9110, 2.5: a proxy speaks its own)."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise MalformedAnswer("not an HTTP/1.x status line")
    return match[1] == b"1", int(match[2]), b"HTTP/1.1 " + match[2] + match[3]


def parse_head(head: bytes) -> AnswerHead:
    """The head in `head`, which ends with the first empty line. Raises `MalformedAnswer`.

    llhttp sees each head in which a line is new; one of known lines alone can't be anything else than what they are
    (4 us less, and half of this function).
    """
    lines = head[:-4].split(b"\r\n")
    http11, status, status_line = _status_line(lines[0])
    length: int | None = None
    chunked = False
    named = _NOTHING
    judged = status == 101  # which must name a switch, so its lines alone don't make it good
    if judged:
        _judge(head)
    del lines[0]
    # Twice as fast as one loop with its branches: most lines are known to mean nothing here.
    for line in [line for line in lines if line not in _harmless]:
        plain_length = _LENGTH_LINE.fullmatch(line)
        if plain_length is not None and length is None:  # as strict as llhttp is, and each length is another line
            length = int(plain_length[1])
            lines.remove(line)
            continue
        means = _lines.get(line)
        name, _, value = line.partition(b":")
        if means is None:
            if not judged:
                _judge(head)
                judged = True
            means = _FIELDS.get(name.lower(), _END_TO_END)
            _remember(line, means)
            if means == _END_TO_END:
                continue
        lines.remove(line)
        value = value.strip(b" \t")
        if means == _LENGTH:
            if length is not None or not _DIGITS.fullmatch(value):
                raise MalformedAnswer("several or malformed Content-Length")
            length = int(value)
        elif means == _CODING:
            if chunked or value.lower() != b"chunked" or not http11:
                raise MalformedAnswer("a Transfer-Encoding other than one chunked")
            chunked = True
        elif means == _CONNECTION:
            named |= {token.strip(b" \t") for token in value.lower().split(b",")}
    if chunked and length is not None:
        raise MalformedAnswer("Content-Length with Transfer-Encoding")
    keep_alive = http11
    if named:
        keep_alive = b"close" not in named and (http11 or b"keep-alive" in named)
        if named - _USUAL_OPTIONS:
            # RFC 9110, 7.6.1: what `Connection` names is for this hop.
            lines = [line for line in lines if line.split(b":", 1)[0].lower() not in named]
    return AnswerHead(status, status_line, lines, length, chunked, keep_alive, named, head)


def _judge(head: bytes) -> None:
    """Have llhttp look at a head. Raises `MalformedAnswer`."""
    witness = _HeadWitness()
    try:
        httptools.HttpResponseParser(witness).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # llhttp's word for a 101; whether it was asked for is not decided here
    except httptools.HttpParserError as error:
        # A 101 without `Upgrade` ends here too: no switch is named, so none may follow.
        raise MalformedAnswer(str(error)) from error
    if not witness.complete:
        raise MalformedAnswer("the head does not end where its empty line is")


def check_beginning(data: bytes) -> None:
    """That `data`, which has no empty line yet, can still become a head. Raises `MalformedAnswer`, so that a hub which
    talks something else is told at once and not after the time limit."""
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise MalformedAnswer("not an HTTP/1.x status line")
    if len(data) >= MAX_HEAD:
        raise MalformedAnswer(f"a head of more than {MAX_HEAD} bytes")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise MalformedAnswer("a line that ends without CR")


_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def _values(head: bytes, name: bytes) -> list[bytes]:
    """The values of all fields of this name."""
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [value.strip(b" \t") for key, _, value in pairs if key.lower() == name]


def check_switch(head: AnswerHead, request_head: bytes) -> None:
    """That a 101 is the answer to this very WebSocket handshake (RFC 6455, 4.1). Raises `MalformedAnswer`."""
    keys = _values(request_head, b"sec-websocket-key")
    if len(keys) != 1:
        raise MalformedAnswer("a 101 to a handshake without one key")
    protocols = [value.lower() for value in _values(head.raw, b"upgrade")]
    if protocols != [b"websocket"] or b"upgrade" not in head.named or head.length is not None or head.chunked:
        raise MalformedAnswer("a 101 to another protocol than websocket")
    expected = base64.b64encode(hashlib.sha1(keys[0] + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    if _values(head.raw, b"sec-websocket-accept") != [expected]:
        raise MalformedAnswer("a 101 with a wrong Sec-WebSocket-Accept")


LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; empty stays empty, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Body(Protocol):
    """The body of one answer while it arrives.

    `done`: its end has been seen. `clean`: and nothing came after it. `until_close`: only the connection's end ends it.
    """

    done: bool
    clean: bool
    until_close: bool

    def feed(self, data: bytes) -> bytes:
        """The bytes of the content in `data`. Raises `MalformedAnswer`."""


class SizedBody:
    """`Content-Length` bytes; passed on without a copy."""

    __slots__ = ("clean", "done", "left", "until_close")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = self.clean = length == 0
        self.until_close = False

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        size = len(data)
        if size > self.left:
            data = data[: self.left]
            self.left = 0
            self.done, self.clean = True, False
            return data
        self.left -= size
        if not self.left:
            self.done = self.clean = True
        return data


class ChunkedBody:
    """A chunked body: its content comes out, its framing, extensions and trailers don't (RFC 9112, 7.1)."""

    __slots__ = ("_parser", "_parts", "clean", "done", "until_close")

    def __init__(self) -> None:
        self.done = self.clean = self.until_close = False
        self._parts: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        # The real head was judged before; llhttp needs one to come to the chunks.
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Called by llhttp."""
        if not self.done:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by llhttp."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.done:
                raise MalformedAnswer(str(error)) from error
            # What follows the last chunk is cut, whatever it is; `clean` stays False.
        else:
            # llhttp skips CR and LF between messages, so silence proves nothing. A body that ends in exactly these
            # five bytes can't be followed by such blanks; any other ending (trailers, an unlucky split) costs a
            # connection, nothing more.
            self.clean = self.done and data.endswith(LAST_CHUNK)
        if self.done:
            del self._parser  # it holds us; nothing is fed after the end
        parts = self._parts
        if len(parts) == 1:
            return parts.pop()
        self._parts = []
        return b"".join(parts)


class EndlessBody:
    """Neither length nor chunks: everything up to the end of the connection (RFC 9112, 6.3, rule 8)."""

    __slots__ = ("clean", "done", "until_close")

    def __init__(self) -> None:
        self.done = self.clean = False
        self.until_close = True

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        return data


def body_of(head: AnswerHead, method: str) -> Body:
    """Which body follows this head, in answer to a request by `method` (RFC 9112, 6.3)."""
    if not head.has_body(method):
        return SizedBody(0)
    if head.chunked:
        return ChunkedBody()
    if head.length is not None:
        return SizedBody(head.length)
    return EndlessBody()
