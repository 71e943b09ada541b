"""What goes on beside, and ends with whom it belongs to.

asyncio holds on to no task, and says nothing of one that has failed until it is forgotten. Whoever begins some owns
them here: those that are over are let go of, and the rest end with their owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_PAUSE = 1.0  # seconds


class Tasks:
    """Somebody's tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, doing: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Do this beside. If nobody asks for its result, the loop's exception handler hears of a failure."""
        task = asyncio.create_task(doing, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, doing: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        """Do this until it ends by itself. When it fails, the loop's exception handler is told and it begins anew: a
        fault of our own that one session meets must not end the looking after all others."""

        async def kept() -> None:
            while True:
                try:
                    await doing()
                except Exception as error:  # noqa: BLE001 - whatever it is: it is told, and the next round may be good
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": f"{name} failed in itself", "exception": error}
                    )
                    await asyncio.sleep(_PAUSE)
                else:
                    return

        self.begin(kept(), name=name)

    async def end(self, *, patience: float = 0.0) -> None:
        """Wait for all, `patience` seconds at most, and cancel the rest."""
        if patience and self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        rest = tuple(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
