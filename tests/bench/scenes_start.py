"""How long does a gateway take from its start until it can take on anybody?"""

from __future__ import annotations

import contextlib
import http.client
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hubgate.errors import OperatorFault
from tests.bench import measure
from tests.bench.backend import BASE
from tests.bench.figures import Figure, scene
from tests.bench.measure import Spread
from tests.bench.sites import pool, site
from tests.bench.workbench import Bench
from tests.kit.running import RunningGateway

_SERVE = "import sys; from hubgate.ops.cli import main; sys.exit(main())"
_PATIENCE = 30.0  # seconds
_POLL = 0.003


@scene("start-up")
async def start_up(bench: Bench) -> list[Figure]:
    """From exec(2) to 200 at `/readyz`, with Redis and provider there and bytecode where an installation has it."""
    gateway = site(bench, "start-up", [pool(BASE.strip("/"), {"hub01": bench.backend.url})]).gateway
    environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode")}
    starts = []
    with bench.progress.step("start-up", f"starting {bench.rounds} times", "measured"):
        for _ in range(bench.rounds + 1):
            gateway.stop()
            starts.append(_start(gateway, environment))  # blocks, which the provider, in its own thread, doesn't mind
    seconds, cpu = zip(*starts[1:], strict=True)  # the first one compiles
    note = f"{Spread.of(cpu).median:.2f} s of CPU; what is beyond that is waiting: for a core, Redis, the provider"
    return [Figure("start-up", seconds, note)]


def _start(gateway: RunningGateway, environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until it was ready, and of its CPU until then."""
    gateway.launch([sys.executable, "-c", _SERVE, "serve", "-c", str(gateway.config)], env=environment)
    # The kit starts it by way of a small program, which then becomes the gateway.
    _wait(gateway, lambda: _is_python_with(_SERVE, gateway.pid), pause=0.001)
    began, before = time.perf_counter(), measure.tasks(gateway.pid)
    address = urlsplit(gateway.ops_url)
    _wait(gateway, lambda: _ready(str(address.hostname), int(address.port or 0)), pause=_POLL)
    return time.perf_counter() - began, measure.spent(before, measure.tasks(gateway.pid))


def _is_python_with(code: str, pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:3] == [b"-c", code.encode()]


def _ready(host: str, port: int) -> bool:
    line = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    with contextlib.closing(line):
        try:
            line.request("GET", "/readyz")
            return line.getresponse().status == 200
        except ConnectionError:
            return False


def _wait(gateway: RunningGateway, ready: Callable[[], bool], *, pause: float) -> None:
    """As `Child.wait_until`, which looks ten times a second: too seldom for what is measured here."""
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if not gateway.alive or time.monotonic() > deadline:
            raise OperatorFault("bench_start", f"{gateway.name} does not get ready:\n{gateway.tail()}")
        time.sleep(pause)
