"""Who may try a code now? `core.guesses`, kept where all replicas see it, and the cookie that tells who is no stranger.

Recovery codes and tickets are another matter: nobody guesses sixty bits. They have a pace of their own, so that whoever
is kept waiting in a new browser, since somebody else guesses codes, can come in by one of these.

The cookie is set when somebody's second factor was right in this browser. It proves nothing else and opens nothing: it
names a lane of tries of its own, which others can't use up. It is bound to the person by a MAC.
"""

from __future__ import annotations

import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hubgate.core.cookies import set_cookie
from hubgate.core.guesses import FORGET_AFTER, Guesses
from hubgate.core.identity import Identity
from hubgate.core.keyring import Keyring
from hubgate.core.site import Site
from hubgate.core.throttle import Rate, Throttle, source_key
from hubgate.errors import ClientFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.sessions import fingerprint, user_key
from hubgate.web.visit import Visit

_COOKIE_AGE = 400 * 86400  # seconds: the longest that browsers keep (RFC 6265bis, 5.6.2)
_PURPOSE = "known-browser"
_COOKIE = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
_LONG_CODES = Rate(burst=10, per_second=0.1)  # for a person at an address, in each worker: a bound for the work
_ROUNDS = 50  # of comparing and writing, until so many others at once are taken for an attack


@dataclass(frozen=True, slots=True)
class Lane:
    """Where somebody tries: a browser that is `known`, or else an address."""

    place: str
    known: bool


class Attempts:
    """The tries of the site's people. Methods that wait may raise `StoreFault`."""

    def __init__(self, site: Site, store: Store, keyring: Keyring, *, clock: Callable[[], float] = time.time) -> None:
        self._secure = site.secure
        self._cookie_name = site.cookie_named("known")
        self._store = store
        self._keyring = keyring
        self._sealer = Sealer(keyring, "second-factor-tries")
        self._clock = clock
        self._long_codes = Throttle(_LONG_CODES)

    def lane(self, visit: Visit, identity: Identity) -> Lane:
        """The lane that this browser is in."""
        match = _COOKIE.fullmatch(visit.cookies.get(self._cookie_name, ""))
        if match is not None and self._keyring.mac_matches(_PURPOSE, _message(identity, match[1]), _bytes(match[2])):
            return Lane(f"browser {fingerprint(match[1])[:16]}", known=True)
        return Lane(f"address {source_key(visit.address)}", known=False)

    def known_cookie(self, visit: Visit, identity: Identity) -> str | None:
        """The Set-Cookie value that makes this browser known to be this person's; None if it is already."""
        if self.lane(visit, identity).known:
            return None
        name = secrets.token_urlsafe(16)
        tag = urlsafe_b64encode(self._keyring.mac(_PURPOSE, _message(identity, name))).rstrip(b"=").decode()
        return set_cookie(self._cookie_name, f"{name}.{tag}", secure=self._secure, max_age=_COOKIE_AGE)

    async def wait(self, lane: Lane, identity: Identity) -> float:
        """Ask for one try: 0.0 means go on, else the seconds until there is one again."""
        return await self._change(
            identity, lambda guesses: guesses.attempt(lane.place, known=lane.known, now=self._clock())
        )

    async def right(self, lane: Lane, identity: Identity) -> None:
        """The try was right, so it doesn't count."""
        await self._change(identity, lambda guesses: (guesses.right(lane.place, known=lane.known), 0.0))

    def wait_with_long_code(self, visit: Visit, identity: Identity) -> float:
        """Ask for one try of a recovery code or a ticket: 0.0 means go on, else the seconds to wait."""
        return self._long_codes.wait(f"{user_key(identity)} {source_key(visit.address)}", self._clock())

    async def _change(self, identity: Identity, change: Callable[[Guesses], tuple[Guesses, float]]) -> float:
        key = f"second-factor-tries:{user_key(identity)}"
        for _ in range(_ROUNDS):
            sealed = await self._store.get(key)
            before = self._read(key, sealed)
            after, wait = change(before)
            if after is before:
                return wait
            new = self._sealer.seal(key, after.as_record())
            if sealed is None:
                written = await self._store.add(key, new, ttl=FORGET_AFTER)
            else:
                written = await self._store.replace(key, sealed, new, ttl=FORGET_AFTER)
            if written:
                return wait
        raise ClientFault("too_many_logins", "codes tried by many at once", status=429, retry_after=5)

    def _read(self, key: str, sealed: bytes | None) -> Guesses:
        if sealed is None:
            return Guesses()
        try:
            record: Mapping[str, object] = self._sealer.open(key, sealed)
        except Tampered:
            return Guesses()  # whoever can write this can delete it as well
        return Guesses.from_record(record)


def _message(identity: Identity, name: str) -> bytes:
    return f"{user_key(identity)} {name}".encode()


def _bytes(tag: str) -> bytes:
    return urlsafe_b64decode(tag + "=")
