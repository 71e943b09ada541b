"""What does hubgate write down as it runs, and in which form?

Everything is one line of JSON: the gateway's own events on standard error, requests on standard output beside the
audit lines (`hubgate.audit`); `log` says which of them a line is. A log message is the slug of an event, its facts are
fields. Strings are escaped, so nothing that a client sends can begin a line. Whoever logs leaves secrets out; what
foreign libraries and tracebacks say is scrubbed here all the same. Of a request's target only the path is written,
never the query, which carries codes and tokens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, TextIO

from aiohttp.http_exceptions import HttpProcessingError

from hubgate.audit import timestamp

if TYPE_CHECKING:
    from hubgate.web.clearance import Caller

_LONGEST = 8192
_LONGEST_PATH = 1024
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_TELLTALE = (
    r"code|state|nonce|(?:id_|access_|refresh_|logout_)?token(?:_hint)?|client_secret|code_verifier|password|otp|totp"
    r"|secret"
)
_SCRUBBED = (
    # JSON Web Tokens, wherever they stand.
    (re.compile(r"\bey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"), "(token)"),
    # Whole header fields.
    (re.compile(r"(?i)\b((?:set-)?cookie|authorization|x-hubgate-assertion)(['\"]?\s*[:=,]\s*).*"), r"\1\2(removed)"),
    # Cookies of ours and of JupyterHub.
    (re.compile(r"((?:__Host-)?hubgate[\w-]*|jupyterhub-[\w-]+|_xsrf)=[^;\s\"']+"), r"\1=(removed)"),
    # Forms, queries, dictionaries.
    (re.compile(rf"(?i)\b({_TELLTALE})(['\"]?\s*[=:]\s*['\"]?)[^\s&;,'\"<>]+"), r"\1\2(removed)"),
    # Passwords in addresses.
    (re.compile(r"(?<=://)[^/@\s]+@"), "…@"),
)


def scrubbed(text: str) -> str:
    """The text without what looks like a secret, and bounded."""
    for pattern, instead in _SCRUBBED:
        text = pattern.sub(instead, text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class JsonFormatter(logging.Formatter):
    """One record, one line of JSON: time, level, event, logger, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "log": "gateway",
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": scrubbed(record.getMessage()),
            "logger": record.name,
        }
        for name, value in record.__dict__.items():
            if name not in _ORDINARY and name not in line:
                line[name] = _plain(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["fault"] = record.exc_info[0].__name__
            line["trace"] = scrubbed("".join(traceback.format_exception(*record.exc_info)))
        return json.dumps(line).replace("\x7f", "\\u007f")


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return scrubbed(str(value))


class MalformedRequests(logging.Filter):
    """Makes a short line of what aiohttp says about requests that aren't HTTP.

    Its own record is an error with a traceback that quotes the offending field, which may be a cookie.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where it is one of these; never drop one."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            client = record.args[0] if isinstance(record.args, tuple) and record.args else None
            record.__dict__.update(client=client, reason=type(error).__name__)
            record.msg, record.args, record.exc_info, record.exc_text = "request_malformed", (), None, None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


def configure(level: str, stream: TextIO | None = None) -> None:
    """Let all logging of this process go to one place in one form. `level`: debug, info, warning or error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(MalformedRequests())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What these say at "info" and below is about bytes and selectors, not about a site.
    for chatty in ("asyncio", "urllib3", "httpx", "keycloak", "authlib"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Warnings of Python go where everything goes.
    logging.captureWarnings(capture=True)


class AccessLog:
    """One line per request, gathered for a moment, so that a busy gateway makes few system calls.

    `write` takes whole lines. Unless this process is `alone`, a chunk stays below what a pipe takes at once (PIPE_BUF,
    POSIX write()): lines of several workers never mix. An event loop must be running in whatever calls it.
    """

    _CHUNK = 4000
    _CHUNK_ALONE = 32_000
    _MOMENT = 0.2

    def __init__(
        self, write: Callable[[bytes], None], *, alone: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._most = self._CHUNK_ALONE if alone else self._CHUNK
        self._clock = clock
        self._lines: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0.0
        self._stamp = ""
        self._failing = False

    def __call__(
        self,
        caller: Caller,
        *,
        method: str,
        path: str,
        status: int,
        sent: int,
        received: int,
        duration: float,
        request_id: str,
    ) -> None:
        """Note one request that is over (a tunnel: that was opened). `sent` and `received` count bytes of bodies,
        `duration` is in seconds.
        """
        origin, rest = _told(caller)
        path = path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "…"
        line = (
            f'{{"log": "access", "time": "{self._now()}", {origin}, "method": {quoted(method[:32])}, '
            f'"path": {quoted(path)}, "status": {status}, "received": {received}, "sent": {sent}, '
            f'"ms": {duration * 1000:.1f}, {rest}, "request_id": "{request_id}"}}\n'
        )
        if self._size + len(line) > self._most:
            self.flush()
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._MOMENT, self.flush)

    def flush(self) -> None:
        """Write what was gathered. Never raises: that lines are lost is logged once, until one is written again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        data = "".join(self._lines).replace("\x7f", "\\u007f").encode("ascii")
        self._lines.clear()
        self._size = 0
        try:
            self._write(data)
        except OSError:
            if not self._failing:
                logging.getLogger(__name__).exception("access_not_written")
            self._failing = True
        else:
            self._failing = False

    def _now(self) -> str:
        now = self._clock()
        into = now - self._second
        if not 0.0 <= into < 1.0:
            self._second = float(int(now))
            self._stamp = timestamp(self._second)[:-4]
            into = now - self._second
        return f"{self._stamp}{int(into * 1000):03d}Z"


@lru_cache(maxsize=4096)
def _told(caller: Caller) -> tuple[str, str]:
    """What is the same for all requests of a caller; quoting it each time would double the cost of a line."""
    auth = f', "auth": {quoted(caller.auth)}' if caller.auth else ""
    return (
        f'"client": {quoted(caller.address)}, "host": {quoted(caller.host[:256])}',
        f'"user": {_or_null(caller.user)}, "pool": {_or_null(caller.pool)}, "upstream": {_or_null(caller.upstream)}'
        f"{auth}",
    )


def _or_null(value: str | None) -> str:
    return quoted(value) if value else "null"
