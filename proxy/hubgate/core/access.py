"""May this request go on?

Decided from the pool, the session as it was read, and what kind of request asks: only a person who navigates can be
sent to a login page; a script gets an answer that it can understand; a WebSocket handshake is refused before it is one.

Knows nothing about cookies, stores, or how a login works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from hubgate.core.freshness import Demand
from hubgate.core.session import Limits, Session, SessionState
from hubgate.core.site import Pool


class Headers(Protocol):
    """What is needed of a multidict of request headers (names compare without case)."""

    def get(self, key: str, /, default: str) -> str:
        """The first value, or `default`."""


class Kind(Enum):
    """Who is asking, as far as the answer's form depends on it."""

    NAVIGATION = "navigation"
    """A person opens a page: may be redirected."""
    FETCH = "fetch"
    """A script, an image, a program, or any request that changes something."""
    UPGRADE = "upgrade"
    """A WebSocket handshake."""


@dataclass(frozen=True, slots=True)
class Forward:
    """It may."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Somebody has to log in first. `ended`: what became of the session that came along, None if there was none."""

    kind: Kind
    ended: SessionState | None = None


@dataclass(frozen=True, slots=True)
class StepUp:
    """Somebody has to show their second factor anew first."""

    kind: Kind
    demand: Demand


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not, and logging in again won't help. `needs`: the groups of which one would be enough."""

    code: Literal["group_missing"]
    needs: tuple[str, ...]


Decision = Forward | Challenge | StepUp | Deny

_FORWARD = Forward()


def kind_of(method: str, headers: Headers) -> Kind:
    """Tell a navigation from a fetch (Fetch Metadata, W3C) and a handshake (RFC 9110, 7.8).

    Where a client sends no Sec-Fetch-Mode (plain-http hosts, programs), wanting HTML is taken for navigating.
    """
    # Whoever may speak another protocol as well (h2c, by default in Java) gets an ordinary answer, RFC 9110, 7.8.
    if "websocket" in headers.get("Upgrade", "").lower():
        return Kind.UPGRADE
    if method not in {"GET", "HEAD"}:
        return Kind.FETCH
    mode = headers.get("Sec-Fetch-Mode", "")
    navigates = mode == "navigate" if mode else "text/html" in headers.get("Accept", "")
    return Kind.NAVIGATION if navigates else Kind.FETCH


def decide(
    pool: Pool, session: Session | None, kind: Kind, *, limits: Limits, now: float, demand: Demand | None = None
) -> Decision:
    """Whether a request to `pool` may go on at `now` (seconds since the epoch).

    `demand`: what this place of the pool asks of the proof, None for nothing.
    """
    if session is None:
        return Challenge(kind)
    state = session.state(limits, now)
    if state is not SessionState.LIVE:
        return Challenge(kind, state)
    if not pool.admits(session.identity.groups):
        return Deny("group_missing", pool.groups)
    if demand is not None and now >= demand.met_until(session.proof):
        return StepUp(kind, demand)
    return _FORWARD


def origin_allowed(origins: Sequence[str], own_origin: str) -> bool:
    """Whether a WebSocket handshake with these Origin fields may go on (cross-site WebSocket hijacking).

    Browsers always send Origin here (RFC 6455, 4.1): a client without one is a program, not a page that was lured.
    `own_origin`: scheme, host and port as the browser writes them, the default port left out.
    """
    match origins:
        case []:
            return True
        case [origin]:
            return origin.lower() == own_origin.lower()
        case _:
            return False
