"""The judge of what a hub received: a strict reader of HTTP/1.1 requests, written apart from everything it judges."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request as a hub reads it."""

    line: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for key, value in self.fields if key.lower() == name.lower()]


_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def requests_in(data: bytes) -> list[Request]:
    """What a strict HTTP/1.1 server makes of these bytes (RFC 9112); AssertionError on anything that it would refuse
    or that another server could read differently. An incomplete last body is all right: a client may have left."""
    requests: list[Request] = []
    while data:
        head, empty, data = data.partition(b"\r\n\r\n")
        assert empty, f"an incomplete head: {head!r}"
        line, *lines = head.split(b"\r\n")
        assert re.fullmatch(rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1", line), line
        fields = []
        for field_ in lines:
            name, colon, value = field_.partition(b":")
            assert colon, field_
            assert _NAME.fullmatch(name), name
            assert _VALUE.fullmatch(value), value
            fields.append((name, value.strip(b" \t")))
        request = Request(line, tuple(fields), b"")
        lengths, codings = request.values(b"Content-Length"), request.values(b"Transfer-Encoding")
        assert len(request.values(b"Host")) == 1, head
        assert len(lengths) + len(codings) <= 1, head
        body = b""
        if codings:
            assert codings == [b"chunked"], codings
            while data:
                size, _end, data = data.partition(b"\r\n")
                assert re.fullmatch(rb"[0-9a-f]+", size), size
                if size == b"0":
                    assert data.startswith(b"\r\n"), data
                    data = data[2:]
                    break
                body += data[: int(size, 16)]
                rest = data[int(size, 16) :]
                assert not rest or rest.startswith(b"\r\n"), rest
                data = rest[2:]
        elif lengths:
            assert re.fullmatch(rb"0|[1-9][0-9]{0,17}", lengths[0]), lengths
            body, data = data[: int(lengths[0])], data[int(lengths[0]) :]
        requests.append(Request(line, tuple(fields), body))
    return requests
