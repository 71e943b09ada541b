"""Whole lines of answers that are known to pass: remembering them changes nothing about any answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.headers import HeaderRules

KNOWN = HeaderRules(identity_header="REMOTE_USER")


def fresh() -> HeaderRules:
    return HeaderRules(identity_header="REMOTE_USER")


def cookie(value: bytes) -> bytes | None:
    """What a user's tags do: another value, or none."""
    return None if value.startswith(b"gone") else b"tagged-" + value


_NAMES = st.sampled_from(
    [
        *(
            b"Content-Type",
            b"content-type",
            b"ETag",
            b"Content-Length",
            b"Server",
            b"X-Frame-Options",
            b"Cache-Control",
        ),
        *(b"Set-Cookie", b"set-cookie", b"Set-Cookie2", b"Connection", b"CONNECTION", b"Keep-Alive", b"Alt-Svc"),
        *(
            b"X-Accel-Redirect",
            b"Service-Worker-Allowed",
            b"X-Hubgate-Assertion",
            b"x_hubgate_",
            b"X",
            b"Y",
            b"no token",
        ),
    ]
)
_VALUES = st.sampled_from(
    [b"", b"a=b", b"gone=1", b"hubgate=planted", b"close", b"keep-alive", b"X", b"x , ETag", b"Set-Cookie", b"v" * 600]
)
_LINES = st.builds(
    lambda name, blank, value: name + b":" + blank + value, _NAMES, st.sampled_from([b" ", b""]), _VALUES
)
_ANSWERS = st.lists(_LINES, max_size=8)


@given(st.lists(_ANSWERS, min_size=1, max_size=5))
def test_what_is_remembered_changes_nothing(answers: list[list[bytes]]) -> None:
    for lines in (*answers, *answers):
        cold = fresh().to_client(lines, cookie)
        assert KNOWN.to_client(lines, cookie) == cold
        assert KNOWN.to_client(lines, cookie) == cold


@given(_ANSWERS)
def test_known_lines_in_other_company(lines: list[bytes]) -> None:
    """Each came alone before; together one of them may name another one as the hop's."""
    rules = fresh()
    for line in lines:
        rules.to_client([line], cookie)
    assert rules.to_client(lines, cookie) == fresh().to_client(lines, cookie)


def test_what_connection_names_is_dropped_however_well_it_is_known() -> None:
    rules = fresh()
    assert rules.to_client([b"X: y", b"Z: y"], cookie) == [b"X: y", b"Z: y"]
    for _ in range(3):
        assert rules.to_client([b"X: y", b"Connection: x", b"Z: y"], cookie) == [b"Z: y"]
        assert rules.to_client([b"X: y", b"Z: y"], cookie) == [b"X: y", b"Z: y"]
    assert rules.to_client([b"Connection: x", b"X: y", b"connection: z", b"Z: y"], cookie) == []


def test_a_cookie_is_asked_about_each_time() -> None:
    """Whose it is depends on who is answered."""
    rules = fresh()
    for user in (b"alice ", b"bob ", b"alice "):
        assert rules.to_client([b"Set-Cookie: a=b"], user.__add__) == [b"Set-Cookie: " + user + b"a=b"]


def test_the_answer_is_the_askers_own() -> None:
    """Whoever adds a line to it adds none to what the next one gets."""
    rules = fresh()
    lines = [b"X: y"]
    for _ in range(3):
        got = rules.to_client(lines, cookie)
        assert got == [b"X: y"]
        got.append(b"Set-Cookie: mine")
    assert lines == [b"X: y"]


def test_memory_for_lines_is_bounded() -> None:
    rules = fresh()
    for number in range(3000):
        line = b"X: %d" % number
        assert rules.to_client([line], cookie) == [line]
        assert rules.to_client([line], cookie) == [line]
    long = b"X: " + b"y" * 600
    assert rules.to_client([long], cookie) == [long]
    assert len(rules._answer_lines) <= 1024
    assert long not in rules._answer_lines
