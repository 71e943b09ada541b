"""May somebody's programs come in while nobody is logged in? Standings of people, as they lie in the store.

Sessions end in the evening, programs run overnight. So each login leaves a record of the person beside the session:
who, in which groups, how proved and when. It lives as long as the site lets API tokens go on after a second factor
(`mfa.api_tokens_for`), and ends at once when an administrator ends the person's sessions, their username or their
second factor, or the provider says that the person is out. Log Out doesn't end it. Each belongs to an era of the site:
when an administrator ends everybody's, another begins, and nobody has to know whose there are.

Beside it lies which tokens were used lately, for the owner to look at, and which of them they have ended: of a token
nothing but its hash, as of a cookie, and that sealed until it is worth nothing any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hubgate.core.api_tokens import Standing, standing_of
from hubgate.core.identity import Identity, Proof
from hubgate.core.keyring import Keyring
from hubgate.store.base import Store
from hubgate.store.codec import JSON, Sealer, Tampered
from hubgate.web.sessions import fingerprint, user_key

TOPIC = "programs"
"""The store's topic on which workers are told whose standing is to be read again: the payload is a `user_key`, or empty
for everybody's."""

_SHOWN_FOR = 14 * 86400.0  # seconds after its last use
_MOST_SHOWN = 20
_REFUSED_FOR = 400 * 86400.0  # seconds after somebody last tried a token that its owner has ended
_ATTEMPTS = 3
_ERA = "standings-era"


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A token that was used. `handle`: names it, leads nowhere; `id`: what the hub calls it, may be "". Times: seconds
    since the epoch. `hash`: of the token, see `Standings.end_token`. `ended`: by its owner, though not at the hub."""

    handle: str
    id: str
    pool: str
    hub: str
    first: float
    last: float
    hash: str = field(default="", repr=False)
    ended: bool = False


class Standings:
    """The standings of the site's people. `age`: seconds that a second factor is good. Methods raise `StoreFault`."""

    def __init__(self, store: Store, keyring: Keyring, *, age: float, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "standing")
        self._uses = Sealer(keyring, "token-uses")
        self._age = age
        self._clock = clock

    async def note(self, identity: Identity, proof: Proof) -> None:
        """Somebody has logged in."""
        owner, now = user_key(identity), self._clock()
        key = _key(owner)
        sealed, era = await self._store.get_many([key, _ERA])
        before = self._read(key, sealed, era)
        standing = standing_of(identity, proof, now=now, age=self._age, before=before)
        await self._store.put(key, self._sealed(key, standing, era), ttl=standing.until - now)
        await self._store.publish(TOPIC, owner.encode())

    async def of(self, owner: str) -> Standing | None:
        """A person's (`user_key`); None: there is none, or it is over."""
        key = _key(owner)
        sealed, era = await self._store.get_many([key, _ERA])
        return self._read(key, sealed, era)

    def _read(self, key: str, sealed: bytes | None, era: bytes | None) -> Standing | None:
        if sealed is None:
            return None
        try:
            record: dict[str, Any] = self._sealer.open(key, sealed)
        except Tampered:
            return None
        if record.get("era", "") != _name(era):
            return None
        identity, proof = Identity.from_record(record["identity"]), Proof.from_record(record["proof"])
        # The site may have shortened its time since.
        until = min(float(record["until"]), (proof.auth_time or float(record["until"])) + self._age)
        return Standing(identity, proof, until) if self._clock() < until else None

    async def learn(self, identity: Identity) -> None:
        """What the provider says of somebody now: groups, name, address."""
        owner = user_key(identity)
        key = _key(owner)
        sealed, era = await self._store.get_many([key, _ERA])
        before = self._read(key, sealed, era)
        if sealed is None or before is None or before.identity == identity:
            return
        new = self._sealed(key, Standing(identity, before.proof, before.until), era)
        # Whoever ends it, or logs in, at this very moment has the last word.
        if await self._store.replace(key, sealed, new, ttl=before.until - self._clock()):
            await self._store.publish(TOPIC, owner.encode())

    async def end(self, owner: str) -> bool:
        """End a person's, on every worker; whether there was one."""
        ended = await self._store.delete(_key(owner))
        await self._store.publish(TOPIC, owner.encode())
        return bool(ended)

    async def doubt(self, owner: str) -> None:
        """Have every worker look again how somebody stands, at the provider, too."""
        await self._store.publish(TOPIC, owner.encode())

    async def end_all(self) -> None:
        """End everybody's, on every worker. Whoever logs in at this very moment may have to do so again."""
        await self._store.put(_ERA, secrets.token_hex(8).encode(), ttl=None)
        await self._store.publish(TOPIC, b"")

    def _sealed(self, key: str, standing: Standing, era: bytes | None) -> bytes:
        record: dict[str, JSON] = {
            "era": _name(era),
            "identity": standing.identity.as_record(),
            "proof": standing.proof.as_record(),
            "until": standing.until,
        }
        return self._sealer.seal(key, record)

    # -- which tokens

    async def used(self, owner: str, use: TokenUse) -> bool:
        """Note that a token was used; whether it is new to the list."""
        new = False

        def noted(known: dict[str, TokenUse]) -> None:
            nonlocal new
            before = known.pop(use.handle, None)
            new = before is None
            known[use.handle] = use if before is None else replace(use, first=before.first, ended=before.ended)

        await self._rewrite(owner, noted)
        return new

    async def _rewrite(self, owner: str, change: Callable[[dict[str, TokenUse]], None]) -> None:
        key = _uses_key(owner)
        for _ in range(_ATTEMPTS):  # several programs may say so at once: then the list is a minute old
            sealed = await self._store.get(key)
            known = self._opened(key, sealed)
            change(known)
            kept = list(known.values())[-_MOST_SHOWN:]
            written = self._uses.seal(key, {"uses": [asdict(each) for each in kept]})
            if sealed is None:
                done = await self._store.add(key, written, ttl=_SHOWN_FOR)
            else:
                done = await self._store.replace(key, sealed, written, ttl=_SHOWN_FOR)
            if done:
                break

    async def uses(self, owner: str) -> list[TokenUse]:
        """The tokens that a person's programs used lately, the latest first."""
        key = _uses_key(owner)
        return list(reversed(self._opened(key, await self._store.get(key)).values()))

    async def end_token(self, owner: str, handle: str) -> TokenUse | None:
        """Refuse one of the tokens that a person's programs used, from now on and on every worker. Which; None: there
        is none of this handle."""
        use = next((use for use in await self.uses(owner) if use.handle == handle and use.hash), None)
        if use is not None:
            await self._store.put(_refused_key(owner, use.hash), b"", ttl=_REFUSED_FOR)
            await self._store.publish(TOPIC, owner.encode())
        return use

    async def note_ended(self, owner: str, use: TokenUse, *, revoked: bool) -> None:
        """A token was ended here. `revoked`: at the hub, too, so that there is nothing left to show."""

        def noted(known: dict[str, TokenUse]) -> None:
            if known.pop(use.handle, None) is not None and not revoked:
                known[use.handle] = replace(use, ended=True)

        await self._rewrite(owner, noted)

    async def has_ended(self, owner: str, token: str) -> bool:
        """Whether a person has ended this token of theirs. One that is tried again and again stays so."""
        return await self._store.touch(_refused_key(owner, fingerprint(token)), ttl=_REFUSED_FOR)

    def _opened(self, key: str, sealed: bytes | None) -> dict[str, TokenUse]:
        """By handle, in the order of their last use."""
        if sealed is None:
            return {}
        record: dict[str, Any] = {}
        with suppress(Tampered):
            record = self._uses.open(key, sealed)
        uses = [TokenUse(**use) for use in record.get("uses", ())]
        fresh = [use for use in uses if self._clock() - use.last < _SHOWN_FOR]
        return {use.handle: use for use in sorted(fresh, key=lambda use: use.last)}


def _name(era: bytes | None) -> str:
    """As it stands in records; "": the first, which no administrator has ended."""
    return (era or b"").decode("latin-1")


def _key(owner: str) -> str:
    return f"standing:{owner}"


def _uses_key(owner: str) -> str:
    return f"token-uses:{owner}"


def _refused_key(owner: str, token_hash: str) -> str:
    return f"token-ended:{fingerprint(f'{owner} {token_hash}')}"
