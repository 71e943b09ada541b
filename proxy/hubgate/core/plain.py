"""Is this the most ordinary of all requests, and what does it say?

A page of JupyterLab loads hundreds of files, each with a GET without a body, with fields that came a moment ago in the
same spelling. Such a request is recognised here from its bytes: a target that has one reading, and fields that were
judged before (`HeaderRules` says by which rules): all of them at once where they are the same to the last byte, else
line by line. Only what is beyond doubt is recognised. Everything else, be it unusual or malformed, is None, and takes
the long way, past a complete parser; so do our own pages, which nobody asks for hundreds of times.

What was judged is remembered, so that fields which came before cost 1 us, new combinations of known lines 5 us; to
parse, judge and write them anew takes 25. Knows nothing about who asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from hubgate.core.headers import HeaderRules
from hubgate.core.routing import PLAIN_PATH, PLAIN_QUERY, is_plain, normal_host
from hubgate.core.site import OWN_PREFIX

LARGEST = 16 * 1024
"""Bytes of a head; what the long way takes of one field."""
_MOST_FIELDS = 100
_HEAD_END = b"\r\n\r\n"
_COOKIE = b"Cookie: "
_OWN_PAGE = f"GET {OWN_PREFIX}".encode()

_REQUEST_LINE = re.compile(rb"GET (%b)(?:%b)? HTTP/1\.1" % (PLAIN_PATH.encode(), PLAIN_QUERY.encode()))
# A value begins and ends with something to be seen, which leaves one way to match: time in proportion to the length.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)")

# What a line means; most mean nothing to us.
_PASSES: Final = 0
_STAYS: Final = 1
_HOST: Final = 2
_FORWARDED_FOR: Final = 3
_ACCEPTS_PAGES: Final = 4
_ACCEPTS_OTHERS: Final = 5
_NAVIGATES: Final = 6
_FETCHES: Final = 7
_PASSES_ONCE: Final = 8

# Fields that say how this message ends or what becomes of its connection, one whose value must not be remembered, and
# one that aiohttp refuses.
_NEVER_PLAIN = frozenset(
    b"authorization content-length cookie expect http2-settings keep-alive proxy-authorization proxy-connection "
    b"sec-websocket-key1 te trailer transfer-encoding upgrade".split()
)
# What the long way refuses to hear twice (aiohttp's SINGLETON_HEADERS, RFC 9110, 5.3); Host has a meaning of its own.
_ONCE = frozenset(b"content-location content-range content-type etag max-forwards server user-agent".split())
_MOST_LINES = 4096
_LONGEST_LINE = 512
_MOST_IN_BLOCKS = 32 * 1024 * 1024  # bytes: strangers may fill it. A browser has a handful of blocks of 1 or 2 KiB


@dataclass(frozen=True, slots=True, eq=False)
class PlainFields:
    """The fields of a GET without a body over HTTP/1.1, on a connection that is to be kept.

    `host`: as `Target.host` writes it. `cookie`: the value of the one Cookie field. `passed`: the lines that may be
    sent on as they are, Host among them, joined by CRLF. `forwarded_for`: the values of X-Forwarded-For, where somebody
    is trusted to say it. `navigates`: a person opens a page (`core.access.kind_of`).
    """

    host: str
    cookie: bytes = field(repr=False)
    passed: bytes = field(repr=False)
    forwarded_for: tuple[str, ...]
    navigates: bool


class PlainRequests:
    """Recognises plain requests to one site.

    `rules`: which fields pass. `secure`: whether people reach the site by https. `behind_proxies`: whether there are
    trusted proxies, so that X-Forwarded-For matters.
    """

    def __init__(self, rules: HeaderRules, *, secure: bool, behind_proxies: bool) -> None:
        self._rules = rules
        self._secure = secure
        self._behind_proxies = behind_proxies
        # Both are emptied when full, so that inventing fields costs the inventor most.
        self._lines: dict[bytes, int] = {}
        self._blocks: dict[bytes, PlainFields] = {}
        self._in_blocks = 0

    def __repr__(self) -> str:
        return f"PlainRequests({len(self._blocks)} blocks, {len(self._lines)} lines)"

    def read(self, data: bytes) -> tuple[bytes, str, PlainFields] | None:
        """Request line, path and fields of the request that `data` is, if it is plain and nothing else is in `data`."""
        if len(data) > LARGEST or data.startswith(_OWN_PAGE):
            return None
        line, _, block = data.partition(b"\r\n")
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return None
        path = match[1].decode("ascii")
        if not is_plain(path):
            return None
        fields = self._blocks.get(block)
        if fields is None:
            if len(block) < 4 or block.find(_HEAD_END) != len(block) - 4:
                return None
            fields = self._read(block)
            if fields is None:
                return None
            self._in_blocks += len(block)
            if self._in_blocks > _MOST_IN_BLOCKS:
                self._blocks.clear()
                self._in_blocks = len(block)
            self._blocks[block] = fields
        return line, path, fields

    def _read(self, block: bytes) -> PlainFields | None:
        lines = block[:-4].split(b"\r\n")
        if len(lines) > _MOST_FIELDS:
            return None
        meanings = self._lines.get
        passed: list[bytes] = []
        forwarded_for: tuple[str, ...] = ()
        host: str | None = None
        cookie: bytes | None = None
        once: set[bytes] = set()
        accept = mode = 0
        for line in lines:
            means = meanings(line)
            if means is None:
                if cookie is None and line.startswith(_COOKIE) and _FIELD.fullmatch(line):
                    cookie = line[8:]
                    continue
                means = self._judged(line)
                if means is None:
                    return None
            if means == _STAYS:
                continue
            if means == _FORWARDED_FOR:
                forwarded_for = (*forwarded_for, _value(line))
                continue
            passed.append(line)
            if means == _HOST:
                if host is not None:
                    return None
                host = normal_host(_value(line), self._secure)
                if host is None:
                    return None
            elif means == _PASSES_ONCE:
                name = line.partition(b":")[0].lower()
                if name in once:
                    return None
                once.add(name)
            elif means in {_ACCEPTS_PAGES, _ACCEPTS_OTHERS}:
                accept = accept or means
            elif means != _PASSES:
                mode = mode or means
        if host is None or cookie is None:
            return None
        navigates = mode == _NAVIGATES or (not mode and accept == _ACCEPTS_PAGES)
        return PlainFields(host, cookie, b"\r\n".join(passed), forwarded_for, navigates)

    def _judged(self, line: bytes) -> int | None:
        """What a line means that was not met before, or None if no request with it is plain."""
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name, value = match.groups()
        means = self._meaning(name, value)
        if means is not None and len(line) <= _LONGEST_LINE:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[line] = means
        return means

    def _meaning(self, name: bytes, value: bytes) -> int | None:
        lower = name.lower()
        if lower in _NEVER_PLAIN:
            return None
        if lower == b"connection":
            return _STAYS if value.lower() == b"keep-alive" else None
        if lower == b"host":
            return _HOST
        if lower == b"x-forwarded-for" and self._behind_proxies:
            return _FORWARDED_FOR
        if not self._rules.passes(name):
            return _STAYS
        if lower == b"accept":
            return _ACCEPTS_PAGES if b"text/html" in value else _ACCEPTS_OTHERS
        if lower == b"sec-fetch-mode":
            return None if not value else _NAVIGATES if value == b"navigate" else _FETCHES
        return _PASSES_ONCE if lower in _ONCE else _PASSES


def _value(line: bytes) -> str:
    return line.partition(b":")[2].strip(b" \t").decode("utf-8", "surrogateescape")  # as aiohttp has it
