"""How do several processes stay several, and how do new ones take over?

The parent forks workers, starts another when one ends, waits longer each time one ends soon, and gives up when none can
be had at all. Asked to (SIGHUP), it starts a second crew beside the first: once all of it serves, the first is told to
leave, in its own time; if one of the new ones can't, the first just goes on. Asked again meanwhile, however often, it
does so once more afterwards. The parent has no event loop and no thread, so that a fork is always safe; it waits for
signals and for nothing else (sigtimedwait). What a worker does, and what a new crew does differently, isn't known here.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hubgate.ops.exits import Exit

log = logging.getLogger(__name__)

LEAVE = signal.SIGUSR1
"""Tells a worker that another crew has taken over; again, that yet another one has."""

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
_SHORT_LIFE = 10.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
_TRIES = 5
_AFTER_GRACE = 6.0
"""Seconds beyond the grace in which a worker may close what it holds, before it is killed."""
_ARRIVAL = 60.0
"""Seconds until all of a new crew must serve."""
_LOOK_AGAIN = 0.05
"""Seconds: that a worker serves is told by its pipe, which wakes nobody."""
_MOST_LEAVING = 4
"""Crews that may be leaving at a time: each worker takes memory as long as one socket in it is open. The next one comes
when the longest of more than these has ended."""


@dataclass(frozen=True, slots=True)
class Tether:
    """A worker's ends of the pipes to its parent: `leash` ends when the parent does. `number`: its own while it lives,
    the least that was free. `relieves`: others serve, and leave when this one does."""

    leash: int
    status: int
    number: int
    relieves: bool

    def started(self) -> None:
        """Tell the parent that this worker serves."""
        os.write(self.status, b"s")


@dataclass(frozen=True, slots=True, eq=False)
class Crew:
    """`count` processes that run `work`, which returns an exit status and gets its tether. `grace`: seconds that each
    may take to stop."""

    count: int
    work: Callable[[Tether], int]
    grace: float


@dataclass(slots=True)
class _Child:
    """A worker. `status`: the pipe on which it says that it serves; `until`: when it is killed."""

    pid: int
    crew: Crew
    number: int
    began: float
    status: int
    serves: bool = False
    until: float = math.inf


class Supervisor:
    """Keeps a crew running, and replaces it when asked to.

    `again` is called for a SIGHUP with the present crew: the next one, or None if all is to stay (it has said why).
    `arrived` is called with that one when it has taken over, before anybody is told to leave.
    `stopping` is called once, when no worker shall be started any more; `ended` with the number of each that has ended.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        again: Callable[[Crew], Crew | None],
        arrived: Callable[[Crew], None],
        stopping: Callable[[], None],
        ended: Callable[[int], None],
    ) -> None:
        self._crew = crew
        self._next: Crew | None = None
        self._next_until = 0.0
        self._asked = False
        self._again = again
        self._arrived = arrived
        self._stopping = stopping
        self._ended = ended
        self._children: dict[int, _Child] = {}
        self._leaving: list[Crew] = []
        self._short_lived = 0
        self._start_at = 0.0
        self._deadline: float | None = None
        self._outcome = int(Exit.OK)

    def run(self) -> int:
        """Until stopped by SIGTERM or SIGINT; an exit status. A second one ends everything at once."""
        # Somebody may have started us with SIGCHLD ignored: nobody would ever be told of a worker's end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._leash_end, self._leash = os.pipe()
        try:
            while True:
                self._start_missing()
                if self._deadline is not None and not self._children:
                    return self._outcome
                told = signal.sigtimedwait(_SIGNALS, self._patience())
                if told is not None and told.si_signo in (signal.SIGTERM, signal.SIGINT):
                    if self._deadline is not None:
                        self._kill()
                        return 128 + told.si_signo
                    self._stop(Exit.OK)
                # Several ends may be told by one SIGCHLD; and the deadline has no signal at all.
                self._reap()
                self._finish_relief()
                if told is not None and told.si_signo == signal.SIGHUP:
                    self._take_note()
                if self._asked and self._has_room():
                    self._asked = False
                    self._begin_relief()
                self._kill_overdue()
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    log.warning("workers_killed", extra={"pids": list(self._children)})
                    self._kill()
        finally:
            os.close(self._leash)
            os.close(self._leash_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _patience(self) -> float:
        now = time.monotonic()
        if self._deadline is not None:
            return max(0.0, self._deadline - now)
        if self._next is not None:
            return _LOOK_AGAIN
        due = min((child.until for child in self._children.values()), default=math.inf)
        if len(self._of(self._crew)) < self._crew.count:
            due = min(due, self._start_at)
        return min(3600.0, max(0.0, due - now))

    def _of(self, crew: Crew) -> list[_Child]:
        return [child for child in self._children.values() if child.crew is crew]

    # -- starting

    def _start_missing(self) -> None:
        if self._deadline is not None or time.monotonic() < self._start_at:
            return
        for _ in range(self._crew.count - len(self._of(self._crew))):
            self._start(self._crew, relieves=False)

    def _start(self, crew: Crew, *, relieves: bool) -> None:
        taken = {child.number for child in self._children.values()}
        number = next(free for free in itertools.count() if free not in taken)
        status, theirs = os.pipe()
        os.set_blocking(status, False)
        pid = os.fork()
        if pid == 0:
            self._be_worker(crew, Tether(self._leash_end, theirs, number, relieves), status)
        os.close(theirs)
        self._children[pid] = _Child(pid, crew, number, time.monotonic(), status)

    def _be_worker(self, crew: Crew, tether: Tether, status: int) -> None:
        """In the child: never returns."""
        code = int(Exit.BROKEN)
        try:
            # While another process holds the parent's end, the leash would not end with the parent.
            os.close(self._leash)
            for descriptor in (status, *(child.status for child in self._children.values())):
                os.close(descriptor)
            # Sent to the whole group, it is the parent's alone.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            code = crew.work(tether)
        except BaseException:
            # The parent's stack must not be unwound in its child.
            log.critical("worker_broke", exc_info=True, extra={"pid": os.getpid()})
        finally:
            # Without the parent's atexit handlers, and without flushing what the parent has buffered.
            os._exit(code)

    # -- relieving

    def _take_note(self) -> None:
        if self._deadline is not None:
            log.error("reload_refused", extra={"reason": "it is being stopped"})
            return
        self._asked = True
        if not self._has_room():
            waits_for = [child.pid for child in self._children.values() if child.crew is not self._crew]
            log.info("reload_waits", extra={"pids": waits_for})

    def _has_room(self) -> bool:
        """Whether a next crew may be started: one at a time, and not while too many are still there."""
        others = {child.crew for child in self._children.values()} - {self._crew}
        return self._deadline is None and self._next is None and len(others) <= _MOST_LEAVING

    def _begin_relief(self) -> None:
        crew = self._again(self._crew)
        if crew is None:
            return
        self._next, self._next_until = crew, time.monotonic() + _ARRIVAL
        for _ in range(crew.count):
            self._start(crew, relieves=True)

    def _finish_relief(self) -> None:
        if self._next is None:
            return
        arrived = self._of(self._next)
        if all(child.serves for child in arrived):
            relieved, self._crew, self._next = self._crew, self._next, None
            self._short_lived, self._start_at = 0, 0.0
            log.info("reloaded", extra={"pids": [child.pid for child in arrived]})
            self._arrived(self._crew)
            for before in self._leaving:
                _send(LEAVE, self._of(before))
            self._let_leave(relieved)
        elif time.monotonic() >= self._next_until:
            self._call_off(f"the new workers did not serve within {_ARRIVAL:.0f} s")

    def _call_off(self, reason: str) -> None:
        crew, self._next = self._next, None
        log.error("reload_refused", extra={"reason": f"{reason}; all goes on as before"})
        if crew is not None:
            # One of them may serve already, and somebody may be with it.
            self._let_leave(crew)

    def _let_leave(self, crew: Crew) -> None:
        # Who isn't listening for the signal yet has nobody to see off, and just ends.
        _send(LEAVE, self._of(crew))
        self._leaving = [before for before in (*self._leaving, crew) if self._of(before)]
        while len(self._leaving) > _MOST_LEAVING:
            longest = self._leaving.pop(0)
            log.warning("leaving_cut_short", extra={"pids": [child.pid for child in self._of(longest)]})
            for child in self._of(longest):
                child.until = time.monotonic() + longest.grace + _AFTER_GRACE
                _send(signal.SIGTERM, [child])

    # -- ending

    def _kill_overdue(self) -> None:
        overdue = [child for child in self._children.values() if time.monotonic() >= child.until]
        if overdue:
            log.warning("workers_killed", extra={"pids": [child.pid for child in overdue]})
        for child in overdue:
            child.until = math.inf
            _send(signal.SIGKILL, [child])

    def _reap(self) -> None:
        for child in self._children.values():
            child.serves = child.serves or _said(child.status)
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                del self._children[pid]
                os.close(child.status)
                self._ended(child.number)
                if self._deadline is None:
                    self._lost(child, os.waitstatus_to_exitcode(status))

    def _lost(self, child: _Child, code: int) -> None:
        if child.crew is self._crew:
            self._replace(child, code)
        elif child.crew is self._next:
            self._call_off(f"a new worker ended with status {_spoken(code)}; the lines above say why")
        elif code not in (Exit.OK, -LEAVE):
            log.error("worker_ended", extra=_facts(child, code))

    def _replace(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        lived = now - child.began
        self._short_lived = 0 if child.serves and lived >= _SHORT_LIFE else self._short_lived + 1
        delay = 0.0 if not self._short_lived else min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (self._short_lived - 1))
        others_serve = any(other.serves and other.crew not in self._leaving for other in self._children.values())
        if not child.serves and not others_serve and (code == Exit.START or self._short_lived >= _TRIES):
            # A worker that could not start because of the site (its last line says why) will not start the next time.
            log.critical(
                "gave_up", extra=_facts(child, code) | {"reason": "no worker can start; the lines above say why"}
            )
            self._stop(Exit.START)
            return
        log.error("worker_ended", extra=_facts(child, code) | {"restart_in": round(delay, 1)})
        self._start_at = now + delay

    def _stop(self, outcome: Exit) -> None:
        self._outcome = int(outcome)
        self._next = None
        grace = max((child.crew.grace for child in self._children.values()), default=0.0)
        self._deadline = time.monotonic() + grace + _AFTER_GRACE
        # A socket that the parent keeps open would go on to take connections that nobody answers.
        self._stopping()
        _send(signal.SIGTERM, self._children.values())

    def _kill(self) -> None:
        _send(signal.SIGKILL, self._children.values())
        for child in self._children.values():
            os.waitpid(child.pid, 0)
            os.close(child.status)
            self._ended(child.number)
        self._children.clear()


def _send(number: signal.Signals, children: Iterable[_Child]) -> None:
    for child in children:
        os.kill(child.pid, number)


def _said(status: int) -> bool:
    try:
        return bool(os.read(status, 1))
    except BlockingIOError:
        return False


def _facts(child: _Child, code: int) -> dict[str, object]:
    return {"pid": child.pid, "status": _spoken(code), "lived": round(time.monotonic() - child.began, 1)}


def _spoken(code: int) -> str:
    """An exit status for people: `3`, or `SIGSEGV`."""
    return signal.Signals(-code).name if code < 0 else str(code)
