"""What is a hub told about a person, and how can it know that the gateway said it?

A JWT (RFC 7519) of our own type `hubgate+jwt`, signed with EdDSA over Ed25519 (RFC 8037), for one hub and for a minute
at most; docs/identity-assertion.md has the format, tests/vectors/assertion.json has vectors that both sides must pass.
This side only signs. The verifier is the other distribution, hub/, with another library, so that neither can lean on a
quirk of its own.

Which paths get an assertion, and how long one is reused, isn't known here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode

from hubgate.core.identity import Proof

TYPE = "hubgate+jwt"
"""`typ` of the header: no other token of any issuer may pass for an assertion (RFC 8725, 3.11)."""

ALGORITHM = "EdDSA"
"""Not RFC 9864's "Ed25519": PyJWT drops a whole key set over the newer name."""

LONGEST = 60
"""Seconds that an assertion may live. Hubs log headers when they fail, so what is in a log must be worthless soon."""

Use = Literal["login", "page"]
"""`login`: minted for one attempt to log in at the hub; `page`: good for comparing users, never for logging in."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an assertion says of a person. `name` and `email` are None where the site doesn't disclose them; `sid` is
    the handle of the gateway's session.
    """

    username: str
    groups: tuple[str, ...]
    sid: str
    proof: Proof
    name: str | None = None
    email: str | None = None


class Signer:
    """Signs in the gateway's name. `seeds`: Ed25519 private keys of 32 bytes, oldest to newest; `issuer`: public URL.

    Raises ValueError for no seeds or one of another size.
    """

    def __init__(self, seeds: Sequence[bytes], issuer: str) -> None:
        if not seeds:
            raise ValueError("at least one signing seed is needed")
        self._keys = tuple(_key(seed) for seed in seeds)
        self._issuer = issuer
        self._header = {"alg": ALGORITHM, "typ": TYPE, "kid": self._keys[-1].kid}

    def __repr__(self) -> str:
        return f"Signer({self._issuer!r}, keys={[key.kid for key in self._keys]})"

    @property
    def kid(self) -> str:
        """The id of the key that signs now: its thumbprint (RFC 7638)."""
        return str(self._header["kid"])

    def sign(self, subject: Subject, *, audience: str, use: Use, now: int, jti: str, lifetime: int = LONGEST) -> bytes:
        """The assertion for one hub, as the value of its header.

        `audience`: the hub's configured name; `now`: seconds since the epoch; `jti`: unique, not guessable.
        Raises ValueError when it could not be accepted: nobody, for nobody, without an id, or for too long.
        """
        if not (subject.username and audience and jti):
            raise ValueError("an assertion needs a username, an audience and a jti")
        if not 0 < lifetime <= LONGEST:
            raise ValueError(f"an assertion lives for 1 to {LONGEST} seconds")
        claims: dict[str, object] = {
            "use": use,
            "iss": self._issuer,
            "sub": subject.username,
            # A string, never a list: a hub must not have to ask which of several it is.
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": jti,
            "sid": subject.sid,
            "amr": list(subject.proof.amr),
            "groups": list(subject.groups),
        }
        # What is not known is left out: an empty acr or a time of 0 would be claims about something.
        optional = {
            "acr": subject.proof.acr or None,
            "auth_time": subject.proof.auth_time or None,
            "name": subject.name,
            "email": subject.email,
        }
        claims |= {claim: value for claim, value in optional.items() if value is not None}
        payload = json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
        return jws.serialize_compact(dict(self._header), payload, self._keys[-1], registry=_REGISTRY).encode()

    def jwks(self) -> bytes:
        """The public keys as a JWK Set (RFC 7517, 5), all of them: what an older key signed stays good for a while."""
        keys = [key.as_dict(private=False) | {"use": "sig", "alg": ALGORITHM} for key in self._keys]
        return json.dumps({"keys": keys}, separators=(",", ":")).encode()


class _Registry(JWSRegistry):
    """joserfc's registry, which otherwise warns at each signature that EdDSA has a newer name."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[ALGORITHM]


_REGISTRY = _Registry()


def _key(seed: bytes) -> OKPKey:
    # Raises ValueError for a seed of another size than 32 bytes.
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    # RFC 8037, 2: `d` is the seed itself.
    encoded = {"x": urlsafe_b64encode(public).decode(), "d": urlsafe_b64encode(seed).decode()}
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", **encoded})
    key.ensure_kid()
    return key
