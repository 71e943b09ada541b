"""Which key does what: every key that hubgate uses, derived from the few secrets that a site keeps.

A site configures a list of secrets, oldest to newest. From each one HKDF (RFC 5869, SHA-256) derives one key per
purpose, so that a tag made for one purpose is worth nothing for another, and no derived key tells anything about its
secret. What is made anew uses the newest secret, what is checked or opened may come from any of them: that is how a
secret is replaced without logging anybody out.

This module doesn't know what is sealed, tagged or signed, nor where secrets come from. The derivation is a promise:
changing a byte of it makes every stored session unreadable, which is why golden vectors hold it (tests/core).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SHORTEST_SECRET = 32
"""Bytes. What is derived is 256 bits long and can't be better than what it comes from."""

SHORTEST_TAG = 16
"""Bytes. A tag may be cut to this length (128 bits; RFC 2104 section 5 asks for no less than half of the hash)."""

_SALT = b"hubgate keyring 1"
_KEY_LENGTH = 32
_ID_LENGTH = 4


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key for AES-256-GCM. `id` (4 bytes) tells which key sealed something: no secret, and two might collide."""

    id: bytes
    key: bytes = field(repr=False)


class Keyring:
    """All keys of a site. `secrets`: oldest to newest, each of at least 32 bytes.

    Raises ValueError for an empty list, a short secret, or one that is listed twice. The message never holds a secret.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed")
        for place, secret in enumerate(secrets, start=1):
            if len(secret) < SHORTEST_SECRET:
                raise ValueError(
                    f"secret {place} of {len(secrets)} has {len(secret)} bytes, at least {SHORTEST_SECRET} are needed"
                )
        if len(set(secrets)) != len(secrets):
            raise ValueError("the same secret is listed twice")
        self._secrets = tuple(bytes(secret) for secret in secrets)
        # Purposes are constants in the code, so this memo stays as small as their number.
        self._mac_keys: dict[str, tuple[bytes, ...]] = {}

    def __repr__(self) -> str:
        return f"Keyring({len(self._secrets)} secrets)"

    def sealing_keys(self, purpose: str) -> tuple[SealingKey, ...]:
        """Keys for what is kept under this purpose, the newest last: seal with that one, open with any."""
        return tuple(
            SealingKey(
                id=_derive(secret, "seal-id", purpose, _ID_LENGTH),
                key=_derive(secret, "seal", purpose, _KEY_LENGTH),
            )
            for secret in self._secrets
        )

    def mac(self, purpose: str, message: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of the message, 32 bytes, by the newest key."""
        return hmac.digest(self._macs(purpose)[-1], message, "sha256")

    def mac_matches(self, purpose: str, message: bytes, tag: bytes) -> bool:
        """Whether any key of this purpose made the tag, whole or cut to at least 16 bytes.

        Each key is tried and each comparison takes constant time: how long it takes tells nothing about the tag.
        """
        if not SHORTEST_TAG <= len(tag) <= _KEY_LENGTH:
            return False
        matches = False
        for key in self._macs(purpose):
            matches |= hmac.compare_digest(hmac.digest(key, message, "sha256")[: len(tag)], tag)
        return matches

    def signing_seeds(self) -> tuple[bytes, ...]:
        """Seeds of Ed25519 private keys (RFC 8032 section 5.1.5), 32 bytes each, the newest last."""
        return tuple(_derive(secret, "sign", "assertion", _KEY_LENGTH) for secret in self._secrets)

    def _macs(self, purpose: str) -> tuple[bytes, ...]:
        keys = self._mac_keys.get(purpose)
        if keys is None:
            keys = tuple(_derive(secret, "mac", purpose, _KEY_LENGTH) for secret in self._secrets)
            self._mac_keys[purpose] = keys
        return keys


def _derive(secret: bytes, use: str, purpose: str, length: int) -> bytes:
    # `use` is one of ours and has no colon, so two pairs of use and purpose never give the same `info`.
    info = f"{use}:{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=length, salt=_SALT, info=info).derive(secret)
