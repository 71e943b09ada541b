"""What happened that somebody may be asked about later?

One line of JSON per security event, in the schema of docs/audit-log.md, to a sink of its own. Strings are escaped, so
that no name or path can begin a line of its own, and bounded. Which events there are is said by those who cause them;
what is written is never a token, a cookie, a code or a secret: sessions appear by their handle alone.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections.abc import Callable
from datetime import UTC, datetime

log = logging.getLogger(__name__)

Value = str | int | float | None

_LONGEST = 1024
_STDOUT = 1


class Audit:
    """Writes security events. `write` takes a line with its end."""

    def __init__(self, write: Callable[[bytes], None], *, clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._clock = clock

    def event(
        self,
        event: str,
        outcome: str,
        /,
        *,
        user: str | None = None,
        client: str | None = None,
        session: str | None = None,
        factor: str | None = None,
        pool: str | None = None,
        request_id: str | None = None,
        **more: Value,
    ) -> None:
        """Write one event down.

        `event` and `outcome` are slugs, stable over versions. `client`: the address; `session`: the handle; `factor`:
        what the login was proved with, as amr values (RFC 8176) with blanks between. `more`: further facts of this
        event; none of them can take the place of a field above. Never raises: that an event could not be written is
        logged.
        """
        record: dict[str, Value] = {
            "log": "audit",
            "time": timestamp(self._clock()),
            "event": event,
            "outcome": outcome,
            "user": user,
            "client": client,
            "session": session,
            "factor": factor,
            "pool": pool,
            "request_id": request_id,
        }
        line = json.dumps({key: _bounded(value) for key, value in (record | (more | record)).items()})
        try:
            # ASCII only; DEL is the one control character that JSON leaves as it is.
            self._write(line.replace("\x7f", "\\u007f").encode("ascii") + b"\n")
        except OSError:
            log.exception("audit_not_written", extra={"lost_event": event, "outcome": outcome})


class LineFile:
    """Appends whole lines to a file, or to standard output for `-`. Several processes may share one.

    A file that was moved away (logrotate) is made anew with the next line. Writing blocks while a pipe is full: a line
    that a site is asked for later is worth a wait.
    """

    def __init__(self, path: str) -> None:
        self._path = None if path == "-" else path
        self._fd = _STDOUT
        if self._path is not None:
            self._fd = _opened(self._path)

    def write(self, data: bytes) -> None:
        """Write lines. OSError: they could not be written, or only in part."""
        if self._path is not None and not self._in_place():
            os.close(self._fd)
            self._fd = _opened(self._path)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody else made our standard output non-blocking.
                if not select.select([], [self._fd], [], 1.0)[1]:
                    raise

    def close(self) -> None:
        """Let go of the file."""
        if self._path is not None:
            os.close(self._fd)

    def _in_place(self) -> bool:
        assert self._path is not None  # noqa: S101 - only asked about files
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))


def timestamp(now: float) -> str:
    """Seconds since the epoch as RFC 3339 has it: UTC, milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _bounded(value: Value) -> Value:
    return f"{value[:_LONGEST]}…" if isinstance(value, str) and len(value) > _LONGEST else value
