"""Is this the provider's word that somebody's session there is over?

OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6: a token that looks much like an ID token and must never pass for
one, nor one for it. Its signature has been verified with the provider's key before it comes here, and whether it was
shown before is a question for the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hubgate.errors import ClientFault

EVENT = "http://schemas.openid.net/event/backchannel-logout"

# 2.4 recommends `logout+jwt`; Keycloak writes `JWT` and a claim `typ` of `Logout`.
_HEADER_TYPES = frozenset({"logout+jwt", "application/logout+jwt", "jwt", "application/jwt"})
_CLAIM_TYPES = frozenset({"logout", "logout+jwt"})
_OLDEST = 600  # seconds: a token is for now, whatever its `exp` says
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class LogoutToken:
    """Whose sessions have ended: those of `sid`, else all of `subject`; one of the two may be "".

    `id`: `jti`, good once until `good_until` (seconds since the epoch).
    """

    issuer: str
    subject: str
    sid: str
    id: str
    good_until: float


def check_logout_token(
    claims: Mapping[str, object],
    header: Mapping[str, object],
    *,
    issuer: str,
    client_id: str,
    skew: int,
    now: int,
) -> LogoutToken:
    """What a logout token says. `skew`, `now`: seconds. Raises ClientFault `logout_token_refused`."""
    typ, claimed = header.get("typ"), claims.get("typ")
    if typ is not None and str(typ).lower() not in _HEADER_TYPES:
        raise refused("typ")
    if claimed is not None and str(claimed).lower() not in _CLAIM_TYPES:
        raise refused("typ")
    if claims.get("iss") != issuer:
        raise refused("iss")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise refused("aud")
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(EVENT), Mapping):
        raise refused("events")
    if "nonce" in claims:
        raise refused("nonce")  # or an ID token would do
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if issued > now + skew:
        raise refused("future")
    if now >= expires + skew or now - issued > _OLDEST + skew:
        raise refused("expired")
    sid, subject = _text(claims, "sid"), _text(claims, "sub")
    if not sid and not subject:
        raise refused("nobody")
    identifier = _text(claims, "jti")
    if not identifier:
        raise refused("jti")
    return LogoutToken(issuer, subject, sid, identifier, min(expires, issued + _OLDEST) + skew)


def refused(reason: str) -> ClientFault:
    """The fault that tells why such a token doesn't count. `reason` is a slug."""
    return ClientFault("logout_token_refused", f"the logout token was refused: {reason}", evidence={"reason": reason})


def _moment(claims: Mapping[str, object], claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise refused(claim)
    return value


def _text(claims: Mapping[str, object], claim: str) -> str:
    value = claims.get(claim, "")
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise refused(claim)
    return value
