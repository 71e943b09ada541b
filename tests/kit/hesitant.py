"""A store in memory that gives others time between reading and writing, as the network to a Redis does."""

from __future__ import annotations

import asyncio

from hubgate.store.memory import MemoryStore


class Hesitant(MemoryStore):
    """After each read it waits; after reading a second factor so long that everybody else has read the same."""

    async def get(self, key: str) -> bytes | None:
        value = await super().get(key)
        await asyncio.sleep(0.1 if key.startswith("enrolment:") else 0.005)
        return value
