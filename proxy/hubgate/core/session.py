"""What a session is, and how long it can live.

A session is a value: changing it means storing another one. Nobody in here knows where it is stored, or which cookie
leads to it; `handle` is the only name under which logs, audit and assertions may speak of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from hubgate.core.identity import Identity, Proof


class SessionState(Enum):
    """Idle and expired sessions block at the gateway and leave everything else as it is."""

    LIVE = "live"
    IDLE = "idle"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Limits:
    """`idle`: seconds without a sign of a person; `max`: seconds since the login.

    `idle_by_hub`: hubs, by name, with another `idle` than the site's. A person is there or isn't, wherever they were
    seen; so a session has one limit, the strictest of the places where they have been, and it ends everywhere at once.
    """

    idle: float
    max: float
    idle_by_hub: Mapping[str, float] = field(default_factory=dict)

    @property
    def shortest(self) -> float:
        """The strictest `idle` of all."""
        return min((self.idle, *self.idle_by_hub.values()))


@dataclass(frozen=True, slots=True)
class Session:
    """One login of one person in one browser. Times are seconds since the epoch.

    `provider_sid`: the provider's name for its own session (OIDC Back-Channel Logout 1.0, `sid`), may be empty.
    `renew_at`: when its tokens are due, 0 for never.
    `hubs`: where the person has been, by name, each with what that hub calls its own session, "" if it isn't known.
    """

    handle: str
    identity: Identity
    proof: Proof
    created: float
    last_seen: float
    csrf: str
    provider_sid: str = ""
    id_token: str = ""
    refresh_token: str = ""
    address: str = ""
    user_agent: str = ""
    hubs: tuple[tuple[str, str], ...] = ()
    renew_at: float = 0.0

    def __repr__(self) -> str:
        return f"Session({self.handle}, {self.identity.username!r})"

    def visited(self, hub: str, hub_session: str = "") -> Session:
        """The same, with one more hub where the person has been. A name that the hub gave is not forgotten for none."""
        known = dict(self.hubs)
        if known.get(hub) is not None and (not hub_session or known[hub] == hub_session):
            return self
        return replace(self, hubs=tuple((known | {hub: hub_session}).items()))

    @property
    def root(self) -> str:
        """What it hangs on: the provider's session, or else itself. Tabs that log in at once begin a session each, and
        all but one of them hang there unseen."""
        return self.provider_sid or self.handle

    def idle_at(self, limits: Limits) -> float:
        """When nobody will have been there for too long, if nobody comes back."""
        if not limits.idle_by_hub or not self.hubs:
            return self.last_seen + limits.idle
        return self.last_seen + min(limits.idle_by_hub.get(hub, limits.idle) for hub, _ in self.hubs)

    def ends_at(self, limits: Limits) -> float:
        """When it ends if nobody comes back."""
        return min(self.idle_at(limits), self.created + limits.max)

    def state(self, limits: Limits, now: float) -> SessionState:
        """Which of the limits it has met, the absolute one first."""
        if now >= self.created + limits.max:
            return SessionState.EXPIRED
        if now >= self.idle_at(limits):
            return SessionState.IDLE
        return SessionState.LIVE


_AHEAD = 60.0


def renewal_due(expires: float, now: float) -> float:
    """When tokens that were given out now and are good until `expires` should be renewed: a minute before, or at half
    of a shorter life."""
    return max(expires - _AHEAD, now + (expires - now) / 2)
