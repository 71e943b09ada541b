"""Who is this cookie? Sessions as they lie in the store.

A cookie's value is 256 random bits; the store knows only its hash, and holds the session as a sealed record under it.
The portal's host has the session's own cookie. Every other host has an alias: another random value, good on that host
alone, whose record points at the session, so that a cookie which leaks on one host opens nothing on another.

Who has which sessions is kept in sets of keys beside the records: what a person began on one day, what everybody began
in one hour, what hangs on one session of the provider's. Records end by themselves, and so do the sets, a little later;
whoever reads one takes out what is gone.

This module reads and writes records. It doesn't cache (`web/live.py` does) and doesn't know HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.core.session import Limits, Session, SessionState
from hubgate.errors import StoreFault
from hubgate.store.base import Change, Store
from hubgate.store.codec import JSON, Sealer, Tampered, UnknownKey

TOPIC = "sessions"
"""The store's topic on which workers tell each other what to forget; see `web/live.py`."""

_COOKIE_LENGTH = 43
"""Characters of `secrets.token_urlsafe(32)`; anything else was never ours and is not worth a look-up."""

_SLACK = 60.0
"""Seconds that a record outlives its session, so that clocks of two machines may differ."""

_DAY, _HOUR = 86400, 3600
_BATCH = 200  # records in one MGET: about a millisecond of Redis' time
_ANSWERS_WITHIN = 2.0  # seconds for other workers to say what they closed; a busy one takes a while
_ANSWERS_KEPT = 30.0


def fingerprint(secret: str) -> str:
    """Under which name the store knows a secret that only the browser has: SHA-256, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def user_key(identity: Identity) -> str:
    """The stable name of a person, whatever becomes of the username: a hash over issuer and subject."""
    return person_key(identity.issuer, identity.subject)


def person_key(issuer: str, subject: str) -> str:
    """The same, of somebody of whom nothing else is known."""
    return hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Found:
    """A session that the store holds: `key` is its name there, `sealed` the record as it lay there."""

    key: str
    session: Session
    sealed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Closed:
    """What the end of sessions closed. `connections`: over all workers that answered; `complete`: all of them did."""

    sessions: int
    connections: int = 0
    complete: bool = True


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
        renew_at: float = 0.0,
        renews: Session | None = None,
    ) -> tuple[str, Found]:
        """Begin a session. Answers the cookie's value, which exists nowhere else, and the session.

        `renews`: the one that it goes on from; that one's limits hold.
        """
        cookie = secrets.token_urlsafe(32)
        key = fingerprint(cookie)
        now = self._clock()
        session = Session(
            handle=key[:16],
            identity=identity,
            proof=proof,
            created=now if renews is None else renews.created,
            last_seen=now,
            csrf=secrets.token_urlsafe(32),
            provider_sid=provider_sid,
            id_token=id_token,
            refresh_token=refresh_token,
            address=address,
            user_agent=user_agent[:256],
            hubs=() if renews is None else renews.hubs,
            renew_at=renew_at,
        )
        sealed = self._records.seal(key, _record(session))
        sets = [_of(user_key(identity), int(now) // _DAY), _begun(int(now) // _HOUR)]
        if provider_sid:
            sets.append(_of_provider(identity.issuer, provider_sid))
        await self._store.put_listed(
            _at(key), sealed, ttl=self._ttl(session), sets=sets, member=key, sets_ttl=self._limits.max + _SLACK
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

    # -- which there are

    async def of(self, user: str) -> list[Found]:
        """A person's sessions (`user_key`), the oldest first. Those that this process can't read are left out."""
        return await self._listed(_of(user, day) for day in self._within(_DAY))

    async def of_provider(self, issuer: str, sid: str) -> list[Found]:
        """The sessions that hang on one of the provider's (`Session.provider_sid`)."""
        return await self._listed([_of_provider(issuer, sid)])

    async def together(self, found: Sequence[Found]) -> list[Found]:
        """These, and what else hangs on the same sessions of the provider."""
        roots = {(each.session.identity.issuer, each.session.provider_sid) for each in found}
        beside = await self._listed(_of_provider(issuer, sid) for issuer, sid in roots if sid)
        return list({each.key: each for each in (*beside, *found)}.values())

    async def everybodys(self) -> list[Found]:
        """All sessions of the site, the oldest first."""
        return await self._listed(map(_begun, self._within(_HOUR)))

    def is_live(self, session: Session) -> bool:
        """Whether it has met none of its limits."""
        return session.state(self._limits, self._clock()) is SessionState.LIVE

    def _within(self, period: int) -> range:
        """The periods, counted since the epoch, in which a session began that may still live."""
        now = self._clock()
        return range(int(now - self._limits.max - _SLACK) // period, int(now + _SLACK) // period + 1)

    async def _listed(self, places: Iterable[str]) -> list[Found]:
        listed: list[Found] = []
        for place in places:
            keys = list(await self._store.members(place))
            for begin in range(0, len(keys), _BATCH):
                batch = keys[begin : begin + _BATCH]
                for key, found in zip(batch, await self.get_many(batch), strict=True):
                    if isinstance(found, Found):
                        listed.append(found)
                    elif found is None:
                        await self._store.leave(place, key)
        return sorted(listed, key=lambda each: each.session.created)

    # -- what becomes of them

    async def note(self, seen: Sequence[tuple[str, Session]]) -> None:
        """Note that people were there, and where: sessions as this worker knows them, by key. Two workers may do so at
        once: the one that loses tries at its next turn. A record that can't be read here is another worker's to write.
        """
        known: dict[str, Session] = {}
        for key, session in seen:  # somebody may be on several hosts
            known[key] = merged(known.get(key, session), session)
        changes = []
        for found in await self.get_many(list(known)):
            if isinstance(found, Found):
                noted = merged(found.session, known[found.key])
                if noted != found.session:
                    changes.append(self._change(found, noted))
        await self._store.replace_many(changes)

    def _change(self, found: Found, session: Session) -> Change:
        new = self._records.seal(found.key, _record(session))
        return Change(_at(found.key), found.sealed, new, ttl=self._ttl(session))

    async def renewed(self, key: str, change: Callable[[Session], Session]) -> Session | None:
        """Change a session, whatever else becomes of it meanwhile, and tell all workers; None: it has ended."""
        while (found := await self.get(key)) is not None:
            session = change(found.session)
            new = self._records.seal(key, _record(session))
            if await self._store.replace(_at(key), found.sealed, new, ttl=self._ttl(session)):
                await self._store.publish(TOPIC, f"changed {key}".encode())
                return session
        return None

    async def take(self, key: str) -> Session | None:
        """A session's last state; its record is gone afterwards, and workers are still to be told (`end`). Of several
        callers at once, one gets it, the others None."""
        found = self._open(key, await self._store.take(_at(key)))
        return None if found is None else found.session

    async def end(self, keys: Sequence[str]) -> Closed:
        """End sessions on every worker, with all that is open in them."""
        nonce = secrets.token_hex(8)
        listening = 0
        for begin in range(0, len(keys), _BATCH):
            batch = keys[begin : begin + _BATCH]
            await self._store.delete(*map(_at, batch))
            listening += await self._store.publish(TOPIC, " ".join(("session", nonce, *batch)).encode())
        return await self._answers(nonce, sessions=len(keys), of=listening)

    async def closed(self, nonce: str, batch: str, worker: str, connections: int) -> None:
        """What a worker answers when it has closed what a message named: `nonce` and the first key of the message."""
        await self._store.join(_answers(nonce), f"{batch} {worker} {connections}", ttl=_ANSWERS_KEPT)

    async def _answers(self, nonce: str, *, sessions: int, of: int) -> Closed:
        """Wait for everybody who heard of it, but not long: a worker may be gone, and a listener be none of ours."""
        place, answers = _answers(nonce), set[str]()
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                while len(answers) < of:
                    await asyncio.sleep(0.01)
                    answers = await self._store.members(place)
        except (TimeoutError, StoreFault):
            pass
        connections = sum(int(found[0]) for answer in answers if (found := re.search(r"(?<= )[0-9]{1,6}$", answer)))
        return Closed(sessions, connections, complete=len(answers) >= of)

    def _ttl(self, session: Session) -> float:
        return max(session.ends_at(self._limits) - self._clock(), 0.0) + _SLACK


def _at(key: str) -> str:
    return f"session:{key}"


def _of(user: str, day: int) -> str:
    return f"sessions-of:{user}:{day}"


def _of_provider(issuer: str, sid: str) -> str:
    name = fingerprint(f"{issuer}\0{sid}")
    return f"sessions-at:{name}"


def _begun(hour: int) -> str:
    return f"sessions-begun:{hour}"


def _answers(nonce: str) -> str:
    return f"sessions-closed:{nonce}"


def merged(there: Session, here: Session) -> Session:
    """A session as the store has it, with what this worker knows beyond: a person's presence and ways."""
    for hub, hub_session in here.hubs:
        there = there.visited(hub, hub_session)
    return replace(there, last_seen=max(there.last_seen, here.last_seen))


_TEXTS = ("handle", "csrf", "provider_sid", "id_token", "refresh_token", "address", "user_agent")
_TIMES = ("created", "last_seen")


def _record(session: Session) -> Mapping[str, JSON]:
    record: dict[str, JSON] = {name: getattr(session, name) for name in (*_TEXTS, *_TIMES)}
    record["identity"] = session.identity.as_record()
    record["proof"] = session.proof.as_record()
    record["hubs"] = session.hubs
    record["renew_at"] = session.renew_at
    return record


def _session(record: Mapping[str, Any]) -> Session:
    # The record is authenticated, so its shape is what `_record` wrote, though perhaps an older one.
    return Session(
        identity=Identity.from_record(record["identity"]),
        proof=Proof.from_record(record["proof"]),
        renew_at=record.get("renew_at", 0.0),
        hubs=tuple((hub, hub_session) for hub, hub_session in record.get("hubs", ())),
        **{name: record[name] for name in (*_TEXTS, *_TIMES)},
    )
