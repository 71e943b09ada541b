"""What goes on beside is held on to, told of when it fails, and over with its owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubgate import tasks
from hubgate.tasks import Tasks


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the loop's exception handler hears."""
    monkeypatch.setattr(tasks, "_PAUSE", 0.0)
    heard: list[str] = []

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        heard.append(f"{context['message']}: {context['exception']}")

    asyncio.get_running_loop().set_exception_handler(hear)
    return heard


async def test_what_is_over_is_let_go_of() -> None:
    own = Tasks()

    async def answer() -> int:
        return 42

    assert await own.begin(answer(), name="short") == 42
    await asyncio.sleep(0)
    assert len(own) == 0


async def test_what_is_kept_begins_anew_when_it_fails_and_is_over_when_it_ends(told: list[str]) -> None:
    own = Tasks()
    faults = [ValueError("a strange record"), KeyError("another")]
    done = asyncio.Event()

    async def look() -> None:
        if faults:
            raise faults.pop(0)
        done.set()

    own.keep(look, name="upkeep")
    await done.wait()
    await own.end(patience=60)
    assert told == ["upkeep failed in itself: a strange record", "upkeep failed in itself: 'another'"]
    assert len(own) == 0


async def test_the_end_waits_as_long_as_it_may_and_then_cancels() -> None:
    own = Tasks()
    finished: list[str] = []

    async def quick() -> None:
        await asyncio.sleep(0)
        finished.append("quick")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            finished.append("endless")

    own.begin(quick(), name="quick")
    slow = own.begin(endless(), name="endless")
    await own.end(patience=0.05)
    assert finished == ["quick", "endless"]
    assert slow.cancelled()
    own.keep(endless, name="kept")
    await asyncio.sleep(0)
    await own.end()
    assert finished == ["quick", "endless", "endless"]
