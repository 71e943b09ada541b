"""Whose one-time codes are which? The keys of the demo's people, as a phone would have them.

Alice and carol bring a phone; its key stands in `realm.json`. With Keycloak's second factor Keycloak knows it from
there. With hubgate's own (`--mfa gateway`) it is enrolled before the first login, through the same code that enrols
people: with the demo's configuration in hand, an operator of it can do so, and read what somebody enrolled later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.config import load
from hubgate.core.identity import Identity
from hubgate.core.keyring import Keyring
from hubgate.ops.demo.realm import DemoUser
from hubgate.store import open_store
from hubgate.web.factors import Factors


def enrol(config: Path, people: Iterable[tuple[Identity, DemoUser]]) -> None:
    """Gives each of them the second factor that their phone has; whoever has one already keeps it."""

    async def enrolled() -> None:
        async with _factors(config) as factors:
            for identity, user in people:
                await factors.enrol(identity, user.totp_key, step=-1, replaces="")

    asyncio.run(enrolled())


def key(config: Path, identity: Identity) -> str:
    """The key that this person enrolled, base32; empty for none. StoreFault when the demo isn't running."""

    async def read() -> str:
        async with _factors(config) as factors:
            enrolment = await factors.of(identity)
            return enrolment.key if enrolment else ""

    return asyncio.run(read())


@asynccontextmanager
async def _factors(config: Path) -> AsyncIterator[Factors]:
    read = load(config)
    store = open_store(read.store.url.reveal())
    try:
        yield Factors(store, Keyring(read.keys))
    finally:
        await store.close()
