"""What a stored record looks like to those who can read the store: random bytes that fit nowhere else.

Records are JSON, sealed by AES-256-GCM (NIST SP 800-38D). Whoever reads the store, a dump of it or its replication
stream learns no name and no token; whoever can write to it can remove records, but can't make, change or swap any:
purpose and record key are authenticated along with the content, so that a record opens only where it was put.

A sealed value is: version (1 byte) | key id (4) | nonce (12) | ciphertext and tag. This module doesn't know what is in
the records, and doesn't talk to the store.

Nonces are random, which NIST limits to 2**32 values under one key (section 8.3): with one key per purpose that is
a thousand writes a second for seven weeks, or thirty for four years. Rotating `secret_keys` starts anew.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hubgate.core.keyring import Keyring
from hubgate.errors import StoreFault

log = logging.getLogger(__name__)

JSON: TypeAlias = Mapping[str, "JSON"] | Sequence["JSON"] | str | int | float | bool | None
"""What a record may hold (nested mappings are dicts, sequences lists or tuples; tuples come back as lists)."""

_written = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_VERSION = b"\x01"
_ID = slice(1, 5)
_NONCE = slice(5, 17)
_HEAD_LENGTH = 17
_TAG_LENGTH = 16


class UnknownKey(StoreFault):
    """The record is there, but this process lacks the key or is too old. It must never be taken for no record."""


class Tampered(StoreFault):
    """What is there was not put there by hubgate. To be taken for no record; it is in the log."""


class Sealer:
    """Seals and opens the records of one purpose."""

    def __init__(self, keyring: Keyring, purpose: str) -> None:
        keys = keyring.sealing_keys(purpose)
        self._purpose = purpose
        self._newest = (keys[-1].id, AESGCM(keys[-1].key))
        # Ids are short: should two keys ever share one, both are tried.
        self._ciphers: dict[bytes, list[AESGCM]] = {}
        for key in keys:
            self._ciphers.setdefault(key.id, []).append(AESGCM(key.key))

    def __repr__(self) -> str:
        return f"Sealer({self._purpose!r})"

    def seal(self, key: str, record: Mapping[str, JSON]) -> bytes:
        """The record as it may lie under this key. ValueError or TypeError when it isn't JSON (RFC 8259)."""
        content = _written(dict(record)).encode("ascii")
        key_id, cipher = self._newest
        nonce = os.urandom(12)
        return _VERSION + key_id + nonce + cipher.encrypt(nonce, content, self._context(key, key_id))

    def is_current(self, sealed: bytes) -> bool:
        """Whether the newest key sealed this; else it should be sealed anew before its key is taken away."""
        return sealed[_ID] == self._newest[0]

    def open(self, key: str, sealed: bytes) -> dict[str, JSON]:
        """The record that was sealed for this key. Raises UnknownKey or Tampered."""
        if not sealed:
            raise Tampered(
                "store_tampered", f"There is no {self._purpose} record.", evidence={"purpose": self._purpose}
            )
        if len(sealed) < _HEAD_LENGTH + _TAG_LENGTH:
            raise self._tampered("shorter than any sealed record")
        if sealed[:1] != _VERSION:
            raise UnknownKey(
                "store_unknown_key",
                f"A {self._purpose} record has a format that this version of hubgate doesn't know. "
                "Run the same version of hubgate everywhere.",
                evidence={"purpose": self._purpose},
            )
        key_id = sealed[_ID]
        ciphers = self._ciphers.get(key_id)
        if ciphers is None:
            raise UnknownKey(
                "store_unknown_key",
                f"A {self._purpose} record was sealed with a secret that isn't in gateway.secret_keys here. "
                "Give all gateways the same list; a new secret is added first and moved last later.",
                evidence={"purpose": self._purpose, "key_id": key_id.hex()},
            )
        context = self._context(key, key_id)
        for cipher in ciphers:
            try:
                content = cipher.decrypt(sealed[_NONCE], sealed[_HEAD_LENGTH:], context)
            except InvalidTag:
                continue
            record: dict[str, JSON] = json.loads(content)
            return record
        raise self._tampered("its seal is broken")

    def _context(self, key: str, key_id: bytes) -> bytes:
        purpose = self._purpose.encode()
        # The length in front keeps purpose and key apart: "ab" + "c" is not "a" + "bc".
        return _VERSION + key_id + len(purpose).to_bytes(2) + purpose + key.encode("utf-8", "surrogatepass")

    def _tampered(self, why: str) -> Tampered:
        # Whoever opens a record takes it for none and goes on: this is where operators hear of it.
        log.warning("store_tampered", extra={"purpose": self._purpose, "why": why})
        return Tampered(
            "store_tampered",
            f"A {self._purpose} record in the store wasn't written by hubgate under this key: {why}. "
            "Find out who else can write to the store.",
            evidence={"purpose": self._purpose},
        )
