"""What ends with a session that somebody ends?

Log Out, the account page, an administrator, the provider's back channel, another person in the same browser: all of
them come here. Idle and absolute limits don't: these close and block, and leave the rest for whoever signs in again.

First what nobody may go on with: the record, every worker's copy of it, every socket and stream. That is waited for,
and fails if the store does. Then what hangs on it elsewhere, at the provider and at the hubs: a person waits for
it, but not for long: what takes longer goes on by itself. With somebody's last session they are let go of by the hubs
they were bound to, unless one of their servers runs there, or may run as far as anybody knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from hubgate.core.session import Session
from hubgate.errors import StoreFault, UpstreamFault
from hubgate.idp.client import OIDCClient
from hubgate.tasks import Tasks
from hubgate.upstream.hubapi import HubApis
from hubgate.web.affinity import Bindings
from hubgate.web.live import LiveSessions
from hubgate.web.sessions import Closed, Found, Sessions, user_key

log = logging.getLogger(__name__)

_AGAIN_AFTER = (5.0, 60.0, 300.0)  # seconds; then what is left elsewhere lives on until its own limits
_STORE_AGAIN = 1.0  # seconds
_AT_ONCE = 16  # sessions whose loose ends are tied up at the same time


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known when the waiting is over. `sessions`: those that were ended, and what hung on them.
    `provider`: whether it ended its own sessions; None: no answer yet. `programs`: theirs were ended, too."""

    sessions: Sequence[Found]
    closed: Closed
    provider: bool | None
    programs: bool = False


class Endings:
    """Ends sessions, while entered.

    `live`: this process's sessions, None where it has none. `patience`: seconds to wait for provider and hubs; somebody
    may look at a blank page meanwhile. So long they are waited for at the end, too.
    `stop_servers`: with somebody's last session their servers are stopped.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        live: LiveSessions | None,
        bindings: Bindings,
        provider: OIDCClient,
        hubs: HubApis,
        stop_servers: bool = False,
        patience: float = 2.0,
    ) -> None:
        self._sessions = sessions
        self._live = live
        self._bindings = bindings
        self._provider = provider
        self._hubs = hubs
        self._stop_servers = stop_servers
        self._patience = patience
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._loose = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._loose.end(patience=self._patience)

    async def end(self, found: Sequence[Found], *, provider: bool = True) -> Ended:
        """End these sessions everywhere. `provider`: there, too, and with its sessions all that hang on them.

        Raises StoreFault: then they may live on.
        """
        if provider:
            found = await self._sessions.together(found)
        here = 0
        if self._live is not None:
            found = [self._live.latest(each) for each in found]
            here = sum(self._live.forget(each.key) for each in found)
        closed = await self._sessions.end([each.key for each in found])
        # What was closed here has nothing left to count when the message comes in.
        closed = Closed(closed.sessions, closed.connections + here, complete=closed.complete)
        there = {each.session.root: each.session.refresh_token for each in found} if provider else {}
        asked = [self._begun(partial(self._provider.end_session, token)) for token in there.values() if token]
        # Hubs that gave us no token can't be asked for anything, not even whether servers run.
        tidied = [self._begun(partial(self._hubs_ended, each.session)) for each in found] if self._hubs else []
        if loose := [*asked, *tidied]:
            await asyncio.wait(loose, timeout=self._patience)
        answered = all(task.done() for task in asked)
        confirmed = all(there.values()) and all(task.result() for task in asked) if answered else None
        return Ended(found, closed, provider=confirmed)

    def end_later(self, found: Found) -> None:
        """End a session here at once, and everywhere as soon as the store answers again."""
        if self._live is not None:
            self._live.forget(found.key)

        async def act() -> None:
            await self.end([await self._sessions.get(found.key) or found])

        self.later(act)

    def later(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do this as soon as the store answers again."""

        async def done() -> None:
            while True:
                await asyncio.sleep(_STORE_AGAIN)
                with suppress(StoreFault):
                    await act()
                    return

        self._loose.begin(done(), name="end of sessions, when the store is back")

    def _begun(self, tie_up: Callable[[], Awaitable[bool]]) -> asyncio.Task[bool]:
        """Tie up a loose end, now or by and by; the answer is that of the first attempt."""

        async def at_first() -> bool:
            async with self._turns:
                done = await tie_up()
            if not done:
                self._loose.begin(again(), name="loose end of a session, again")
            return done

        async def again() -> None:
            for pause in _AGAIN_AFTER:
                await asyncio.sleep(pause)
                if await tie_up():
                    return
            log.warning("session_left_elsewhere")

        return self._loose.begin(at_first(), name="loose end of a session")

    async def _hubs_ended(self, session: Session) -> bool:
        """End what hangs on this session at the hubs; with somebody's last one, what hangs on any."""
        user, username, done = user_key(session.identity), session.identity.username, True
        try:
            last = await self._nobody_left(user)
            bound = await self._bindings.held(user) if last else {}
        except StoreFault:
            return False
        been, idle = dict(session.hubs), set()
        for hub in (each for each in {**been, **dict.fromkeys(bound.values(), "")} if each in self._hubs):
            try:
                if last:
                    await self._hubs.end_sessions(hub, username)
                elif been[hub]:
                    await self._hubs.end_session(hub, username, been[hub])
                if last and self._stop_servers:
                    await self._hubs.stop_servers(hub, username)
                if last and not await self._hubs.runs_servers(hub, username):
                    idle.add(hub)
            except UpstreamFault as fault:
                log.warning("hub_session_open", extra={"session": session.handle, "fault": str(fault)})
                done = False
        try:
            # Since then somebody may have logged in, and be on their way to the hub that they are bound to.
            if idle and await self._nobody_left(user):
                await self._bindings.let_go(user, {pool for pool, hub in bound.items() if hub in idle})
        except StoreFault:
            return False
        return done

    async def _nobody_left(self, user: str) -> bool:
        return not any(self._sessions.is_live(other.session) for other in await self._sessions.of(user))
