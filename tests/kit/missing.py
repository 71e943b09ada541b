"""What if a real part can't be had here?

Then the tests that need it fail, and say its name: a green run means that everything ran. Somebody who knows that a
machine lacks a part says `ALLOW_MISSING=keycloak,chromium`; then those tests are left out, and the end of the run says
which part that was, why, and how many tests did without.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import NoReturn

import pytest

PARTS = ("redis", "keycloak", "jupyterhub", "chromium", "axe", "nginx", "apache")

left_out: Counter[tuple[str, str]] = Counter()
"""How many tests were left out, by part and reason."""


def allowed() -> frozenset[str]:
    """The parts that may be missing. pytest.UsageError for a name that is none."""
    named = frozenset(word.strip() for word in os.environ.get("ALLOW_MISSING", "").split(",") if word.strip())
    if not named <= set(PARTS):
        raise pytest.UsageError(f"ALLOW_MISSING names {sorted(named - set(PARTS))}; parts are {', '.join(PARTS)}")
    return named


def missing(part: str, why: str) -> NoReturn:
    """Call where `part` turned out not to be there."""
    reason = why.splitlines()[0] if why else "not there"
    if part in allowed():
        left_out[part, reason] += 1
        pytest.skip(f"{part} is missing, and allowed to be: {reason}")
    pytest.fail(f"{part} is missing: {why}\n(ALLOW_MISSING={part} leaves these tests out)", pytrace=False)
