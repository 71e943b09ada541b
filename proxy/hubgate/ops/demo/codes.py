"""One-time codes (RFC 6238) for people of the demo who have no phone at hand.

Only for the demo's users, whose keys stand in `realm.json` for all to see, or for a key that somebody reads off an
enrolment page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

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
    secret = base64.b32decode(tidy + "=" * (-len(tidy) % 8))
    digest = hmac.digest(secret, int(at // PERIOD).to_bytes(8, "big"), hashlib.sha1)
    start = digest[-1] & 0xF
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def seconds_left(at: float) -> int:
    """How long the code of that time still lasts."""
    return PERIOD - int(at) % PERIOD
