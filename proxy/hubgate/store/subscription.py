"""One Redis subscription that is kept up for ever, and that knows when it can't be trusted.

A stopped Redis, or a line that a firewall forgot, leaves a listener mute without an error, and whatever is published
while a line is down is gone (redis.io, "Pub/Sub delivery semantics": at most once). So the line is pinged several times
a second, silence ends it, and the reader is told of both the end and the new beginning. redis-py's own PubSub class
reconnects behind its caller's back, which would hide exactly that; only its connections are used.

RESP2 is spoken: in a subscribed connection every reply is then an array, pongs too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from hubgate.store.base import Lost, Message, Restored
from hubgate.store.connections import Line
from hubgate.store.inbox import Inbox

log = logging.getLogger(__name__)

PING_EVERY = 0.3
"""Seconds of silence after which a ping is sent."""
UNANSWERED = 2
"""So many pings in a row may stay unanswered; the wait after the last one ends the line: 0.9 s in all."""
CHECK_EVERY = 1.0
"""Seconds between two looks at whether the line still leads to the right Redis."""
SETUP = 0.8
"""Seconds to connect and subscribe."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
"""Seconds between attempts: doubling, from first to longest."""


class _Silent(Exception):
    """Nothing came, though it was asked for."""


class _Moved(Exception):
    """Another Redis has taken over; nobody publishes on this one any more."""


async def listen(
    connect: Callable[[], Line],
    channel: str,
    inbox: Inbox,
    *,
    on_restored: Callable[[], None],
    is_current: Callable[[Line], Awaitable[bool]],
) -> None:
    """Put what comes in on the channel into the inbox, until cancelled.

    `connect` makes a connection that isn't open yet. `on_restored` is called with every new beginning. `is_current` is
    asked now and then whether an open connection leads to where a new one would.
    """
    pause = FIRST_PAUSE
    told = False
    while True:
        try:
            async with _line(connect(), channel) as line:
                pause, told = FIRST_PAUSE, False
                log.info("store_subscription_up", extra={"channel": channel})
                inbox.put(Restored())
                on_restored()
                async for payload in _messages(line, is_current):
                    inbox.put(Message(payload))
        except Exception as error:  # noqa: BLE001 - whatever it is: if this ended unseen, revoked sessions would live on
            cause = type(error).__name__.lstrip("_")
            inbox.put(Lost(cause))
            if not told:  # once for each outage; the text of an error may hold anything
                log.warning("store_subscription_down", extra={"channel": channel, "cause": cause})
                told = True
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


@asynccontextmanager
async def _line(connection: Line, channel: str) -> AsyncIterator[Line]:
    """A connection that is subscribed, and confirmed to be."""
    try:
        async with asyncio.timeout(SETUP):
            await connection.connect()
            await connection.send_command("SUBSCRIBE", channel)
            await connection.read_response()
        yield connection
    finally:
        await connection.disconnect(nowait=True)


async def _messages(line: Line, is_current: Callable[[Line], Awaitable[bool]]) -> AsyncIterator[bytes]:
    # What counts are waits that were really waited, not the clock: a process that itself stood still for two seconds
    # finds the pong in its buffer and has missed nothing.
    silent = 0
    now = asyncio.get_running_loop().time
    check_at = now() + CHECK_EVERY
    while True:
        if now() >= check_at:
            if not await is_current(line):
                raise _Moved
            check_at = now() + CHECK_EVERY
        reply = await line.read_response(timeout=PING_EVERY)
        if reply is not None:
            silent = 0
            if reply[0] == b"message":
                yield reply[2]
            continue
        if silent == UNANSWERED:
            raise _Silent
        silent += 1
        async with asyncio.timeout(PING_EVERY):
            await line.send_command("PING")
