"""How long does a gateway take from its start until it can take on anybody?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from tests.bench import measure
from tests.bench.backend import BASE
from tests.bench.figures import Figure, scene
from tests.bench.sites import compiled, pool, site
from tests.bench.workbench import Bench
from tests.kit.running import RunningGateway

_PATIENCE = 30.0
_POLL = 0.004
_SERVE = "import sys; from hubgate.ops.cli import main; sys.exit(main())"


@scene("start-up")
async def start_up(bench: Bench) -> list[Figure]:
    """`hubgate serve` until `/readyz` says 200, Redis and provider being there, bytecode as an installation has it."""
    gateway = site(bench, "start-up", [pool(BASE.strip("/"), {"hub01": bench.backend.url})]).gateway
    gateway.stop()
    environment = compiled(bench.folder)
    seconds, cpu = [], []
    with bench.progress.step("start-up", f"starting {bench.rounds + 1} times", "measured"):
        for number in range(bench.rounds + 1):
            took, spent = _started(gateway, environment)
            gateway.stop()
            if number:  # the first one compiles
                seconds.append(took)
                cpu.append(spent)
    bench.record("start-up, CPU ms until ready", {"gateway": [each * 1e3 for each in cpu]})
    median = measure.Spread.of(cpu).median
    return [Figure("start-up", seconds, f"of which {median:.2f} s CPU; the rest is waiting for a core and for others")]


def _started(gateway: RunningGateway, environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until it was ready, and of CPU. Neither is there anything to run on while it starts but the provider."""
    began = time.perf_counter()
    process = os.posix_spawn(
        sys_executable(), [sys_executable(), "-c", _SERVE, "serve", "-c", str(gateway.config)], environment
    )
    raise NotImplementedError(process, began)
