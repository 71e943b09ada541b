"""A client's connection to the gateway, read as strictly as a client may: what an answer is, and what a broken one.

Keeps nothing of what passed, as it lives for minutes. Whether the answer is the right one is clients.py's question.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 60.0
"""Seconds in which everything comes to its end, on a machine that others use, too."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_numbers = itertools.count(1)

Pace = Callable[[], Awaitable[None]]


class Malformed(AssertionError):
    """Bytes that are no HTTP answer, or one with two readings."""


@dataclass
class Answer:
    """What came. `broken`: it was begun, or not even that, and the connection ended; `body` is then what had come."""

    status: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    keep: bool = False
    broken: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """Of all fields of this name, in any case."""
        return [value for given, value in self.fields if given.lower() == name.lower()]


class Line:
    """One connection. `serial`: of the last answer of a hub that came over it; `used`: requests that were sent;
    `again`: requests that were sent before, to be sent again as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.number = next(_numbers)
        self.serial = -1
        self.used = 0
        self.again: dict[object, Any] = {}

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int = 0) -> Line:
        """A new one; `receive_buffer`: bytes that the kernel takes while nobody reads."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 18)
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        """Write, at the pace of the gateway. Raises ConnectionError."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """In an orderly way."""
        if not self.writer.is_closing():
            self.writer.close()

    def reset(self) -> None:
        """With a TCP reset."""
        if not self.writer.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.writer.transport.abort()

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, and it is open."""
        return not self.reader._buffer and not self.reader.at_eof()  # type: ignore[attr-defined]

    async def ended(self) -> bool:
        """Whether the gateway ends it without another word."""
        try:
            async with asyncio.timeout(PATIENCE):
                return not await self.reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def answer(self, method: str = "GET", *, http10: bool = False, pace: Pace | None = None) -> Answer:
        """The next answer, whole or broken. `http10`: the request was; `pace`: awaited before each bite. Raises
        `Malformed`."""
        answer = Answer()
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            answer.broken, answer.body = True, error.partial
            return answer
        except ConnectionError:
            answer.broken = True
            return answer
        except TimeoutError:
            raise Malformed("no answer at all") from None
        lines = head[:-4].split(b"\r\n")
        first = _STATUS_LINE.fullmatch(lines[0])
        if first is None or (head.startswith(b"HTTP/1.0") and not http10):
            raise Malformed(f"no status line: {lines[0][:80]!r}")
        answer.status = int(first[1])
        for line in lines[1:]:
            found = _FIELD.fullmatch(line)
            if found is None:
                raise Malformed(f"no field: {line[:80]!r}")
            answer.fields.append((found[1], found[2]))
        lengths, codings = answer.values(b"Content-Length"), answer.values(b"Transfer-Encoding")
        connections = answer.values(b"Connection")
        if len(lengths) + len(codings) > 1 or len(connections) > 1:
            raise Malformed(f"two readings: {head!r}")
        answer.keep = connections == [b"keep-alive"] if http10 else connections != [b"close"]
        if method == "HEAD" or answer.status < 200 or answer.status in {204, 304}:
            return answer
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(PATIENCE):
                await self._body(parts, lengths, codings, pace)
        except (asyncio.IncompleteReadError, ConnectionError):
            answer.broken = True
        except TimeoutError:
            raise Malformed(f"silent after {sum(map(len, parts))} bytes of {lengths} {codings}") from None
        answer.body = b"".join(parts)
        if not lengths and not codings and answer.keep:
            raise Malformed(f"an answer without an end: {head!r}")
        return answer

    async def _body(self, parts: list[bytes], lengths: list[bytes], codings: list[bytes], pace: Pace | None) -> None:
        if codings:
            if codings != [b"chunked"]:
                raise Malformed(f"coded as {codings}")
            while True:
                line = await self.reader.readuntil(b"\r\n")
                if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
                    raise Malformed(f"a chunk that begins with {line[:60]!r}")
                size = int(line, 16)
                await self._sized(parts, size, pace)
                if await self.reader.readexactly(2) != b"\r\n":
                    raise Malformed("a chunk without its end")
                if not size:
                    return
        await self._sized(parts, int(lengths[0]) if lengths else -1, pace)

    async def _sized(self, parts: list[bytes], size: int, pace: Pace | None) -> None:
        """So many bytes, or, for -1, all up to the end."""
        while size:
            if pace is not None:
                await pace()
            data = await self.reader.read(min(size, 1 << 16) if size > 0 else 1 << 16)
            if not data:
                if size < 0:
                    return
                raise asyncio.IncompleteReadError(b"", size)
            parts.append(data)
            size -= len(data) if size > 0 else 0
