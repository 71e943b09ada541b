"""Whose username is this? The first person who logs in with a name owns it.

A person who is renamed to a name that another one had, or gets the name of a deleted account, must not find that one's
files. Owners are known by issuer and subject; a name that nobody has used for a year and more is free again, and so is
one that an operator releases (`hubgate users release NAME`).
"""

from __future__ import annotations

from hubgate.core.identity import Identity
from hubgate.core.keyring import Keyring
from hubgate.errors import ClientFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.sessions import user_key

_LIFETIME = 400 * 86400.0  # seconds since the owner's last login


class Usernames:
    """The owners of usernames. Every method may raise `StoreFault`."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "username")

    async def claim(self, identity: Identity) -> None:
        """Return if the name is this person's, from now on at the latest. ClientFault `username_taken`, 403, if not."""
        key = _key(identity.username)
        owner = user_key(identity)
        kept = False
        while not kept:  # else it expired, was released or was claimed this very moment
            # Most people were here before: looking first makes that two commands instead of three.
            present = await self._store.get(key)
            holder = None if present is None else self._owner(key, present)
            if present is None:
                kept = await self._store.add(key, self._sealer.seal(key, {"owner": owner}), ttl=_LIFETIME)
            elif holder not in {owner, None}:
                raise ClientFault(
                    "username_taken",
                    f"the username {identity.username!r} belongs to another subject",
                    status=403,
                    evidence={"username": identity.username, "subject": identity.subject},
                )
            elif holder == owner and self._sealer.is_current(present):
                kept = await self._store.touch(key, ttl=_LIFETIME)
            else:
                # Sealed anew: the record would outlive the secret that it was sealed with.
                sealed = self._sealer.seal(key, {"owner": owner})
                kept = await self._store.replace(key, present, sealed, ttl=_LIFETIME)

    def _owner(self, key: str, sealed: bytes) -> str | None:
        """Whose record this is; None: nobody's, hubgate didn't write it."""
        try:
            return str(self._sealer.open(key, sealed)["owner"])
        except Tampered:
            return None

    async def owner(self, username: str) -> str | None:
        """Whose name it is (`user_key`), None: nobody's."""
        key = _key(username)
        present = await self._store.get(key)
        return None if present is None else self._owner(key, present)

    async def release(self, username: str) -> bool:
        """Let the next person who logs in with this name own it; whether anybody did."""
        return bool(await self._store.delete(_key(username)))


def _key(username: str) -> str:
    return f"username:{username}"
