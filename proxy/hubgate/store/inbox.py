"""The events of one subscription on their way to the one who reads them.

A reader that is too slow must not cost memory without bound, nor miss anything without knowing: when the inbox is full,
everything in it is dropped and replaced by what it amounts to, `Lost` and `Restored`: re-read what you cached.
The inbox knows nothing of where events come from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from hubgate.store.base import Event, Lost, Message, Restored

CAPACITY = 4096
"""Events. Above this, reading everything again is no dearer than going through them one by one."""


class Inbox(AsyncIterator[Event]):
    """For one reader. `put` never waits; iterating ends after `close`, when everything put before was read."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._something = asyncio.Event()
        self._in_place = False
        self._told_in_place = False
        self._closed = False

    def put(self, event: Event) -> None:
        """Append an event. `Lost` and `Restored` take turns, beginning with `Restored`: one too many is dropped."""
        match event:
            case Restored():
                if self._in_place:
                    return
                self._in_place = True
            case Lost():
                if not self._in_place:
                    return
                self._in_place = False
            case Message():
                pass
        if len(self._events) < self._capacity:
            self._events.append(event)
        else:
            self._summarise()
        self._something.set()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._something.set()

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        event = self._events.popleft()
        if not isinstance(event, Message):
            self._told_in_place = isinstance(event, Restored)
        return event

    def _summarise(self) -> None:
        self._events.clear()
        if self._told_in_place:
            self._events.append(Lost("more messages than could be read"))
        if self._in_place:
            self._events.append(Restored())
