"""The server behind everybody: what a JupyterHub would answer, at next to no cost.

    python -m tests.bench.backend PORT

A raw protocol on uvloop, in a process of its own, so that what is measured is the proxy before it. The last part of a
path says what is wanted, whatever stands before it: `200` and `10k` are answers of that size with a hub's header
fields; `head` gives back the head of the request as it came in, which is how the bench sees who a proxy says that
somebody is; `home` sets a hub's cookies; `big` is a large download and `upload` takes one; `channels` is a WebSocket
that sends each message back. Anything else is an empty page, which is what probes get.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import struct
import sys
from email.utils import formatdate
from pathlib import Path
from typing import cast

import uvloop

from hubgate.ops.demo.child import Child, free_ports

BASE = "/bench/"
"""The path below which a hub would answer (its `base_url`)."""
BIG = 256 * 1024 * 1024
"""Bytes of `big`."""
HUB_COOKIES = {"jupyterhub-session-id": "6f3b1d5c8a7e4f0f9b2e1a4d7c0f3e5b", "_xsrf": "2|7a1c94de|51f0a2c3b4d5e6f70819"}
"""What `home` sets: what a browser that has been at a hub brings along."""

_CHUNK = bytes(256 * 1024)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_MOST_HEAD = 64 * 1024


def answer(body: bytes, *fields: str, length: int | None = None) -> bytes:
    """A complete answer with the header fields of JupyterHub's pages; `length` where the body comes later."""
    lines = (
        "HTTP/1.1 200 OK",
        "Server: TornadoServer/6.5.2",
        "Content-Type: text/html; charset=UTF-8",
        f"Date: {formatdate(usegmt=True)}",
        "X-Jupyterhub-Version: 6.1.1",
        "Content-Security-Policy: frame-ancestors 'self'; report-uri /bench/hub/security/csp-report",
        "Access-Control-Allow-Headers: accept, content-type, authorization, x-xsrftoken",
        f'Etag: "{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"',
        "Vary: Accept-Encoding",
        f"Content-Length: {len(body) if length is None else length}",
        *fields,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


_ANSWERS = {
    b"200": answer(b"x" * 200),
    b"10k": answer(b"x" * 10240),
    b"home": answer(b"home", *(f"Set-Cookie: {name}={value}; Path={BASE}" for name, value in HUB_COOKIES.items())),
}
_EMPTY = answer(b"")
_BIG = answer(b"", length=BIG)


def accept_of(key: bytes) -> bytes:
    """What a WebSocket's server proves with that it read the client's key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def field(head: bytes, name: bytes) -> bytes:
    """The value of a header field in a head, b"" when it isn't there."""
    for line in head.split(b"\r\n")[1:]:
        given, _, value = line.partition(b":")
        if given.lower() == name:
            return value.strip()
    return b""


class Connection(asyncio.Protocol):
    """One connection: heads until a handshake, then frames."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._upload = 0  # bytes that still come
        self._uploaded = 0
        self._download = 0  # bytes that still go
        self._writable = True
        self._frames: Echo | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._download = 0

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._frames is not None:
            self._write(self._frames.back(data))
            return
        if self._upload:
            taken = min(self._upload, len(data))
            self._upload -= taken
            if self._upload:
                return
            data = data[taken:]
            self._write(answer(b"%d" % self._uploaded))
        self._buffer += data
        while not self._upload and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._answer(head)
        if len(self._buffer) > _MOST_HEAD:
            self._abort()

    def _answer(self, head: bytes) -> None:
        target = head[: head.find(b"\r\n")].split(b" ")[1]
        wanted = target[target.rfind(b"/") + 1 :]
        ready = _ANSWERS.get(wanted)
        if ready is not None:
            self._write(ready)
        elif wanted == b"head":
            self._write(answer(head))
        elif wanted == b"big":
            self._download = BIG
            self._write(_BIG)
            self._go_on()
        elif wanted == b"upload":
            self._begin_upload(int(field(head, b"content-length")))
        elif wanted == b"channels":
            self._upgrade(field(head, b"sec-websocket-key"))
        else:
            self._write(_EMPTY)

    def _begin_upload(self, length: int) -> None:
        self._uploaded = length
        self._upload = length - len(self._buffer)
        self._buffer = b""
        if self._upload <= 0:
            self._upload = 0
            self._write(answer(b"%d" % length))

    def _upgrade(self, key: bytes) -> None:
        fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept_of(key)
        self._write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n\r\n")
        self._frames = Echo()
        first, self._buffer = self._buffer, b""
        self._write(self._frames.back(first))

    def _go_on(self) -> None:
        while self._download and self._writable and self._transport is not None:
            chunk = _CHUNK[: self._download]
            self._download -= len(chunk)
            self._write(chunk)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Echo:
    """Turns a client's frames into a server's. The client masks with zeros, which is legal and changes nothing, so that
    a payload goes back as it came, without waiting for its end.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._payload = 0  # bytes of the frame that still come

    def back(self, data: bytes) -> bytes:
        """What to send for `data`. ValueError for a frame that isn't masked so."""
        data, self._buffer = self._buffer + data, b""
        parts: list[bytes] = []
        at = 0
        while at < len(data):
            if self._payload:
                part = data[at : at + self._payload]
                self._payload -= len(part)
                at += len(part)
                parts.append(part)
                continue
            long = {126: 2, 127: 8}.get(data[at + 1] & 0x7F, 0) if len(data) > at + 1 else 8
            after = at + 2 + long
            if len(data) < after + 4:
                break
            if not data[at + 1] & 0x80 or any(data[after : after + 4]):
                raise ValueError("a frame that is not masked with zeros")
            self._payload = int.from_bytes(data[at + 2 : after]) if long else data[at + 1] & 0x7F
            parts.append(bytes((data[at], data[at + 1] & 0x7F)) + data[at + 2 : after])
            at = after + 4
        self._buffer = data[at:]
        return b"".join(parts)


def frame(payload: bytes, *, masked: bool) -> bytes:
    """A binary frame, masked with zeros where a client sends it."""
    mask = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x82, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x82, mask | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, mask | 127, size)
    return head + (bytes(4) if masked else b"") + payload


class Backend(Child):
    """The process."""

    def __init__(self, folder: Path) -> None:
        super().__init__("backend", log=folder / "backend.log")
        self.port = free_ports(1)[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it."""
        self.launch([sys.executable, "-m", "tests.bench.backend", str(self.port)], cwd=Path(__file__).parents[2])


async def serve(port: int) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with await loop.create_server(Connection, "127.0.0.1", port, backlog=4096):
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
