"""How does a configuration begin to be served?

The sockets are bound and the key of TLS is read by the process that starts, once: so a fault shows before anything
runs, and workers share what they inherit. One worker is this very process; several are forked before any event loop or
thread exists. What they do is in `worker`, how they stay several in `supervisor`.
"""

from __future__ import annotations

import logging
import os
import resource
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.config import Config
from hubgate.errors import OperatorFault
from hubgate.ops import listeners, logs
from hubgate.ops.exits import Exit
from hubgate.ops.listeners import Doors
from hubgate.ops.supervisor import Supervisor, Tether

if TYPE_CHECKING:
    from hubgate.ops.worker import GatewayFactory

log = logging.getLogger(__name__)

# As in hubgate.metrics, which must not be imported before this is set.
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_ENOUGH_FILES = 8192
_MORE_FILES = {"advice": "raise LimitNOFILE: two for each connection"}


def serve(config: Config, *, factory: GatewayFactory | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. `factory`: another gateway than `hubgate.app`'s, for tests."""
    logs.configure(config.log.level)
    for caution in config.cautions:
        log.warning("caution", extra={"caution": caution})
    _raise_file_limit()
    with (
        tempfile.TemporaryDirectory(prefix="hubgate-metrics-")
        if config.gateway.workers > 1
        else nullcontext() as shared
    ):
        try:
            doors = _doors(config)
        except OperatorFault as fault:
            log.critical("cannot_start", extra={"fault": fault.code, "reason": fault.message})
            return Exit.START
        if shared is None:
            return _work(config, doors, None, factory)
        return _supervised(config, doors, Path(shared), factory)


def _doors(config: Config) -> Doors:
    tls = listeners.tls_context(config.tls) if config.tls else None
    public = listeners.bind(config.gateway.listen, "gateway.listen")
    try:
        ops = listeners.bind([config.gateway.ops_listen] if config.gateway.ops_listen else [], "gateway.ops_listen")
    except OperatorFault:
        listeners.close(public)
        raise
    return Doors(public, ops, tls)


def _supervised(config: Config, doors: Doors, shared: Path, factory: GatewayFactory | None) -> int:
    # Inherited by the workers, and read by prometheus_client when they import it.
    os.environ[_METRICS_VARIABLE] = str(shared)

    def stopping() -> None:
        listeners.close(doors.public)
        listeners.close(doors.ops)

    def ended(pid: int) -> None:
        from hubgate.metrics import forget_worker  # noqa: PLC0415 - see _METRICS_VARIABLE

        forget_worker(pid, shared)

    supervisor = Supervisor(
        config.gateway.workers,
        lambda tether: _work(config, doors, tether, factory),
        grace=config.limits.stop_grace,
        stopping=stopping,
        ended=ended,
    )
    log.info("starting", extra={"workers": config.gateway.workers, "listen": listeners.spoken(doors.public)})
    try:
        return supervisor.run()
    finally:
        del os.environ[_METRICS_VARIABLE]


def _work(config: Config, doors: Doors, tether: Tether | None, factory: GatewayFactory | None) -> int:
    """What a worker runs, or the only process."""
    # Here, not above: whatever is made at import time must be made once per worker (the prefix of request ids), and
    # prometheus_client after _METRICS_VARIABLE.
    from hubgate.ops import worker  # noqa: PLC0415

    orders = worker.Orders() if tether is None else worker.Orders(tether.leash, tether.started)
    return worker.run(config, doors, orders, factory)


def _raise_file_limit() -> None:
    """Each request and each tunnel takes two descriptors; the usual soft limit is for programs with select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (OSError, ValueError):
        files = soft
    # Ten thousand sockets are twenty thousand descriptors: who looks for the limit finds it here.
    level, advice = (logging.INFO, {}) if files >= _ENOUGH_FILES else (logging.WARNING, _MORE_FILES)
    log.log(level, "file_limit", extra={"files": files, **advice})
