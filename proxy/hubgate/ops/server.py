"""How does a configuration begin to be served?

The sockets are bound by the process that starts, once, and the key of TLS is read by it: so a fault shows before
anything runs, and workers share what they inherit. They are forked, so that others can take over with another
configuration (SIGHUP) on the same sockets, while they see their tunnels off; only a store that is in the memory of a
process makes it the only one. What workers do is in `worker`, how they follow each other in `supervisor`.
"""

from __future__ import annotations

import logging
import resource
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.config import Config, ConfigFaults
from hubgate.errors import OperatorFault
from hubgate.metrics import Share
from hubgate.ops import listeners, logs, succession
from hubgate.ops.exits import Exit
from hubgate.ops.listeners import Doors
from hubgate.ops.rulings import Rulings
from hubgate.ops.supervisor import Crew, Supervisor, Tether

if TYPE_CHECKING:
    from hubgate.ops.worker import GatewayFactory

log = logging.getLogger(__name__)

_ENOUGH_FILES = 8192
_MORE_FILES = {"advice": "raise LimitNOFILE: two for each connection"}


def serve(load: Callable[[], Config], *, factory: GatewayFactory | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    `load` is called now and for each SIGHUP; what it raises now is passed on. `factory`: another gateway than
    `hubgate.app`'s, for tests.
    """
    config = load()
    logs.configure(config.log.level)
    _caution(config)
    _raise_file_limit()
    try:
        doors = _doors(config)
    except OperatorFault as fault:
        log.critical("cannot_start", extra={"fault": fault.code, "reason": fault.message})
        return Exit.START
    if _in_memory(config):
        return _work(config, doors, factory)
    with _shared_metrics(config) as shared:
        return _supervised(config, doors, load, shared, factory)


def _caution(config: Config) -> None:
    for caution in config.cautions:
        log.warning("caution", extra={"caution": caution})


def _in_memory(config: Config) -> bool:
    return config.store.url.reveal() == "memory://"


@contextmanager
def _shared_metrics(config: Config) -> Iterator[Path | None]:
    """A directory in which workers count together; None where one worker has no place for it."""
    try:
        shared = tempfile.TemporaryDirectory(prefix="hubgate-metrics-")
    except OSError:
        if config.gateway.workers > 1:
            raise
        log.warning("caution", extra={"caution": "there is no /tmp to write to: with a reload, counters begin anew"})
        yield None
        return
    with shared as name:
        yield Path(name)


def _doors(config: Config) -> Doors:
    tls = _tls(config)
    public = listeners.bind(config.gateway.listen, "gateway.listen")
    try:
        ops = listeners.bind([config.gateway.ops_listen] if config.gateway.ops_listen else [], "gateway.ops_listen")
    except OperatorFault:
        listeners.close(public)
        raise
    return Doors(public, ops, tls)


def _tls(config: Config) -> ssl.SSLContext | None:
    return listeners.tls_context(config.tls) if config.tls else None


class _Crews:
    """Who serves behind the same doors, one configuration after another."""

    def __init__(
        self, doors: Doors, load: Callable[[], Config], shared: Path | None, factory: GatewayFactory | None
    ) -> None:
        self._doors = doors
        self._load = load
        self._shared = shared
        self._factory = factory
        self._configs: dict[Crew, Config] = {}
        self._rulings = Rulings()

    def with_(self, config: Config, tls: ssl.SSLContext | None, needs: frozenset[str] = frozenset()) -> Crew:
        doors = replace(self._doors, tls=tls)
        crew = Crew(
            config.gateway.workers,
            lambda tether: _work(
                config,
                doors,
                self._factory,
                tether=tether,
                share=self._share(tether.number),
                needs=needs,
                rules=self._rulings.latest,
            ),
            grace=config.limits.stop_notice + config.limits.stop_grace,
        )
        self._configs[crew] = config
        return crew

    def after(self, present: Crew) -> Crew | None:
        """Those to relieve the present crew. None: they can't be, and the log says why."""
        before = self._configs[present]
        self._configs = {present: before}
        try:
            config = succession.following(before, self._load)
            tls = _tls(config)
        except ConfigFaults as faults:
            told = [f"{fault.key}: found {fault.found}, expected {fault.expected}" for fault in faults.faults]
            refusal: dict[str, object] = {"reason": faults.source, "faults": told}
        except OperatorFault as fault:
            refusal = {"fault": fault.code, "reason": fault.message}
        except Exception:
            log.exception("reload_refused", extra={"reason": "a fault of hubgate itself"})
            return None
        else:
            log.info("reloading", extra={"workers": config.gateway.workers})
            _caution(config)
            return self.with_(config, tls, succession.needs(before, config))
        log.error("reload_refused", extra=refusal)
        return None

    def arrived(self, crew: Crew) -> None:
        """They have taken over."""
        self._rulings.add(self._configs[crew].site())

    def ended(self, number: int) -> None:
        """A worker is no more."""
        if (share := self._share(number)) is not None:
            share.withdraw()

    def _share(self, number: int) -> Share | None:
        return Share(self._shared, number) if self._shared is not None else None


def _supervised(
    config: Config, doors: Doors, load: Callable[[], Config], shared: Path | None, factory: GatewayFactory | None
) -> int:
    crews = _Crews(doors, load, shared, factory)

    def stopping() -> None:
        listeners.close(doors.public)
        listeners.close(doors.ops)

    supervisor = Supervisor(
        crews.with_(config, doors.tls), again=crews.after, arrived=crews.arrived, stopping=stopping, ended=crews.ended
    )
    log.info("starting", extra={"workers": config.gateway.workers, "listen": listeners.spoken(doors.public)})
    return supervisor.run()


def _work(
    config: Config,
    doors: Doors,
    factory: GatewayFactory | None,
    *,
    tether: Tether | None = None,
    share: Share | None = None,
    needs: frozenset[str] = frozenset(),
    rules: Callable[[], Mapping[str, tuple[str, ...]]] = dict,
) -> int:
    """What a worker runs, or the only process. `needs`: see `succession`; `rules`: see `Orders`."""
    # Here, not above: whatever is made at import time must be made once per worker (the prefix of request ids).
    from hubgate.ops import worker  # noqa: PLC0415

    orders = worker.Orders()
    if tether is not None:
        logs.configure(config.log.level)
        orders = worker.Orders(tether.leash, tether.started, tether.relieves, needs, rules)
    return worker.run(config, doors, orders, share=share, factory=factory)


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
