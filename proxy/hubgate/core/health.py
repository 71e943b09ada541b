"""Is this hub well?

Two things can be away: the hub alone, while its proxy and the notebooks behind it go on, or everything. One bad answer
is no outage and one good answer is no recovery, so a condition changes only after several observations in a row that
contradict it. Before anything was observed a hub is taken for well, and the first observation counts at once.

Knows nothing about how observations are made; time comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Condition(Enum):
    """What can be had from a hub."""

    UP = "up"
    HUB_DOWN = "hub_down"
    """The proxy answers, the hub doesn't: running notebooks are alive, logins and spawns are not."""
    DOWN = "down"


class Observation(Enum):
    """What one look at a hub saw."""

    OK = "ok"
    HUB_DOWN = "hub_down"
    UNREACHABLE = "unreachable"


_MEANS = {
    Observation.OK: Condition.UP,
    Observation.HUB_DOWN: Condition.HUB_DOWN,
    Observation.UNREACHABLE: Condition.DOWN,
}
_SEVERITY = {Condition.UP: 0, Condition.HUB_DOWN: 1, Condition.DOWN: 2}


@dataclass(frozen=True, slots=True)
class Health:
    """`condition` holds since `since` (seconds since the epoch).

    `streak` observations in a row, the first of them at `streak_since`, contradict it in the same direction.
    """

    condition: Condition
    since: float
    observed: bool = False
    streak: int = 0
    streak_worse: bool = False
    streak_since: float = 0.0


def unknown(now: float) -> Health:
    """Before the first observation: taken for well."""
    return Health(Condition.UP, now)


def observe(health: Health, observation: Observation, *, now: float, rise: int, fall: int) -> Health:
    """`health` after one more observation.

    `fall` observations in a row that are worse than the condition make it worse, `rise` better ones make it better;
    it then becomes what the last of them says, and is dated back to the first.
    """
    seen = _MEANS[observation]
    if not health.observed:
        since = health.since if seen is health.condition else now
        return Health(seen, since, observed=True)
    if seen is health.condition:
        return replace(health, streak=0) if health.streak else health
    worse = _SEVERITY[seen] > _SEVERITY[health.condition]
    continues = health.streak > 0 and worse is health.streak_worse
    streak = health.streak + 1 if continues else 1
    began = health.streak_since if continues else now
    if streak >= (fall if worse else rise):
        return Health(seen, began, observed=True)
    return replace(health, streak=streak, streak_worse=worse, streak_since=began)
