"""Fetches and installs everything that the tests' real parts need, side by side, before a test's time limit runs.

    python -m hubgate.ops.demo.prepare

What can't be had is told and no failure here: the tests that need it say so by its name.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs, keycloak
from hubgate.ops.demo.progress import Progress


def main() -> int:
    """The exit status, always 0."""
    progress = Progress()
    with ThreadPoolExecutor(max_workers=2) as pool:
        making: dict[str, Future[object]] = {"keycloak": pool.submit(keycloak.distribution, progress)}
        for version in hubs.PACKAGES:
            making[f"hub {version}"] = pool.submit(hubs.environment, version, progress)
    for part, made in making.items():
        fault = made.exception()
        if isinstance(fault, OperatorFault):
            progress.say(part, f"can't be had: {fault.message}")
        elif fault is not None:
            raise fault
    return 0


if __name__ == "__main__":
    sys.exit(main())
