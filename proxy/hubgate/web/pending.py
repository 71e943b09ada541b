"""Logins between the provider's word and the second factor: no session yet, and no way to a hub.

What is known so far lies sealed in the store, for minutes, under a hash of a cookie that was made for this one login in
this one browser. A cookie that was there before the login is never used for it (fixation), and the one that loses the
race of two answers to the same question has no login left.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hubgate.core.cookies import expire_cookie, set_cookie
from hubgate.core.keyring import Keyring
from hubgate.core.site import Site
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.entrance import Arrival
from hubgate.web.sessions import fingerprint
from hubgate.web.visit import Visit

LIFETIME = 900.0
"""Seconds for a code; the first time, for finding and installing an app as well."""

_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Setup:
    """A second factor on its way to be enrolled: `key` until a code confirms it, and the id of the enrolment that it
    will take the place of, "" if it is the first one. In a login, only a recovery code leads to one that is not.
    """

    key: str = field(repr=False)
    replaces: str

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store."""
        return {"key": self.key, "replaces": self.replaces}


@dataclass(frozen=True, slots=True)
class Pending:
    """A login that waits for the second factor. `begun`: seconds since the epoch; `ticket`: the enrolment ticket that
    was shown, by its hash; `setup`: what is being enrolled. `at`, `sealed`: as the store has it.
    """

    arrival: Arrival
    csrf: str = field(repr=False)
    begun: float
    ticket: str = ""
    setup: Setup | None = None
    at: str = ""
    sealed: bytes = field(default=b"", repr=False)


class Pendings:
    """The site's pending logins. Methods that wait may raise `StoreFault`."""

    def __init__(self, site: Site, store: Store, keyring: Keyring, *, clock: Callable[[], float] = time.time) -> None:
        self._secure = site.secure
        self._cookie_name = site.cookie_named("mfa")
        self._store = store
        self._sealer = Sealer(keyring, "pending-login")
        self._clock = clock

    async def begin(self, arrival: Arrival) -> str:
        """Let somebody wait; the Set-Cookie value that binds it to the browser."""
        cookie = secrets.token_urlsafe(32)
        at = f"pending-login:{fingerprint(cookie)}"
        pending = Pending(arrival, secrets.token_urlsafe(32), self._clock())
        await self._store.put(at, self._sealer.seal(at, _record(pending)), ttl=LIFETIME)
        return set_cookie(self._cookie_name, cookie, secure=self._secure, max_age=int(LIFETIME))

    def expected(self, visit: Visit) -> bool:
        """Whether this browser was given a cookie of a pending login."""
        return self._cookie_name in visit.cookies

    async def find(self, visit: Visit) -> Pending | None:
        """This browser's pending login."""
        cookie = visit.cookies.get(self._cookie_name, "")
        if not _COOKIE.fullmatch(cookie):
            return None
        at = f"pending-login:{fingerprint(cookie)}"
        sealed = await self._store.get(at)
        if sealed is None:
            return None
        try:
            return replace(_pending(self._sealer.open(at, sealed)), at=at, sealed=sealed)
        except Tampered:
            return None

    async def update(self, pending: Pending, **changes: Any) -> Pending | None:
        """Note progress; None: another request of this browser did so at the same time, or the login is over."""
        changed = replace(pending, **changes)
        sealed = self._sealer.seal(pending.at, _record(changed))
        left = pending.begun + LIFETIME - self._clock()
        written = await self._store.replace(pending.at, pending.sealed, sealed, ttl=left)
        return replace(changed, sealed=sealed) if written else None

    async def take(self, pending: Pending) -> bool:
        """End it, to begin a session; whether it was still there. Of several requests at once, one."""
        return await self._store.take(pending.at) is not None

    @property
    def forgotten(self) -> str:
        """The Set-Cookie value that ends the cookie."""
        return expire_cookie(self._cookie_name, secure=self._secure)


def _record(pending: Pending) -> dict[str, Any]:
    return {
        "arrival": pending.arrival.as_record(),
        "csrf": pending.csrf,
        "begun": pending.begun,
        "ticket": pending.ticket,
        "setup": None if pending.setup is None else pending.setup.as_record(),
    }


def _pending(record: Mapping[str, Any]) -> Pending:
    # The record is authenticated, so its shape is what `_record` wrote.
    setup = record["setup"]
    arrival = Arrival.from_record(record["arrival"])
    return Pending(**{**record, "arrival": arrival, "setup": None if setup is None else Setup(**setup)})
