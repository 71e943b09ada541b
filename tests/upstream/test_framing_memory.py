"""Lines of heads that are remembered: whatever came before, a head is judged as if it were the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubgate.upstream import framing
from hubgate.upstream.framing import AnswerHead, MalformedAnswer, parse_head
from tests.upstream.test_framing import REFUSED

STATUS = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    """Nothing is remembered of other tests."""
    forget()
    yield
    forget()


def forget() -> None:
    framing._harmless.clear()
    framing._lines.clear()
    framing._status_line.cache_clear()


def judged(head: bytes) -> AnswerHead | None:
    try:
        return parse_head(head)
    except MalformedAnswer:
        return None


def judged_cold(head: bytes) -> AnswerHead | None:
    """By itself; what is remembered is put back afterwards."""
    harmless, lines = set(framing._harmless), dict(framing._lines)
    forget()
    try:
        return judged(head)
    finally:
        forget()
        framing._harmless.update(harmless)
        framing._lines.update(lines)


def warm(head: bytes) -> None:
    """Each line of it in a head of its own, and in some that are otherwise in order."""
    for line in head.split(b"\r\n")[1:]:
        for around in (
            b"%b",
            b"X: y\r\n%b",
            b"%b\r\nContent-Length: 3",
            b"Content-Length: 3\r\n%b",
            b"Server: x\r\n%b\r\nX: y",
        ):
            judged(STATUS + around % line + b"\r\n\r\n")
            judged(b"HTTP/1.0 200 OK\r\n" + around % line + b"\r\n\r\n")


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
def test_heads_are_refused_however_well_their_lines_are_known(head: bytes) -> None:
    for _ in range(3):
        warm(head)
        with pytest.raises(MalformedAnswer):
            parse_head(head)


def test_known_lines_of_two_refused_heads_make_no_good_one() -> None:
    for head in REFUSED.values():
        warm(head)
    for head in REFUSED.values():
        with pytest.raises(MalformedAnswer):
            parse_head(head)


_NAMES = st.sampled_from(
    [
        *(
            b"Content-Length",
            b"content-length",
            b"CONTENT-LENGTH",
            b"Transfer-Encoding",
            b"transfer-encoding",
            b"Connection",
        ),
        *(
            b"connection",
            b"Keep-Alive",
            b"Upgrade",
            b"TE",
            b"Trailer",
            b"Server",
            b"server",
            b"X",
            b"Set-Cookie",
            b"ETag",
        ),
        *(b"X Y", b"", b"X\t", b"Content-Length ", b" X", b"\xe9", b"Proxy-Connection"),
    ]
)
_VALUES = st.sampled_from(
    [
        *(
            b"3",
            b"4",
            b"03",
            b"+3",
            b"3, 3",
            b"0",
            b"9" * 18,
            b"9" * 19,
            b"chunked",
            b"Chunked",
            b"gzip, chunked",
            b"identity",
        ),
        *(
            b"close",
            b"keep-alive",
            b"x",
            b"server, close",
            b"upgrade",
            b"websocket",
            b"",
            b"v" * 600,
            b"a\tb",
            b"\xff",
            b"a b",
        ),
        *(b"a\0b", b"a\nb", b"a\rb", b"\x7f", b"a\r\n b", b"a\r\n\tb"),
    ]
)
_LINES = st.builds(
    lambda name, blank, value, after: name + b":" + blank + value + after,
    _NAMES,
    st.sampled_from([b" ", b" ", b"", b"  ", b"\t"]),
    _VALUES,
    st.sampled_from([b"", b"", b"", b" ", b"\t"]),
)
_STATUS_LINES = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 304",
            b"HTTP/1.1 101 S",
            b"HTTP/1.1 204 N",
        ),
        *(b"HTTP/1.1 103 E", b"HTTP/2.0 200 OK", b"HTTP/1.1 2000 OK", b"http/1.1 200 OK"),
    ]
)
_NASTY = st.sampled_from([b"\r", b"\n", b"\0", b" ", b"\t", b":", b"\r\n ", b"x", b"\xff", b"\x7f"])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    head = b"\r\n".join((draw(_STATUS_LINES), *draw(st.lists(_LINES, max_size=6))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        place = draw(st.integers(0, len(head)))
        head = head[:place] + draw(_NASTY) + head[place + draw(st.integers(0, 1)) :]
    head = head.partition(b"\r\n\r\n")[0]  # `parse_head` gets what ends with the first empty line
    return head + b"\r\n\r\n"


@settings(max_examples=500)
@given(heads())
def test_what_is_remembered_of_all_others_changes_nothing(head: bytes) -> None:
    """Nothing is forgotten between the examples."""
    alone = judged_cold(head)
    assert judged(head) == alone
    assert judged(head) == alone


@settings(max_examples=200)
@given(heads())
def test_what_is_remembered_of_its_own_lines_changes_nothing(head: bytes) -> None:
    alone = judged_cold(head)
    warm(head)
    assert judged(head) == alone


@settings(max_examples=100)
@given(st.lists(heads(), max_size=5))
def test_a_full_memory_changes_nothing(several: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "_MOST_LINES", 2)
        forget()
        for head in (*several, *several):
            assert judged(head) == judged_cold(head)
            assert len(framing._harmless) + len(framing._lines) <= 2


def test_memory_is_bounded_whatever_hubs_send() -> None:
    for number in range(5000):
        parse_head(STATUS + b"X: %d\r\nY: %b\r\nKeep-Alive: %d\r\n\r\n" % (number, b"y" * 600, number))
    assert len(framing._harmless) + len(framing._lines) <= 2048
    assert max(map(len, framing._harmless | framing._lines.keys())) <= 512


def test_what_one_answer_names_as_its_hops_is_the_next_ones_to_keep() -> None:
    for _ in range(3):
        assert parse_head(STATUS + b"X: y\r\nConnection: x\r\n\r\n").lines == []
        assert parse_head(STATUS + b"X: y\r\n\r\n").lines == [b"X: y"]
        assert not parse_head(STATUS + b"Connection: close\r\nX: y\r\n\r\n").keep_alive
        assert parse_head(STATUS + b"X: y\r\nConnection: keep-alive\r\n\r\n").keep_alive


def test_a_head_is_the_askers_own() -> None:
    for _ in range(3):
        head = parse_head(STATUS + b"X: y\r\n\r\n")
        assert head.lines == [b"X: y"]
        head.lines.append(b"Set-Cookie: mine")
