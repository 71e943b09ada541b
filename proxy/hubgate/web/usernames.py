"""Whose username is this? The first person who logs in with a name owns it.

A person who is renamed to a name that another one had, or gets the name of a deleted account, must not find that one's
files. Owners are known by issuer and subject; a name that nobody has used for a year and more is free again, and so is
one that an operator releases (`hubgate users release NAME`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hubgate.core.identity import Identity
from hubgate.core.keyring import Keyring
from hubgate.errors import ClientFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.sessions import user_key

_LIFETIME = 430 * 86400.0
_RENEW_AFTER = 30 * 86400
"""Seconds. So a record outlives its owner's last login by 400 days at least, and most logins only read it."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """`owner`: a `user_key`, or None for what hubgate didn't write; `since`: when it was written, seconds since the
    epoch."""

    owner: str | None
    since: int = 0


_NOBODYS = _Claim(None)


class Usernames:
    """The owners of usernames. Every method may raise `StoreFault`."""

    def __init__(self, store: Store, keyring: Keyring, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "username")
        self._clock = clock

    async def claim(self, identity: Identity) -> None:
        """Return if the name is this person's, from now on at the latest. ClientFault `username_taken`, 403, if not."""
        key = _key(identity.username)
        owner = user_key(identity)
        kept = False
        while not kept:  # else it expired, was released or was claimed this very moment
            present = await self._store.get(key)
            claim = _NOBODYS if present is None else self._read(key, present)
            now = int(self._clock())
            if claim.owner not in {owner, None}:
                raise ClientFault(
                    "username_taken",
                    f"the username {identity.username!r} belongs to another subject",
                    status=403,
                    evidence={"username": identity.username, "subject": identity.subject},
                )
            if present is None:
                kept = await self._store.add(key, self._sealed(key, owner, now), ttl=_LIFETIME)
            elif claim.owner == owner and self._sealer.is_current(present) and now - claim.since < _RENEW_AFTER:
                kept = True
            else:
                # Sealed anew: the record would outlive the secret that it was sealed with.
                kept = await self._store.replace(key, present, self._sealed(key, owner, now), ttl=_LIFETIME)

    def _sealed(self, key: str, owner: str, now: int) -> bytes:
        return self._sealer.seal(key, {"owner": owner, "since": now})

    def _read(self, key: str, sealed: bytes) -> _Claim:
        try:
            record: Mapping[str, Any] = self._sealer.open(key, sealed)
        except Tampered:
            return _NOBODYS
        return _Claim(str(record["owner"]), record.get("since", 0))

    async def owner(self, username: str) -> str | None:
        """Whose name it is (`user_key`), None: nobody's."""
        key = _key(username)
        present = await self._store.get(key)
        return None if present is None else self._read(key, present).owner

    async def release(self, username: str) -> bool:
        """Let the next person who logs in with this name own it; whether anybody did."""
        return bool(await self._store.delete(_key(username)))


def _key(username: str) -> str:
    return f"username:{username}"
