"""What does one process do between its start and its end?

It puts a gateway together, serves it on sockets that are already listening, and when asked to stop lets requests in
flight finish, closes the tunnels, and takes the gateway apart. When others relieve it, it takes nobody on and stays
until the last tunnel has ended; of all that the others do differently, it heeds who may use which pool. Whether it is
alone or one of several is seen only in who asks it to (`Orders`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from hubgate.audit import Audit, LineFile
from hubgate.config import Config
from hubgate.errors import OperatorFault
from hubgate.metrics import Metrics, Share
from hubgate.ops import garbage, service
from hubgate.ops.exits import Exit
from hubgate.ops.listeners import BACKLOG, Doors, spoken
from hubgate.ops.logs import AccessLog
from hubgate.ops.supervisor import LEAVE
from hubgate.ops.vitals import vitals
from hubgate.web.wire import FrontRunner, Listener, Shortcut, front_runner, require_c_parser

log = logging.getLogger(__name__)

_LAST_SECONDS = 3.0
"""For what is left after the grace: tunnels, the answer that is just being written."""
_COMPLETE_WITHIN = 20.0
"""Seconds until what the others have (`Orders.needs`) must be there."""

Own = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Protocol):
    """A gateway that is put together (`hubgate.app.Served`)."""

    @property
    def front(self) -> Callable[[web.Request, Own], Awaitable[web.StreamResponse]]: ...
    @property
    def shortcut(self) -> Shortcut | None: ...
    @property
    def pages(self) -> web.Application: ...
    def ready(self) -> Mapping[str, str]: ...
    def count_tunnels(self) -> int: ...
    def obey(self, rules: Mapping[str, tuple[str, ...]]) -> int: ...
    def close_tunnels(self) -> None: ...


class GatewayFactory(Protocol):
    """`hubgate.app.gateway`."""

    def __call__(
        self, config: Config, *, metrics: Metrics, audit: Audit, access_log: AccessLog | None
    ) -> AbstractAsyncContextManager[Served]: ...


@dataclass(frozen=True, slots=True)
class Orders:
    """Who says stop, and who wants to know that it serves.

    Alone: SIGTERM and SIGINT, and the second of them ends at once. As one of several: SIGTERM or the end of `leash`,
    the descriptor of a pipe that the parent holds; SIGINT, which a terminal sends to everybody, is the parent's alone.
    `relieves`: others serve meanwhile, and nobody is taken on before all `needs` (keys of `Served.ready`) are met.
    `rules`: the `groups` of each pool, in the words of those who have come instead.
    """

    leash: int | None = None
    started: Callable[[], None] = field(default=lambda: None)
    relieves: bool = False
    needs: frozenset[str] = frozenset()
    rules: Callable[[], Mapping[str, tuple[str, ...]]] = dict


def run(
    config: Config, doors: Doors, orders: Orders, *, share: Share | None = None, factory: GatewayFactory | None = None
) -> int:
    """Serve until told to stop; an exit status. What can't be helped is in the log. `share`: where to count."""
    try:
        require_c_parser()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(config, doors, orders, share, factory or _gateway()))
    except OperatorFault as fault:
        log.critical("cannot_start", extra={"fault": fault.code, "reason": fault.message})
        return Exit.START
    except Exception:
        log.critical("broken", exc_info=True, extra={"pid": os.getpid()})
        return Exit.BROKEN


def _gateway() -> GatewayFactory:
    # Here, not above: whatever is made at import time (the prefix of request ids) must be made once per process.
    from hubgate.app import gateway  # noqa: PLC0415

    return gateway


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - optional: 30 % less CPU where it can be had
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: Config, doors: Doors, orders: Orders, share: Share | None, factory: GatewayFactory) -> int:
    asyncio.get_running_loop().set_exception_handler(_log_stray)
    end = _awaiting(orders)
    metrics = Metrics(config.site(), share)
    state = _State()
    async with AsyncExitStack() as stack:
        stack.callback(metrics.settle)
        stack.callback(asyncio.create_task(_settle(metrics), name="metrics").cancel)
        ops = await stack.enter_async_context(AsyncExitStack())
        if not orders.relieves:
            await ops.enter_async_context(_listening(vitals(state.missing, metrics), doors.ops))
        audit = _opened(config.log.audit)
        stack.callback(audit.close)
        access = AccessLog(LineFile("-").write, alone=orders.leash is None) if config.log.access else None
        if access is not None:
            stack.callback(access.flush)
        served = await stack.enter_async_context(
            factory(config, metrics=metrics, audit=Audit(audit.write), access_log=access)
        )
        state.ready = served.ready
        if orders.relieves:
            await _complete(served, orders.needs, end)
            await ops.enter_async_context(_listening(vitals(state.missing, metrics), doors.ops))
        grace = config.limits.stop_grace
        runner = await front_runner(
            served.pages,
            served.front,
            shortcut=served.shortcut,
            header_timeout=config.limits.header_timeout,
            shutdown_timeout=grace,
        )
        for listener in doors.public:
            await Listener(runner, listener, ssl_context=doors.tls, backlog=BACKLOG).start()
        log.info("serving", extra={"listen": spoken(doors.public), "ops": spoken(doors.ops), "pid": os.getpid()})
        orders.started()
        service.tell_serving()
        garbage.while_serving()
        await end.asked()
        if not end.stop.is_set():
            await runner.stop_listening()
            log.info("leaving", extra={"pid": os.getpid()})
            await ops.aclose()
            metrics.withdraw_upstreams()
            stack.callback(asyncio.create_task(_obeying(served, end, orders.rules), name="others' rules").cancel)
            # By then each session that is here has met its limit.
            await end.stopped_or(_left_alone(runner, served), within=config.session.max)
        else:
            log.info("stopping", extra={"notice": config.limits.stop_notice, "grace": grace, "pid": os.getpid()})
            state.stopping = True
            runner.last_call()
            await asyncio.sleep(config.limits.stop_notice)
        await _ended(runner, served, grace)
    log.info("stopped", extra={"pid": os.getpid()})
    return Exit.OK


def _opened(path: str) -> LineFile:
    try:
        return LineFile(path)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OperatorFault("audit_unwritable", f"log.audit {path}: {why}; no gateway without its audit log") from error


async def _complete(served: Served, needs: frozenset[str], end: _End) -> None:
    """Wait until nothing is missing that those who are relieved have."""
    deadline = time.monotonic() + _COMPLETE_WITHIN
    while lacking := {part: why for part, why in served.ready().items() if part in needs}:
        if time.monotonic() >= deadline or end.is_near:
            raise OperatorFault("not_ready", "; ".join(f"{part}: {why}" for part, why in lacking.items()))
        await asyncio.sleep(0.05)


async def _obeying(served: Served, end: _End, rules: Callable[[], Mapping[str, tuple[str, ...]]]) -> None:
    """Each time that others have come: what they say of who may use which pool holds for whoever is still here."""
    while True:
        end.leave.clear()
        log.info("rules_obeyed", extra={"closed": served.obey(rules()), "pid": os.getpid()})
        await end.leave.wait()


async def _left_alone(runner: FrontRunner, served: Served) -> None:
    """Wait until the last connection has ended, and the last tunnel, which may outlive it by hours."""
    await runner.emptied()
    while served.count_tunnels():  # noqa: ASYNC110 - to be told of each end would cost each of them something
        await asyncio.sleep(1.0)


async def _ended(runner: web.BaseRunner, served: Served, grace: float) -> None:
    """Stop accepting, let requests in flight finish, then close what has no end of its own."""
    cleanup = asyncio.create_task(runner.cleanup(), name="last requests")
    await asyncio.wait({cleanup}, timeout=grace)
    served.close_tunnels()
    await asyncio.wait({cleanup}, timeout=_LAST_SECONDS)
    if not cleanup.done():
        log.warning("requests_cut", extra={"grace": grace})
        cleanup.cancel()
    await asyncio.gather(cleanup, return_exceptions=True)


async def _settle(metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(1.0)
        metrics.settle()


@asynccontextmanager
async def _listening(app: web.Application, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for listener in sockets:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class _State:
    """What `/readyz` says. It is asked before the gateway stands, and while it is being taken apart."""

    ready: Callable[[], Mapping[str, str]] | None = None
    stopping: bool = False

    def missing(self) -> Mapping[str, str]:
        if self.stopping:
            return {"gateway": "is stopping"}
        return {"gateway": "is starting"} if self.ready is None else self.ready()


@dataclass(slots=True)
class _End:
    """What somebody asks for: to `stop`, or to `leave` to those who have come instead (again: to yet others)."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_near(self) -> bool:
        return self.stop.is_set() or self.leave.is_set()

    async def asked(self) -> None:
        """Wait for either."""
        await self.stopped_or(self.leave.wait(), within=None)

    async def stopped_or(self, done: Coroutine[Any, Any, object], *, within: float | None) -> None:
        """Wait for the first of the two, `within` seconds at most."""
        tasks = {asyncio.create_task(self.stop.wait()), asyncio.create_task(done)}
        finished, rest = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in finished:
            task.result()


def _awaiting(orders: Orders) -> _End:
    loop = asyncio.get_running_loop()
    end = _End()
    stop = end.stop

    def asked(number: int) -> None:
        if stop.is_set():
            log.warning("ended_at_once", extra={"signal": signal.Signals(number).name})
            os._exit(128 + number)
        stop.set()

    if orders.leash is None:
        loop.add_signal_handler(signal.SIGTERM, asked, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, asked, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, _stay)
    else:
        # A service manager may send SIGTERM to the whole group, and the parent passes its own on: only asked once.
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(LEAVE, end.leave.set)
        loop.add_reader(orders.leash, _let_go, loop, orders.leash, stop)
    return end


def _stay() -> None:
    log.error("reload_refused", extra={"reason": "store.url is memory://, which ends with this process: restart it"})


def _let_go(loop: asyncio.AbstractEventLoop, leash: int, stop: asyncio.Event) -> None:
    loop.remove_reader(leash)
    if not stop.is_set():
        log.warning("parent_gone", extra={"pid": os.getpid()})
        stop.set()


def _log_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task or handler caught. The context's objects may hold requests: only their types are written."""
    error = context.get("exception")
    log.error(
        "unhandled",
        exc_info=error,
        extra={"what": context.get("message", ""), "objects": sorted(key for key in context if key != "message")},
    )
