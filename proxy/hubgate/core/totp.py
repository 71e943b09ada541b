"""Is this the code that the phone shows?

Time-based one-time codes (RFC 6238) of six digits and thirty seconds, which is what every authenticator app makes when
nobody says otherwise. pyotp computes a code and writes the address behind the QR code. What a login needs beyond that
is here: only ASCII digits count, a code is good once (RFC 6238, 5.2), one step of drift is taken (5.2, 6), and when a
code is wrong the answer says whether a clock is off, since a bare "wrong" sends people to the help desk.

A code from the near future that was diagnosed is spent as well: else somebody who guesses would learn what will be
right in five minutes.

Knows neither clock nor chance nor store: time is seconds since the epoch, keys are base32, randomness comes as bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TypeAlias

import pyotp

STEP = 30
"""Seconds that a code lasts."""

KEY_BYTES = 20
"""Of chance for a key: 160 bits, RFC 4226, R6."""

CODE_BYTES = 8
"""Of chance for a recovery code, of which 60 bits are used."""

RECOVERY_CODES = 10

_DRIFT = 1
"""Steps before and after the present one whose codes are taken."""

_LOOK = 20
"""Steps before and after, ten minutes, in which a clock that is off is recognised."""

_DIGITS = re.compile("[0-9]{6}")

# Crockford's base32 in lower case: no letter that looks like a digit, and no u.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOK_ALIKES = str.maketrans("oil", "011")
_RECOVERY = re.compile(f"[{_ALPHABET}]{{12}}")


@dataclass(frozen=True, slots=True)
class Right:
    """It is. `step`: which one it was, to be remembered as the last one used."""

    step: int


@dataclass(frozen=True, slots=True)
class Used:
    """It is, or was a moment ago, but this code or a later one was used already: the next one will do."""


@dataclass(frozen=True, slots=True)
class Off:
    """It is the code of another time: the phone's clock is `seconds` ahead of ours, or behind where they are below 0.

    `step`: which one it was; from now on it is spent.
    """

    seconds: int
    step: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """It isn't six digits."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """It is no code of this key, at any time nearby."""


Verdict: TypeAlias = Right | Used | Off | Malformed | Wrong


def is_code(typed: str) -> bool:
    """Whether it is six digits; blanks, in which apps group them, don't count."""
    return _DIGITS.fullmatch("".join(typed.split())) is not None


def judge(key: str, typed: str, *, now: float, last: int = -1, spent: tuple[int, ...] = ()) -> Verdict:
    """What somebody typed, judged at `now`. `last`: the last step that was used; `spent`: others that never may be."""
    if not is_code(typed):
        return Malformed()
    code = "".join(typed.split())
    present = int(now) // STEP
    otp = pyotp.HOTP(key)
    # All of them are compared, so that the time it takes doesn't tell which one it was; the nearest counts.
    nearby = sorted(range(max(0, present - _LOOK), present + _LOOK + 1), key=lambda step: abs(step - present))
    matching = [step for step in nearby if hmac.compare_digest(otp.at(step), code)]
    timely = [step for step in matching if abs(step - present) <= _DRIFT]
    for step in timely:
        if step > last and step not in spent:
            return Right(step)
    if timely or last in matching:
        return Used()
    if matching:
        return Off((matching[0] - present) * STEP, matching[0])
    return Wrong()


def still_spent(spent: tuple[int, ...], *, now: float) -> tuple[int, ...]:
    """Those spent steps whose codes could still be taken one day; no more than twenty of them."""
    present = int(now) // STEP
    return tuple(sorted({step for step in spent if present - _DRIFT <= step <= present + _LOOK}))


def new_key(chance: bytes) -> str:
    """A key in base32, without padding, from `KEY_BYTES` random bytes. ValueError for another number of them."""
    if len(chance) != KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} bytes")
    return base64.b32encode(chance).decode("ascii")


def in_fours(key: str) -> str:
    """A key as a person types it: in groups of four."""
    return " ".join(key[at : at + 4] for at in range(0, len(key), 4))


def provisioning_uri(key: str, *, account: str, issuer: str) -> str:
    """The address (`otpauth://totp/…`) that an authenticator app reads from a QR code. `issuer`: the site's name."""
    return pyotp.TOTP(key).provisioning_uri(name=account, issuer_name=issuer)


# -- recovery codes


def recovery_code(chance: bytes) -> str:
    """A recovery code, `xxxx-xxxx-xxxx`, from `CODE_BYTES` random bytes. ValueError for another number of them."""
    if len(chance) != CODE_BYTES:
        raise ValueError(f"a recovery code is made of {CODE_BYTES} bytes")
    number = int.from_bytes(chance)
    code = "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 60, 5))
    return "-".join((code[:4], code[4:8], code[8:]))


def recovery_hash(typed: str, owner: str) -> str | None:
    """Under which name a record of `owner` knows a recovery code; None for what can't be one.

    Case, blanks and dashes don't count, and letters that look like digits are these. Sixty bits of chance need no slow
    hash beside a sealed key: whoever could try them all has opened the record, and with it the key itself.
    """
    code = re.sub(r"[\s-]", "", typed).lower().translate(_LOOK_ALIKES)
    if not _RECOVERY.fullmatch(code):
        return None
    return hashlib.sha256(f"recovery\0{owner}\0{code}".encode("utf-8", "surrogatepass")).hexdigest()
