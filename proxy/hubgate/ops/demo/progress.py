"""What a person reads while the parts are fetched, installed and started: what is being done, and how long it took.

Several parts are worked on at once. In a terminal the last line lives and names all of them, and only what is done
stays above it. Anywhere else (a log, CI) there is one line when something begins that takes long, and one when it is
done.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_TICK = 0.25
_ERASE = "\r\x1b[K"


class Progress:
    """Lines for a terminal, or for nobody (`quiet`)."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()
        self._doing: dict[tuple[str, str], float] = {}
        self._live = not quiet and self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._ticking = False
        self.took: dict[str, float] = {}

    def say(self, part: str, text: str) -> None:
        """One line about one part."""
        if not self._quiet:
            with self._lock:
                self._write(f"{_ERASE if self._live else ''}  {part:<12} {text}\n")

    @contextmanager
    def step(self, part: str, doing: str, done: str) -> Iterator[None]:
        """Says that something begins, and after it how long it took (seconds, also kept in `took`)."""
        begun = time.monotonic()
        if self._live:
            with self._lock:
                self._doing[part, doing] = begun
                self._tick()
        else:
            self.say(part, f"{doing} …")
        try:
            yield
        finally:
            with self._lock:
                self._doing.pop((part, doing), None)
                if self._live:
                    self._write(_ERASE)
        seconds = time.monotonic() - begun
        self.took[f"{part}: {done}"] = seconds
        self.say(part, f"{done}, {seconds:.1f} s")

    def _tick(self) -> None:
        if not self._ticking:
            self._ticking = True
            threading.Thread(target=self._show, name="progress", daemon=True).start()

    def _show(self) -> None:
        while True:
            with self._lock:
                if not self._doing:
                    self._ticking = False
                    return
                self._write(f"{_ERASE}{self._line()[: shutil.get_terminal_size().columns - 1]}")
            time.sleep(_TICK)

    def _line(self) -> str:
        now = time.monotonic()
        doing = (f"{part}: {doing} {now - begun:.0f} s" for (part, doing), begun in self._doing.items())
        return "  … " + " · ".join(doing)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The terminal was closed. What is left to do is to be done all the same, and what is left to say to be
            # said to nobody: else Python fails once more when it flushes its streams at the end.
            self._quiet = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
