"""What ends with a session that somebody ends?

Log Out, the account page, an administrator, the provider's back channel, another person in the same browser: all of
them come here. Idle and absolute limits don't: these close and block, and leave the rest for whoever signs in again.

First what nobody may go on with: the record, every worker's copy of it, every socket and stream. That is waited for,
and fails if the store does. Then what hangs on it elsewhere, at the provider and at the hubs: a person waits for
it, but not for long: what takes longer goes on by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hubgate.core.session import Session
from hubgate.errors import StoreFault
from hubgate.idp.client import OIDCClient
from hubgate.web.sessions import Closed, Found, Sessions

log = logging.getLogger(__name__)

_AGAIN_AFTER = (5.0, 60.0, 300.0)  # seconds; then the provider's session lives on until its own limits
_STORE_AGAIN = 1.0  # seconds
_AT_ONCE = 16  # sessions whose loose ends are tied up at the same time


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known when the waiting is over. `provider`: whether it ended its own sessions; None: no answer yet."""

    closed: Closed
    provider: bool | None


class Endings:
    """Ends sessions, while entered.

    `forget`: what this process holds itself of a session, as `LiveSessions.forget`. `patience`: seconds to wait for
    provider and hubs; somebody may look at a blank page meanwhile. So long they are waited for at the end, too.
    """

    def __init__(
        self, sessions: Sessions, *, forget: Callable[[str], int], provider: OIDCClient, patience: float = 2.0
    ) -> None:
        self._sessions = sessions
        self._forget = forget
        self._provider = provider
        self._patience = patience
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._loose: set[asyncio.Task[bool]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loose:
            await asyncio.wait(self._loose, timeout=self._patience)
        for task in self._loose:
            task.cancel()
        await asyncio.gather(*self._loose, return_exceptions=True)

    async def end(self, found: Sequence[Found], *, provider: bool = True) -> Ended:
        """End these sessions everywhere; `provider`: there, too. Raises StoreFault: then they may live on."""
        here = sum(self._forget(each.key) for each in found)
        closed = await self._sessions.end([each.key for each in found])
        # What was closed here has nothing left to count when the message comes in.
        closed = Closed(closed.sessions, closed.connections + here, complete=closed.complete)
        asked = [self._begun(self._provider_ended(each.session)) for each in found if provider]
        if asked:
            await asyncio.wait(asked, timeout=self._patience)
        answered = all(task.done() for task in asked)
        return Ended(closed, provider=all(task.result() for task in asked) if answered else None)

    def later(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do this as soon as the store answers again."""

        async def done() -> bool:
            while True:
                await asyncio.sleep(_STORE_AGAIN)
                with suppress(StoreFault):
                    await act()
                    return True

        self._kept(asyncio.create_task(done(), name="end of sessions, when the store is back"))

    def _begun(self, doing: Awaitable[bool]) -> asyncio.Task[bool]:
        async def in_turn() -> bool:
            async with self._turns:
                return await doing

        return self._kept(asyncio.create_task(in_turn(), name="loose end of a session"))

    def _kept(self, task: asyncio.Task[bool]) -> asyncio.Task[bool]:
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
        return task

    async def _provider_ended(self, session: Session) -> bool:
        if not session.refresh_token:
            return False
        if await self._provider.end_session(session.refresh_token):
            return True
        self._begun(self._tried_again(session))
        return False

    async def _tried_again(self, session: Session) -> bool:
        for pause in _AGAIN_AFTER:
            await asyncio.sleep(pause)
            if await self._provider.end_session(session.refresh_token):
                return True
        log.warning("provider_session_left", extra={"session": session.handle})
        return False
