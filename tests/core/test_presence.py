"""What counts as a sign of a person, and what a page that was left alone does, which doesn't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.access import Kind
from hubgate.core.presence import is_sign, is_spoken_on, says_something
from hubgate.core.routing import Zone

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND")
zones = st.sampled_from(Zone)
methods = st.sampled_from(METHODS)


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("PUT", "user/alice/api/contents/Untitled.ipynb"),
        ("POST", "user/alice/api/contents"),
        ("PATCH", "user/alice/named/api/contents/a b/c.txt"),
        ("POST", "user/alice/api/contents/x.ipynb/checkpoints"),
        ("DELETE", "user/alice/api/contents/x"),
        ("POST", "user/alice/api/kernels/k/interrupt"),
        ("POST", "user/alice/api/sessions"),
        ("DELETE", "user/alice/api/terminals/1"),
        ("PUT", "user/alice/proxy/8889/api/contents/x"),
    ],
)
def test_work_on_files_and_kernels_is_a_sign(method: str, below: str) -> None:
    assert is_sign(Kind.FETCH, method, Zone.NOTEBOOK, below)
    assert not is_sign(Kind.FETCH, "GET", Zone.NOTEBOOK, below), "a poll of the same"


@pytest.mark.parametrize(
    "below",
    [
        "user/alice/lab/api/workspaces/default",
        "user/alice/lab/api/settings/x",
        "user/alice/api/contentsx",
        "user/alice/api/security/csp-report",
        "user/alice/api/collaboration/session/x",
        "user/alice/proxy/8787/rpc/get_events",
        "services/x/api/contents/y",
        "user/api/contents",
        "",
    ],
)
def test_a_write_of_which_nothing_is_known_is_none(below: str) -> None:
    for method in METHODS:
        assert not is_sign(Kind.FETCH, method, Zone.NOTEBOOK, below)


@given(method=methods, zone=zones, below=st.text())
def test_a_navigation_always_is_one_and_a_handshake_never(method: str, zone: Zone, below: str) -> None:
    assert is_sign(Kind.NAVIGATION, method, zone, below)
    assert not is_sign(Kind.UPGRADE, method, zone, below)


@given(zone=zones, below=st.text(), method=st.sampled_from(("GET", "HEAD", "OPTIONS")))
def test_no_poll_is_one(zone: Zone, below: str, method: str) -> None:
    assert not is_sign(Kind.FETCH, method, zone, below)


@given(below=st.text(), method=methods, zone=st.sampled_from((Zone.HUB, Zone.LOGIN)))
def test_writes_at_the_hub_are_but_for_a_browsers_own_reports(below: str, method: str, zone: Zone) -> None:
    assert is_sign(Kind.FETCH, method, zone, below) is (method not in {"GET", "HEAD", "OPTIONS"})
    assert not is_sign(Kind.FETCH, "POST", Zone.HUB, "hub/security/csp-report")


@pytest.mark.parametrize(
    ("below", "spoken_on"),
    [
        ("user/alice/api/kernels/0e5e/channels", True),
        ("user/alice/named/api/kernels/0e5e/channels", True),
        ("user/al%20ice/terminals/websocket/1", True),
        ("user/alice/proxy/8889/terminals/websocket/1", True),
        ("user/alice/api/kernels/0e5e/channels/x", False),
        ("user/alice/api/kernels/channels", False),
        ("user/alice/api/collaboration/room/x", False),
        ("user/alice/api/events/subscribe", False),
        ("user/alice/proxy/8787/p/websocket/", False),
        ("hub/api/kernels/x/channels", False),
        ("user/api/kernels/x/channels", False),
    ],
)
def test_sockets_on_which_a_person_speaks(below: str, *, spoken_on: bool) -> None:
    assert is_spoken_on(below) is spoken_on


# -- frames


def frame(opcode: int, payload: bytes, *, masked: bool = True, long: int = 0, fin: bool = True) -> bytes:
    """RFC 6455, 5.2. `long`: 2 or 8 bytes of length where fewer would do."""
    size = len(payload)
    mask = b"\xde\xad\xbe\xef" if masked else b""
    if size < 126 and not long:
        length = bytes([size])
    elif size < 65536 and long != 8:
        length = b"\x7e" + size.to_bytes(2)
    else:
        length = b"\x7f" + size.to_bytes(8)
    head = bytes([(0x80 if fin else 0) | opcode, length[0] | (0x80 if masked else 0)])
    return head + length[1:] + mask + payload


lives = st.builds(frame, st.sampled_from((8, 9, 10)), st.binary(max_size=125)) | st.builds(
    frame, st.sampled_from((0, 1, 2)), st.just(b""), fin=st.booleans()
)
sayings = st.builds(
    frame,
    st.sampled_from((0, 1, 2)),
    st.binary(min_size=1, max_size=8) | st.sampled_from((125, 126, 127, 300, 65535, 65536)).map(lambda n: b"\x8a" * n),
    masked=st.booleans(),
    long=st.sampled_from((0, 2, 8)),
    fin=st.booleans(),
)


@given(st.lists(lives, max_size=20))
def test_signs_of_life_say_nothing(said: list[bytes]) -> None:
    """However many come together."""
    assert not says_something(b"".join(said))


@given(
    before=st.lists(lives, max_size=4),
    said=sayings,
    after=st.lists(lives | sayings, max_size=4),
    cuts=st.lists(st.integers(1, 200), max_size=40),
)
def test_nothing_that_is_said_is_missed_however_the_bytes_are_cut(
    before: list[bytes], said: bytes, after: list[bytes], cuts: list[int]
) -> None:
    stream, at, heard = b"".join((*before, said, *after)), 0, False
    for cut in [*cuts, len(stream)]:
        heard = heard or says_something(stream[at : at + cut])
        at += cut
        if at > sum(map(len, before)) + len(said):
            break
    assert heard, "at the latest when all of it was there"


def test_whoever_begins_to_listen_in_the_middle_of_something_hears_it() -> None:
    text = b'{"header": {"msg_type": "execute_request"}, "content": {"code": "1 + 1", "silent": false}}' * 20
    masked = bytes(byte ^ mask for byte, mask in zip(text, b"\xde\xad\xbe\xef" * len(text), strict=False))
    for at in range(len(masked)):
        assert says_something(masked[at:])
        assert says_something(masked[at:] + frame(10, b""))


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(piece: bytes) -> None:
    assert says_something(piece) in {True, False}


def test_a_tab_that_is_left_alone_says_nothing() -> None:
    pong = frame(10, b"\x00\x00\x00\x07")
    assert not says_something(b"")
    assert not says_something(pong * 1000)
    assert not says_something(frame(1, b"")), "an empty message keeps a connection awake"
    assert not says_something(frame(8, b"\x03\xe9"))
    assert says_something(pong + frame(1, b'{"header": {"msg_type": "execute_request"}}'))
    assert says_something(pong[:1]), "what is torn may be anything, and counts"
    assert says_something(pong + pong[:5])
