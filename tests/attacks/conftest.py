"""The engine's tests run on both event loops; those before the smallest gateway, with and without its short way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.attacks.rides import rides
from tests.kit import gate
from tests.kit.loops import loop_factories

__all__ = ["rides"]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return loop_factories(item)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if getattr(metafunc.module, "gate", None) is gate.gate:
        metafunc.parametrize("way", [True, False], ids=["short", "long"], indirect=True)


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SHORT_WAY", getattr(request, "param", False))
