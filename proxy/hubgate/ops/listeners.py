"""Where do requests come in?

The sockets are bound once, by the process that starts, and inherited by every worker: what waits in the queue of a
socket is not lost when one worker ends, as it is with SO_REUSEPORT. What is served on them is not known here.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hubgate.config import Tls
from hubgate.config.values import Address
from hubgate.errors import OperatorFault

BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Doors:
    """Sockets that listen, and how TLS is spoken on the public ones."""

    public: Sequence[socket.socket]
    ops: Sequence[socket.socket]
    tls: ssl.SSLContext | None


def bind(addresses: Iterable[Address], key: str) -> list[socket.socket]:
    """Sockets that listen on all the addresses, a name's IPv4 and IPv6 ones alike.

    OperatorFault `listen_failed`: one of them can't be had, and none is kept. `key`: where they are configured.
    """
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            bound += _bound(address, key)
    except BaseException:
        close(bound)
        raise
    return bound


def close(sockets: Iterable[socket.socket]) -> None:
    """Stop listening on them in this process."""
    for listener in sockets:
        listener.close()


def spoken(sockets: Iterable[socket.socket]) -> list[str]:
    """Their addresses for people; the ports are those that the system picked where 0 was asked for."""
    names = (listener.getsockname() for listener in sockets)
    return [str(Address(name[0], name[1])) for name in names]


def tls_context(tls: Tls) -> ssl.SSLContext:
    """How https is served: TLS 1.2 and 1.3 (RFC 9325, 3.1.1 and 4.2), forward secrecy, HTTP/1.1.

    OperatorFault `tls_unusable` when the files have become unusable since the configuration was checked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # Else a client that speaks only HTTP/2 finds out after the handshake (RFC 7301, 3.2).
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A password at hand, so that OpenSSL never asks for one on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "-")
    except (ssl.SSLError, OSError) as error:
        raise OperatorFault(
            "tls_unusable", f"[tls] certificate {tls.certificate} with key {tls.key}: {error.strerror or error}"
        ) from error
    return context


def _bound(address: Address, key: str) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        for family, _, _, _, where in dict.fromkeys(found):
            bound.append(_listening(family, where))
    except OSError as error:
        close(bound)
        why = (error.strerror or str(error)).lower()
        raise OperatorFault(
            "listen_failed",
            f'{key} "{address}": {why}{_advice(error, address)}',
            evidence={"address": str(address)},
        ) from error
    return bound


def _listening(family: int, where: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier run in TIME_WAIT are no reason not to start.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "[::]" beside "0.0.0.0" would be taken, else.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(where)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _advice(error: OSError, address: Address) -> str:
    if isinstance(error, PermissionError) and address.port < 1024:
        return "; ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= in a systemd unit), or another port"
    if error.errno == errno.EADDRINUSE:
        return "; another process listens there (`ss -ltnp` tells which)"
    return ""
