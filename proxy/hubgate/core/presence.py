"""Is a person there, or only their browser?

A notebook that nobody looks at asks for its kernels' state every few seconds, for days. So what counts as a sign of a
person is a table, and what isn't in it doesn't count:

- a navigation;
- what a browser says on the sockets of kernels and terminals: data frames, not the pongs by which it is kept awake;
- a write at the hub's own pages and API, and to contents, kernels, sessions and terminals of a notebook server.

Everything else may come from a page that was left alone: polls, writes of which we don't know what they are, other
sockets. An autosave could be either, and counts: to end somebody's work is worse than to end it two minutes late. What
a script in a notebook does in order to look like a person, it does in its owner's own browser and session.

Knows nothing about sessions, limits or clocks.
"""

from __future__ import annotations

import re

from hubgate.core.access import Kind
from hubgate.core.routing import Zone

_READS = frozenset({"GET", "HEAD", "OPTIONS"})

# Below somebody's server, however deep: servers have names, and a Jupyter can stand behind jupyter-server-proxy.
_SPOKEN_ON = re.compile(r"user/[^/]+/(?:.*/)?(?:api/kernels/[^/]+/channels|terminals/websocket/[^/]+)", re.DOTALL)
_WRITTEN_TO = re.compile(r"user/[^/]+/(?:.*/)?api/(?:contents|kernels|sessions|terminals)(?:/.*)?", re.DOTALL)
_REPORTS = "hub/security/csp-report"
"""Written to by browsers themselves (JupyterHub's `report-uri`, CSP Level 3, 5.3)."""


def is_sign(kind: Kind, method: str, zone: Zone, below: str) -> bool:
    """Whether a request is a sign of a person. `below`: its path as it follows the pool's."""
    if kind is Kind.NAVIGATION:
        return True
    # Pages open their sockets by themselves, and anew whenever one was lost: what is said there counts.
    if kind is Kind.UPGRADE or method in _READS:
        return False
    if zone is Zone.NOTEBOOK:
        return _WRITTEN_TO.fullmatch(below) is not None
    return below != _REPORTS


def is_spoken_on(below: str) -> bool:
    """Whether what a browser says on a WebSocket here (a path as it follows the pool's) is a sign of a person."""
    return _SPOKEN_ON.fullmatch(below) is not None


class Frames:
    """What one end of a WebSocket says, by the heads of its frames (RFC 6455, 5.2); payloads are skipped unread.

    Takes any bytes: whether they are well-formed is the other end's business.
    """

    __slots__ = ("_head", "_skip")

    def __init__(self) -> None:
        self._head = b""  # the beginning of a head that was cut off
        self._skip = 0  # bytes until the next frame begins

    def say_something(self, data: bytes) -> bool:
        """Whether a data frame that isn't empty begins in what is read next."""
        at, size = self._skip, len(data)
        if at >= size:  # pieces of something long
            self._skip = at - size
            return False
        if self._head:
            data = self._head + data
            size = len(data)
            self._head = b""
        said = False
        while at < size:
            end = at + 2
            if end > size:
                break
            length = data[at + 1] & 0x7F
            if length > 125:
                end += 2 if length == 126 else 8
                if end > size:
                    break
                length = int.from_bytes(data[at + 2 : end])
            if length and not data[at] & 0x08:  # the bit that tells control frames
                said = True
            at = end + length + (4 if data[at + 1] & 0x80 else 0)
        self._skip = max(at - size, 0)
        self._head = data[at:]
        return said
