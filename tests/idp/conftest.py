"""A development provider, clients of it, and a clock that tests can turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubgate import config
from hubgate.ops.devidp import DevIdp, DevUser, serving

ALICE_KEY = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
SECRET = "sécret %41+&=:/ with everything"
CALLBACK = "https://127.0.0.1:8443/_hubgate/callback"
USERS = {
    "alice": DevUser("alice-pw", ALICE_KEY, ("atlas", "portal-admins"), "Alice A", "alice@example.org"),
    "bob": DevUser("bob-pw", groups=("atlas",), name="Bob B", email="bob@example.org"),
}


class Clock:
    """A time that passes when a test says so."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def oidc(issuer: str, **changed: Any) -> config.Oidc:
    values: dict[str, Any] = {"issuer": issuer, "client_id": "hubgate", "client_secret": config.Secret(SECRET)}
    return config.Oidc(**(values | changed))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def devidp(clock: Clock) -> AsyncIterator[DevIdp]:
    async with serving(USERS, "hubgate", SECRET, clock=clock) as idp:
        yield idp
