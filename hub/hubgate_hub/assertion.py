"""Did the gateway say so, about whom, to this hub, and just now?

The verifying side of the identity assertion; docs/identity-assertion.md has the wire format, tests/vectors the vectors
that the signing side must pass too. The signature is the boundary between the hub and everything that can reach its
port, and every notebook can, so each check here is one that somebody could otherwise walk through.

Pure: no clock, no network, no JupyterHub. Where keys come from is `keys`; what a refusal looks like to the person who
met it is `doors`.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

HEADER = "X-Hubgate-Assertion"
TYPE = "hubgate+jwt"
"""`typ` of the JOSE header: a token of another kind, signed with the same key, is no assertion (RFC 8725, 3.11)."""

SKEW = 5
"""Seconds by which the clocks of gateway and hub may differ."""

LONGEST = 60
"""Seconds that an assertion may live."""

SIZE_LIMIT = 16_384
"""Characters that are parsed at most: room for some hundred groups, and none for somebody who wants us to be busy."""

# The kind of a key decides its algorithm, so a token can't choose one (RFC 8725, 3.1). Both are asymmetric: a public
# key can never be taken for an HMAC secret.
_ALGORITHMS = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_JWS = jwt.PyJWS()


class Refused(Exception):
    """Nobody is let in on this. `reason`: stable slug; `detail`: for the log, with nothing secret in it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Key:
    """A public key of the gateway, for one algorithm only."""

    kid: str
    algorithm: str
    public: Any


@dataclass(frozen=True)
class Assertion:
    """What a verified assertion says. Times are seconds since the epoch; None or empty: the gateway didn't say."""

    use: str
    username: str
    issuer: str
    audience: str
    issued_at: int
    expires_at: int
    jti: str
    sid: str
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    groups: tuple[str, ...] = ()
    name: str | None = None
    email: str | None = None


@dataclass(frozen=True)
class Expectation:
    """What this hub expects: `issuer` is the gateway's public URL, `audience` this hub's name at the gateway."""

    issuer: str
    audience: str


def parse_keys(document: bytes) -> dict[str, Key]:
    """The usable keys of a JWK Set (RFC 7517, 5) by their `kid`.

    Keys of other kinds are passed over, as the RFC asks for. Raises ValueError when there is none at all.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("this is no JWK Set") from error
    keys: dict[str, Key] = {}
    for entry in entries if isinstance(entries, list) else ():
        key = _key(entry)
        if key is not None:
            keys.setdefault(key.kid, key)
    if not keys:
        raise ValueError("the JWK Set has no key for EdDSA (Ed25519) or ES256 (P-256)")
    return keys


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict):
        return None
    kid, algorithm = entry.get("kid"), _ALGORITHMS.get((str(entry.get("kty")), str(entry.get("crv"))))
    if not isinstance(kid, str) or not kid or algorithm is None:
        return None
    if entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig" or "d" in entry:
        # "d": somebody published a private key; whoever read it could sign.
        return None
    try:
        return Key(kid, algorithm, jwt.PyJWK(entry, algorithm=algorithm).key)
    except jwt.PyJWTError:
        return None


def key_id(token: str) -> str:
    """The `kid` of the key that a token claims to be signed with, after everything that can be said without a key.

    Raises Refused: `too_large`, `malformed`, `wrong_alg`, `wrong_typ`, `critical_header`, `unknown_key`.
    """
    if len(token) > SIZE_LIMIT:
        raise Refused("too_large", f"{len(token)} characters, {SIZE_LIMIT} at most")
    if not _COMPACT.fullmatch(token):
        raise Refused("malformed", "not a JWS in compact form")
    header = _object(_unpadded(token.partition(".")[0]), "header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in _ALGORITHMS.values():
        raise Refused("wrong_alg", f"alg {_shown(algorithm)}")
    if header.get("typ") != TYPE:
        raise Refused("wrong_typ", f"typ {_shown(header.get('typ'))}, expected {TYPE!r}")
    if "crit" in header or "b64" in header:
        # RFC 7515, 4.1.11: whoever doesn't understand an extension refuses, and we have none. Not left to PyJWT, which
        # passed them over before 2.12.
        raise Refused("critical_header", f"crit {_shown(header.get('crit'))}")
    if not isinstance(kid, str) or not kid:
        raise Refused("unknown_key", f"kid {_shown(kid)}")
    return kid


def verify(token: str, key: Key, *, expect: Expectation, use: str, now: float) -> Assertion:
    """What the token proves, if `key` signed it for this purpose, this hub and this moment.

    `token` must have passed `key_id`. `use`: "login" or "page". `now`: seconds since the epoch.
    Raises Refused; the reasons are those of docs/identity-assertion.md.
    """
    # PyJWT says whether the signature holds. What the claims must be is said here, where each has a reason of its own:
    # PyJWT takes lists for `aud`, floats and true for times, and an empty `sub`.
    try:
        payload = _JWS.decode(token, key.public, algorithms=[key.algorithm])
    except jwt.InvalidSignatureError as error:
        raise Refused("tampered", f"the signature is not that of {_shown(key.kid)}") from error
    except jwt.InvalidAlgorithmError as error:
        raise Refused("wrong_alg", f"{_shown(key.kid)} is a key for {key.algorithm}") from error
    except jwt.PyJWTError as error:
        raise Refused("malformed", type(error).__name__) from error
    claims = _object(payload, "payload")
    for claim, expected, reason in (
        ("iss", expect.issuer, "wrong_issuer"),
        ("aud", expect.audience, "wrong_audience"),
        ("use", use, "wrong_use"),
    ):
        # A list that holds the right one is not the right one.
        if claims.get(claim) != expected or not expected:
            raise Refused(reason, f"{claim} {_shown(claims.get(claim))}, expected {expected!r}")
    assertion = Assertion(
        use=use,
        username=_text(claims, "sub", "empty_sub"),
        issuer=expect.issuer,
        audience=expect.audience,
        issued_at=_moment(claims, "iat"),
        expires_at=_moment(claims, "exp"),
        jti=_text(claims, "jti", "missing_jti"),
        sid=_text(claims, "sid", "malformed"),
        acr=_text(claims, "acr", "malformed") if "acr" in claims else None,
        amr=_texts(claims, "amr", "malformed"),
        auth_time=_moment(claims, "auth_time") if "auth_time" in claims else None,
        groups=_texts(claims, "groups", "groups_malformed"),
        name=_text(claims, "name", "malformed") if claims.get("name") else None,
        email=_text(claims, "email", "malformed") if claims.get("email") else None,
    )
    _check_times(assertion, not_before=_moment(claims, "nbf"), now=now)
    return assertion


def check_fresh(assertion: Assertion, *, started: float) -> None:
    """Refuse a login that was minted before this hub's start, at `started` (seconds since the epoch).

    What was used up before a restart has been forgotten with it. Whole seconds: an `iat` of the second in which the hub
    started may lie on either side, so it counts as before.
    """
    if assertion.issued_at <= started:
        raise Refused("before_start", f"iat {assertion.issued_at}, started at {math.floor(started)}")


class Seen:
    """The `jti`s of logins that were accepted, each until nothing could accept it any more.

    Only verified assertions come here, so a flood of false ones can't push out a true one; and when it is full, the
    answer is no, rather than forgetting.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._until: dict[str, float] = {}
        self._limit = limit
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def use_up(self, assertion: Assertion, *, now: float) -> None:
        """Return once for each `jti`; raise Refused `replayed` afterwards, `too_many_logins` when full."""
        if now >= self._sweep_at or len(self._until) >= self._limit:
            self._until = {jti: until for jti, until in self._until.items() if until > now}
            self._sweep_at = now + LONGEST
        if assertion.jti in self._until:
            raise Refused("replayed", f"jti {_shown(assertion.jti)} of {_shown(assertion.username)}")
        if len(self._until) >= self._limit:
            raise Refused("too_many_logins", f"{self._limit} logins within {LONGEST + SKEW} s")
        self._until[assertion.jti] = assertion.expires_at + SKEW


def _check_times(assertion: Assertion, *, not_before: int, now: float) -> None:
    lifetime = assertion.expires_at - assertion.issued_at
    if not 0 < lifetime <= LONGEST:
        raise Refused("too_long_lived", f"exp is {lifetime} s after iat, {LONGEST} at most")
    if now >= assertion.expires_at + SKEW:
        raise Refused("expired", f"{now - assertion.expires_at:.0f} s ago by this machine's clock")
    ahead = max(assertion.issued_at, not_before) - now
    if ahead > SKEW:
        raise Refused("future", f"issued {ahead:.0f} s in the future by this machine's clock")


def _unpadded(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise Refused("malformed", "not base64url") from error


def _object(document: bytes, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"the {what} is not JSON") from error
    if not isinstance(value, dict):
        raise Refused("malformed", f"the {what} is not a JSON object")
    return value


def _text(claims: Mapping[str, Any], claim: str, reason: str) -> str:
    value = claims.get(claim)
    if not _is_text(value):
        raise Refused(reason, f"{claim} {_shown(value)}")
    return str(value)


def _texts(claims: Mapping[str, Any], claim: str, reason: str) -> tuple[str, ...]:
    values = claims.get(claim)
    if not isinstance(values, list) or not all(_is_text(value) for value in values):
        raise Refused(reason, f"{claim} {_shown(values)}")
    return tuple(values)


def _is_text(value: Any) -> bool:
    # JSON can say half a surrogate pair: no octets could ever equal it, and no database would store it.
    return isinstance(value, str) and bool(value) and not any("\ud800" <= char <= "\udfff" for char in value)


def _moment(claims: Mapping[str, Any], claim: str) -> int:
    value = claims.get(claim)
    # bool is an int to Python; fractions are times to RFC 7519, and not to this format; 2**53 is where JSON's end.
    if type(value) is not int or not 0 <= value < 2**53:
        raise Refused("times_malformed", f"{claim} {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value from outside, as it may stand in a log: one line, and not a long one."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
