"""Log and access lines: JSON, one line each, and nothing secret in them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.http_exceptions import InvalidHeader
from hypothesis import given
from hypothesis import strategies as st

from hubgate.ops.logs import AccessLog, JsonFormatter, MalformedRequests, configure, scrubbed
from hubgate.web.clearance import Caller

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


def formatted(record: logging.LogRecord) -> dict[str, object]:
    MalformedRequests().filter(record)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert text.isascii()
    line: dict[str, object] = json.loads(text)
    return line


def record_of(message: str, *args: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("hubgate.test", logging.WARNING, "x.py", 1, message, args, info)
    record.__dict__.update(fields)
    return record


class TestEvents:
    def test_are_lines_with_fields(self) -> None:
        line = formatted(record_of("store_down", seconds=1.5, tried=["a", "b"], store=None, fatal=False))
        assert line.pop("time")
        assert line == {
            "log": "gateway",
            "level": "warning",
            "event": "store_down",
            "logger": "hubgate.test",
            "seconds": 1.5,
            "tried": ["a", "b"],
            "store": None,
            "fatal": False,
        }

    def test_have_the_exception_with_them(self) -> None:
        try:
            raise ValueError("no such thing")
        except ValueError as error:
            line = formatted(record_of("broken", error=error))
        assert line["fault"] == "ValueError"
        assert "no such thing" in str(line["trace"])

    def test_a_field_can_not_pose_as_another(self) -> None:
        line = formatted(record_of("x", level="debug", log="audit", event="y"))
        assert (line["log"], line["level"], line["event"]) == ("gateway", "warning", "x")

    @given(st.text(), st.text())
    def test_are_one_line_whatever_is_in_them(self, message: str, value: str) -> None:
        line = formatted(record_of("%s", message, value=value))
        assert {"time", "event", "value"} <= line.keys()


@pytest.mark.parametrize(
    "text",
    [
        "GET /_hubgate/callback?code=SECRET-1&state=SECRET-2",
        "{'access_token': 'SECRET', 'expires_in': 300}",
        '{"refresh_token": "SECRET"}',
        "client_secret=SECRET",
        "Authorization: Bearer SECRET",
        "b'Cookie: __Host-hubgate=SECRET; x=SECRET'",
        "set-cookie: a=SECRET; Path=/",
        "jupyterhub-session-id=SECRET; theme=dark",
        "__Host-hubgate-at-htc=SECRET",
        "redis://user:SECRET@host:6379/0",
        "X-Hubgate-Assertion: SECRET",
        "password=SECRET",
        "otp: SECRET",
        f"bad token {TOKEN}",
    ],
)
def test_what_looks_like_a_secret_is_scrubbed(text: str) -> None:
    for line in (
        formatted(record_of("%s", text)),
        formatted(record_of("x", detail=text)),
        formatted(record_of("x", error=ValueError(text))),
    ):
        assert "SECRET" not in json.dumps(line)
        assert TOKEN not in json.dumps(line)


def test_what_is_not_a_secret_stays() -> None:
    text = "the hub htc01 at http://10.0.0.11:8000 answered 503; next try in 5 s"
    assert scrubbed(text) == text


def test_what_has_no_end_is_cut() -> None:
    assert len(scrubbed("x" * 1_000_000)) < 10_000


def test_a_malformed_request_is_a_short_line_without_the_field_in_it() -> None:
    error = InvalidHeader(b"Cookie: __Host-hubgate=SECRET")
    record = record_of("Error handling request from %s", "192.0.2.7", error=error)
    line = formatted(record)
    assert (line["event"], line["client"], line["reason"]) == ("request_malformed", "192.0.2.7", "InvalidHeader")
    assert line["level"] == "info"
    assert "SECRET" not in json.dumps(line)
    assert "trace" not in line


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before when the test is over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_all_logging_of_the_process_takes_this_form(root: logging.Logger) -> None:
    out = io.StringIO()
    configure("info", out)
    logging.getLogger("hubgate.x").debug("too_fine")
    logging.getLogger("hubgate.x").info("seen", extra={"n": 1})
    logging.getLogger("asyncio").info("Using selector")
    logging.getLogger("foreign").warning("with %s", "words")
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert events == ["seen", "with words"]


def note(access: AccessLog, **changes: Any) -> None:
    """Note a request like any other, but for `changes`."""
    caller = {
        "address": "192.0.2.7",
        "host": "jupyter.example.org",
        "user": "alice",
        "pool": "htc",
        "upstream": "htc01",
    }
    line = {
        "method": "GET",
        "path": "/htc/user/alice/lab",
        "status": 200,
        "sent": 5,
        "received": 0,
        "duration": 0.0123,
        "request_id": "9d3c-1",
    }
    who = Caller(**{name: changes.get(name, value) for name, value in caller.items()})
    access(who, **{name: changes.get(name, value) for name, value in line.items()})


class Written:
    """Takes chunks of lines, and can be full."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.full = False
        self.some = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.chunks.append(data)
        self.some.set()

    @property
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for chunk in self.chunks for line in chunk.splitlines()]


class TestAccess:
    async def test_a_line_has_what_is_documented_and_no_query(self) -> None:
        written = Written()
        access = AccessLog(written, clock=lambda: 1795245448.5)
        note(access)
        access.flush()
        assert written.records == [
            {
                "log": "access",
                "time": "2026-11-21T07:17:28.500Z",
                "client": "192.0.2.7",
                "method": "GET",
                "host": "jupyter.example.org",
                "path": "/htc/user/alice/lab",
                "status": 200,
                "received": 0,
                "sent": 5,
                "ms": 12.3,
                "user": "alice",
                "pool": "htc",
                "upstream": "htc01",
                "request_id": "9d3c-1",
            }
        ]
        assert b"SECRET" not in b"".join(written.chunks)

    async def test_what_is_not_known_is_null(self) -> None:
        written = Written()
        access = AccessLog(written)
        note(access, user="", pool="", upstream="")
        access.flush()
        assert [written.records[0][key] for key in ("user", "pool", "upstream")] == [None] * 3

    async def test_lines_come_by_themselves_after_a_moment(self) -> None:
        written = Written()
        access = AccessLog(written)
        note(access)
        note(access)
        assert written.chunks == []
        await written.some.wait()
        assert len(written.records) == 2
        written.some.clear()
        note(access)
        await written.some.wait()
        assert len(written.records) == 3

    async def test_chunks_hold_whole_lines_and_fit_a_pipe(self) -> None:
        written = Written()
        access = AccessLog(written)
        for _ in range(100):
            note(access, path="/htc/" + "x" * 700)
        access.flush()
        assert len(written.records) == 100
        assert all(len(chunk) <= 4096 and chunk.endswith(b"\n") for chunk in written.chunks)

    async def test_the_longest_line_fits_a_pipe_too(self) -> None:
        written = Written()
        access = AccessLog(written)
        note(
            access,
            path="/" + "a" * 20_000,
            host="h" * 20_000,
            user="u" * 255,
            method="M" * 20_000,
            sent=10**15,
            received=10**15,
            duration=1e6,
        )
        access.flush()
        assert len(written.records) == 1
        assert len(written.chunks[0]) <= 4096

    @given(path=st.text(), user=st.text(), host=st.text(), method=st.text(min_size=1))
    def test_is_one_line_whatever_is_in_it(self, path: str, user: str, host: str, method: str) -> None:
        written = Written()

        async def once() -> None:
            access = AccessLog(written)
            note(access, path=path, user=user, host=host, method=method)
            access.flush()

        asyncio.run(once())
        (chunk,) = written.chunks
        assert chunk.count(b"\n") == 1
        assert all(32 <= byte < 127 for byte in chunk[:-1])
        assert written.records[0]["status"] == 200

    async def test_a_full_disk_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        written = Written()
        access = AccessLog(written)
        for full in (True, True, False, True):
            written.full = full
            note(access)
            access.flush()
        assert [record.msg for record in caplog.records] == ["access_not_written"] * 2
        assert len(written.records) == 1

    async def test_is_what_the_gateway_asks_for(self) -> None:
        # The gateway calls it by its own protocol; both name the same facts.
        import inspect

        from hubgate.web.gateway import AccessLine

        asked = inspect.signature(AccessLine.__call__).parameters
        assert inspect.signature(AccessLog.__call__).parameters.keys() == asked.keys()


def test_a_formatter_survives_what_it_is_given() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd\nthing"

    try:
        raise KeyError(Odd())
    except KeyError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "m", (), sys.exc_info())
    record.__dict__["thing"] = Odd()
    assert formatted(record)["thing"] == "odd\nthing"
