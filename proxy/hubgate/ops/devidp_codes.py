"""One-time codes of the development identity provider's users: `core.totp`, and what was used so far."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping

from hubgate.core import totp


class OneTimeCodes:
    """`keys`: user name -> key in base32, "" for those who have none yet; `clock`: seconds since the epoch."""

    def __init__(self, keys: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._spent: dict[str, int] = {}  # user -> step of the last code that was good

    def enrolled(self, username: str) -> bool:
        """Whether they have a key."""
        return bool(self._keys[username])

    def accept(self, username: str, code: str, *, new_key: str = "") -> bool:
        """Whether a code is theirs and wasn't used. A good code makes `new_key` their key."""
        key = new_key or self._keys[username]
        verdict = totp.judge(key, code, now=self._clock(), last=self._spent.get(username, -1))
        if not isinstance(verdict, totp.Right):
            return False
        self._keys[username], self._spent[username] = key, verdict.step
        return True

    def uri(self, username: str, key: str) -> str:
        """What an authenticator app reads from a QR code."""
        return totp.provisioning_uri(key, account=username, issuer="hubgate development")


def new_key() -> str:
    """A key in base32. As with Keycloak, its bytes are printable."""
    return base64.b32encode(secrets.token_hex(10).encode()).decode()
