"""One-time codes of the development identity provider's users.

RFC 6238 by pyotp, an extra that a gateway at a site has no need of, with what pyotp leaves to its callers: digits are
ASCII's, and a code is good once (5.2).
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Callable, Mapping

from hubgate.errors import OperatorFault

STEP = 30
"""Seconds that a code lasts; the one before and the one after are good as well."""


class OneTimeCodes:
    """`keys`: user name -> key in base32, "" for those who have none yet; `clock`: seconds since the epoch.

    Raises OperatorFault `devidp_needs_pyotp`.
    """

    def __init__(self, keys: Mapping[str, str], clock: Callable[[], float]) -> None:
        try:
            import pyotp  # noqa: PLC0415 - an extra
        except ImportError as error:
            message = "the development identity provider needs pyotp: pip install 'hubgate[demo]'"
            raise OperatorFault("devidp_needs_pyotp", message) from error
        self._totp = pyotp.TOTP
        self._keys = dict(keys)
        self._clock = clock
        self._spent: dict[str, int] = {}  # user -> counter of the last code that was good

    def enrolled(self, username: str) -> bool:
        """Whether they have a key."""
        return bool(self._keys[username])

    def accept(self, username: str, code: str, *, new_key: str = "") -> bool:
        """Whether a code is theirs and wasn't used. A good code makes `new_key` their key."""
        if not re.fullmatch("[0-9]{6}", code):
            return False
        key = new_key or self._keys[username]
        now = int(self._clock()) // STEP
        for counter in range(max(now - 1, self._spent.get(username, -1) + 1), now + 2):
            if hmac.compare_digest(self._totp(key, interval=STEP).generate_otp(counter), code):
                self._keys[username], self._spent[username] = key, counter
                return True
        return False

    def uri(self, username: str, key: str) -> str:
        """What an authenticator app reads from a QR code."""
        return self._totp(key, interval=STEP).provisioning_uri(name=username, issuer_name="hubgate development")


def new_key() -> str:
    """A key in base32. As with Keycloak, its bytes are printable."""
    return base64.b32encode(secrets.token_hex(10).encode()).decode()
