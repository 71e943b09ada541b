"""What has the site to say to people, about what, and when?

An announcement is configured; which of them are shown is decided here, from the time alone. A maintenance is planned
work: its times are those of the work, so it is announced before it begins, and explains what is down while it lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    MAINTENANCE = "maintenance"


class Phase(Enum):
    """Where `now` is in the time of an announcement."""

    LATER = "later"
    AHEAD = "ahead"  # of a maintenance: worth telling already
    NOW = "now"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Announcement:
    """`text`: for everybody, or by language (BCP 47); `pools`: names, empty for the whole site.

    `begins`, `ends`: seconds since the epoch, None for always and until further notice. `notice`: seconds before
    `begins` from which on a maintenance is told.
    """

    text: str | Mapping[str, str]
    level: Level = Level.INFO
    begins: float | None = None
    ends: float | None = None
    pools: tuple[str, ...] = ()
    notice: float = 0.0

    def phase(self, now: float) -> Phase:
        """`begins` belongs to it, `ends` does not."""
        if self.ends is not None and now >= self.ends:
            return Phase.OVER
        if self.begins is None or now >= self.begins:
            return Phase.NOW
        told = self.level is Level.MAINTENANCE and now >= self.begins - self.notice
        return Phase.AHEAD if told else Phase.LATER

    def concerns(self, pool: str) -> bool:
        """Whether somebody who waits for this pool should know."""
        return not self.pools or pool in self.pools


def current(announcements: Iterable[Announcement], now: float) -> list[Announcement]:
    """Those that are told at `now`, what matters most first, else in the order of the configuration."""
    told = [each for each in announcements if each.phase(now) in (Phase.NOW, Phase.AHEAD)]
    return sorted(told, key=lambda each: (each.phase(now) is not Phase.NOW, each.level is Level.INFO))
