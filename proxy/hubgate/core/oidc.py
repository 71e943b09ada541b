"""Is this the answer to the question that we asked, and does it prove what we asked for?

Everything about a login with OpenID Connect that can be decided without talking to anybody: the callback's parameters,
the provider's keys, the ID token (OpenID Connect Core 1.0, 3.1.3.7; RFC 8725), where to go afterwards. joserfc does the
signatures; what it accepts although a login must not is checked here.

Faults name their reason in `evidence["reason"]` as a slug and never repeat what was received: a token in a log is a
token lost.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jwk import import_key as import_jwk
from joserfc.jws import CompactSignature, JWSRegistry

from hubgate.core.identity import Proof
from hubgate.errors import ClientFault, HubgateFault, ProviderFault

LARGEST_TOKEN = 16 * 1024
"""Bytes of a token that are looked at, at most."""

_LONGEST_QUERY = 16 * 1024
_LONGEST_NEXT = 4096

# Asymmetric ones only (RFC 8725, 3.1): never `none`, never an HMAC with a key that everybody can read. Beside each, the
# hash of its at_hash (OpenID Connect Core 1.0, 3.1.3.6; RFC 8032 for Ed25519).
_ALGORITHMS = {
    **{f"{family}{bits}": f"sha{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)},
    "EdDSA": "sha512",
    "Ed25519": "sha512",
}

# How a token says that it is an ID token, if it says so: `typ` of the header, and Keycloak's claim `typ`.
_ID_TOKEN_TYPES = frozenset({"jwt", "application/jwt", "id", "id_token"})


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """One login that was begun: what the callback will be compared with. `browser`: a hash of the cookie that binds it
    to one browser; `begun`: seconds since the epoch; `tries`: how many attempts came before, without a person's doing;
    `max_age`: seconds that the proof may be old, None where the provider's session is good enough.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    next: str
    browser: str = field(repr=False)
    begun: int
    tries: int = 0
    max_age: int | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON for the store; `from_record` reads it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LoginAttempt:
        """The attempt that `as_record` wrote. TypeError: it was not written by it."""
        return cls(**record)


@dataclass(frozen=True, slots=True)
class Expectations:
    """What an ID token must say.

    `nonce` is None for a token that came with a refresh (OpenID Connect Core 1.0, 12.2). `skew`, `max_age`: seconds.
    `acr`: exactly this one, None for any; `amr`: at least one of these, empty for any.
    """

    issuer: str
    client_id: str
    nonce: str | None
    skew: int
    acr: str | None = None
    amr: tuple[str, ...] = ()
    max_age: int | None = None


# --- The callback


def callback_params(query: str) -> dict[str, str]:
    """The parameters of the callback's query. A parameter that comes twice is refused (RFC 6749, 3.1): two readers
    would take different ones. Raises ClientFault `callback_malformed`.
    """
    if len(query) > _LONGEST_QUERY:
        raise _callback("too_long")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise _callback("not_parseable") from error
    params = dict(pairs)
    if len(params) != len(pairs):
        raise _callback("duplicate")
    return params


# error of the authorization response (RFC 6749, 4.1.2.1; OpenID Connect Core 1.0, 3.1.2.6) -> code, status
_DENIED = ("login_denied", 403)
_RESTART = ("login_restart", 400)
_CALLBACK_ERRORS = {
    "access_denied": _DENIED,
    # Keycloak: the form was open for too long, or another tab was faster.
    "temporarily_unavailable": _RESTART,
    "authentication_expired": _RESTART,
    "login_required": _RESTART,
    "interaction_required": _RESTART,
    "account_selection_required": _RESTART,
    "unmet_authentication_requirements": ("second_factor_missing", 403),
}


def authorization_code(params: Mapping[str, str], *, issuer: str, iss_required: bool) -> str:
    """The code that the provider sent, after RFC 9207's check that it was this provider.

    Raises ClientFault `callback_malformed`, `login_denied`, `login_restart`, `second_factor_missing`; ProviderFault
    `provider_error` for an error that is the provider's or the configuration's.
    """
    # Before anything else is believed, errors included: a mix-up attack begins with another server's answer.
    if "iss" in params and params["iss"] != issuer:
        raise _callback("wrong_issuer")
    if iss_required and "iss" not in params:
        raise _callback("issuer_missing")
    code, error = params.get("code"), params.get("error")
    if error is not None and code is not None:
        raise _callback("code_and_error")
    if error is not None:
        raise _callback_error(error)
    if not code:
        raise _callback("code_missing")
    return code


def error_slug(error: object) -> str:
    """An OAuth error code as it may be written down: anything that isn't one becomes `unknown`."""
    return error if isinstance(error, str) and re.fullmatch("[a-z][a-z_]{1,63}", error) else "unknown"


def _callback_error(error: str) -> HubgateFault:
    evidence = {"error": error_slug(error)}
    if error not in _CALLBACK_ERRORS:
        return ProviderFault("provider_error", "the provider refused the login", evidence=evidence)
    code, status = _CALLBACK_ERRORS[error]
    return ClientFault(code, "the provider did not complete the login", status=status, evidence=evidence)


def _callback(reason: str) -> ClientFault:
    return ClientFault("callback_malformed", "this is no answer to a login", evidence={"reason": reason})


# --- Where to go afterwards

# What a URL may hold as it is (RFC 3986, 2); "%" so that what is encoded stays encoded.
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
# A path that a reader less careful than a browser could take for `//host`, or that doesn't stay below its beginning.
_LEAVES = re.compile(r"^//|(^|/)\.{1,2}(;[^/]*)?(/|$)")


def safe_next(value: str | None, *, own_hosts: Collection[str]) -> str:
    """Where to send somebody after the login: a path on this site with its query and fragment, or "/" for everything
    that is missing or could lead away.

    `own_hosts`: `host[:port]` in lower case; an absolute URL with one of them counts as its path.
    """
    if not value or len(value) > _LONGEST_NEXT or _UNSAFE.search(value):
        return "/"
    if match := re.match(r"https?://([^/?#]*)", value, re.IGNORECASE):
        if match[1].lower() not in own_hosts:
            return "/"
        value = value[match.end() :]
    if not value.startswith("/"):
        return "/"
    path = re.split(r"[?#]", value, maxsplit=1)[0]
    for _ in range(3):  # as it stands, decoded, decoded twice
        if _UNSAFE.search(path) or _LEAVES.search(path):
            return "/"
        path = unquote(path, errors="surrogateescape")
    return quote(value, safe=_URL_CHARACTERS)


# --- The provider's keys


class _Registry(JWSRegistry):
    """Our algorithms, and silence about EdDSA's newer name."""

    def get_alg(self, name: str) -> Any:
        if name not in _ALGORITHMS:
            raise _refused("algorithm")
        return self.algorithms[name]


# Header parameters that nobody registered are to be ignored (RFC 7515, 4) unless they are critical.
_REGISTRY = _Registry(strict_check_header=False)


def signature_keys(jwks: object) -> tuple[Key, ...]:
    """The keys of a JWK Set (RFC 7517) that may sign an ID token. Others, whatever is wrong with them, are left out:
    a key that isn't understood must not spoil the set.
    """
    found = jwks.get("keys") if isinstance(jwks, Mapping) else None
    return tuple(key for jwk in (found if isinstance(found, list) else ()) if (key := _signature_key(jwk)))


def _signature_key(jwk: object) -> Key | None:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    try:
        key = import_jwk({name: value for name, value in jwk.items() if name not in _IGNORED})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    match key:
        # NIST SP 800-131A: nothing below 2048 bits; and what is longer than 8192 costs only time.
        case RSAKey():
            return key if 2048 <= key.raw_value.key_size <= 8192 else None
        # Ed448 is left out: its at_hash needs SHAKE256 by another rule, and no provider uses it.
        case OKPKey():
            return key if jwk.get("crv") == "Ed25519" else None
        case ECKey():
            return key
        case _:
            return None


# joserfc checks what these say against our use; a key's own words about it are `use` and `alg`.
_IGNORED = frozenset({"key_ops", "x5c", "x5u", "x5t", "x5t#S256", "ext"})


def token_header(token: str) -> dict[str, Any]:
    """The header of a signed token, of which nothing is verified yet: good for finding the key.

    Raises ProviderFault `id_token_refused` for what is too large, no compact JWS (RFC 7515, 7.1), or signed with an
    algorithm that isn't accepted.
    """
    return _signed(token).headers()


def _signed(token: str) -> CompactSignature:
    """A token taken apart, of which nothing is verified yet. Raises as `token_header` does."""
    if len(token) > LARGEST_TOKEN:
        raise _refused("too_large")
    try:
        signed = jws.extract_compact(token.encode(), registry=_REGISTRY)
        header = signed.headers()
        _REGISTRY.check_header(header)
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _refused("malformed") from error
    # RFC 7797's other way of signing has no place in a JWT (RFC 7797, 7).
    if "b64" in header:
        raise _refused("malformed")
    _REGISTRY.get_alg(header["alg"])
    return signed


def choose_key(keys: Sequence[Key], header: Mapping[str, Any]) -> Key | None:
    """The key that a header names. Without a `kid`, the only one that fits (OpenID Connect Core 1.0, 10.1)."""
    kid = header.get("kid")
    fitting = [
        key
        for key in keys
        if (kid is None or key.kid == kid)
        and key.get("alg", header["alg"]) == header["alg"]
        and key.key_type == _REGISTRY.get_alg(header["alg"]).key_type
    ]
    return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


def verified_claims(token: str, key: Key) -> dict[str, Any]:
    """The claims of a token that this key signed. Raises ProviderFault `id_token_refused`."""
    signed = _signed(token)
    try:
        if not jws.validate_compact(signed, key, registry=_REGISTRY):
            raise _refused("signature")
        claims = json.loads(signed.payload or b"")
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise _refused("signature" if isinstance(error, JoseError) else "malformed") from error
    if not isinstance(claims, dict):
        raise _refused("malformed")
    return claims


# --- The ID token


def check_id_token(
    claims: Mapping[str, object],
    header: Mapping[str, object],
    *,
    expect: Expectations,
    access_token: str | None,
    now: int,
) -> Proof:
    """What an ID token with a good signature proves about the login. `now`: seconds since the epoch.

    Raises ProviderFault `id_token_refused` when it isn't ours, isn't valid or isn't well-formed; ClientFault
    `second_factor_missing`, 403, with `evidence["subject"]`, when it is all that but the login was weaker than asked.
    """
    for typ in (header.get("typ"), claims.get("typ")):
        if typ is not None and str(typ).lower() not in _ID_TOKEN_TYPES:
            raise _refused("typ")
    if claims.get("iss") != expect.issuer:
        raise _refused("iss")
    _check_subject(claims)
    _check_audience(claims, expect.client_id)
    _check_times(claims, skew=expect.skew, now=now)
    if expect.nonce is not None and claims.get("nonce") != expect.nonce:
        raise _refused("nonce")
    if access_token is not None and "at_hash" in claims:
        _check_at_hash(claims["at_hash"], header, access_token)
    return _proof(claims, expect, now)


def _check_subject(claims: Mapping[str, object]) -> None:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable() or subject.isspace():
        raise _refused("sub")


def _check_audience(claims: Mapping[str, object], client_id: str) -> None:
    audience = claims.get("aud")
    several = audience if isinstance(audience, list) else [audience]
    if client_id not in several or not all(isinstance(one, str) for one in several):
        raise _refused("aud")
    # Who else may read it is the provider's business, for whom it was issued is ours.
    authorized = claims.get("azp")
    if authorized != client_id and (authorized is not None or len(several) > 1):
        raise _refused("azp")


def _check_times(claims: Mapping[str, object], *, skew: int, now: int) -> None:
    expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
    if now >= expires + skew:
        raise _refused("expired")
    if issued > now + skew or ("nbf" in claims and _moment(claims, "nbf") > now + skew):
        raise _refused("future")


def _moment(claims: Mapping[str, object], claim: str) -> float:
    """A NumericDate (RFC 7519, 2), which may have a fraction."""
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise _refused(claim)
    return value


def _check_at_hash(at_hash: object, header: Mapping[str, object], access_token: str) -> None:
    algorithm = _ALGORITHMS.get(str(header.get("alg")))
    if algorithm is None:
        raise _refused("algorithm")
    digest = hashlib.new(algorithm, access_token.encode()).digest()
    expected = urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(at_hash, str) or not hmac.compare_digest(at_hash.encode(errors="replace"), expected):
        raise _refused("at_hash")


def _proof(claims: Mapping[str, object], expect: Expectations, now: int) -> Proof:
    acr, amr, auth_time = claims.get("acr", ""), claims.get("amr", []), claims.get("auth_time", 0)
    if not isinstance(acr, str):
        raise _refused("acr")
    if not isinstance(amr, list) or not all(isinstance(method, str) and method for method in amr):
        raise _refused("amr")
    if isinstance(auth_time, bool) or not isinstance(auth_time, int) or auth_time < 0:
        raise _refused("auth_time")
    if auth_time > now + expect.skew:
        raise _refused("auth_time_future")
    if expect.acr is not None and acr != expect.acr:
        raise _weak("acr", claims)
    if expect.amr and set(expect.amr).isdisjoint(amr):
        raise _weak("amr", claims)
    # A missing auth_time is 0 and thereby stale.
    if expect.max_age is not None and now - auth_time > expect.max_age + expect.skew:
        raise _refused("auth_time_stale")
    return Proof(acr=acr, amr=tuple(amr), auth_time=auth_time)


def _refused(reason: str) -> ProviderFault:
    return ProviderFault("id_token_refused", f"the ID token was refused: {reason}", evidence={"reason": reason})


def _weak(reason: str, claims: Mapping[str, object]) -> ClientFault:
    # Who it was is known by now, and whoever can lead them to a second factor needs to know.
    return ClientFault(
        "second_factor_missing",
        f"the login was weaker than this site demands: {reason}",
        status=403,
        evidence={"reason": reason, "subject": str(claims["sub"])},
    )
