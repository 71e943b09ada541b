"""Garbage is looked for again once a process serves, and what was there before is left alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from hubgate.ops import garbage


@pytest.fixture
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("as_before")
def test_nothing_is_looked_at_while_starting_and_cycles_go_while_serving() -> None:
    garbage.while_starting()
    assert not gc.isenabled()
    garbage.while_serving()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gone = weakref.ref(Knot())
    kept = [[number] for number in range(2 * gc.get_threshold()[0])]
    assert gone() is None, f"still there after {len(kept)} more objects"
