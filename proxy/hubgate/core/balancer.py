"""Which hub of a pool serves this user?

A user's servers live on one hub, so who is bound stays bound: a hub that is down makes its users wait, it never moves
them. Moving is somebody's choice, made with `place`. Who isn't bound is placed by weighted rendezvous hashing: every
gateway comes to the same answer without asking the others, and a hub that is lost or added concerns only the users
who would be its own.

Knows nothing about where a binding is stored, nor about the load of hubs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from hubgate.core.health import Condition
from hubgate.core.routing import Zone

RETRY_AFTER = 5
"""Seconds after which asking again makes sense: about one probe."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hub as it was last observed. `since`: when `condition` began, seconds since the epoch.

    `weight`: its share of new users compared with the others'; 0 takes none.
    """

    name: str
    weight: float
    condition: Condition
    since: float

    @property
    def takes_new_users(self) -> bool:
        """Whether somebody without a server may be sent here."""
        return self.condition is Condition.UP and self.weight > 0

    @property
    def serves_hub(self) -> bool:
        """Whether the hub's own pages answer."""
        return self.condition is Condition.UP

    @property
    def serves_notebooks(self) -> bool:
        """Whether running notebooks answer."""
        return self.condition is not Condition.DOWN

    def serves(self, zone: Zone) -> bool:
        """Whether requests of this zone can be answered."""
        return self.serves_notebooks if zone is Zone.NOTEBOOK else self.serves_hub


@dataclass(frozen=True, slots=True)
class Affinity:
    """A user is bound to `upstream` since `since`, seconds since the epoch."""

    upstream: str
    since: float


@dataclass(frozen=True, slots=True)
class Selection:
    """This hub it is. `why`: bound to it, placed by the pool's policy, or the pool has no other."""

    upstream: str
    why: Literal["bound", "placed", "only"]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nobody can serve this now.

    `upstream`: the hub the user is bound to, None if there was nobody to place the user on. `since`: when that began.
    `may_move_at`: from when on the user may choose another hub, None if there is no other that takes users now.
    `retry_after`: seconds. `condition`: of the bound hub, or of the best there is.
    """

    upstream: str | None
    since: float
    may_move_at: float | None
    retry_after: int
    condition: Condition = Condition.DOWN


def newest(cookie: Affinity | None, user: Affinity | None) -> Affinity | None:
    """Which of two bindings holds: that of this browser, or that of the user.

    The later one, since it means that the user was moved; the cookie's when they are of the same time.
    """
    if cookie is None or user is None:
        return cookie or user
    return user if user.since > cookie.since else cookie


def select(
    candidates: Sequence[Candidate],
    affinity: Affinity | None,
    *,
    user_key: str,
    zone: Zone,
    now: float,
    move_after: float,
) -> Selection | Unavailable:
    """Which of a pool's hubs answers a request of `zone` from the user `user_key` (issuer and subject, or the like).

    `move_after`: seconds of outage after which a bound user may choose to be moved. A binding to a hub that is no
    longer configured is no binding.
    """
    bound = next((c for c in candidates if affinity is not None and c.name == affinity.upstream), None)
    if bound is None:
        return place(candidates, user_key=user_key)
    if bound.serves(zone):
        return Selection(bound.name, "bound")
    elsewhere = any(c.takes_new_users for c in candidates if c is not bound)
    return Unavailable(
        bound.name,
        since=min(bound.since, now),
        may_move_at=bound.since + move_after if elsewhere else None,
        retry_after=RETRY_AFTER,
        condition=bound.condition,
    )


def place(candidates: Sequence[Candidate], *, user_key: str, avoiding: str | None = None) -> Selection | Unavailable:
    """A hub for somebody who has none, or who chose to leave `avoiding`."""
    takers = [c for c in candidates if c.takes_new_users and c.name != avoiding]
    if takers:
        best = max(takers, key=lambda c: (_score(c, user_key), c.name))
        return Selection(best.name, "placed" if len(candidates) > 1 else "only")
    rest = [c for c in candidates if c.name != avoiding]
    return Unavailable(
        None,
        since=max((c.since for c in rest), default=0.0),
        may_move_at=None,
        retry_after=RETRY_AFTER,
        condition=_best(c.condition for c in rest),
    )


def _best(conditions: Iterable[Condition]) -> Condition:
    present = set(conditions)
    return next((c for c in (Condition.UP, Condition.HUB_DOWN) if c in present), Condition.DOWN)


def _score(candidate: Candidate, user_key: str) -> float:
    """Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by Schindelhauer and Schomaker 2005)."""
    digest = blake2b(f"{candidate.name}\0{user_key}".encode(), digest_size=8).digest()
    # 53 bits are what a float holds exactly; the half keeps the number inside (0, 1), away from log's poles.
    chance = ((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53
    return candidate.weight / -math.log(chance)
