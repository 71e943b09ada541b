"""On the way to a fresh proof of the second factor: `max_age` in the addresses of the login.

Where a place demands a fresh proof (`core.freshness`), a person is led to the login with the age that is still good, in
seconds. Whoever comes there with a proof that is good enough is sent on, so that a second tab, or the back button, asks
nobody twice. An age in an address is a wish and opens nothing: the place itself decides.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from aiohttp import web

from hubgate.core.freshness import Demand
from hubgate.core.session import Session

_AGE = re.compile(r"[0-9]{1,9}")


class Freshness:
    """`acr`: what a proof has to say besides its age, "" for anything."""

    def __init__(self, acr: str, *, clock: Callable[[], float] = time.time) -> None:
        self._acr = acr
        self._clock = clock

    def lacking(self, request: web.Request, session: Session) -> int | None:
        """The age, in seconds, that this address wishes and the session's proof is above; None: it is good enough."""
        wish = request.query.get("max_age", "")
        if not _AGE.fullmatch(wish):
            return None
        met_until = Demand((), float(wish), self._acr).met_until(session.proof)
        return int(wish) if self._clock() >= met_until else None
