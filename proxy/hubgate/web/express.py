"""The short way of a request: from the bytes of its head to the hub in one breath.

Nothing is decided here. A request that is plain (core/plain.py) and like one that was let through a moment ago
(clearance.py) is sent on a connection that waits; its answer goes back where it arrives. No task, no future, no object
of aiohttp's: what is left costs a fifth of the long way, and most of that is the kernel's. Whatever is in doubt, or
goes wrong before the answer has begun, takes the long way (gateway.py), which knows how to ask, to wait, to explain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network

from hubgate.core.headers import client_address
from hubgate.core.plain import PlainRequests
from hubgate.core.routing import PoolRoute, Router
from hubgate.errors import HubgateFault
from hubgate.upstream.dispatch import Dispatch
from hubgate.upstream.http import Aborted, ClientAborted
from hubgate.upstream.outbox import Outbox
from hubgate.web.clearance import Clearance
from hubgate.web.listener import BrowserConnection
from hubgate.web.live import LiveSession, LiveSessions
from hubgate.web.visit import AccessLine, new_id
from hubgate.web.wire import ClientEnd


class Express:
    """Called with what a browser sent on a connection that is at rest; whether it took it."""

    def __init__(
        self,
        *,
        requests: PlainRequests,
        router: Router,
        live: LiveSessions,
        trusted: Sequence[IPv4Network | IPv6Network],
        access: AccessLine | None,
        outbox: Outbox,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._requests = requests
        self._router = router
        self._live = live
        self._trusted = trusted
        self._access = access
        self.outbox = outbox
        self._clock = clock

    def __call__(self, browser: BrowserConnection, data: bytes) -> bool:
        """Send the request on, if it is one of those that may; False: it was not touched."""
        request = self._requests.read(data)
        if request is None:
            return False
        line, path, fields = request
        route = self._router.match_plain(fields.host, path)
        if not isinstance(route, PoolRoute):
            return False
        live = self._live.known(fields.cookie, fields.host)
        if live is None:
            return False
        address = browser.address
        if fields.forwarded_for:
            address = client_address(address, fields.forwarded_for, self._trusted)
        clearance = live.cleared.get((route.name, address, fields.cookie))
        now = self._clock()
        if clearance is None or now >= clearance.until or browser.transport is None:
            return False
        live.used = now
        if fields.navigates:
            live.person_seen(now)
        head = b"\r\n".join((line, fields.passed, clearance.lines, b""))
        browser.ride = browser.client = ride = _Ride(
            browser, browser.transport, data, head, path, live, clearance, self.outbox, self._access
        )
        live.open[ride] = route.pool.name
        ride.start()
        return True


class _Ride(Dispatch):
    """One request on the short way, and what is noted when it is over."""

    __slots__ = ("_access", "_began", "_browser", "_clearance", "_data", "_live", "_path")

    def __init__(
        self,
        browser: BrowserConnection,
        transport: asyncio.Transport,
        data: bytes,
        head: bytes,
        path: str,
        live: LiveSession,
        clearance: Clearance,
        outbox: Outbox,
        access: AccessLine | None,
    ) -> None:
        super().__init__(clearance.connections, head, transport, clearance.rewrite, outbox)
        self._browser = browser
        self._data = data
        self._path = path
        self._live = live
        self._clearance = clearance
        self._access = access
        self._began = time.perf_counter()

    @property
    def keep_alive(self) -> bool:
        """Plain requests want it."""
        return not self._browser.retiring

    def client(self) -> PlainClient:
        """The client's end of a request without a body."""
        client = self._browser.client = PlainClient(self._browser)
        return client

    def answered(self, status: int, sent: int, *, keep_alive: bool) -> None:
        """Note it, and free the browser's connection."""
        self._live.open.pop(self, None)
        self._note(status, sent)
        self._browser.rested(keep_alive=keep_alive)

    def failed(self, fault: HubgateFault) -> None:
        """Nobody is left to be told, or the long way tells."""
        self._live.open.pop(self, None)
        if self._browser.lost and not isinstance(fault, Aborted):
            fault = ClientAborted("client_gone")
        if isinstance(fault, Aborted):
            self._note(fault.status, 0)
            self._transport.abort()
        else:
            self._browser.explain(self._data, fault)

    def close(self) -> None:
        """The session has ended: so does this, whatever it waits for."""
        self._transport.abort()

    def _note(self, status: int, sent: int) -> None:
        duration = time.perf_counter() - self._began
        self._clearance.count.note(status, duration)
        if self._access is not None:
            self._access(
                self._clearance.caller,
                method="GET",
                path=self._path,
                status=status,
                sent=sent,
                received=0,
                duration=duration,
                request_id=new_id(),
            )


class PlainClient(ClientEnd):
    """The client's end of a plain request."""

    __slots__ = ()

    http10 = False

    def ready_body(self) -> bytes | None:
        """There is none."""
        return b""

    async def body(self) -> AsyncIterator[bytes]:
        """There is none."""
        return
        yield b""
