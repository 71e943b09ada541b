"""Drives the client (`load`) and keeps the account of who answers it.

A measurement opens its connections, looks at the account of the target's process tree, has the work done, looks again,
and only then lets the connections go. A client that doesn't answer in time is ended, and the measurement is `Unsteady`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hubgate.ops.demo.child import clean_environment
from tests.bench import measure
from tests.bench.load import Fault, Outcome, Plan
from tests.bench.measure import Unsteady

_TOP = Path(__file__).parents[2]
_GRACE = 10.0  # seconds beyond a plan's own limit


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan cost its target. `cpu`: seconds of its process tree; `peak`: bytes, the most that was resident."""

    cpu: float
    peak: int
    outcome: Outcome

    @property
    def each(self) -> float:
        """CPU seconds for one request, message or byte."""
        return self.cpu / self.outcome.count

    @property
    def rate(self) -> float:
        """Requests, messages or bytes in a second."""
        return self.outcome.count / self.outcome.seconds


def together(turns: Sequence[Cost]) -> Cost:
    """The cost of some turns at the same work: what adds up is added, of medians and so on it is the median."""
    outcomes = [turn.outcome for turn in turns]
    return Cost(
        cpu=sum(turn.cpu for turn in turns),
        peak=max(turn.peak for turn in turns),
        outcome=Outcome(
            count=sum(outcome.count for outcome in outcomes),
            seconds=sum(outcome.seconds for outcome in outcomes),
            p50=statistics.median(outcome.p50 for outcome in outcomes),
            p99=statistics.median(outcome.p99 for outcome in outcomes),
        ),
    )


class Driver:
    """One client process, started anew when it had to be ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def cost(self, plan: Plan, root: int) -> Cost:
        """Has the work of `plan` done, and says what it cost the process tree of `root`.

        `Fault` when an answer was wrong, `Unsteady` when the run tells nothing.
        """
        async with self._opened(plan) as go:
            measure.forget_peak(root)
            before = measure.tasks(root)
            outcome = await go()
            cpu = measure.spent(before, measure.tasks(root))
            return Cost(cpu, measure.peak_rss(root), outcome)

    async def outcome(self, plan: Plan) -> Outcome:
        """Has the work done, whoever's account it is on."""
        async with self._opened(plan) as go:
            return await go()

    @asynccontextmanager
    async def holding(self, plan: Plan) -> AsyncIterator[None]:
        """The plan's connections are open and idle while entered."""
        async with self._opened(plan) as go:
            await go()
            yield

    @asynccontextmanager
    async def _opened(self, plan: Plan) -> AsyncIterator[Callable[[], Awaitable[Outcome]]]:
        limit = plan.seconds + _GRACE

        async def go() -> Outcome:
            return Outcome(**await self._ask("go", limit))

        try:
            await self._ask(json.dumps(dataclasses.asdict(plan)), limit)
            yield go
            await self._ask("release", limit)
        except Fault:
            raise  # said by the client, which has closed everything and waits for its next plan
        except BaseException:
            await self._end()  # whatever it is doing, the next plan finds it idle
            raise

    async def _ask(self, line: str, limit: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.load",
                cwd=_TOP,
                env=clean_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line.encode() + b"\n")
            async with asyncio.timeout(limit):
                said = await process.stdout.readline()
        except (TimeoutError, ConnectionError) as error:
            raise Unsteady(f"the client did not answer within {limit} s") from error
        if not said:
            raise Unsteady(f"the client ended with {await process.wait()}")
        answer: dict[str, Any] = json.loads(said)
        if "fault" in answer:
            raise Fault(answer["fault"])
        return answer

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
