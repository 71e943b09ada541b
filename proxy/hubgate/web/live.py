"""The sessions that this worker has in its hands.

A request must not wait for the store to learn who asks: a session once read stays here, with everything that was
derived from it (bindings, identity lines, what is open in it), and a hit is one dictionary look-up. What makes that
safe is that the store says when to forget: a message ends an entry on every worker at once, a subscription that can't
be trusted has all entries read again, and entries in use are confirmed in batches in the background anyway. While the
store is out of reach, entries serve for `outage_grace` after they were last confirmed, and no longer.

After any wait, what was known is a rumour: `find` reads again when a message came in while it was reading.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from hubgate.core.balancer import Affinity
from hubgate.core.session import Limits, Session, SessionState
from hubgate.errors import StoreFault
from hubgate.store.base import Message, Restored, Store
from hubgate.tasks import Tasks
from hubgate.web.clearance import Clearance
from hubgate.web.sessions import TOPIC, Found, Sessions, merged, user_key

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two rounds of upkeep; limits are kept to this precision
_CONFIRM_AFTER = 10.0  # seconds after which an entry in use is read again
_NOTE_EVERY = 60.0  # seconds between two writes that somebody was seen; less where limits are short
_CENSUS = 15.0  # seconds between two counts of who was seen when
_SILENCE = 1.0  # seconds within which a subscription that went silent is known to be lost
_KEEP_UNUSED = 60.0  # seconds that an entry stays without being asked for
_BATCH = 200  # records in one MGET: about a millisecond of Redis' time
_WRITES = 50  # records that are written at once: two milliseconds of the loop's time
_MOST_COOKIE_FIELDS = 8  # per session: hub cookies differ by path, so a browser has a handful of fields
_MOST_CLEARANCES = 32  # per session
_MOST = 50_000  # entries; one is about 4 KiB with its tokens


@dataclass(frozen=True, slots=True)
class Bound:
    """A person's hub in one pool, and the sticky cookie that says so."""

    affinity: Affinity
    cookie: str = field(repr=False)


class Open(Protocol):
    """What ends with the session that it was opened in: a WebSocket, or a request that is being answered."""

    def close(self) -> None:
        """End it by force; nothing more is delivered."""


class LiveSession:
    """One session on one host, in this worker. Mutable, and never awaited on between reading and writing it."""

    __slots__ = (
        "bound",
        "cleared",
        "confirmed",
        "cookie",
        "cookie_lines",
        "due",
        "host",
        "key",
        "noted_hubs",
        "noted_seen",
        "open",
        "page_lines",
        "session",
        "used",
        "user_key",
    )

    def __init__(self, cookie: str, host: str, found: Found, now: float) -> None:
        self.cookie = cookie
        self.host = host
        self.key = found.key
        self.session = found.session
        self.user_key = user_key(found.session.identity)
        self.confirmed = now
        self.used = now
        self.due = 0.0  # when it is to be looked at
        self.noted_seen = found.session.last_seen
        self.noted_hubs = found.session.hubs
        self.bound: dict[str, Bound] = {}
        self.cleared: dict[tuple[str, str, bytes], Clearance] = {}
        self.page_lines: dict[str, tuple[float, bytes]] = {}
        self.cookie_lines: dict[bytes, bytes] = {}
        self.open: dict[Open, str] = {}  # with the pool that it is of

    def __repr__(self) -> str:
        return f"LiveSession({self.session!r}, {len(self.open)} open)"

    @property
    def found(self) -> Found:
        """The session as this worker knows it, which may be ten seconds old."""
        return Found(self.key, self.session)

    def person_seen(self, now: float) -> None:
        """A person, not a poll, was there. Kept to the second: a page load is many signs and one fact."""
        if now - self.session.last_seen >= 1.0:
            self.session = replace(self.session, last_seen=now)

    def visited(self, hub: str, hub_session: str = "") -> None:
        """The person has been there: for the list of their sessions, and so that its end is the end there, too."""
        session = self.session.visited(hub, hub_session)
        if session is not self.session:
            self.session = session
            self.due = 0.0  # the store is to know this soon, whatever becomes of this worker

    def bind(self, pool: str, bound: Bound) -> None:
        """This is the person's hub in `pool` from now on."""
        self.bound[pool] = bound
        self.cleared.clear()
        self.visited(bound.affinity.upstream)

    def unbind(self) -> None:
        """What is remembered of the person's hubs is void."""
        self.bound.clear()
        self.cleared.clear()

    def clear(self, key: tuple[str, str, bytes], clearance: Clearance) -> None:
        """Let requests like this one pass without asking again: place, client's address, Cookie field."""
        if len(self.cleared) >= _MOST_CLEARANCES:
            self.cleared.clear()
        self.cleared[key] = clearance


class LiveSessions:
    """This worker's sessions by cookie."""

    def __init__(
        self,
        sessions: Sessions,
        store: Store,
        limits: Limits,
        *,
        outage_grace: float,
        on_size: Callable[[int], None] = lambda _: None,
        on_presence: Callable[[Iterable[float]], None] = lambda _: None,
        admits: Callable[[str, tuple[str, ...]], bool] = lambda _pool, _groups: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._limits = limits
        self._grace = outage_grace
        self._on_size = on_size
        self._on_presence = on_presence
        self._census_due = 0.0
        self.on_due: Callable[[Found], None] = lambda _: None  # what to do about tokens that are due
        self.admits = admits  # whether somebody in these groups may use a pool
        self._clock = clock
        self._by_cookie: dict[tuple[str, str], LiveSession] = {}
        self._by_key: dict[str, set[tuple[str, str]]] = {}
        self._by_user: dict[str, set[tuple[str, str]]] = {}
        self._by_field: dict[tuple[bytes, str], LiveSession] = {}
        self._loading: dict[tuple[str, str], asyncio.Future[LiveSession | None]] = {}
        self._generation = 0
        self._worker = secrets.token_hex(4)
        self._tasks = Tasks()
        self._note_every = min(_NOTE_EVERY, limits.shortest / 4)
        self._away = ""  # the fault of an outage of which the log knows
        self.subscribed = False

    def __len__(self) -> int:
        return len(self._by_cookie)

    def cached(self, cookie: str, host: str, now: float) -> LiveSession | None:
        """The session if this worker holds it and may still believe it. Never waits."""
        live = self._by_cookie.get((cookie, host))
        if live is None or now - live.confirmed > self._grace:
            return None
        if live.session.state(self._limits, now) is not SessionState.LIVE:
            return None
        live.used = now
        return live

    def believed_until(self, live: LiveSession) -> float:
        """Until when a session may be taken for live if nothing more is heard of it."""
        return min(live.confirmed + self._grace, live.session.ends_at(self._limits))

    def known(self, field: bytes, host: str) -> LiveSession | None:
        """The session that a whole Cookie field opened before. Whether it may still be believed says its clearance."""
        return self._by_field.get((field, host))

    def remember_cookies(self, live: LiveSession, sent: bytes, passed: bytes) -> None:
        """What a Cookie field became on its way to the hub: reading it and checking its tags costs 15 us."""
        if self._by_cookie.get((live.cookie, live.host)) is not live:
            return  # it ended meanwhile
        if len(live.cookie_lines) >= _MOST_COOKIE_FIELDS:
            self._forget_cookies(live)
        live.cookie_lines[sent] = passed
        self._by_field[sent, live.host] = live

    def _forget_cookies(self, live: LiveSession) -> None:
        for sent in live.cookie_lines:
            del self._by_field[sent, live.host]
        live.cookie_lines.clear()
        live.cleared.clear()

    def clear_nobody(self) -> None:
        """A hub went up or down: everybody is to be judged anew."""
        for live in self._by_cookie.values():
            live.cleared.clear()

    async def find(self, cookie: str, host: str) -> LiveSession | None:
        """The session that a cookie opens, from here or from the store; None if there is none, or it has ended.

        Raises `StoreFault` when only the store could tell and it can't be asked.
        """
        place = (cookie, host)
        while True:
            live = self.cached(cookie, host, self._clock())
            if live is not None:
                return live
            loading = self._loading.get(place)
            if loading is None:
                # A page asks for fifty files at once: one of them reads, all wait for it.
                loading = self._loading[place] = asyncio.ensure_future(self._load(place))
                loading.add_done_callback(lambda _: self._loading.pop(place, None))
            live = await asyncio.shield(loading)
            if live is None or self._by_cookie.get(place) is live:  # else it ended just now
                return live

    async def _load(self, place: tuple[str, str]) -> LiveSession | None:
        while True:
            generation = self._generation
            found = await self._sessions.find(*place)
            if generation == self._generation:
                break
        now = self._clock()
        known = self._by_cookie.get(place)
        if found is not None and known is not None and known.key == found.key:
            # Somebody may have been seen here of whom the store wasn't told yet.
            found = replace(found, session=merged(found.session, known.session))
        if found is None or found.session.state(self._limits, now) is not SessionState.LIVE:
            self._drop(place)
            return None
        return self._keep(place, found, now)

    @property
    def heard(self) -> int:
        """Another number whenever something has ended, or may have."""
        return self._generation

    async def begun(self, cookie: str, host: str, found: Found, *, heard: int) -> LiveSession | None:
        """Take in a session that was created since `heard`; None if it has ended already.

        Raises `StoreFault` when only the store could tell and it can't be asked.
        """
        if heard != self._generation:
            return await self.find(cookie, host)
        return self._keep((cookie, host), found, self._clock())

    def _keep(self, place: tuple[str, str], found: Found, now: float) -> LiveSession:
        live = self._by_cookie.get(place)
        if live is not None and live.key == found.key:
            self._take_in(live, found, now)
            live.used = now
            return live
        if len(self._by_cookie) >= _MOST:
            # Somebody who has no socket here can be read again; only if there is nobody else, sockets end.
            unused = (other for other, live in self._by_cookie.items() if not live.open)
            self._drop(next(unused, next(iter(self._by_cookie))))
        live = self._by_cookie[place] = LiveSession(*place, found, now)
        self._by_key.setdefault(found.key, set()).add(place)
        self._by_user.setdefault(live.user_key, set()).add(place)
        return live

    def latest(self, found: Found) -> Found:
        """A session with what is known here beyond the store, which hears within a second where its person has been."""
        for place in self._by_key.get(found.key, ()):
            found = replace(found, session=merged(found.session, self._by_cookie[place].session))
        return found

    def forget(self, key: str) -> int:
        """A session has ended: drop it and close everything that hangs on it. How many connections that were."""
        self._generation += 1
        return sum(self._drop(place) for place in tuple(self._by_key.get(key, ())))

    def keys_of(self, meant: Callable[[Session], bool]) -> set[str]:
        """The sessions in this worker's hands that are meant, by their names in the store."""
        return {live.key for live in self._by_cookie.values() if meant(live.session)}

    def count_open(self) -> int:
        """How many sockets are open here, and requests being answered."""
        return sum(len(live.open) for live in self._by_cookie.values())

    def close_open(self) -> None:
        """Close every socket of this worker, and cut what is being answered; sessions and bindings stay."""
        for live in tuple(self._by_cookie.values()):
            for each in tuple(live.open):
                each.close()

    def rebind(self, key_of_user: str) -> None:
        """Somebody was bound anew: what this worker remembered of their bindings is void."""
        self._generation += 1
        for place in self._by_user.get(key_of_user, ()):
            self._by_cookie[place].unbind()

    def _drop(self, place: tuple[str, str]) -> int:
        """Let go of an entry, and close what is open in it: how many connections."""
        live = self._by_cookie.pop(place, None)
        if live is None:
            return 0
        self._forget_cookies(live)
        for index, key in ((self._by_key, live.key), (self._by_user, live.user_key)):
            index[key].discard(place)
            if not index[key]:
                del index[key]
        closed = tuple(live.open)
        for each in closed:
            each.close()
        return len(closed)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, messages are heard and entries are looked after."""
        self._tasks.keep(self._listen, name="sessions: listen")
        self._tasks.keep(self._upkeep, name="sessions: upkeep")
        try:
            yield
        finally:
            await self._tasks.end()

    async def _listen(self) -> None:
        self.subscribed = False
        async with self._store.subscribe(TOPIC) as events:
            async for event in events:
                if isinstance(event, Message):
                    match event.payload.decode("ascii", "replace").split(" "):
                        case ["session", nonce, *keys] if keys:
                            self._answer(nonce, keys[0], sum(map(self.forget, keys)))
                        case ["user", key]:
                            self.rebind(key)
                        case ["changed", key]:
                            places = self._by_key.get(key, ())
                            entries = [(place, self._by_cookie[place]) for place in places]
                            self._tasks.begin(self._confirm(entries), name="sessions: read a changed one")
                    continue
                # Lost or restored: messages may be missing, so everything is read again; bindings once they can be:
                # without its binding, nobody would be served while the store is away.
                heard = self._clock() - _SILENCE if self.subscribed else 0.0
                self.subscribed = isinstance(event, Restored)
                self._generation += 1
                for live in self._by_cookie.values():
                    # Until just now the end of any of these would have been heard of.
                    live.confirmed = max(live.confirmed, heard)
                    if self.subscribed:
                        live.unbind()
                await self._confirm(tuple(self._by_cookie.items()))

    def _answer(self, nonce: str, batch: str, connections: int) -> None:
        """Say what was closed, without keeping the next message waiting."""

        async def answer() -> None:
            with suppress(StoreFault):  # whoever asked doesn't wait for long, and says that it isn't all
                await self._sessions.closed(nonce, batch, self._worker, connections)

        self._tasks.begin(answer(), name="sessions: say what was closed")

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock()
            doubtful, overdue, unused, unwritten = [], [], [], []
            for place, live in tuple(self._by_cookie.items()):
                if now < live.due:
                    continue  # to look at twenty thousand each second would stop the loop for 20 ms
                live.due = min(now + min(_CONFIRM_AFTER, self._note_every), self.believed_until(live))
                if live.open and now - live.confirmed > self._grace:
                    # The store is away, or was not asked yet because the grace is short: asking tells which.
                    doubtful.append((place, live))
                    overdue.append((place, live))
                elif live.session.state(self._limits, now) is not SessionState.LIVE:
                    # Another worker may have seen the person: the store has the last word, `_confirm` acts on it.
                    doubtful.append((place, live))
                elif not live.open and now - live.used > _KEEP_UNUSED and self.subscribed:
                    # (Whoever reads a page for a minute during an outage can't be read again from the store.)
                    unused.append((place, live))
                elif now - live.confirmed > _CONFIRM_AFTER and (live.open or now - live.used < _CONFIRM_AFTER):
                    doubtful.append((place, live))
                unsaid = live.session.last_seen > live.noted_seen
                leaving = unused and unused[-1][1] is live
                # The last sign before a pause is written as well, if a little later.
                due = now - live.noted_seen >= self._note_every or leaving
                if (unsaid and due) or live.session.hubs != live.noted_hubs:
                    unwritten.append(live)
                if 0 < live.session.renew_at <= now and (live.open or now - live.used < _KEEP_UNUSED):
                    self.on_due(live.found)
            await self._confirm(doubtful)
            for place, live in overdue:
                if now - live.confirmed > self._grace and self._by_cookie.get(place) is live:
                    self._drop(place)
            await self._note(unwritten)
            self._on_size(len(self))
            if now >= self._census_due:
                self._census_due = now + _CENSUS
                self._on_presence(self._unseen_for(now))
            for place, live in unused:
                # Somebody may have come back while the store was told.
                if not live.open and now - live.used > _KEEP_UNUSED:
                    self._drop(place)

    def _unseen_for(self, now: float) -> Iterator[float]:
        """For how many seconds nobody was seen, session by session, on whichever host they were."""
        for places in self._by_key.values():
            yield now - max(self._by_cookie[place].session.last_seen for place in places)

    async def _confirm(self, entries: Iterable[tuple[tuple[str, str], LiveSession]]) -> None:
        """Read entries again; what the store no longer has, or what has met a limit, ends here.

        One that this worker can't read (written with a key that it lacks) stays unconfirmed, and alone in that.
        """
        rest = iter(entries)
        asked = False
        unreadable: StoreFault | None = None
        try:
            while batch := list(islice(rest, _BATCH)):
                found = await self._sessions.get_many([live.key for _, live in batch])
                asked = True
                now = self._clock()
                for (place, live), again in zip(batch, found, strict=True):
                    if self._by_cookie.get(place) is not live:
                        continue
                    if isinstance(again, StoreFault):
                        unreadable = again
                        continue
                    if again is not None:
                        self._take_in(live, again, now)
                    if again is None or live.session.state(self._limits, now) is not SessionState.LIVE:
                        self._drop(place)
        except StoreFault as fault:
            self._unable("sessions_unconfirmed", fault)
        else:
            if unreadable is not None:
                self._unable("sessions_unconfirmed", unreadable)
            elif asked:
                self._away = ""

    def _take_in(self, live: LiveSession, found: Found, now: float) -> None:
        """What the store says now. What is open in a pool that admits the person no longer is closed."""
        groups = live.session.identity.groups
        _confirm(live, found, now)
        if live.session.identity.groups != groups:
            self._close_unadmitted(live)

    def judge_by(self, admits: Callable[[str, tuple[str, ...]], bool]) -> int:
        """Other rules on who may use which pool hold from now on. How many connections they closed."""
        self.admits = admits
        return sum(map(self._close_unadmitted, tuple(self._by_cookie.values())))

    def _close_unadmitted(self, live: LiveSession) -> int:
        closed = [each for each, pool in live.open.items() if not self.admits(pool, live.session.identity.groups)]
        for each in closed:
            each.close()
        return len(closed)

    async def _note(self, unwritten: Iterable[LiveSession]) -> None:
        """Tell the store, and so the other workers, when people were last seen and where they have been: what can't be
        told now, later."""
        rest = iter(unwritten)
        try:
            while batch := [(live, live.session) for live in islice(rest, _WRITES)]:
                await self._sessions.note([(live.key, session) for live, session in batch])
                for live, session in batch:
                    live.noted_seen, live.noted_hubs = session.last_seen, session.hubs
        except StoreFault as fault:
            self._unable("presence_unwritten", fault)

    def _unable(self, event: str, fault: StoreFault) -> None:
        """Into the log once for each outage, and not with every round."""
        if self._away != fault.code:
            self._away = fault.code
            log.warning(event, extra={"fault": fault.code})


def _confirm(live: LiveSession, found: Found, now: float) -> None:
    live.confirmed = now
    here, now_known = live.session, merged(found.session, live.session)
    if replace(now_known, last_seen=here.last_seen) != here:
        live.page_lines.clear()
        live.cleared.clear()
    live.session = now_known
