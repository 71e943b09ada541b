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


def says_something(piece: bytes) -> bool:
    """Whether what a WebSocket's client sent, in one piece as it arrived, is more than signs of life.

    Those are control frames and empty messages (RFC 6455, 5.2 and 5.5): a few bytes that are sent at once, and arrive
    at once. Anything else is, or belongs to, something that was said: wherever the piece begins and ends, so that one
    can begin to listen at any time and needs to remember nothing. The price: a pong that is torn on its way counts.
    Payloads are not read; whether frames are well-formed is the other end's business.
    """
    at, size = 0, len(piece)
    while at + 1 < size:
        length = piece[at + 1]
        if length & 0x7F and not piece[at] & 0x08:  # the bit that tells control frames
            return True
        at += 2 + (length & 0x7F) + (4 if length & 0x80 else 0)  # with a mask
    return at != size
