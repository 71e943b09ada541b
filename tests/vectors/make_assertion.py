"""Writes assertion.json: what the gateway signs, and what a hub must make of it.

Both distributions are held to the file: the gateway's signer must produce the accepted tokens to the byte, the hub's
verifier must come to the verdict beside each token. Seeds, times and ids are fixed and Ed25519 is deterministic
(RFC 8032, 5.1.6), so running this again gives the same file; a test sees to that.

Attackers' tokens are put together by hand, since no honest library makes them.

    python tests/vectors/make_assertion.py
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hubgate.core.assertion import Signer, Subject, Use
from hubgate.core.identity import Proof

FILE = Path(__file__).with_name("assertion.json")
ISSUER = "https://jupyter.example.org"
AUDIENCE = "htc01"
NOW = 1_800_000_000
STARTED = NOW - 30
SKEW = 5
LARGEST = 16 * 1024

OLD, NEW, FOREIGN = (bytes(range(start, start + 32)) for start in (0, 64, 128))
SIGNER = Signer([OLD, NEW], ISSUER)
ALICE = Subject(
    username="alice",
    groups=("atlas", "hpc-users"),
    sid="s-7f3a",
    proof=Proof(acr="mfa", amr=("pwd", "otp"), auth_time=NOW - 60),
)

ABOUT = (
    "Golden vectors of the identity assertion, docs/identity-assertion.md; made by tests/vectors/make_assertion.py. "
    "Each case is judged by itself at the time `now`, by a hub named `audience` that started at `started`, allows "
    "`skew` seconds and headers of `largest` bytes, and expects an assertion with the case's `use`. `expect` is "
    "`accept`, then `claims` are what the token says, or the reason to refuse. A refused token has this one thing "
    "wrong and nothing else. Every accepted token of use `login` is refused as `replayed` when it comes again."
)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def forge(header: object, payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    """A compact JWS (RFC 7515, 7.1) of whatever it is given."""
    signed = f"{b64(compact(header))}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def ed25519(seed: bytes) -> Callable[[bytes], bytes]:
    return Ed25519PrivateKey.from_private_bytes(seed).sign


HEADER: dict[str, Any] = {"alg": "EdDSA", "typ": "hubgate+jwt", "kid": SIGNER.kid}
CLAIMS: dict[str, Any] = {
    "use": "login",
    "iss": ISSUER,
    "sub": "alice",
    "aud": AUDIENCE,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "jti": "j-claims",
    "sid": "s-7f3a",
    "amr": ["pwd", "otp"],
    "groups": ["atlas", "hpc-users"],
    "acr": "mfa",
    "auth_time": NOW - 60,
}


def claims(*without: str, **changed: object) -> str:
    """Our own signature over changed claims: what a hub would get from a gateway with a bug."""
    said = {claim: value for claim, value in (CLAIMS | changed).items() if claim not in without}
    return forge(HEADER, compact(said), ed25519(NEW))


def header(*without: str, **changed: object) -> str:
    """Our own signature below a changed header."""
    said = {name: value for name, value in (HEADER | changed).items() if name not in without}
    return forge(said, compact(CLAIMS), ed25519(NEW))


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def accepted() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []

    def case(
        name: str,
        subject: Subject = ALICE,
        *,
        use: Use = "login",
        now: int = NOW,
        lifetime: int = 60,
        signer: Signer = SIGNER,
    ) -> None:
        token = signer.sign(subject, audience=AUDIENCE, use=use, now=now, jti=f"j-{name}", lifetime=lifetime).decode()
        said = json.loads(unb64(token.split(".")[1]))
        cases.append({"name": name, "use": use, "token": token, "expect": "accept", "claims": said})

    case("login")
    case("page", use="page")
    case("signed with the older key", signer=Signer([OLD], ISSUER))
    case("clock of the gateway 5 s ahead", now=NOW + SKEW)
    case("over for 4 s, within the skew", now=NOW - 24, lifetime=20)
    case("a page's, from before the hub started", use="page", now=STARTED - 10)
    case("short lived", lifetime=1)
    nothing_more = Subject(username="bob", groups=(), sid="s-0001", proof=Proof())
    case("no groups, no acr, no auth_time", nothing_more)
    profile = Subject(
        username="zoë.müller@example.org",
        groups=("größe", "/experiments/atlas", "with blank"),
        sid="s-7f3b",
        proof=ALICE.proof,
        name='Zoë "Z" Müller 😀',
        email="zoe@example.org",
    )
    case("name, e-mail address and letters beyond ASCII", profile)
    many = Subject(username="carol", groups=tuple(f"group-{n:03}" for n in range(400)), sid="s-2", proof=ALICE.proof)
    case("400 groups", many)
    return cases


def refused() -> list[dict[str, str]]:
    cases: list[dict[str, str]] = []

    def case(expect: str, name: str, token: str, *, use: Use = "login") -> None:
        cases.append({"name": f"{expect}: {name}", "use": use, "token": token, "expect": expect})

    good = forge(HEADER, compact(CLAIMS), ed25519(NEW))
    head, payload, signature = good.split(".")

    case("expired", "a second past the skew", claims(iat=NOW - 26, nbf=NOW - 26, exp=NOW - 6))
    case("expired", "a page's", claims(use="page", iat=NOW - 66, nbf=NOW - 66, exp=NOW - 6), use="page")
    case("future", "a second past the skew", claims(iat=NOW + 6, nbf=NOW + 6, exp=NOW + 66))
    case("future", "nbf alone", claims(nbf=NOW + 6))
    case("future", "iat alone", claims(iat=NOW + 6))
    case("too_long_lived", "an hour", claims(exp=NOW + 3600))
    case("too_long_lived", "a second", claims(exp=NOW + 61))
    case("before_start", "issued before the hub started", claims(iat=STARTED - 1, nbf=STARTED - 1, exp=NOW + 29))
    case("times_malformed", "no exp", claims("exp"))
    case("times_malformed", "no iat", claims("iat"))
    case("times_malformed", "no nbf", claims("nbf"))
    case("times_malformed", "exp is a text", claims(exp=str(NOW + 60)))
    case("times_malformed", "exp is true", claims(exp=True))
    case("times_malformed", "exp is null", claims(exp=None))
    infinite = compact(CLAIMS).replace(f'"exp":{NOW + 60}'.encode(), b'"exp":Infinity')
    case("times_malformed", "exp is Infinity", forge(HEADER, infinite, ed25519(NEW)))

    case("wrong_audience", "another hub", claims(aud="htc02"))
    case("wrong_audience", "starts like ours", claims(aud="htc011"))
    case("wrong_audience", "other case", claims(aud="HTC01"))
    case("wrong_audience", "empty", claims(aud=""))
    case("wrong_audience", "missing", claims("aud"))
    case("audience_list", "ours alone", claims(aud=[AUDIENCE]))
    case("audience_list", "ours and another", claims(aud=[AUDIENCE, "htc02"]))
    case("wrong_issuer", "another", claims(iss="https://evil.example.org"))
    case("wrong_issuer", "with a slash", claims(iss=ISSUER + "/"))
    case("wrong_issuer", "http", claims(iss=ISSUER.replace("https", "http")))
    case("wrong_issuer", "missing", claims("iss"))
    case("wrong_issuer", "a list", claims(iss=[ISSUER]))

    foreign = Signer([FOREIGN], ISSUER)
    case("unknown_key", "a foreign key", forge(HEADER | {"kid": foreign.kid}, compact(CLAIMS), ed25519(FOREIGN)))
    case("unknown_key", "kid missing", header("kid"))
    case("unknown_key", "kid empty", header(kid=""))
    case("unknown_key", "kid is a path", header(kid="../../dev/null"))
    case("unknown_key", "kid is a list", header(kid=[SIGNER.kid]))
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(public_key(FOREIGN))}
    own = HEADER | {"kid": foreign.kid, "jwk": jwk}
    case("unknown_key", "brings its key along", forge(own, compact(CLAIMS), ed25519(FOREIGN)))
    case(
        "tampered",
        "brings its key along under our kid",
        forge(HEADER | {"jwk": jwk}, compact(CLAIMS), ed25519(FOREIGN)),
    )
    case("tampered", "foreign signature under our kid", forge(HEADER, compact(CLAIMS), ed25519(FOREIGN)))
    case("tampered", "other key of the set", forge(HEADER, compact(CLAIMS), ed25519(OLD)))
    case("tampered", "another user", f"{head}.{b64(compact(CLAIMS | {'sub': 'admin'}))}.{signature}")
    case("tampered", "another header", f"{b64(compact(HEADER | {'cty': 'x'}))}.{payload}.{signature}")
    flipped = bytes([unb64(signature)[0] ^ 1]) + unb64(signature)[1:]
    case("tampered", "a bit of the signature", f"{head}.{payload}.{b64(flipped)}")
    case("tampered", "signature cut short", f"{head}.{payload}.{b64(unb64(signature)[:32])}")
    case("tampered", "signature of zeros", f"{head}.{payload}.{b64(bytes(64))}")
    case("tampered", "no signature", f"{head}.{payload}.")

    case("alg_none", "none", forge(HEADER | {"alg": "none"}, compact(CLAIMS), lambda _: b""))
    case("alg_none", "nOnE", forge(HEADER | {"alg": "nOnE"}, compact(CLAIMS), lambda _: b""))
    case("alg_none", "with our signature", header(alg="none"))
    for name, secret in {
        "its bytes": public_key(NEW),
        "its text": b64(public_key(NEW)).encode(),
        "the key set": SIGNER.jwks(),
    }.items():
        token = forge(HEADER | {"alg": "HS256"}, compact(CLAIMS), _hs256(secret))
        case("alg_hs256_with_public_key", name, token)
    case("wrong_alg", "RS256", header(alg="RS256"))
    case("wrong_alg", "empty", header(alg=""))
    case("wrong_alg", "a list", header(alg=["EdDSA"]))
    case("wrong_alg", "missing", header("alg"))
    case("critical_header", "an extension that nobody knows", header(crit=["hubgate"], hubgate=True))
    case("wrong_typ", "JWT", header(typ="JWT"))
    case("wrong_typ", "at+jwt", header(typ="at+jwt"))
    case("wrong_typ", "empty", header(typ=""))
    case("wrong_typ", "missing", header("typ"))

    case("wrong_use", "a page's for a login", claims(use="page"))
    case("wrong_use", "a login's for a page", claims(), use="page")
    case("wrong_use", "unknown", claims(use="admin"))
    case("wrong_use", "a list", claims(use=["login", "page"]))
    case("wrong_use", "missing", claims("use"))
    case("empty_sub", "empty", claims(sub=""))
    case("empty_sub", "missing", claims("sub"))
    case("empty_sub", "null", claims(sub=None))
    case("empty_sub", "a number", claims(sub=0))
    case("empty_sub", "a list", claims(sub=["alice"]))
    case("missing_jti", "missing", claims("jti"))
    case("missing_jti", "empty", claims(jti=""))
    case("missing_jti", "a number", claims(jti=7))
    case("groups_malformed", "a text", claims(groups="portal-admins"))
    case("groups_malformed", "a number in it", claims(groups=["atlas", 7]))
    case("groups_malformed", "missing", claims("groups"))

    case("two_parts", "two", f"{head}.{payload}")
    case("malformed", "empty", "")
    case("malformed", "one part", head)
    case("malformed", "four parts", f"{good}.{signature}")
    case("malformed", "five parts, as of a JWE", f"{head}.{payload}.{payload}.{payload}.{signature}")
    case("malformed", "Bearer before it", f"Bearer {good}")
    case("malformed", "two in one value", f"{good}, {good}")
    case("malformed", "not base64url", f"{head}.{payload[:-4]}!!!!.{signature}")
    case("malformed", "header is a list", forge([HEADER], compact(CLAIMS), ed25519(NEW)))
    case("malformed", "claims are a list", forge(HEADER, compact([CLAIMS]), ed25519(NEW)))
    case("malformed", "claims are no JSON", forge(HEADER, b"{'sub': 'alice'}", ed25519(NEW)))
    case("malformed", "claims are no UTF-8", forge(HEADER, compact(CLAIMS)[:-1] + b',"x":"\xff"}', ed25519(NEW)))
    case("too_large", "24 KB of groups", claims(groups=["x" * 24 * 1024]))
    return cases


def _hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.digest(secret, message, hashlib.sha256)


def build() -> dict[str, Any]:
    """The whole file as JSON."""
    return {
        "about": ABOUT,
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "now": NOW,
        "started": STARTED,
        "skew": SKEW,
        "largest": LARGEST,
        "jwks": json.loads(SIGNER.jwks()),
        "cases": [*accepted(), *refused()],
    }


def text() -> str:
    return json.dumps(build(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
