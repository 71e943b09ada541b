from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.store.base import Event, Lost, Message, Restored
from hubgate.store.inbox import Inbox


async def drain(inbox: Inbox) -> list[Event]:
    inbox.close()
    return [event async for event in inbox]


async def test_lost_and_restored_take_turns_beginning_with_restored() -> None:
    inbox = Inbox()
    for event in (Lost("a"), Lost("b"), Restored(), Restored(), Message(b"1"), Lost("c"), Lost("d"), Restored()):
        inbox.put(event)
    assert await drain(inbox) == [Restored(), Message(b"1"), Lost(), Restored()]


async def test_a_reader_waits_for_what_comes() -> None:
    inbox = Inbox()
    reader = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    assert not reader.done()
    inbox.put(Restored())
    assert await reader == Restored()
    reader = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox.close()
    with pytest.raises(StopAsyncIteration):
        await reader


async def test_more_than_can_be_read_is_a_new_beginning() -> None:
    inbox = Inbox(capacity=3)
    inbox.put(Restored())
    assert await anext(inbox) == Restored()
    for n in range(3):
        inbox.put(Message(b"%d" % n))
    inbox.put(Message(b"too many"))
    inbox.put(Message(b"after"))
    assert await drain(inbox) == [Lost(), Restored(), Message(b"after")]


async def test_a_reader_who_was_told_nothing_yet_begins_with_restored() -> None:
    inbox = Inbox(capacity=3)
    inbox.put(Restored())
    for n in range(10):
        inbox.put(Message(b"%d" % n))
    events = await drain(inbox)
    assert events[0] == Restored()
    assert Lost() not in events


@given(
    st.lists(st.sampled_from(["put", "put", "put", "read"]), max_size=60),
    st.lists(st.sampled_from(["message", "lost", "restored"]), min_size=60, max_size=60),
    st.integers(2, 5),
)
def test_whoever_follows_the_rules_misses_nothing(steps: list[str], kinds: list[str], capacity: int) -> None:
    """A reader who re-reads everything at `Restored` knows, after the last event, all that happened in between."""

    async def play() -> None:
        inbox = Inbox(capacity)
        happened, in_place = 0, False  # what a re-read would show; whether the source could tell
        events: list[tuple[Event, int]] = []
        for step, kind in zip(steps, kinds, strict=False):
            if step == "read":
                if inbox._events:
                    events.append((await anext(inbox), happened))
                continue
            match kind:
                case "lost":
                    inbox.put(Lost())
                    in_place = False
                case "restored":
                    inbox.put(Restored())
                    in_place = True
                case _:
                    happened += 1
                    if in_place:
                        inbox.put(Message(b"%d" % happened))
            assert len(inbox._events) <= capacity
        events += [(event, happened) for event in await drain(inbox)]

        known, told_in_place = 0, False
        for event, now in events:
            match event:
                case Restored():
                    assert not told_in_place
                    told_in_place, known = True, now
                case Lost():
                    assert told_in_place
                    told_in_place = False
                case Message(payload):
                    assert told_in_place
                    assert int(payload) <= known + 1  # none was left out
                    known = max(known, int(payload))
        assert told_in_place == in_place
        if in_place:
            assert known == happened

    asyncio.run(play())
