"""Who is this cookie? Sessions as they lie in the store.

A cookie's value is 256 random bits; the store knows only its hash, and holds the session as a sealed record under it.
The portal's host has the session's own cookie. Every other host has an alias: another random value, good on that host
alone, whose record points at the session, so that a cookie which leaks on one host opens nothing on another.

This module reads and writes records. It doesn't cache (`web/live.py` does) and doesn't know HTTP.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.core.session import Limits, Session
from hubgate.store.base import Store
from hubgate.store.codec import JSON, Sealer, Tampered, UnknownKey

TOPIC = "sessions"
"""The store's topic on which workers tell each other what to forget; see `web/live.py`."""

_COOKIE_LENGTH = 43
"""Characters of `secrets.token_urlsafe(32)`; anything else was never ours and is not worth a look-up."""

_SLACK = 60.0
"""Seconds that a record outlives its session, so that clocks of two machines may differ."""


def fingerprint(secret: str) -> str:
    """Under which name the store knows a secret that only the browser has: SHA-256, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def user_key(identity: Identity) -> str:
    """The stable name of a person, whatever becomes of the username: a hash over issuer and subject."""
    return hashlib.sha256(f"{identity.issuer}\0{identity.subject}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Found:
    """A session that the store holds: `key` is its name there, `sealed` the record as it lay there."""

    key: str
    session: Session
    sealed: bytes = field(repr=False)


class Sessions:
    """The sessions of the site. Every method may raise `StoreFault`."""

    def __init__(
        self, store: Store, keyring: Keyring, limits: Limits, *, host: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._records = Sealer(keyring, "session")
        self._aliases = Sealer(keyring, "session-alias")
        self._limits = limits
        self._host = host
        self._clock = clock

    async def create(
        self,
        identity: Identity,
        proof: Proof,
        *,
        provider_sid: str,
        id_token: str,
        refresh_token: str,
        address: str,
        user_agent: str,
    ) -> tuple[str, Found]:
        """Begin a session. Answers the cookie's value, which exists nowhere else, and the session."""
        cookie = secrets.token_urlsafe(32)
        key = fingerprint(cookie)
        now = self._clock()
        session = Session(
            handle=key[:16],
            identity=identity,
            proof=proof,
            created=now,
            last_seen=now,
            csrf=secrets.token_urlsafe(32),
            provider_sid=provider_sid,
            id_token=id_token,
            refresh_token=refresh_token,
            address=address,
            user_agent=user_agent[:256],
        )
        sealed = self._records.seal(key, _record(session))
        await self._store.put_listed(
            _at(key),
            sealed,
            ttl=self._ttl(session),
            sets=[_of(identity)],
            member=key,
            sets_ttl=self._limits.max + _SLACK,
        )
        return cookie, Found(key, session, sealed)

    async def alias(self, key: str, session: Session, host: str) -> str:
        """Another cookie value for the same session, good on `host` alone."""
        cookie = secrets.token_urlsafe(32)
        name = fingerprint(cookie)
        sealed = self._aliases.seal(name, {"session": key, "host": host})
        remaining = session.created + self._limits.max - self._clock()
        await self._store.put(f"alias:{name}", sealed, ttl=max(remaining, 1.0))
        return cookie

    async def find(self, cookie: str, host: str) -> Found | None:
        """The session that this cookie opens on this host, whatever its limits say."""
        if len(cookie) != _COOKIE_LENGTH:
            return None
        key: str | None = fingerprint(cookie)
        if host != self._host:
            key = await self._aliased(fingerprint(cookie), host)
        return None if key is None else await self.get(key)

    async def _aliased(self, name: str, host: str) -> str | None:
        sealed = await self._store.get(f"alias:{name}")
        if sealed is None:
            return None
        try:
            record = self._aliases.open(name, sealed)
        except Tampered:
            return None
        return str(record["session"]) if record["host"] == host else None

    async def get(self, key: str) -> Found | None:
        """One session by its name in the store."""
        return self._open(key, await self._store.get(_at(key)))

    async def get_many(self, keys: Sequence[str]) -> list[Found | UnknownKey | None]:
        """Many at once, in the order asked for. One that can't be read keeps nobody from being told of the others."""
        sealed = await self._store.get_many([_at(key) for key in keys])
        return [self._looked_at(key, record) for key, record in zip(keys, sealed, strict=True)]

    def _looked_at(self, key: str, sealed: bytes | None) -> Found | UnknownKey | None:
        try:
            return self._open(key, sealed)
        except UnknownKey as fault:
            return fault

    def _open(self, key: str, sealed: bytes | None) -> Found | None:
        if sealed is None:
            return None
        try:
            return Found(key, _session(self._records.open(key, sealed)), sealed)
        except Tampered:
            # What can't be authenticated is no session. An unknown key is another matter and stays a StoreFault.
            return None

    async def seen(self, key: str, at: float) -> None:
        """Note that a person was there. Two workers may do so at once: the one that loses tries at its next turn."""
        found = await self.get(key)
        if found is None or found.session.last_seen >= at:
            return
        session = replace(found.session, last_seen=at)
        new = self._records.seal(key, _record(session))
        await self._store.replace(_at(key), found.sealed, new, ttl=self._ttl(session))

    async def end(self, key: str, identity: Identity) -> int:
        """End a session on every worker. Answers how many others this person still has."""
        await self._store.delete(_at(key))
        left = await self._store.leave(_of(identity), key)
        await self._store.publish(TOPIC, f"session {key}".encode())
        return left

    def _ttl(self, session: Session) -> float:
        return max(session.ends_at(self._limits) - self._clock(), 0.0) + _SLACK


def _at(key: str) -> str:
    return f"session:{key}"


def _of(identity: Identity) -> str:
    return f"sessions-of:{user_key(identity)}"


_TEXTS = ("handle", "csrf", "provider_sid", "id_token", "refresh_token", "address", "user_agent")
_TIMES = ("created", "last_seen")


def _record(session: Session) -> Mapping[str, JSON]:
    record: dict[str, JSON] = {name: getattr(session, name) for name in (*_TEXTS, *_TIMES)}
    record["identity"] = session.identity.as_record()
    record["proof"] = session.proof.as_record()
    return record


def _session(record: Mapping[str, Any]) -> Session:
    # The record is authenticated, so its shape is what `_record` wrote.
    return Session(
        identity=Identity.from_record(record["identity"]),
        proof=Proof.from_record(record["proof"]),
        **{name: record[name] for name in (*_TEXTS, *_TIMES)},
    )
