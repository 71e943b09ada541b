"""Which requests went the short way?"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hubgate.web import express


@dataclass
class Rides:
    """How many requests went the short way."""

    number: int = 0


@pytest.fixture
def rides(monkeypatch: pytest.MonkeyPatch) -> Rides:
    """Counted from here on."""
    counted = Rides()
    start = express._Ride.start

    def counting(ride: express._Ride) -> None:
        counted.number += 1
        start(ride)

    monkeypatch.setattr(express._Ride, "start", counting)
    return counted
