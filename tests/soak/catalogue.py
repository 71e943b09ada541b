"""Every behaviour of the soak's hubs, and what the client may get for it. Whatever isn't in here is a failure.

A number is the status of a complete answer; a 200 and every other answer of a hub must be whole and the client's own to
the last byte. `BROKEN` is an answer that was begun and cut, visibly, with nothing in it but the client's own bytes.

What no gateway can tell apart is not in here: a hub that says something on a connection at the very moment at which the
next request is on its way to it. A second answer comes in one piece with the first (one segment on loopback), or on a
connection of a pool that has only one client at a time, who waits until the hub has spoken (clients.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Outcome = int | Literal["broken"]
BROKEN: Final = "broken"

OF_THE_GATEWAY = frozenset({400, 401, 408, 502, 503, 504})
"""Statuses that no hub of the soak uses: the gateway's own words."""

WELL: Mapping[str, frozenset[Outcome]] = {
    "sized": frozenset({200}),
    "chunked": frozenset({200}),
    "extended": frozenset({200}),  # chunk extensions, trailers, odd sizes, several segments
    "until_close": frozenset({200}),
    "http10": frozenset({200}),
    "interim": frozenset({200}),  # 1xx in front
    "thinking": frozenset({200}),
    "closing": frozenset({200}),  # Connection: close
    "pieces": frozenset({200}),  # the head in several segments, the body as well
    "no_content": frozenset({204}),
    "not_modified": frozenset({304}),
    "missing": frozenset({404}),
    "failing": frozenset({500}),
}
"""Answers in good order: a client's request beside whatever others get must have one of these."""

BAD: Mapping[str, frozenset[Outcome]] = {
    # Nothing was said: told as such, after one more try where the connection had waited (RFC 9112, 9.3.1).
    "reset_before": frozenset({502}),
    "close_before": frozenset({502}),
    "reset_in_head": frozenset({502}),
    "close_in_head": frozenset({502}),
    # Too little. A reset may overtake what came before it.
    "reset_in_body": frozenset({BROKEN, 502}),
    "reset_unframed": frozenset({BROKEN, 502}),
    "cut_short": frozenset({BROKEN}),
    "cut_chunks": frozenset({BROKEN}),
    "head_alone": frozenset({BROKEN}),
    "stalled": frozenset({BROKEN}),  # silent in its body, ended by limits.idle_timeout
    # Too much, or twice: cut, and never anybody's answer.
    "too_much": frozenset({200}),
    "too_much_of_nothing": frozenset({204}),
    "too_much_unmodified": frozenset({304}),
    "twice": frozenset({200}),
    "twice_chunked": frozenset({200}),
    # Nonsense.
    "two_lengths": frozenset({502}),
    "garbage": frozenset({502}),
    "bare_lf": frozenset({502}),
    "broken_chunk": frozenset({502}),
    "broken_later": frozenset({BROKEN, 502}),  # a busy gateway may read the good and the bad at once
    "flood": frozenset({502}),  # of 1xx
    "endless_head": frozenset({502}),
    "switching": frozenset({502}),  # a 101 that nobody asked for
}
"""Hubs that misbehave in answer to a GET."""

MOODS = (
    *("sized",) * 8,
    *("chunked", "interim", "closing", "until_close", "too_much", "twice", "twice_chunked"),
    *("reset_before", "close_in_head", "reset_in_body", "cut_short", "cut_chunks", "two_lengths", "garbage"),
)
"""What a moody hub chooses from: the same request, word by word, and each time another answer."""

UPLOADS: Mapping[str, frozenset[Outcome]] = {
    "sized": frozenset({200}),
    "chunked": frozenset({200}),
    "thinking": frozenset({200}),
    "slow_taker": frozenset({200}),  # reads in small bites, with pauses
    "early": frozenset({200, BROKEN}),  # answers at once, and reads on; the client may be cut off while it still sends
    "refusing": frozenset({413, BROKEN}),  # answers at once, and reads nothing more
    "reset_before": frozenset({502, BROKEN}),
    "reset_in_upload": frozenset({502, BROKEN}),
    "two_lengths": frozenset({502}),
    "twice": frozenset({200}),
}
"""Answers to a request with a body. Never sent twice, whatever happens."""

SOCKETS: Mapping[str, frozenset[Outcome]] = {
    "echo": frozenset({101}),
    "refused": frozenset({403}),
    "not_switched": frozenset({200}),
    "false_accept": frozenset({502}),
    "reset_before": frozenset({502}),
}
"""Answers to a WebSocket handshake."""

VANISHING = ("silent", "thinking", "dripping", "sized", "slow_taker")
"""What a hub does to a client that leaves in the middle. There is no answer; the hub must be left at once."""

IDLE = ("answer", "byte", "blank", "timeout", "close", "reset")
"""What a hub says on a connection that waits for the next request: it must be dropped, and nobody may see it."""

GET = WELL | BAD
_IDLE: frozenset[Outcome] = frozenset({200})


def allowed(how: str, method: str, *, upload: bool, upgrade: bool) -> frozenset[Outcome]:
    """The outcomes that this behaviour may have."""
    if upgrade:
        return SOCKETS[how]
    if upload:
        return UPLOADS[how]
    if how == "idle":
        return _IDLE
    return GET[how] if method != "HEAD" else WELL[how]
