"""hub/ is a distribution of its own, which this environment need not have installed; and real hubs for the tests that
play the gateway.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "hub"))

# These talk to JupyterHub and tornado by import. The environments of the hubs run them (test_hub_units.py); the rest of
# unit/ runs everywhere.
collect_ignore = (
    []
    if importlib.util.find_spec("jupyterhub")
    else [f"unit/test_hub_{name}.py" for name in ("authenticator", "doors", "keys", "selfcheck")]
)

VERSIONS = ("5.5", "6.1")


@pytest.fixture(scope="module", params=VERSIONS)
def environment(request: pytest.FixtureRequest):
    """One of the environments of the hubs, made if need be."""
    # Imported here: the hubs' environments read this file too, and have no hubgate.
    from hubgate.ops.demo import hubs
    from hubgate.ops.demo.progress import Progress

    return hubs.environment(request.param, Progress())


@pytest.fixture(scope="module")
def gateway() -> Iterator:
    """The tests' own gateway, with its keys published."""
    from tests.hub.playing import published
    from tests.hub.signing import Gateway

    played = Gateway()
    with published(played):
        yield played


@pytest.fixture(scope="module")
def start_hub(environment, gateway, tmp_path_factory) -> Iterator[Callable]:
    """Starts a hub of this version with further lines of configuration; all of them end with the module.

    Whatever a test did: no assertion may have reached a log.
    """
    from hubgate.ops.demo.hubs import Hub
    from tests.hub.playing import ready

    running = []

    def start(extra: str = "", *, name: str = "htc01", path: str = "/htc/") -> Hub:
        folder = tmp_path_factory.mktemp("hub")
        hub = Hub(environment, folder, name=name, path=path, gateway_url=gateway.issuer, extra=extra)
        running.append(hub)
        hub.start()
        ready(hub, gateway)
        return hub

    yield start
    for hub in running:
        hub.stop()
    for hub in running:
        log = hub.log.read_text()
        assert "hubgate check:" in log
        assert "eyJ" not in log
        assert "Traceback" not in log, log
