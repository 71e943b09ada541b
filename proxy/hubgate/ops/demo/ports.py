"""Who has this port? What a person needs to know whose port is taken, as far as Linux lets them see it."""

from __future__ import annotations

from pathlib import Path

_LISTENING = "0A"
_LONGEST = 300


def holder(port: int) -> str:
    """The program that listens there with its arguments, e.g. `jupyter lab (pid 4711)`; empty when nobody can see."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if sockets:
        for entry in Path("/proc").glob("[0-9]*"):
            if _has_one_of(entry, sockets):
                return f"{_program(entry)} (pid {entry.name})"
    return ""


def _listening(port: int) -> list[str]:
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue  # not Linux, or no IPv6
        found += [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
    return found


def _has_one_of(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(each.readlink()) in sockets for each in (process / "fd").iterdir())
    except OSError:
        return False  # somebody else's, or gone


def _program(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a process"
    if not words[0]:
        return "a process"
    return " ".join((Path(words[0]).name, *(word for word in words[1:] if word and "\n" not in word)))[:_LONGEST]
