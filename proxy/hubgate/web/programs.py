"""Programs that come with a hub's API token instead of a person's session.

A token says nothing of its hub or owner, so the hubs of the pool are asked, in turn until one knows it, and the answer
is believed for half a minute. The owner's standing (`standings`) says whether their second factor is recent enough.
What was admitted has the shape of a session, so that the gateway forwards it as one: in this worker alone, under no
cookie, and never with anybody's identity lines, since to the hub the token is who asks.

Tokens are remembered by a keyed hash. The token itself is held only while something is open that was opened with it,
since its hub must be asked again; guesses are counted per address, and cost each hub one question at most.

After any wait, what was known is a rumour: whoever was told meanwhile that a standing has changed reads again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from hubgate.audit import Audit
from hubgate.core.api_tokens import Standing
from hubgate.core.balancer import RETRY_AFTER, Candidate
from hubgate.core.keyring import Keyring
from hubgate.core.session import Session
from hubgate.core.site import Pool, Upstream
from hubgate.core.throttle import Rate, Throttle, source_key
from hubgate.errors import ClientFault, HubgateFault, ProviderFault, StoreFault, UpstreamFault
from hubgate.metrics import Metrics
from hubgate.store.base import Message, Restored, Store
from hubgate.tasks import Tasks
from hubgate.upstream.whose import Owner
from hubgate.web.live import LiveSession
from hubgate.web.sessions import Found, fingerprint
from hubgate.web.standings import TOPIC, Standings, TokenUse
from hubgate.web.usernames import Usernames

log = logging.getLogger(__name__)

BELIEVED = 30.0
"""Seconds that a hub's answer about a token is believed: so long one goes on that was revoked there."""

_PURPOSE = "api-token"
_FAILURES = Rate(burst=60, per_second=1.0)  # tokens that no hub knows, per address
_REFUSALS = Rate(burst=1, per_second=1 / 300)  # lines of the audit log on owners who are away, per owner
_COMPLAINTS = Rate(burst=1, per_second=1 / 60)  # lines of the log on hubs that don't say, per hub
_AT_ONCE = 16  # questions to hubs, per process: that many guesses more than the rate get through
_ASK_AGAIN = 5.0
_TICK = 1.0
_KEEP_UNUSED = 60.0
_MOST = 10_000  # tokens, known and unknown
_ASK_ABOUT_PERSON = 300.0  # seconds between two questions to the provider about one whose programs are at work
_ASK_ABOUT_AGAIN = 20.0  # seconds, when it didn't answer
_ABOUT_AT_ONCE = 4  # such questions, per process

Ask = Callable[[Pool, Upstream, str], Awaitable[Owner | None]]
Key = tuple[str, bytes]


class LetsIn(Protocol):
    """`KeycloakAdmin.lets_in`."""

    async def __call__(self, subject: str, *, since: int = 0) -> bool: ...


class Program:
    """A token that was admitted to a pool, in this worker. Seconds since the epoch: `believed_until`, `checked` (when
    its hub last said whose it is), `good_until` (the end of its owner's standing), `used`."""

    __slots__ = (
        *("address", "believed_until", "checked", "good_until", "hub", "key", "live", "owner", "pool", "token", "used"),
    )

    def __init__(self, key: Key, pool: Pool, hub: str, owner: Owner, live: LiveSession) -> None:
        self.key = key
        self.pool = pool
        self.hub = hub
        self.owner = owner
        self.live = live
        self.address = ""
        self.token = ""
        self.believed_until = self.checked = self.good_until = self.used = 0.0

    def __repr__(self) -> str:
        return f"Program({self.live!r} at {self.hub})"


@dataclass(frozen=True, slots=True)
class _Answer:
    owner: Owner | None
    until: float


@dataclass(frozen=True, slots=True)
class _Whose:
    """Where a token is known, and whose it is there. `until`: so long that is believed; `silent`: it was known before,
    and now nobody says."""

    hub: str
    owner: Owner
    until: float
    silent: bool = False


class Programs:
    """Programs at the pools that take tokens, while `kept`.

    `ask`: a hub, as `TokenOwners.ask`. `grace`: seconds that a known token goes on while store or hub can't be asked.
    `lets_in`: asks the provider about somebody, None: it can't be asked.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        candidates: Callable[[Pool], Sequence[Candidate]],
        usernames: Usernames,
        standings: Standings,
        store: Store,
        keyring: Keyring,
        audit: Audit,
        metrics: Metrics,
        grace: float,
        lets_in: LetsIn | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._candidates = candidates
        self._usernames = usernames
        self._standings = standings
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._metrics = metrics
        self._grace = grace
        self._lets_in = lets_in
        self._clock = clock
        self._programs: OrderedDict[Key, Program] = OrderedDict()
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._loading: dict[tuple[Key, str], asyncio.Future[Program]] = {}
        self._generation = 0
        self._failures = Throttle(_FAILURES)
        self._refusals = Throttle(_REFUSALS)
        self._complaints = Throttle(_COMPLAINTS)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asked_about: dict[str, float] = {}
        self._about_turns = asyncio.Semaphore(_ABOUT_AT_ONCE)
        self._tasks = Tasks()

    def __repr__(self) -> str:
        return f"Programs({len(self._programs)} admitted)"

    # -- who is it?

    async def admit(self, pool: Pool, token: str, *, address: str) -> Program:
        """The program that comes with this token from this address.

        Raises ClientFault `token_unknown`, `token_owner_away` (401), `too_many_tokens` (429); UpstreamFault `hub_down`
        and StoreFault when nobody can say.
        """
        key = (pool.name, self._keyring.mac(_PURPOSE, token.encode()))
        program = self._programs.get(key)
        now = self._clock()
        if program is None or now >= program.believed_until:
            program = await self._judged(key, pool, token, address)
        program.used = now
        program.token, program.address = token, address
        self._programs.move_to_end(key)
        return program

    def holds(self, program: Program) -> bool:
        """Whether it may go on: nothing was heard to the contrary while it waited."""
        return self._programs.get(program.key) is program

    async def demand_own(self, pool: Pool, hub: str, token: str, *, username: str, address: str) -> None:
        """Return unless a token that comes beside a person's session is somebody else's to the hub.

        Whose a token is never changes, so JupyterLab, which sends one with each request, goes on when the hub is
        restarted. Raises ClientFault `token_foreign`, 403, `too_many_tokens`; UpstreamFault `hub_down`.
        """
        mac = self._keyring.mac(_PURPOSE, token.encode())
        answer = self._answers.get((hub, mac))
        owner = None if answer is None else answer.owner
        if owner is None:
            upstream = next(each for each in pool.upstreams if each.name == hub)
            try:
                owner = await self._owner(pool, upstream, mac, token, address)
            except UpstreamFault as fault:
                raise self._silent(fault) from fault
        if owner is None:
            self._failures.wait(source_key(address), self._clock())
        elif not owner.person or owner.name != username:
            raise ClientFault("token_foreign", "a token of another's beside a session", status=403)

    async def _judged(self, key: Key, pool: Pool, token: str, address: str) -> Program:
        # A program asks for many things at once: one of them looks, all wait for it.
        place = (key, source_key(address))
        loading = self._loading.get(place)
        if loading is None:
            loading = self._loading[place] = asyncio.ensure_future(self._judge(key, pool, token, address))
            loading.add_done_callback(partial(self._loaded, place))
        return await asyncio.shield(loading)

    def _loaded(self, place: tuple[Key, str], done: asyncio.Future[Program]) -> None:
        self._loading.pop(place, None)
        if not done.cancelled():
            done.exception()  # whoever waited for it may have gone away

    async def _judge(self, key: Key, pool: Pool, token: str, address: str) -> Program:
        known = self._programs.get(key)
        try:
            while True:
                generation = self._generation
                found = await self._found_or_known(key, pool, token, address)
                person, standing = await self._standing(found.owner, pool, address)
                if await self._standings.has_ended(person, token):
                    raise ClientFault("token_ended", "its owner has ended it", status=401)
                if generation == self._generation:
                    break
        except StoreFault:
            now = self._clock()
            if known is None or not self.holds(known) or not self._in_grace(known) or now >= known.good_until:
                raise
            known.believed_until = min(now + _ASK_AGAIN, known.good_until)
            return known
        except ClientFault as fault:
            if fault.status == 401:
                self._drop(key)
            self._metrics.api_token(fault.code)
            raise
        program = self._admitted(key, pool, found, standing)
        program.token, program.address = token, address
        program.good_until, program.believed_until = standing.until, min(found.until, standing.until)
        if not found.silent:
            program.checked = self._clock()
            self._metrics.api_token("ok")
            await self._note_use(program, person)
        return program

    async def _found_or_known(self, key: Key, pool: Pool, token: str, address: str) -> _Whose:
        """As `_found`; of a token that is known, for a while, also when hubs don't say: the store still tells how its
        owner stands."""
        try:
            return await self._found(key, pool, token, address)
        except UpstreamFault:
            known = self._programs.get(key)
            if known is None or not self._in_grace(known):
                raise
            # A hub that hangs is not waited for by each request.
            return _Whose(known.hub, known.owner, self._clock() + _ASK_AGAIN, silent=True)

    def _in_grace(self, program: Program) -> bool:
        return self._clock() - program.checked <= self._grace

    def _admitted(self, key: Key, pool: Pool, found: _Whose, standing: Standing) -> Program:
        now = self._clock()
        handle = f"token-{key[1][:6].hex()}"
        session = Session(handle, standing.identity, standing.proof, created=now, last_seen=now, csrf="")
        program = self._programs.get(key)
        if program is None or program.hub != found.hub or program.owner.name != found.owner.name:
            self._drop(key)
            program = Program(key, pool, found.hub, found.owner, LiveSession("", "", Found("", session), now))
            program.used = now
            if len(self._programs) >= _MOST:
                unused = (other for other, each in self._programs.items() if not each.live.open)
                self._drop(next(unused, next(iter(self._programs))))
            self._programs[key] = program
        elif (program.live.session.identity, program.live.session.proof) != (standing.identity, standing.proof):
            program.live.session = session
            if not pool.admits(standing.identity.groups):
                for each in tuple(program.live.open):
                    each.close()
        return program

    async def _found(self, key: Key, pool: Pool, token: str, address: str) -> _Whose:
        """The hub that knows the token, and whose it is there."""
        known = self._programs.get(key)
        silent: UpstreamFault | None = None
        for upstream in sorted(pool.upstreams, key=lambda each: known is None or each.name != known.hub):
            try:
                owner = await self._owner(pool, upstream, key[1], token, address, known=known is not None)
            except UpstreamFault as fault:
                silent = self._silent(fault)
                continue
            if owner is not None and owner.person and not owner.browser:
                return _Whose(upstream.name, owner, self._answers[upstream.name, key[1]].until)
        if silent is not None:
            raise silent
        self._failures.wait(source_key(address), self._clock())
        raise ClientFault("token_unknown", "no hub of the pool knows the token", status=401)

    async def _owner(
        self, pool: Pool, upstream: Upstream, mac: bytes, token: str, address: str, *, known: bool = False
    ) -> Owner | None:
        """What the hub says, or said a moment ago. `known`: it is no guess."""
        place = (upstream.name, mac)
        answer = self._answers.get(place)
        if answer is None or self._clock() >= answer.until:
            if any(each.name == upstream.name and not each.serves_hub for each in self._candidates(pool)):
                raise UpstreamFault("hub_down", "known to be down", evidence={"upstream": upstream.name})
            async with self._turns:
                wait = self._failures.ahead(source_key(address), self._clock())
                if wait and not known:
                    raise ClientFault("too_many_tokens", status=429, retry_after=math.ceil(wait))
                answer = _Answer(await self._ask(pool, upstream, token), self._clock() + BELIEVED)
            self._answers[place] = answer
            self._answers.move_to_end(place)
            if len(self._answers) > _MOST:
                self._answers.popitem(last=False)
        return answer.owner

    def _silent(self, fault: UpstreamFault) -> UpstreamFault:
        """A hub doesn't say: no more is told to whoever asked, and more to the operator, but not each time."""
        hub = fault.evidence["upstream"]
        if fault.code != "hub_down" and not self._complaints.wait(hub, self._clock()):
            log.warning("api_token_unchecked", extra={"upstream": hub, "fault": str(fault)})
        return UpstreamFault("hub_down", fault.message, status=503, retry_after=RETRY_AFTER, evidence=fault.evidence)

    async def _standing(self, owner: Owner, pool: Pool, address: str) -> tuple[str, Standing]:
        """Who that is to us (`user_key`), and how they stand."""
        person = await self._usernames.owner(owner.name)
        standing = None if person is None else await self._standings.of(person)
        if person is not None and standing is not None and standing.identity.username == owner.name:
            return person, standing
        if not self._refusals.wait(owner.name, self._clock()):
            self._audit.event(
                "api_token", "refused", user=owner.name, client=address, pool=pool.name, code="token_owner_away"
            )
        raise ClientFault("token_owner_away", "the owner's last second factor is too long ago", status=401)

    async def _note_use(self, program: Program, person: str) -> None:
        handle, owner, address, now = program.live.session.handle, program.owner, program.address, self._clock()
        token = fingerprint(program.token)
        use = TokenUse(handle, owner.id, program.pool.name, program.hub, first=now, last=now, hash=token)
        new = False
        with suppress(StoreFault):  # a list for the owner to look at: nobody waits for it
            new = await self._standings.used(person, use)
        if new:
            self._audit.event(
                "api_token",
                "accepted",
                user=owner.name,
                client=address,
                pool=program.pool.name,
                upstream=program.hub,
                token=owner.id or handle,
            )

    # -- what becomes of them

    def _drop(self, key: Key) -> None:
        """Let go of a program, and close what is open in it."""
        program = self._programs.pop(key, None)
        if program is not None:
            program.token = ""
            for each in tuple(program.live.open):
                each.close()

    def judge_by(self, admits: Callable[[str, tuple[str, ...]], bool]) -> int:
        """Other rules on who may use which pool hold from now on. How many connections they closed."""
        out = [
            program
            for program in self._programs.values()
            if not admits(program.pool.name, program.live.session.identity.groups)
        ]
        closed = sum(len(program.live.open) for program in out)
        for program in out:
            self._drop(program.key)
        return closed

    def close_open(self) -> None:
        """Close every socket and stream of programs."""
        for program in tuple(self._programs.values()):
            for each in tuple(program.live.open):
                each.close()

    def count_open(self) -> int:
        """How many sockets of programs are open, and requests being answered."""
        return sum(len(program.live.open) for program in self._programs.values())

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, what changes elsewhere is heard of, and what is open is looked after."""
        self._tasks.keep(self._listen, name="programs: listen")
        self._tasks.keep(self._upkeep, name="programs: upkeep")
        try:
            yield
        finally:
            await self._tasks.end()

    async def _listen(self) -> None:
        async with self._store.subscribe(TOPIC) as events:
            async for event in events:
                if isinstance(event, Message):
                    self._doubt(event.payload.decode("ascii", "replace") or None)
                elif isinstance(event, Restored):
                    self._doubt(None)

    def _doubt(self, person: str | None) -> None:
        """Somebody's standing (None: anybody's) may have changed: it is read again, and the provider asked."""
        self._generation += 1
        if person is not None:
            self._asked_about.pop(person, None)
        for program in tuple(self._programs.values()):
            if person is None or program.live.user_key == person:
                program.believed_until = 0.0
                if program.live.open:
                    self._tasks.begin(self._look_again(program), name="programs: look again")

    async def _look_again(self, program: Program) -> None:
        if not program.token:
            return  # what was open is closed
        try:
            await self._judged(program.key, program.pool, program.token, program.address)
        except HubgateFault:  # it is no good, or beyond its grace
            self._drop(program.key)

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock()
            for key, program in tuple(self._programs.items()):
                if program.live.open:
                    if now >= program.believed_until:
                        self._tasks.begin(self._look_again(program), name="programs: look again")
                    self._ask_about(program, now)
                else:
                    program.token = ""
                    if now - program.used > _KEEP_UNUSED:
                        self._drop(key)
                    else:
                        self._ask_about(program, now)

    # -- the provider's word

    def _ask_about(self, program: Program, now: float) -> None:
        """A program's owner may have been disabled, or signed out everywhere, while nobody was logged in, whose tokens
        are renewed."""
        person = program.live.user_key
        if self._lets_in is None or now - self._asked_about.get(person, 0.0) < _ASK_ABOUT_PERSON:
            return
        self._asked_about = {who: at for who, at in self._asked_about.items() if now - at < _ASK_ABOUT_PERSON}
        self._asked_about[person] = now
        self._tasks.begin(self._end_if_out(self._lets_in, person), name="programs: is the owner let in")

    async def _end_if_out(self, lets_in: LetsIn, person: str) -> None:
        try:
            standing = await self._standings.of(person)
            if standing is None:
                return
            identity, proof = standing.identity, standing.proof
            async with self._about_turns:
                still_in = await lets_in(identity.subject, since=proof.auth_time)
            latest = await self._standings.of(person)
            # Whoever logged in meanwhile was let in.
            if not still_in and latest is not None and latest.proof == proof:
                await self._standings.end(person)
                self._audit.event("api_token", "owner_disabled", user=identity.username)
        except (ProviderFault, StoreFault) as fault:
            self._asked_about[person] = self._clock() - _ASK_ABOUT_PERSON + _ASK_ABOUT_AGAIN
            log.warning("owner_unchecked", extra={"fault": str(fault)})
