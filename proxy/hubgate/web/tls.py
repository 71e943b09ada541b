"""TLS on the browsers' side: a transport above, a protocol below, OpenSSL in between.

What can be read is decrypted and delivered in the call that brought it; what is written is encrypted and passed down in
the call that wrote it. Nothing is kept here but what the application is too slow for, and that is bounded by one read
of the socket. Flow control of writes is the lower transport's own, on the encrypted bytes.

Why not the loop's own (`create_server(ssl=…)`): uvloop's holds a buffer of 256 KiB for each connection, and OpenSSL's
memory BIOs never shrink, so that a socket over which a megabyte went once keeps 0.8 MiB for as long as it is open,
idle or not; a lab with ten thousand open notebooks can't have that. Here ciphertext goes in and out by pieces of at
most `PIECE`, and a socket stays at 125 KiB or below whatever it carried, and at 18 if that was little. A small message
costs less CPU, too, as long as each way is one call: of 4 µs there and back, OpenSSL has 1.5, Python's binding to it
0.8, and the rest is this module. So `data_received` and `write` do by themselves what mostly happens.

It doesn't know what is spoken above, and serves only: it is no client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from socket import socket
from typing import Any, cast

RECORD = 16 * 1024
"""The most that one TLS record carries (RFC 8446, 5.1), so that a read of this size never leaves a rest in OpenSSL."""

PIECE = 64 * 1024
"""Ciphertext that OpenSSL is given at once. Four thirds of it stay with a connection that was given so much; with 32
KiB an upload costs a sixth more CPU, with 256 KiB no less."""

SEAL = 5 + 1 + 16
"""Bytes that TLS 1.3 adds to what it carries, or more (RFC 8446, 5.2 and 5.3). So if OpenSSL stands between two records
and gives that much less than it was given, it was given one record, and nothing of another."""

_UNKNOWN = 1 << 62
"""More than is ever added: nobody can tell by the length."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds; asyncio's own limit is 60."""

SHUTDOWN_TIMEOUT = 30.0
"""Seconds that a closed connection may take to flush and to be closed by its client, as in asyncio."""

UNASKED = 16 * 1024
"""Bytes that a client's own TLS messages may make us send in a connection's life. A KeyUpdate is answered in 30, and is
due every 2^24 records (RFC 8446, 5.5): who needs more floods us, and reads nothing of it."""


class _State(Enum):
    HANDSHAKE = auto()
    READING = auto()
    PAUSED = auto()  # the application doesn't want to be given more
    RESUMING = auto()  # it does again: in the loop's next turn
    CLOSING = auto()  # nothing is read or written any more; what was written may still be on its way
    LOST = auto()


_READING = _State.READING  # looked up in the class, it costs as much as a call
_OPEN = (_State.READING, _State.PAUSED, _State.RESUMING)
_NOBODY = asyncio.Protocol()
"""Who is told before the handshake and after the end."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The transport that an application's protocol gets, and the protocol of the TCP transport below it.

    The protocol is made when the handshake is done: who never gets that far costs no more than the handshake. Protocols
    are streaming ones (`data_received`). As in asyncio, TLS has no half-closed state: a client's close_notify is told
    by `eof_received()`, and the connection closed whatever that returns. A TCP connection that ends without one is told
    as `connection_lost(ConnectionResetError)`, since what came may be the beginning of what was sent.
    """

    __slots__ = (
        "_app",
        "_closed_by_peer",
        "_context",
        "_deadline",
        "_deliver",
        "_encrypt",
        "_error",
        "_feed",
        "_handshake_timeout",
        "_incoming",
        "_late",
        "_loop",
        "_make_app",
        "_outgoing",
        "_raw",
        "_read",
        "_seal",
        "_send",
        "_shutdown_timeout",
        "_state",
        "_take",
        "_tls",
        "_unasked",
    )

    _raw: asyncio.Transport
    _send: Callable[[bytes], None]
    _deadline: asyncio.TimerHandle

    def __init__(
        self,
        make_app: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._make_app = make_app
        self._context = context
        self._handshake_timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Looked up once: these are called for every record. Where they are called they are taken out of their slots
        # first, since Python is slow to call what is in a slot (0.2 µs a message).
        self._feed = self._incoming.write
        self._read = self._tls.read
        self._encrypt = self._tls.write
        self._take = self._outgoing.read
        self._late: bytes | memoryview = b""  # ciphertext that waits for the application; TCP isn't read meanwhile
        self._closed_by_peer = False
        self._unasked = 0
        self._seal = _UNKNOWN  # SEAL while OpenSSL stands between two records
        self._error: Exception | None = None
        self._state = _State.HANDSHAKE
        self.set_protocol(_NOBODY)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.name.lower()}, {self._tls.version()}>"

    # The protocol of the transport below.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is there. The client speaks first."""
        self._raw = cast(asyncio.Transport, transport)
        self._send = self._raw.write
        self._deadline = self._loop.call_later(self._handshake_timeout, self.abort)

    def data_received(self, data: bytes) -> None:
        """Ciphertext: mostly one record, and all of it."""
        size = len(data)
        if self._state is not _READING:
            self._late = memoryview(b"".join((self._late, data)) if self._late else data)
            self._catch_up()
            return
        if size > RECORD:
            self._receive_much(memoryview(data))
            return
        feed, read, deliver = self._feed, self._read, self._deliver
        feed(data)
        try:
            plain = read(size)  # a record is shorter than its ciphertext; only with an earlier rest can it be as long
        except ssl.SSLError as error:
            self._stopped(error)
            return
        if plain:
            deliver(plain)
            if len(plain) + self._seal == size:
                return  # without asking OpenSSL what it has left, which costs a tenth of a message
        if not 0 < len(plain) < size or self._incoming.pending or self._outgoing.pending:
            self._decrypt()
        elif self._tls.version() == "TLSv1.3":
            self._seal = SEAL

    def _receive_much(self, data: memoryview) -> None:
        """Many records, delivered together: each delivery costs those above more than the copy (a twelfth of an
        upload)."""
        records: list[bytes] = []
        for at in range(0, len(data), PIECE):
            self._feed(data[at : at + PIECE])
            try:
                while self._incoming.pending and (record := self._read(RECORD)):
                    records.append(record)
            except ssl.SSLWantReadError:
                continue  # the rest of that record is in the next piece
            except ssl.SSLError as error:
                if records:
                    self._deliver(b"".join(records))
                if self._state in _OPEN:
                    self._fail(error)
                return
        if records:
            self._deliver(b"".join(records))
        self._decrypt()

    def eof_received(self) -> None:
        """The end of TCP: the transport below closes itself after what it has to send."""
        if self._state is _State.HANDSHAKE or self._state in _OPEN:
            self._end(ConnectionResetError("TCP ended without TLS's close_notify"))

    def pause_writing(self) -> None:
        """The buffer below is above its mark."""
        self._app.pause_writing()

    def resume_writing(self) -> None:
        """It is below its mark again."""
        self._app.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """TCP is gone."""
        self._deadline.cancel()
        self._state = _State.LOST
        self._late = b""
        app = self._app
        self.set_protocol(_NOBODY)
        app.connection_lost(exc or self._error)

    # From ciphertext to the application.

    def _go_on(self, piece: bytes | memoryview) -> None:
        """One piece of ciphertext."""
        if self._state is _READING:
            self._feed(piece)
            self._decrypt()
        elif self._state is _State.HANDSHAKE:
            self._feed(piece)
            self._shake_hands()
        # Else it closes: read, so that the last answer isn't lost to a reset (RFC 1122, 4.2.2.13), and thrown away.

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._reply()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._deadline.cancel()
        self._reply()
        self._state = _READING
        self.set_protocol(self._make_app())
        self._app.connection_made(self)
        if self._incoming.pending:
            self._decrypt()

    def _decrypt(self) -> None:
        """Deliver what OpenSSL has been given, as far as the application takes it."""
        while self._state is _READING:
            try:
                data = self._read(RECORD)
            except ssl.SSLError as error:
                self._stopped(error)
                return
            if not data:
                self._closed_by_peer = True
                self._app.eof_received()
                self.close()
                return
            self._deliver(data)
            if not self._incoming.pending:  # asked before OpenSSL is: its exception costs 2 µs
                break
        if self._outgoing.pending:
            self._reply()

    def _stopped(self, error: ssl.SSLError) -> None:
        """OpenSSL has nothing to deliver: the rest of a record is missing, or TLS is broken."""
        self._seal = _UNKNOWN
        if not isinstance(error, ssl.SSLWantReadError):
            self._fail(error)
        elif self._outgoing.pending:
            self._reply()

    def _catch_up(self) -> None:
        """Go on with what the application was too slow for."""
        self._decrypt()
        while self._late and self._state not in (_State.PAUSED, _State.RESUMING):
            piece, self._late = self._late[:PIECE], self._late[PIECE:]
            self._go_on(piece)
        if not self._late:
            self._late = b""  # an empty view keeps all that it is a view of

    def _reply(self) -> None:
        """Send what OpenSSL says by itself: its part of the handshake, the answer to a KeyUpdate."""
        data = self._take()
        if self._state in _OPEN:
            self._unasked += len(data)
            if self._unasked > UNASKED:
                self._error = ConnectionAbortedError("a flood of TLS messages that want an answer")
                self.abort()
        if data and self._state is not _State.CLOSING:
            self._send(data)

    # The transport of the protocol above.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and pass down; silently nothing once it closes."""
        if self._state is not _READING or not 0 < len(data) <= RECORD:
            self._write_pieces(data)
            return
        encrypt, take, send = self._encrypt, self._take, self._send
        try:
            encrypt(data)
        except ssl.SSLError as error:
            self._fail(error)
        else:
            send(take())

    def _write_pieces(self, data: bytes | bytearray | memoryview) -> None:
        """A record at a time, so that the memory that OpenSSL keeps is one record's; passed down together, so that
        nobody is told of a full buffer in the middle, who might close it there."""
        if self._state not in _OPEN:
            return
        view = memoryview(data).cast("B")
        pieces: list[bytes] = []
        try:
            for at in range(0, len(view), RECORD):
                self._encrypt(view[at : at + RECORD])  # OpenSSL takes all of it, be the client's records ever so short
                pieces.append(self._take())
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._raw.writelines(pieces)

    def can_write_eof(self) -> bool:
        """No: see the class."""
        return False

    def close(self) -> None:
        """Send what was written and a close_notify, then end. The client has `shutdown_timeout` seconds to follow."""
        if self._state is _State.HANDSHAKE:
            self.abort()
        elif self._state in _OPEN:
            with suppress(ssl.SSLError):  # it writes our close_notify, and finds that the client's isn't here
                self._tls.unwrap()
            self._end(None)

    def abort(self) -> None:
        """Reset the connection now."""
        if self._state is not _State.LOST:
            self._state = _State.CLOSING
            self._late = b""
            self._raw.abort()

    def is_closing(self) -> bool:
        """Whether it was closed, by whichever side."""
        return self._state in (_State.CLOSING, _State.LOST)

    def _fail(self, error: ssl.SSLError) -> None:
        """TLS is broken: send the alert that OpenSSL has for it, and end."""
        self._closed_by_peer = True  # no close_notify can be expected of it
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        """Flush, within the time limit. Then wait for the client's end, since closing TCP while something is still
        unread resets it, and the last answer with it; unless it has ended already."""
        self._state = _State.CLOSING
        self._error = error
        self._late = b""
        self._deadline.cancel()
        self._deadline = self._loop.call_later(self._shutdown_timeout, self.abort)
        if self._outgoing.pending:
            self._send(self._take())
        if self._closed_by_peer or self._raw.is_closing():
            self._raw.close()
        else:
            self._raw.write_eof()
            self._raw.resume_reading()

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading()`."""
        if self._state is _READING:
            self._raw.pause_reading()
        elif self._state is not _State.RESUMING:
            return
        self._state = _State.PAUSED

    def resume_reading(self) -> None:
        """Deliver again, beginning soon with what has come already."""
        if self._state is _State.PAUSED:
            self._state = _State.RESUMING
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._state is _State.RESUMING:
            self._state = _READING
            self._catch_up()
            if self._state is _READING:
                self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether the protocol is to be given what comes."""
        return self._state in (_READING, _State.RESUMING)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to this one from now on, beginning with what has come and wasn't delivered."""
        self._app = cast(asyncio.Protocol, protocol)
        self._deliver = self._app.data_received

    def get_protocol(self) -> asyncio.BaseProtocol:
        """To whom it delivers."""
        return self._app

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that the socket hasn't taken."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of encrypted bytes: 0.2 % more than were written, or 22 bytes a message."""
        self._raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's: `sslcontext`, `ssl_object`, `cipher`, `compression`, `peercert`, and what TCP's knows."""
        match name:
            case "sslcontext":
                return self._context
            case "ssl_object":
                return self._tls
            case "cipher":
                return self._tls.cipher()
            case "compression":
                return self._tls.compression()
            case "peercert":
                return self._tls.getpeercert()
        return self._raw.get_extra_info(name, default)


async def serve_tls(
    make_app: Callable[[], asyncio.Protocol],
    sock: socket,
    context: ssl.SSLContext,
    *,
    backlog: int = 100,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
) -> asyncio.Server:
    """Listen as `loop.create_server(make_app, sock=sock, ssl=context)` does.

    The context is told to refuse renegotiation: besides its own dangers it would make writes wait for reads.
    """
    context.options |= ssl.OP_NO_RENEGOTIATION

    def accept() -> TlsTransport:
        return TlsTransport(make_app, context, handshake_timeout=handshake_timeout, shutdown_timeout=shutdown_timeout)

    return await asyncio.get_running_loop().create_server(accept, sock=sock, backlog=backlog)
