"""Fixtures of tests that need a `Scene`: such a module says `pytest_plugins = ["tests.kit.scene_fixtures"]`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.kit.background import Background
from tests.kit.embedded import EmbeddedProvider
from tests.kit.running import RunningGateway
from tests.kit.scene import Scene


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    """A thread in which hubs and a provider answer while a test waits for a gateway."""
    with Background() as running:
        yield running


@pytest.fixture(scope="session")
def embedded(background: Background) -> EmbeddedProvider:
    """The embedded provider: quick, and free to fail."""
    return EmbeddedProvider(background)


@pytest.fixture
async def scene(
    background: Background, embedded: EmbeddedProvider, gateway: Callable[..., RunningGateway]
) -> AsyncIterator[Scene]:
    """Hubs, provider and people for gateways of this test's own; the provider is well again afterwards."""
    made = Scene(background, embedded, gateway)
    yield made
    for somebody in made.people:
        await somebody.__aexit__(None, None, None)
    embedded.mood = "well"
    embedded.place.up()
