"""Who learns who the user is, and how it is proved.

The identity goes to paths where the hub itself answers, never to a person's notebook server: whoever opens a link to
`/htc/user/x/` must not hand x an assertion. For the hub's login path an assertion is minted for that one attempt; the
one for other pages only serves to compare, is kept ready as bytes, and is renewed at half of its life, so that signing
(60 us) happens per session and hub, not per request.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Literal

from hubgate.core.assertion import Signer, Subject
from hubgate.core.routing import Zone
from hubgate.core.session import Session
from hubgate.core.site import ASSERTION_HEADER, Disclose, Pool
from hubgate.web.live import LiveSession

_LIFETIME = 60  # seconds; what a hub accepts at most, docs/identity-assertion.md

_DISCLOSED: dict[Disclose, frozenset[Zone]] = {
    Disclose.LOGIN: frozenset({Zone.LOGIN}),
    Disclose.HUB: frozenset({Zone.LOGIN, Zone.HUB}),
    Disclose.ALL: frozenset(Zone),
}


class Disclosure:
    """Writes the identity lines of requests to hubs."""

    def __init__(self, signer: Signer, *, header: str, profile: bool, clock: Callable[[], float]) -> None:
        self._signer = signer
        self._header = header.encode()
        self._profile = profile
        self._clock = clock

    def lines(self, live: LiveSession, pool: Pool, upstream: str, zone: Zone) -> tuple[bytes, float]:
        """Header lines, each with its CRLF, that tell this hub who the user is; empty where it isn't told. And until
        when they may be used again, seconds since the epoch: those for the login page, never."""
        if zone not in _DISCLOSED[pool.disclose]:
            return b"", math.inf
        if zone is Zone.LOGIN:
            return self._written(live.session, upstream, "login"), 0.0
        now = self._clock()
        renew_at, lines = live.page_lines.get(upstream, (0.0, b""))
        if now >= renew_at:
            renew_at, lines = now + _LIFETIME / 2, self._written(live.session, upstream, "page")
            live.page_lines[upstream] = (renew_at, lines)
        return lines, renew_at

    def _written(self, session: Session, upstream: str, use: Literal["login", "page"]) -> bytes:
        identity = session.identity
        assertion = self._signer.sign(
            Subject(
                username=identity.username,
                groups=identity.groups,
                name=identity.name if self._profile else None,
                email=identity.email if self._profile else None,
                sid=session.handle,
                proof=session.proof,
            ),
            audience=upstream,
            use=use,
            now=int(self._clock()),
            jti=secrets.token_urlsafe(16),
            lifetime=_LIFETIME,
        )
        username = identity.username.encode()
        return b"%s: %s\r\n%s: %s\r\n" % (self._header, username, ASSERTION_HEADER.encode(), assertion)
