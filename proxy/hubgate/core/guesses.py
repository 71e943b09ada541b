"""How often may a person's second factor be guessed, and from where?

Whoever guesses knows the password already, so a lock on the account would be a gift: the owner is the one who is locked
out. Hence two lanes (OWASP, "Slow down online guessing attacks with device cookies"). Each place has a few tries of its
own. Strangers, that is places where this person has never been let in, share a larger supply beside that, which bounds
an attacker with many addresses. A browser in which the owner was let in before is no stranger: nobody else can use up
its tries. And one strange place alone refills more slowly than the supply that it shares, so it can't starve others.

A guess is right with a chance of three in a million; at the pace that is left to strangers, that is one in a thousand
for each day of an attack that nobody notices in the audit log.

Pure: time comes in, and is seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubgate.core.throttle import Bucket, Rate

PLACE = Rate(burst=8, per_second=1 / 900)
"""For one browser, or one address without a browser that is known."""

STRANGERS = Rate(burst=100, per_second=1 / 300)
"""For all places together that are not known."""

FORGET_AFTER = STRANGERS.burst / STRANGERS.per_second
"""Seconds after which everything is as it was in the beginning."""

_MOST_PLACES = 64


@dataclass(frozen=True, slots=True)
class Guesses:
    """The tries that are left for one person's second factor. A place without a bucket is untouched."""

    strangers: Bucket = field(default_factory=lambda: Bucket(STRANGERS.burst, 0.0))
    places: Mapping[str, Bucket] = field(default_factory=dict)

    def attempt(self, place: str, *, known: bool, now: float) -> tuple[Guesses, float]:
        """One more try at `place`: what is left then, and the seconds to wait; 0.0 means go on. Refusals cost nothing.

        `known`: this person was let in there before.
        """
        own, wait = self.places.get(place, Bucket(PLACE.burst, now)).take(PLACE, now)
        strangers = self.strangers
        if not known:
            strangers, others = strangers.take(STRANGERS, now)
            wait = max(wait, others)
        return (self if wait else Guesses(strangers, self._with(place, own))), wait

    def right(self, place: str, *, known: bool) -> Guesses:
        """It was no guess: the try is given back."""
        own = self.places.get(place)
        if own is None:
            return self
        back = Bucket(min(PLACE.burst, own.tokens + 1), own.at)
        strangers = self.strangers
        if not known:
            strangers = Bucket(min(STRANGERS.burst, strangers.tokens + 1), strangers.at)
        return Guesses(strangers, self._with(place, back))

    def _with(self, place: str, bucket: Bucket) -> Mapping[str, Bucket]:
        # The place that was used last is at the end; the ones in front give way. Strangers who change their address to
        # be forgotten meet the supply that they share.
        places = {name: each for name, each in self.places.items() if name != place} | {place: bucket}
        return dict(list(places.items())[-_MOST_PLACES:])

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        return {
            "strangers": [self.strangers.tokens, self.strangers.at],
            "places": {name: [bucket.tokens, bucket.at] for name, bucket in self.places.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Guesses:
        """What `as_record` wrote. KeyError or TypeError: it was not written by it."""
        return cls(Bucket(*record["strangers"]), {name: Bucket(*each) for name, each in record["places"].items()})
