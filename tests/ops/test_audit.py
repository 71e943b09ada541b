"""Audit lines: the documented schema, one line whatever is in them, and a file that can be rotated."""

from __future__ import annotations

import ast
import json
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.audit import Audit, LineFile, timestamp

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "audit-log.md").read_text()
FIELDS = ["log", "time", "event", "outcome", "user", "client", "session", "factor", "pool", "request_id"]


def lines_of(**facts: object) -> list[bytes]:
    lines: list[bytes] = []
    Audit(lines.append, clock=lambda: 1795245448.658).event("login", "ok", **facts)  # type: ignore[arg-type]
    return lines


def test_a_line_has_all_fields_in_their_order() -> None:
    (line,) = lines_of(user="alice", client="192.0.2.7", subject="s-1", tries=2)
    record = json.loads(line)
    assert list(record) == [*FIELDS, "subject", "tries"]
    assert record["time"] == "2026-11-21T07:17:28.658Z"
    assert (record["log"], record["event"], record["outcome"]) == ("audit", "login", "ok")
    assert (record["user"], record["client"], record["session"], record["tries"]) == ("alice", "192.0.2.7", None, 2)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_is_one_line_of_ascii_whatever_is_in_it(user: str, pool: str, more: dict[str, str]) -> None:
    free = {key: value for key, value in more.items() if key not in ("user", "pool")}
    (line,) = lines_of(user=user, pool=pool, **free)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    record = json.loads(line)
    assert record["user"] == (user if len(user) <= 1024 else user[:1024] + "…")
    assert (record["log"], record["event"]) == ("audit", "login")


def test_a_text_is_bounded() -> None:
    (line,) = lines_of(user="x" * 100_000)
    assert len(line) < 2000


def test_what_an_event_adds_takes_no_field_away() -> None:
    (line,) = lines_of(time="never", event="logout", outcome="x", log="access")
    record = json.loads(line)
    assert (record["log"], record["event"], record["outcome"]) == ("audit", "login", "ok")
    assert record["time"] != "never"


def test_a_full_disk_is_logged_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    Audit(full).event("login", "ok", user="alice")
    (record,) = caplog.records
    assert record.msg == "audit_not_written"
    assert record.__dict__["lost_event"] == "login"


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(0.9996) == "1970-01-01T00:00:00.999Z"
    assert timestamp(1e9) == "2001-09-09T01:46:40.000Z"


class TestFile:
    def test_is_appended_to_and_not_for_everybody(self, tmp_path: Path) -> None:
        path = tmp_path / "audit.log"
        for line in (b"one\n", b"two\n"):
            file = LineFile(str(path))
            file.write(line)
            file.close()
        assert path.read_bytes() == b"one\ntwo\n"
        assert path.stat().st_mode & 0o007 == 0

    def test_is_made_anew_when_it_was_moved_away(self, tmp_path: Path) -> None:
        path = tmp_path / "audit.log"
        file = LineFile(str(path))
        file.write(b"one\n")
        path.rename(tmp_path / "audit.log.1")
        file.write(b"two\n")
        path.unlink()
        path.write_bytes(b"")
        file.write(b"three\n")
        file.close()
        assert (tmp_path / "audit.log.1").read_bytes() == b"one\n"
        assert path.read_bytes() == b"three\n"

    def test_takes_a_line_whole_where_standard_output_takes_it_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A pipe that somebody made non-blocking, and a reader that is slower than we are.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        monkeypatch.setattr("hubgate.audit._STDOUT", writing)
        got = bytearray()

        def read() -> None:
            while piece := os.read(reading, 1000):
                got.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        LineFile("-").write(b"x" * 1_000_000 + b"\n")
        os.close(writing)
        reader.join()
        os.close(reading)
        assert len(got) == 1_000_001

    def test_a_reader_that_never_reads_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        monkeypatch.setattr("hubgate.audit._STDOUT", writing)
        with pytest.raises(BlockingIOError):
            LineFile("-").write(b"x" * 1_000_000)
        os.close(writing)
        os.close(reading)


OF_A_SECOND_FACTOR = {"_noted", "_audited"}
"""Methods of web/mfa.py that are told the outcome alone."""


def events_in_the_source() -> set[tuple[str, str]]:
    """Event and outcome of every call of `event`, or of a method that calls it, as far as the source says them."""

    def said(part: ast.expr) -> set[str]:
        return {node.value for node in ast.walk(part) if isinstance(node, ast.Constant) and isinstance(node.value, str)}

    found: set[tuple[str, str]] = set()
    for path in (ROOT / "proxy" / "hubgate").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and len(call.args) >= 2):
                continue
            first, second, *_ = call.args
            if path.name == "mfa.py" and call.func.attr in OF_A_SECOND_FACTOR:
                found |= {("second_factor", outcome) for outcome in said(first)}
            elif call.func.attr in ("event", "_audited"):
                found |= {(event, outcome) for event in said(first) for outcome in said(second)}
    return found


def test_every_event_of_the_source_is_documented() -> None:
    documented = set(re.findall(r"(?m)^\| `(\w+)` \| `(\w+)` \|", DOCUMENT))
    assert documented
    assert events_in_the_source() == documented


def test_every_field_is_documented_in_order() -> None:
    assert re.findall(r"(?m)^\| `(\w+)` \| (?!`)", DOCUMENT) == FIELDS
