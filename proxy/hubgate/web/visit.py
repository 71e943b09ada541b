"""One request, and what becomes known about it on its way.

The gateway fills it in step by step; faults, logs and our own pages read it. It decides nothing.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from hubgate.core.access import Kind
from hubgate.core.session import Session
from hubgate.core.site import OWN_PREFIX
from hubgate.web.clearance import Caller
from hubgate.web.live import LiveSession
from hubgate.web.paths import CALLBACK_PATH

_PREFIX = secrets.token_hex(4)
_NUMBERS = itertools.count(1)


def new_id() -> str:
    """A request id: what a person reads out on the telephone."""
    return f"{_PREFIX}-{next(_NUMBERS):x}"


class AccessLine(Protocol):
    """Writes one line of the access log; `duration` is in seconds, `sent` and `received` are bytes of bodies."""

    def __call__(
        self,
        caller: Caller,
        *,
        method: str,
        path: str,
        status: int,
        sent: int,
        received: int,
        duration: float,
        request_id: str,
    ) -> None: ...


@dataclass(slots=True)
class Visit:
    """`cookies` are our own by full name, the session's apart. `accept_language`: for our own pages alone.

    `scripted`: the browser says that a script asks. Pages that know who somebody is are not for scripts: one in a
    notebook on the same host would read the token of their forms. `auth`: `token` where a program asks, see programs.
    """

    address: str
    kind: Kind
    scripted: bool = False
    host: str = ""
    path: str = ""
    raw: str = field(default="", repr=False)  # its query may hold a code
    live: LiveSession | None = None
    session_cookie: str = field(default="", repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    pool: str = ""
    upstream: str = ""
    id: str = field(default_factory=new_id)
    started: float = field(default_factory=time.perf_counter)
    accept_language: str = ""
    auth: str = ""

    @property
    def retry_url(self) -> str | None:
        """What "try again" means: the same address, but never a callback or a page of ours whose code is used up."""
        spent = self.path == CALLBACK_PATH or (self.path.startswith(OWN_PREFIX) and "code=" in self.raw)
        return None if spent else self.raw or None

    @property
    def session(self) -> Session | None:
        """The session, where there is one."""
        return self.live.session if self.live is not None else None

    @property
    def caller(self) -> Caller:
        """Who asks whom, as far as it is known by now."""
        return Caller(self.address, self.host, self.user or "", self.pool, self.upstream, self.auth)

    @property
    def user(self) -> str | None:
        """The username, where somebody is logged in."""
        return self.live.session.identity.username if self.live is not None else None


_VISIT: web.RequestKey[Visit] = web.RequestKey("visit", Visit)


def attach(request: web.BaseRequest, visit: Visit) -> None:
    """Let our own pages find the visit."""
    visit.accept_language = request.headers.get("Accept-Language", "")
    request[_VISIT] = visit


def visit_of(request: web.BaseRequest) -> Visit:
    """The visit that the gateway attached."""
    return request[_VISIT]
