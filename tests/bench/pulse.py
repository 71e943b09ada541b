"""What does somebody notice who is not in a hurry? One request every few milliseconds, and how late each answer was.

    python -m tests.bench.pulse PORT < head

`made` are the requests as they were made, each after the answer to the one before. They forget bad times, in which few
are made; so `noticed` counts also whoever would have asked while an answer was due: there, each moment counts the same.
It is a process of its own, so that nothing that the bench does meanwhile makes it late.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.ops.demo.child import clean_environment

_EVERY = 0.005  # seconds
_PATIENCE = 30.0


class Beats:
    """`times`: when each request was sent (perf_counter, which all processes share) and when it was answered."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    async def made(self, begin: float, end: float) -> list[float]:
        """How long it took, seconds, for each request that was sent in this time."""
        await self._answered(end)
        return [answered - sent for sent, answered in self.times if begin <= sent <= end]

    async def noticed(self, begin: float, end: float) -> list[float]:
        """How long it took, seconds, for each moment of this time."""
        await self._answered(end)
        moments = ((asked, answered) for sent, answered in self.times for asked in _asked(sent, answered))
        return [answered - asked for asked, answered in moments if begin <= asked <= end]

    async def _answered(self, end: float) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not self.times or self.times[-1][0] < end:
                await asyncio.sleep(_EVERY)


def _asked(sent: float, answered: float) -> Iterator[float]:
    """When somebody asked who was answered then: the request that was sent, and those that were not while it waited."""
    while sent < answered:
        yield sent
        sent += _EVERY


@asynccontextmanager
async def pulse(port: int, head: str) -> AsyncIterator[Beats]:
    """Asks while entered. RuntimeError at the end if anything but 200 was answered."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.pulse", str(port)),
        cwd=Path(__file__).parents[2],
        env=clean_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(head.encode("latin-1") + b"\r\n")
    process.stdin.write_eof()
    beats = Beats()
    reading = asyncio.create_task(_read(process.stdout, beats))
    try:
        yield beats
        if process.returncode is not None:
            raise RuntimeError(f"the pulse ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.gather(process.wait(), reading)


async def _read(lines: asyncio.StreamReader, beats: Beats) -> None:
    while line := await lines.readline():
        sent, answered = map(float, line.split())
        beats.times.append((sent, answered))


def _beat(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            sent = time.perf_counter()
            wire.sendall(request)
            answer = wire.recv(1 << 16)
            answered = time.perf_counter()
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"answered {answer[:200]!r}")
            print(sent, answered, flush=True)
            time.sleep(max(0.0, sent + _EVERY - answered))


if __name__ == "__main__":
    _beat(int(sys.argv[1]), sys.stdin.buffer.read())
