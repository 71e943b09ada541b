"""Where the parts that were fetched, built or installed once are kept for the next time.

In a checkout that is `.cache/` at its top; in an installed hubgate, the user's cache directory; `HUBGATE_CACHE` names
another place for both. Whatever takes long to make is made under a lock, since a demo and a test run (or two of them)
may want it at once, and counts as made only when its stamp says what it was made from.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAMP = ".hubgate-made"


def checkout() -> Path | None:
    """The top of the checkout that this code runs from, None when it was installed from a wheel."""
    top = Path(__file__).resolve().parents[4]
    return top if (top / "pyproject.toml").is_file() and (top / "proxy" / "hubgate").is_dir() else None


def root() -> Path:
    """The cache's directory; made if need be."""
    named = os.environ.get("HUBGATE_CACHE", "")
    top = checkout()
    if named:
        place = Path(named).expanduser().resolve()
    elif top is not None:
        place = top / ".cache"
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hubgate"
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def making(name: str) -> Iterator[None]:
    """Holds the lock for making `name`; waits for whoever is at it."""
    locks = root() / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_made(place: Path, recipe: str) -> bool:
    """Whether `place` was finished, and from this recipe."""
    stamp = place / STAMP
    return stamp.is_file() and stamp.read_text() == recipe


def mark_made(place: Path, recipe: str) -> None:
    """Says that `place` is complete."""
    (place / STAMP).write_text(recipe)


def base_python() -> str:
    """The interpreter to make further environments with: never the one of our own environment."""
    return str(getattr(sys, "_base_executable", sys.executable))
