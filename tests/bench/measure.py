"""How much did that cost, and how sure are we?

CPU time is what repeats on a shared machine, rates are not: so a cost is what the process tree of a target spent
between two snapshots, from `schedstat`, which counts nanoseconds per thread (`/proc/PID/stat` counts ticks of 10 ms).
Targets are compared within a round, each round in the reverse order of the one before, and a comparison is the median
over the rounds of the ratio within each: what else the machine did meanwhile then hits both sides alike.

This module doesn't know what a target is, nor who drives it.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hubgate.ops.demo.child import descendants

T = TypeVar("T")
_PROC = Path("/proc")
_PEAK_RESET = "5"  # proc(5), clear_refs: forget the peak of the resident set


class Unsteady(Exception):
    """A run that tells nothing: a task ended in the middle of it and took its account with it, or it took too long."""


Tasks = Mapping[tuple[int, int], int]
"""Nanoseconds on a CPU, by process and thread."""


def tree(root: int) -> list[int]:
    """Process ids of `root` and of everything that it started and that still runs."""
    return [root, *sorted(pid for pid, _ in descendants(root))]


def tasks(*roots: int) -> Tasks:
    """A snapshot of all threads of these process trees."""
    found: dict[tuple[int, int], int] = {}
    for pid in (pid for root in roots for pid in tree(root)):
        for task in _PROC.joinpath(str(pid), "task").glob("[0-9]*"):
            try:
                found[pid, int(task.name)] = int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended; `spent` notices
    return found


def spent(before: Tasks, after: Tasks) -> float:
    """CPU seconds between two snapshots of the same trees, processes and threads that came meanwhile included.

    `Unsteady` when one that was there before is gone: nobody can tell what it spent.
    """
    gone = before.keys() - after.keys()
    if gone:
        raise Unsteady(f"ended during the measurement: {sorted(gone)}")
    return sum(nanoseconds - before.get(task, 0) for task, nanoseconds in after.items()) / 1e9


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process tree, in bytes. `rss` counts pages that several share several times, `pss` once."""

    rss: int
    pss: int


def memory(root: int) -> Memory:
    """What this process tree has in memory now."""
    rss = pss = 0
    for pid in tree(root):
        fields = _kilobytes(pid, "smaps_rollup")
        rss += fields["Rss"]
        pss += fields["Pss"]
    return Memory(rss, pss)


def forget_peak(root: int) -> None:
    """The peak of memory counts from now on."""
    for pid in tree(root):
        _PROC.joinpath(str(pid), "clear_refs").write_text(_PEAK_RESET)


def peak_rss(root: int) -> int:
    """The most that was resident since `forget_peak`, in bytes: the sum of each process's own peak."""
    return sum(_kilobytes(pid, "status")["VmHWM"] for pid in tree(root))


def _kilobytes(pid: int, file: str) -> dict[str, int]:
    """The fields of a file of proc(5) that are given in kB, in bytes."""
    lines = (line.split() for line in _PROC.joinpath(str(pid), file).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


async def interleaved(
    names: Sequence[str],
    run: Callable[[str], Awaitable[T]],
    *,
    rounds: int,
    warm_up: int = 1,
    retries: int = 2,
) -> dict[str, list[T]]:
    """`run` for each name in turn, `rounds` times after the rounds for warming up; the order is turned each time.

    Gives what `run` gave, by name, in the order of the rounds. A run that raises `Unsteady` is done again, and the
    whole round with it, so that what is compared stays close in time; the last `Unsteady` is raised when that is of no
    use, either.
    """
    kept: dict[str, list[T]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        order = list(names) if number % 2 else list(reversed(names))
        result = await _round(order, run, retries)
        if number >= 0:
            for name, value in result.items():
                kept[name].append(value)
    return kept


async def _round(order: Sequence[str], run: Callable[[str], Awaitable[T]], retries: int) -> dict[str, T]:
    for _ in range(retries):
        try:
            return {name: await run(name) for name in order}
        except Unsteady:
            continue
    return {name: await run(name) for name in order}
