"""A cost counts the whole tree, and a round that tells nothing is done again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.bench import measure
from tests.bench.measure import Spread, Unsteady, interleaved

BURNS = 0.2  # seconds of CPU

# Each line from standard input is work for a child of its own, and for a thread of that child.
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys, threading, time
def burn():
    end = time.thread_time() + {BURNS}
    while time.thread_time() < end:
        pass
kept = None
print("up", flush=True)
for line in sys.stdin:
    if line == "burn\\\\n":
        burn()
    if line == "thread\\\\n":
        done = threading.Event()
        threading.Thread(target=lambda: (burn(), done.set(), time.sleep(60)), daemon=True).start()
        done.wait()
    if line == "grow\\\\n":
        kept = bytearray(b"x") * (64 << 20)
    if line == "shrink\\\\n":
        kept = None
    if line == "end\\\\n":
        break
    print("done", flush=True)
'''], stdin=sys.stdin, stdout=sys.stdout)
child.wait()
sys.stdin.read()
print("alone", flush=True)
import time
time.sleep(60)
"""


class Family:
    """A process that does nothing, and its child that does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.root = process.pid

    def do(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self.hear("done")

    def leave(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.hear("alone")

    def hear(self, what: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{what}\n"


@contextmanager
def family() -> Iterator[Family]:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            made = Family(process)
            made.hear("up")
            yield made
        finally:
            process.kill()


@pytest.mark.parametrize("what", ["burn", "thread"])
def test_what_children_and_their_threads_spend_is_counted(what: str) -> None:
    with family() as some:
        before = measure.tasks(some.root)
        some.do(what)
        spent = measure.spent(before, measure.tasks(some.root))
        # A running thread's account is brought up to date by the clock's tick.
        assert BURNS * 0.9 < spent < BURNS * 2


def test_who_does_nothing_spends_nothing() -> None:
    with family() as some:
        before = measure.tasks(some.root)
        assert measure.spent(before, measure.tasks(some.root)) < BURNS / 10


def test_a_child_that_ended_takes_its_account_with_it_and_that_is_said() -> None:
    with family() as some:
        before = measure.tasks(some.root)
        some.leave()
        with pytest.raises(Unsteady):
            measure.spent(before, measure.tasks(some.root))


def test_memory_is_the_trees_and_its_peak_is_remembered() -> None:
    with family() as some:
        measure.forget_peak(some.root)
        at_rest = measure.memory(some.root)
        some.do("grow")
        grown = measure.memory(some.root)
        assert 60 << 20 < grown.pss - at_rest.pss < 70 << 20
        assert 60 << 20 < grown.rss - at_rest.rss < 70 << 20
        some.do("shrink")
        assert measure.memory(some.root).rss < at_rest.rss + (8 << 20)
        assert measure.peak_rss(some.root) > at_rest.rss + (60 << 20)
        measure.forget_peak(some.root)
        assert measure.peak_rss(some.root) < at_rest.rss + (8 << 20)


async def test_rounds_are_interleaved_and_each_in_the_reverse_order() -> None:
    ran: list[str] = []

    async def run(name: str) -> int:
        ran.append(name)
        return len(ran)

    kept = await interleaved(["a", "b", "c"], run, rounds=3, warm_up=1)
    assert "".join(ran) == "abc" + "cba" + "abc" + "cba"
    assert kept == {"a": [6, 7, 12], "b": [5, 8, 11], "c": [4, 9, 10]}


async def test_a_whole_round_is_done_again_when_one_run_tells_nothing() -> None:
    ran: list[str] = []

    async def run(name: str) -> int:
        ran.append(name)
        if ran == ["b", "a"]:
            raise Unsteady("this time")
        return len(ran)

    assert await interleaved(["a", "b"], run, rounds=1, warm_up=0) == {"a": [4], "b": [3]}


async def test_what_stays_unsteady_is_no_result() -> None:
    async def run(name: str) -> int:
        raise Unsteady(name)

    with pytest.raises(Unsteady):
        await interleaved(["a"], run, rounds=1)


def test_a_spread_is_a_median_with_its_ends() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0)
    assert measure.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
