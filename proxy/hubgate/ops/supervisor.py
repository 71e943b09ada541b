"""How do several processes stay several?

The parent forks workers, starts another when one ends, waits longer each time one ends soon, and gives up when none can
be had at all. It has no event loop and no thread, so that a fork is always safe; it waits for signals and for nothing
else (sigtimedwait). What a worker does is not known here.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from hubgate.ops.exits import Exit

log = logging.getLogger(__name__)

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
_SHORT_LIFE = 10.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
_TRIES = 5
_AFTER_GRACE = 6.0
"""Seconds beyond the grace in which a worker may close what it holds, before it is killed."""


@dataclass(slots=True)
class _Child:
    """A worker. `status`: the pipe on which it says that it serves."""

    pid: int
    began: float
    status: int
    serves: bool = False


@dataclass(frozen=True, slots=True)
class Tether:
    """A worker's ends of the pipes to its parent: `leash` ends when the parent does."""

    leash: int
    status: int

    def started(self) -> None:
        """Tell the parent that this worker serves."""
        os.write(self.status, b"s")


class Supervisor:
    """Keeps `count` processes running `work`, which returns an exit status and gets its tether.

    `stopping` is called once, when no worker shall be started any more; `ended` with the pid of each that has ended.
    `grace`: seconds that a worker may take to stop.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Tether], int],
        *,
        grace: float,
        stopping: Callable[[], None],
        ended: Callable[[int], None],
    ) -> None:
        self._count = count
        self._work = work
        self._grace = grace
        self._stopping = stopping
        self._ended = ended
        self._children: dict[int, _Child] = {}
        self._short_lived = 0
        self._start_at = 0.0
        self._deadline: float | None = None
        self._outcome = int(Exit.OK)

    def run(self) -> int:
        """Until stopped by SIGTERM or SIGINT; an exit status. A second one ends everything at once."""
        # Somebody may have started us with SIGCHLD ignored: nobody would ever be told of a worker's end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._leash_end, self._leash = os.pipe()
        try:
            while True:
                self._start_missing(before)
                if self._deadline is not None and not self._children:
                    return self._outcome
                told = signal.sigtimedwait(_SIGNALS, self._patience())
                if told is not None and told.si_signo != signal.SIGCHLD:
                    if self._deadline is not None:
                        self._kill()
                        return 128 + told.si_signo
                    self._stop(Exit.OK)
                # Several ends may be told by one SIGCHLD; and the deadline has no signal at all.
                self._reap()
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    log.warning("workers_killed", extra={"pids": list(self._children)})
                    self._kill()
        finally:
            os.close(self._leash)
            os.close(self._leash_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _patience(self) -> float:
        now = time.monotonic()
        if self._deadline is not None:
            return max(0.0, self._deadline - now)
        return max(0.0, self._start_at - now) if len(self._children) < self._count else 3600.0

    # -- starting

    def _start_missing(self, mask: set[signal.Signals] | set[int]) -> None:
        if self._deadline is not None or time.monotonic() < self._start_at:
            return
        while len(self._children) < self._count:
            status, theirs = os.pipe()
            os.set_blocking(status, False)
            pid = os.fork()
            if pid == 0:
                self._be_worker(Tether(self._leash_end, theirs), mask, status)
            os.close(theirs)
            self._children[pid] = _Child(pid, time.monotonic(), status)

    def _be_worker(self, tether: Tether, mask: set[signal.Signals] | set[int], status: int) -> None:
        """In the child: never returns."""
        code = int(Exit.BROKEN)
        try:
            # While another process holds the parent's end, the leash would not end with the parent.
            os.close(self._leash)
            for descriptor in (status, *(child.status for child in self._children.values())):
                os.close(descriptor)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = self._work(tether)
        except BaseException:
            # The parent's stack must not be unwound in its child.
            log.critical("worker_broke", exc_info=True, extra={"pid": os.getpid()})
        finally:
            # Without the parent's atexit handlers, and without flushing what the parent has buffered.
            os._exit(code)

    # -- ending

    def _reap(self) -> None:
        for child in list(self._children.values()):
            child.serves = child.serves or _said(child.status)
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                del self._children[pid]
                os.close(child.status)
                self._ended(pid)
                if self._deadline is None:
                    self._replace(child, os.waitstatus_to_exitcode(status))

    def _replace(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        lived = now - child.began
        self._short_lived = 0 if child.serves and lived >= _SHORT_LIFE else self._short_lived + 1
        delay = 0.0 if not self._short_lived else min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (self._short_lived - 1))
        facts = {"pid": child.pid, "status": _spoken(code), "lived": round(lived, 1)}
        others_serve = any(other.serves for other in self._children.values())
        if not child.serves and not others_serve and (code == Exit.START or self._short_lived >= _TRIES):
            # A worker that could not start because of the site (its last line says why) will not start the next time.
            log.critical("gave_up", extra=facts | {"reason": "no worker can start; the lines above say why"})
            self._stop(Exit.START)
            return
        log.error("worker_ended", extra=facts | {"restart_in": round(delay, 1)})
        self._start_at = now + delay

    def _stop(self, outcome: Exit) -> None:
        self._outcome = int(outcome)
        self._deadline = time.monotonic() + self._grace + _AFTER_GRACE
        # A socket that the parent keeps open would go on to take connections that nobody answers.
        self._stopping()
        for child in self._children.values():
            os.kill(child.pid, signal.SIGTERM)

    def _kill(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
        for child in self._children.values():
            os.waitpid(child.pid, 0)
            os.close(child.status)
            self._ended(child.pid)
        self._children.clear()


def _said(status: int) -> bool:
    try:
        return bool(os.read(status, 1))
    except BlockingIOError:
        return False


def _spoken(code: int) -> str:
    """An exit status for people: `3`, or `SIGSEGV`."""
    return signal.Signals(-code).name if code < 0 else str(code)
