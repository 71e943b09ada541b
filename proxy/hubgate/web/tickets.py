"""Enrolment tickets: an administrator's word, given in person, that it is the right one who enrols.

Where somebody might know a password before its owner has enrolled, a ticket is what they don't know. It is for one
username, good for one enrolment and some days. A ticket that was issued must be shown, whatever `mfa.enrolment` says:
so an administrator who has reset a second factor can see to it that only its owner enrols anew.
"""

from __future__ import annotations

import hmac
import secrets

from hubgate.core import totp
from hubgate.core.keyring import Keyring
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered

LIFETIME = 7 * 86400.0
"""Seconds that a ticket is good for."""


class Tickets:
    """The tickets of the site. `demanded`: nobody enrols without one. Every method may raise `StoreFault`."""

    def __init__(self, store: Store, keyring: Keyring, *, demanded: bool) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "enrolment-ticket")
        self._demanded = demanded

    async def issue(self, username: str) -> str:
        """A new ticket, in the place of any earlier one."""
        ticket = totp.recovery_code(secrets.token_bytes(totp.CODE_BYTES))
        key = _key(username)
        record = {"hash": totp.recovery_hash(ticket, username)}
        await self._store.put(key, self._sealer.seal(key, record), ttl=LIFETIME)
        return ticket

    async def needed(self, username: str, *, shown: str) -> bool:
        """Whether this person has to show one yet. `shown`: what `recognised` answered, "" if they showed none."""
        key = _key(username)
        sealed = await self._store.get(key)
        if sealed is None:
            return self._demanded
        return not self._matches(key, sealed, shown)

    async def recognised(self, username: str, typed: str) -> str | None:
        """If this is the ticket, the name that it has in records. It stays good until it is `spend`."""
        key = _key(username)
        sealed = await self._store.get(key)
        given = totp.recovery_hash(typed, username)
        if sealed is None or given is None or not self._matches(key, sealed, given):
            return None
        return given

    async def spend(self, username: str) -> None:
        """The enrolment that it was for is made."""
        await self._store.delete(_key(username))

    def _matches(self, key: str, sealed: bytes, hashed: str) -> bool:
        try:
            return hmac.compare_digest(hashed, str(self._sealer.open(key, sealed)["hash"]))
        except Tampered:
            return False


def _key(username: str) -> str:
    return f"enrolment-ticket:{username}"
