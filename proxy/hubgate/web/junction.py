"""Where does a browser's next request certainly begin, and who has its bytes until then?

Two readers share a connection: ours, of plain requests (core/plain.py), and aiohttp's, of all others. Which of them
gets what comes is decided where a request begins, and nowhere else: two readers that don't agree about that place are
how requests are smuggled. So this counts what aiohttp has still to get of the message that it is at. If that is ever in
doubt, there is no such place on this connection any more, and aiohttp gets everything.

Knows bytes, and the messages of aiohttp's parser; nothing of connections, nor of what the readers do.
"""

from __future__ import annotations

from typing import Any

from aiohttp.http import RawRequestMessage

from hubgate.core.plain import LARGEST

_IN_DOUBT = -1


class Junction:
    """`owed`: bytes that aiohttp has still to get; 0 where a request begins, negative when nobody knows. `held`: what
    neither reader has got yet. `shared`: whether there are two readers at all."""

    __slots__ = ("held", "owed")

    def __init__(self, *, shared: bool) -> None:
        self.owed = 0 if shared else _IN_DOUBT
        self.held = b""

    def taken(self) -> bytes:
        """What was held, which is whoever's asks."""
        data, self.held = self.held, b""
        return data

    def count(self, data: bytes, messages: int, last: Any) -> None:
        """aiohttp has got `data`, and read so many new `messages` in it; `last`: the latest, None when it is gone."""
        if self.owed < 0:
            return
        if not self.owed and messages == 1 and last is not None:
            self.owed = _length_of(data, last)
        elif messages or not self.owed:
            self.owed = _IN_DOUBT
            return
        self.owed = max(self.owed - len(data), _IN_DOUBT)


def may_become_plain(data: bytes) -> bool:
    """Whether this is the beginning of a head that the short way might take when it is complete."""
    if not data.startswith(b"GET /") or len(data) > LARGEST or b"\r\n\r\n" in data:
        return False
    return data.count(b"\n") == data.count(b"\r\n")  # else it is refused at once


def _length_of(data: bytes, message: Any) -> int:
    """Bytes of a message that begins where `data` does; negative where its head and its framing leave a doubt."""
    head = data.find(b"\r\n\r\n") + 4
    if head < 4 or not isinstance(message, RawRequestMessage) or message.chunked or message.upgrade:
        return _IN_DOUBT
    if data.startswith(b"\r\n") or data.count(b"\n", 0, head) != data.count(b"\r\n", 0, head):
        return _IN_DOUBT
    return head + int(message.headers.get("Content-Length", 0))
