"""Which hub is this person's? Bindings of people to hubs, kept in the store, carried by a cookie per pool.

Two records say where somebody belongs in a pool. The one under the sticky cookie's hash belongs to a browser and to a
person: it is useless to anybody else who finds the cookie. The one under the person is what their other browsers go
by. The later of the two wins, so that a person who was moved is moved everywhere; and the cookie's means nothing
without the person's, so that whoever is let go of is let go of everywhere.

Deciding is `core/balancer.py`'s; this module reads, writes, and settles races: the first worker that binds a person
wins, and the others follow.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from hubgate.core.balancer import Affinity, Candidate, Selection, Unavailable, newest, place, select
from hubgate.core.health import Condition
from hubgate.core.keyring import Keyring
from hubgate.core.routing import Zone
from hubgate.core.site import Pool
from hubgate.errors import StoreFault
from hubgate.store.base import Store
from hubgate.store.codec import JSON, Sealer, Tampered
from hubgate.web.live import Bound, LiveSession
from hubgate.web.sessions import TOPIC, fingerprint


class Bindings:
    """The bindings of the site. Methods that wait may raise `StoreFault`."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        pools: Sequence[Pool],
        *,
        lifetime: float,
        move_after: float,
        candidates: Callable[[Pool], Sequence[Candidate]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._sealer = Sealer(keyring, "binding")
        self._pools = pools
        self._lifetime = lifetime
        self._move_after = move_after
        self._candidates = candidates
        self._clock = clock
        self.cookie_max_age = int(lifetime)
        self._binding: dict[tuple[str, str, str], asyncio.Future[Bound | Unavailable]] = {}

    def choose(self, pool: Pool, affinity: Affinity | None, *, user: str, zone: Zone) -> Selection | Unavailable:
        """What `core.balancer` says to this affinity right now. Never waits."""
        return select(
            self._candidates(pool),
            affinity,
            user_key=user,
            zone=zone,
            now=self._clock(),
            move_after=self._move_after,
        )

    def away(self, pool: Pool, affinity: Affinity) -> Unavailable:
        """What `choose` will say once probes are sure that this hub is down, which has just refused a connection."""
        now = self._clock()
        foreseen = [
            replace(candidate, condition=Condition.DOWN, since=now)
            if candidate.name == affinity.upstream and candidate.condition is not Condition.DOWN
            else candidate
            for candidate in self._candidates(pool)
        ]
        said = select(foreseen, affinity, user_key="", zone=Zone.HUB, now=now, move_after=self._move_after)
        assert isinstance(said, Unavailable)  # noqa: S101 - a hub that is down serves nothing
        return said

    async def bind(self, live: LiveSession, pool: Pool, cookie: str, zone: Zone) -> Bound | Unavailable:
        """Find or make the binding of this session's user in `pool`; `cookie` is what the browser sent, or "".

        `Unavailable` when there is no binding and no hub takes new users.
        """
        token = (live.key, pool.name, cookie)
        binding = self._binding.get(token)
        if binding is None:
            # The files of one page arrive together; they must not each invent a cookie.
            binding = self._binding[token] = asyncio.ensure_future(self._bind(live, pool, cookie, zone))
            binding.add_done_callback(lambda _: self._binding.pop(token, None))
        return await asyncio.shield(binding)

    async def _bind(self, live: LiveSession, pool: Pool, cookie: str, zone: Zone) -> Bound | Unavailable:
        user = live.user_key
        of_user, of_cookie = _of_user(pool, user), _of_cookie(cookie)
        records = await self._store.get_many([of_user, of_cookie])
        theirs = self._read(of_user, records[0], pool, user)
        carried = self._read(of_cookie, records[1], pool, user) if cookie and theirs else None
        known = newest(carried, theirs)
        chosen = self.choose(pool, known, user=user, zone=zone)
        if isinstance(chosen, Unavailable):
            if known is None:
                return chosen
            affinity = known  # bound to a hub that is away: the binding holds, the gateway says what is the matter
        elif known is not None and known.upstream == chosen.upstream:
            affinity = known
        else:
            affinity = Affinity(chosen.upstream, self._clock())
        if affinity != theirs:
            affinity = await self._settle(of_user, records[0], affinity, pool, user)
        else:
            await self._keep(of_user, records[0], affinity, pool, user)
        if carried != affinity:
            cookie = secrets.token_urlsafe(32)
            of_cookie = _of_cookie(cookie)
            await self._store.put(of_cookie, self._sealed(of_cookie, affinity, pool, user), ttl=self._lifetime)
        else:
            await self._keep(of_cookie, records[1], affinity, pool, user)
        bound = Bound(affinity, cookie)
        live.bind(pool.name, bound)
        return bound

    async def _settle(self, key: str, old: bytes | None, new: Affinity, pool: Pool, user: str) -> Affinity:
        """Write the person's record, unless another worker was first: then theirs holds."""
        sealed = self._sealed(key, new, pool, user)
        if old is None:
            written = await self._store.add(key, sealed, ttl=self._lifetime)
        else:
            written = await self._store.replace(key, old, sealed, ttl=self._lifetime)
        if written:
            return new
        return self._read(key, await self._store.get(key), pool, user) or new

    async def _keep(self, key: str, sealed: bytes | None, affinity: Affinity, pool: Pool, user: str) -> None:
        """Let a record live on, under the newest key. A store that takes no writes now is no reason to turn anybody
        away: the record is good, and is looked after another time."""
        with suppress(StoreFault):
            if sealed is None or self._sealer.is_current(sealed):
                await self._store.touch(key, ttl=self._lifetime)
            else:
                await self._store.replace(key, sealed, self._sealed(key, affinity, pool, user), ttl=self._lifetime)

    async def may_move(self, live: LiveSession, pool: Pool, cookie: str) -> bool:
        """Whether this person's hub has been away for so long that they may choose another."""
        bound = live.bound.get(pool.name) or await self.bind(live, pool, cookie, Zone.HUB)
        if isinstance(bound, Unavailable):
            return False
        chosen = self.choose(pool, bound.affinity, user=live.user_key, zone=Zone.HUB)
        return (
            isinstance(chosen, Unavailable) and chosen.may_move_at is not None and chosen.may_move_at <= self._clock()
        )

    async def move(self, live: LiveSession, pool: Pool) -> Selection | Unavailable:
        """Bind somebody to another hub; `Unavailable` when there is none. Whether they may move is the caller's."""
        user = live.user_key
        bound = live.bound.get(pool.name)
        live.unbind()
        avoiding = bound.affinity.upstream if bound else None
        chosen = place(self._candidates(pool), user_key=user, avoiding=avoiding)
        if isinstance(chosen, Selection):
            key = _of_user(pool, user)
            affinity = Affinity(chosen.upstream, self._clock())
            await self._store.put(key, self._sealed(key, affinity, pool, user), ttl=self._lifetime)
            await self._publish(user)
        return chosen

    async def release(self, cookies: Sequence[str]) -> None:
        """Log Out: these sticky cookies mean nothing from now on. The person's own records stay, see `let_go`."""
        if cookies:
            await self._store.delete(*map(_of_cookie, cookies))

    async def held(self, user: str) -> dict[str, str]:
        """Where somebody belongs: hubs by pool."""
        records = await self._store.get_many([_of_user(pool, user) for pool in self._pools])
        found = {
            pool.name: self._read(_of_user(pool, user), record, pool, user)
            for pool, record in zip(self._pools, records, strict=True)
        }
        return {name: affinity.upstream for name, affinity in found.items() if affinity is not None}

    async def let_go(self, user: str, pools: Collection[str]) -> None:
        """Somebody belongs nowhere in these pools from now on, in any of their browsers: nothing of theirs runs there.

        Without being told so the records stay until they expire, since a server may still run where they lead to.
        """
        keys = [_of_user(pool, user) for pool in self._pools if pool.name in pools]
        if keys and await self._store.delete(*keys):
            # Who logged in at this very moment may have read one of them.
            await self._publish(user)

    async def _publish(self, user: str) -> None:
        await self._store.publish(TOPIC, f"user {user}".encode())

    def _sealed(self, key: str, affinity: Affinity, pool: Pool, user: str) -> bytes:
        record: dict[str, JSON] = {
            "upstream": affinity.upstream,
            "since": affinity.since,
            "pool": pool.name,
            "user": user,
        }
        return self._sealer.seal(key, record)

    def _read(self, key: str, sealed: bytes | None, pool: Pool, user: str) -> Affinity | None:
        if sealed is None:
            return None
        try:
            record = self._sealer.open(key, sealed)
        except Tampered:
            return None
        if record["user"] != user or record["pool"] != pool.name:
            return None
        return Affinity(str(record["upstream"]), float(record["since"]))  # type: ignore[arg-type] # authenticated


def _of_user(pool: Pool, user: str) -> str:
    return f"binding:{pool.name}:{user}"


def _of_cookie(cookie: str) -> str:
    return f"sticky:{fingerprint(cookie)}"
