"""A gateway that will sign anything: the tests' own signer, independent of the real one."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

ISSUER = "https://jupyter.example.org"


class Gateway:
    """`algorithm`: EdDSA or ES256."""

    def __init__(self, issuer: str = ISSUER, *, kid: str = "k1", algorithm: str = "EdDSA") -> None:
        self.issuer = issuer
        self.kid = kid
        self.algorithm = algorithm
        ed = algorithm == "EdDSA"
        self.private = ed25519.Ed25519PrivateKey.generate() if ed else ec.generate_private_key(ec.SECP256R1())
        exported = (OKPAlgorithm if ed else ECAlgorithm).to_jwk(self.private.public_key())
        self.jwk: dict[str, Any] = {**json.loads(exported), "kid": kid}

    def jwks(self, *others: Mapping[str, Any]) -> bytes:
        return json.dumps({"keys": [self.jwk, *others]}).encode()

    def claims(self, username: str = "alice", *, audience: str = "htc01", **changed: Any) -> dict[str, Any]:
        now = int(changed.pop("now", time.time()))
        claims = {
            "use": "login",
            "iss": self.issuer,
            "sub": username,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
            "sid": "s-1",
            "acr": "mfa",
            "amr": ["pwd", "otp"],
            "auth_time": now - 30,
            "groups": ["atlas"],
        }
        return {claim: value for claim, value in (claims | changed).items() if value is not None}

    def assertion(self, username: str = "alice", *, header: Mapping[str, Any] | None = None, **changed: Any) -> str:
        """A claim or header field of None is left out."""
        fields = {"typ": "hubgate+jwt", "kid": self.kid, **(header or {})}
        # Not jwt.encode(): it refuses to write some of what a verifier must be able to read.
        payload = json.dumps(self.claims(username, **changed)).encode()
        return jwt.PyJWS().encode(payload, self.private, self.algorithm, headers=fields)
