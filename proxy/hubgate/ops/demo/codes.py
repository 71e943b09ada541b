"""One-time codes (RFC 6238) for people of the demo who have no phone at hand.

Only for the demo's users, whose keys are the demo's own, or for a key that somebody reads off an enrolment page.
"""

from __future__ import annotations

import pyotp

PERIOD = 30
"""Seconds that a code lasts."""

SHORTEST = 16
"""Characters of a key, 80 bits: a mistyped user name is none."""


def code(key: str, at: float) -> str:
    """The six digits of a base32 `key` (blanks and missing padding are fine) at a time (seconds since the epoch).

    ValueError for what is no key.
    """
    tidy = "".join(key.split()).upper().rstrip("=")
    if len(tidy) < SHORTEST:
        raise ValueError("too short for a key")
    return pyotp.TOTP(tidy, interval=PERIOD).at(int(at))


def seconds_left(at: float) -> int:
    """How long the code of that time still lasts."""
    return PERIOD - int(at) % PERIOD
