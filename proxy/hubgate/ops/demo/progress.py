"""What a person reads while the parts are fetched, installed and started: one line each, with how long it took.

Several parts are worked on at once, so a line is printed when something begins that takes long, and when it is done.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Lines for a terminal, or for nobody (`quiet`)."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()
        self.took: dict[str, float] = {}

    def say(self, part: str, text: str) -> None:
        """One line about one part."""
        if not self._quiet:
            with self._lock:
                print(f"  {part:<12} {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, part: str, doing: str, done: str) -> Iterator[None]:
        """Says that something begins, and after it how long it took (seconds, also kept in `took`)."""
        self.say(part, f"{doing} …")
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self.took[f"{part}: {done}"] = seconds
        self.say(part, f"{done}, {seconds:.1f} s")
