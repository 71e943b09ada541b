"""Tokens of the provider are renewed before they expire: in the background, once, whoever notices.

All workers see at about the same time that a session's tokens are due, and a provider that rotates refresh tokens takes
a second use of one for theft. So whoever asks the provider holds a lease in the store, reads the session again when it
has it, and looks whether there is still anything to do.

What comes back is also the provider's word on the person: groups that have changed take effect on what is open, and who
may not be here any more is out. A refused renewal ends the session; a provider that fails doesn't.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from hubgate.audit import Audit
from hubgate.core.identity import Identity
from hubgate.core.session import Session, renewal_due
from hubgate.errors import ClientFault, HubgateFault, ProviderFault, StoreFault
from hubgate.idp.client import TokenSet
from hubgate.store.base import Store
from hubgate.web.endings import Endings
from hubgate.web.sessions import Found, Sessions, user_key
from hubgate.web.standings import Standings

log = logging.getLogger(__name__)

_LEASE = 10.0  # seconds that a lease lives; it is renewed while it is held
_RENEW_LEASE = 3.0
_AFTER_A_FAILURE = 20.0  # seconds until the provider is asked again about this session
_AT_ONCE = 16  # questions to the provider, per process
_IN_DOUBT = (0.4, 4.0)  # seconds: pauses before each time that tokens are renewed in order to see whether they can be
_WRITE_AGAIN = 0.2  # seconds: new tokens that can't be stored are tried again, since the old ones may be void


class Provider(Protocol):
    """What is needed of `OIDCClient`."""

    async def refresh(
        self, refresh_token: str, *, subject: str = ""
    ) -> tuple[TokenSet, Mapping[str, object] | None]: ...
    async def end_session(self, refresh_token: str) -> bool: ...


class Renewals:
    """Renews sessions' tokens, while entered. `judge`: who the claims say it is, if they may still be here at all;
    ClientFault if not. `standings`: None where no pool takes API tokens."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        store: Store,
        provider: Provider,
        endings: Endings,
        judge: Callable[[Mapping[str, object]], Identity],
        audit: Audit,
        standings: Standings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._provider = provider
        self._endings = endings
        self._judge = judge
        self._audit = audit
        self._standings = standings
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._doubts: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for doubt in self._doubts.values():
            doubt.cancel()
        await asyncio.gather(*self._doubts.values(), return_exceptions=True)
        running = tuple(self._running.values())
        if running:
            # One that has asked the provider must write down what it got.
            await asyncio.wait(running, timeout=_LEASE)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def begin(self, found: Found, *, due: bool = True) -> None:
        """A session's tokens are due, or are renewed without being `due`. Never waits; does nothing if this process is
        at it already."""
        if found.key not in self._running:
            task = asyncio.create_task(self._in_turn(found.key, due=due), name="renewal of tokens")
            self._running[found.key] = task
            task.add_done_callback(lambda _: self._running.pop(found.key, None))

    def doubt(self, user: str) -> None:
        """The provider has ended one of somebody's sessions, and perhaps all: Keycloak tells of one of them when its
        administrator ends them all (keycloak#22914). Whether the others can be renewed tells, when it has had time; and
        what it keeps of them, if programs of theirs are at work."""

        async def looked() -> None:
            for pause in _IN_DOUBT:
                await asyncio.sleep(pause)
                try:
                    for found in await self._sessions.of(user):
                        self.begin(found, due=False)
                    if self._standings is not None:
                        await self._standings.doubt(user)
                except StoreFault as fault:
                    log.warning("tokens_not_renewed", extra={"fault": fault.code})

        if user not in self._doubts:
            self._doubts[user] = asyncio.create_task(looked(), name="doubt about somebody's sessions")
            self._doubts[user].add_done_callback(lambda _: self._doubts.pop(user, None))

    async def _in_turn(self, key: str, *, due: bool) -> None:
        try:
            async with self._turns, self._lease(key) as held:
                if held:
                    await self._renew(key, due=due)
        except StoreFault as fault:
            log.warning("tokens_not_renewed", extra={"fault": fault.code})
        except Exception:
            log.exception("tokens_not_renewed")

    @asynccontextmanager
    async def _lease(self, key: str) -> AsyncIterator[bool]:
        """Whether nobody else is at it, nor was a moment ago in vain."""
        place = f"renewing:{key}"
        if not await self._store.add(place, b"", ttl=_LEASE):
            yield False
            return

        async def keep() -> None:
            while True:
                await asyncio.sleep(_RENEW_LEASE)
                with suppress(StoreFault):
                    await self._store.touch(place, ttl=_LEASE)

        keeping = asyncio.create_task(keep(), name="lease of a renewal")
        try:
            yield True
        except ProviderFault as fault:
            log.warning("tokens_not_renewed", extra={"fault": str(fault)})
            await self._store.touch(place, ttl=_AFTER_A_FAILURE)
        else:
            await self._store.delete(place)
        finally:
            keeping.cancel()

    async def _renew(self, key: str, *, due: bool) -> None:
        found = await self._sessions.get(key)
        if found is None or not found.session.refresh_token:
            return  # it has ended, or the provider gave us no say in it
        session = found.session
        if due and not 0 < session.renew_at <= self._clock():
            return  # somebody else was faster
        asked = self._clock()
        try:
            tokens, claims = await self._provider.refresh(session.refresh_token, subject=session.identity.subject)
        except ProviderFault as fault:
            if fault.code != "refresh_refused":
                raise
            await self._over(key, session, fault)
            return
        try:
            # Who somebody is called was decided at the login; what they may do is decided now.
            now_known = session.identity if claims is None else self._judge(claims)
        except ClientFault as fault:
            await self._over(key, session, fault, token=tokens.refresh_token)
            return
        next_due = renewal_due(tokens.expires_at, asked)

        def renewed(latest: Session) -> Session:
            return replace(
                latest,
                identity=replace(latest.identity, groups=now_known.groups, name=now_known.name, email=now_known.email),
                id_token=tokens.id_token or latest.id_token,
                refresh_token=tokens.refresh_token,
                renew_at=next_due,
            )

        latest = await self._written(key, renewed) or await self._inherited(session, renewed)
        if latest is not None and self._standings is not None:
            await self._standings.learn(latest.identity)
        if latest is None:
            # It ended meanwhile, with the token of before: this one would live on.
            await self._provider.end_session(tokens.refresh_token)

    async def _inherited(self, session: Session, change: Callable[[Session], Session]) -> Session | None:
        """What goes on in the place of a session that is no more: its person logged in again, or showed the second
        factor anew. To end the provider's session would be to end that."""
        heirs = [
            each
            for each in await self._sessions.of(user_key(session.identity))
            if each.session.refresh_token == session.refresh_token or each.session.root == session.root
        ]
        for heir in heirs:
            if heir.session.refresh_token == session.refresh_token:
                return await self._written(heir.key, change)
        return heirs[0].session if heirs else None

    async def _written(self, key: str, change: Callable[[Session], Session]) -> Session | None:
        told = False
        while True:
            try:
                return await self._sessions.renewed(key, change)
            except StoreFault as fault:
                if not told:
                    log.warning("tokens_not_stored", extra={"fault": fault.code})
                told = True
                await asyncio.sleep(_WRITE_AGAIN)

    async def _over(self, key: str, session: Session, fault: HubgateFault, *, token: str = "") -> None:
        """The provider's session is over, or its user may not be here any more: then `token` ends the former."""
        latest = await self._sessions.get(key)
        if latest is None or latest.session.refresh_token != session.refresh_token:
            return  # the answer was about a token that is nobody's any more
        if self._standings is not None and isinstance(fault, ClientFault):
            # The provider's refusal may mean no more than that its own session was over before ours.
            await self._standings.end(user_key(session.identity))
        if token:  # the one before may be void
            latest = replace(latest, session=replace(latest.session, refresh_token=token))
        ended = await self._endings.end([latest], provider=bool(token))
        for each in ended.sessions:
            self._audit.event(
                "session_end",
                "tokens_refused",
                user=session.identity.username,
                session=each.session.handle,
                code=fault.code,
                connections=ended.closed.connections,
            )
