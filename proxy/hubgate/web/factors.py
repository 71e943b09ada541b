"""People's own second factors, as they lie in the store: a key, what was used of it, and recovery codes.

One record for each person (issuer and subject), without an end: it must outlive sessions, restarts and long absences,
since somebody without one is led to enrol by the password alone. For the same reason a record that can't be read is
never taken for none: not even one that hubgate did not write.

Every change compares with what was read and is tried again when somebody else was faster. So of two requests with the
same code, on whatever replicas, exactly one finds that it was not used yet.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hubgate.core import totp
from hubgate.core.identity import Identity
from hubgate.core.keyring import Keyring
from hubgate.errors import ClientFault, HubgateFault, StoreFault
from hubgate.store.base import Store
from hubgate.store.codec import Sealer, Tampered
from hubgate.web.sessions import user_key


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Somebody's second factor. `since`: seconds since the epoch.

    `id`: tells it from earlier and later ones, and its recovery codes from others of the same phone.
    `last`, `spent`: steps whose codes are used up, see `core.totp`. `recovery`: hashes of the codes that are left.
    `email`: the owner's, when a code was right for the last time.
    """

    id: str
    key: str = field(repr=False)
    since: float
    last: int
    spent: tuple[int, ...] = ()
    recovery: tuple[str, ...] = field(default=(), repr=False)
    email: str = ""

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        return {
            "id": self.id,
            "key": self.key,
            "since": self.since,
            "last": self.last,
            "spent": list(self.spent),
            "recovery": list(self.recovery),
            "email": self.email,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Enrolment:
        """The enrolment that `as_record` wrote. KeyError or TypeError: it was not written by it."""
        return cls(**{**record, "spent": tuple(record["spent"]), "recovery": tuple(record["recovery"])})


Change = Callable[[Enrolment], Enrolment | None]


class Factors:
    """The second factors of the site's people.

    Every method may raise `StoreFault`, and HubgateFault `second_factor_unreadable`, 503, for a record that hubgate
    didn't write.
    """

    def __init__(self, store: Store, keyring: Keyring, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "enrolment")
        self._clock = clock

    async def of(self, identity: Identity) -> Enrolment | None:
        """This person's second factor; None: there is none, and never was or it was reset."""
        return (await self._read(_key(user_key(identity))))[1]

    async def judge(self, identity: Identity, typed: str) -> totp.Verdict:
        """Whether a code is right. If so it is used up now, for everybody. ClientFault if there is no enrolment."""
        now = self._clock()
        verdict: totp.Verdict = totp.Wrong()

        def used(enrolment: Enrolment) -> Enrolment | None:
            nonlocal verdict
            verdict = totp.judge(enrolment.key, typed, now=now, last=enrolment.last, spent=enrolment.spent)
            spent = totp.still_spent(enrolment.spent, now=now)
            match verdict:
                case totp.Right(step):
                    return replace(enrolment, last=step, spent=spent, email=identity.email or enrolment.email)
                case totp.Off(seconds, step) if seconds > 0:
                    return replace(enrolment, spent=totp.still_spent((*spent, step), now=now))
                case _:
                    return None

        await self._change(identity, used)
        return verdict

    async def recover(self, identity: Identity, typed: str) -> Enrolment | None:
        """Use up a recovery code: the enrolment as it is then, or None if the code isn't one that is left."""
        hashed = totp.recovery_hash(typed, user_key(identity))
        if hashed is None:
            return None

        def used(enrolment: Enrolment) -> Enrolment | None:
            left = tuple(code for code in enrolment.recovery if not hmac.compare_digest(code, hashed))
            return replace(enrolment, recovery=left) if len(left) < len(enrolment.recovery) else None

        return await self._change(identity, used)

    async def new_recovery_codes(self, identity: Identity) -> tuple[str, ...]:
        """Ten recovery codes in the place of all that were left. They are in clear here and nowhere else.

        A new id, too: whoever has just used one of the old codes, and is about to enrol with it, is too late.
        """
        codes, id_ = _recovery_codes(), _new_id()
        await self._change(identity, lambda enrolment: replace(enrolment, id=id_, recovery=_hashes(identity, codes)))
        return codes

    async def enrol(self, identity: Identity, key: str, *, step: int, replaces: str) -> tuple[str, ...] | None:
        """Make `key` this person's, with the step of the code that confirmed it. Answers new recovery codes.

        `replaces`: the id of the enrolment that it takes the place of, "" for a first one. None: what is there now is
        not that, so somebody was faster, and nothing was changed.
        """
        codes = _recovery_codes()
        hashes = _hashes(identity, codes)
        new = Enrolment(_new_id(), key, self._clock(), step, recovery=hashes, email=identity.email)
        at = _key(user_key(identity))
        sealed = self._sealer.seal(at, new.as_record())
        if not replaces:
            return codes if await self._store.add(at, sealed, ttl=None) else None
        while True:
            before, enrolment = await self._read(at)
            if before is None or enrolment is None or enrolment.id != replaces:
                return None
            if await self._store.replace(at, before, sealed, ttl=None):
                return codes

    async def reset(self, owner: str) -> str | None:
        """Forget the second factor of a person (`user_key`), so that they enrol anew. Answers their mail address, "" if
        it isn't known; None: there was none to forget.
        """
        at = _key(owner)
        sealed = await self._store.take(at)
        if sealed is None:
            return None
        try:
            return Enrolment.from_record(self._sealer.open(at, sealed)).email
        except (Tampered, StoreFault):
            return ""

    async def _change(self, identity: Identity, change: Change) -> Enrolment | None:
        """Write what `change` makes of the enrolment, and answer it; None if it makes nothing of it."""
        at = _key(user_key(identity))
        while True:
            sealed, enrolment = await self._read(at)
            if sealed is None or enrolment is None:
                raise ClientFault("second_factor_changed", "the enrolment was reset meanwhile", status=409)
            changed = change(enrolment)
            if changed is None:
                return None
            # Sealed anew each time, by the newest secret.
            if await self._store.replace(at, sealed, self._sealer.seal(at, changed.as_record()), ttl=None):
                return changed

    async def _read(self, at: str) -> tuple[bytes | None, Enrolment | None]:
        sealed = await self._store.get(at)
        if sealed is None:
            return None, None
        try:
            return sealed, Enrolment.from_record(self._sealer.open(at, sealed))
        except Tampered as error:
            # Taking it for none would let whoever writes to the store, and knows a password, enrol.
            raise HubgateFault(
                "second_factor_unreadable", "an enrolment that hubgate didn't write: users reset-otp", status=503
            ) from error


def _key(owner: str) -> str:
    return f"enrolment:{owner}"


def _new_id() -> str:
    return secrets.token_hex(8)


def _recovery_codes() -> tuple[str, ...]:
    return tuple(totp.recovery_code(secrets.token_bytes(totp.CODE_BYTES)) for _ in range(totp.RECOVERY_CODES))


def _hashes(identity: Identity, codes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(hashed for code in codes if (hashed := totp.recovery_hash(code, user_key(identity))))
