"""Where must a second factor have been shown a short while ago, and was it?

A session lasts for a day, and a browser is left open; starting a server on somebody's allocation, or making a token
that lasts for a year, deserves a look at who is there. A pool names such places (`Demand`), and the proof of a session
either is fresh enough there or has to be made anew. Asking again is somebody else's business.

A place is a path below the pool's, and everything below it; `*` stands for one segment, and a `$` at the end for "and
nothing below it". What people do at a JupyterHub has names of its own: `ACTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hubgate.core.identity import Proof

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "start": ("hub/spawn", "hub/api/users/*/server", "hub/api/users/*/servers"),
    "admin": (
        *("hub/admin", "hub/api/users$", "hub/api/users/*$", "hub/api/users/*/admin-access", "hub/api/groups"),
        *("hub/api/services", "hub/api/proxy", "hub/api/shutdown"),
    ),
    "tokens": ("hub/token", "hub/api/users/*/tokens", "hub/api/authorizations/token"),
    "share": ("hub/api/shares", "hub/api/share-codes"),
    "all": ("",),
}
"""Places of JupyterHub 4 and 5 by what is done there."""

_SEGMENT = r"(?:\*|(?!\.\.?(?:/|$))[A-Za-z0-9._~@-]+)"
_PLACE = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\$?")


def is_place(place: str) -> bool:
    """Whether this is an action or a path that can be one."""
    return place in ACTIONS or _PLACE.fullmatch(place) is not None


@dataclass(frozen=True, slots=True)
class Demand:
    """At `places`, actions or paths, a proof must say `acr` (any, if it is "") and be at most `max_age` seconds old."""

    places: tuple[str, ...]
    max_age: float
    acr: str = ""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        paths = [path for place in self.places for path in ACTIONS.get(place, (place,))]
        object.__setattr__(self, "_pattern", re.compile("|".join(map(_pattern, paths)), re.DOTALL))

    def covers(self, below: str) -> bool:
        """Whether it is made at a path, as it follows the pool's."""
        return self._pattern.fullmatch(below) is not None

    def met_until(self, proof: Proof) -> float:
        """Until when a proof is good enough, seconds since the epoch; 0.0: it never was."""
        if self.acr and proof.acr != self.acr:
            return 0.0
        return proof.auth_time + self.max_age if proof.auth_time else 0.0


def _pattern(path: str) -> str:
    if not path:
        return r".*"
    alone = path.endswith("$")
    segments = "/".join("[^/]*" if segment == "*" else re.escape(segment) for segment in path.rstrip("$").split("/"))
    return segments + ("/?" if alone else "(?:/.*)?")
