"""Which browser is this, in two words?

For a list in which somebody looks for the one that they left open in the library: "Firefox, Windows" is what they
remember. A User-Agent field (RFC 9110, 10.1.5) says anything, so nothing is ever decided by it; what it says stays out
of pages, only names of this module's own go in.
"""

from __future__ import annotations

from collections.abc import Sequence

# What is found first counts: nearly every browser says that it is others as well.
_PROGRAMS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrom", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("ython", "Python"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
    ("X11", "Unix"),
)


def browser_and_system(user_agent: str) -> tuple[str, str]:
    """The names of program and system, each "" where it can't be told."""
    return _first(_PROGRAMS, user_agent), _first(_SYSTEMS, user_agent)


def _first(table: Sequence[tuple[str, str]], text: str) -> str:
    return next((name for mark, name in table if mark in text), "")
