"""Our cookies stay with us, and a hub's cookie is worth nothing to anybody else."""

from __future__ import annotations

import hmac
from http.cookies import SimpleCookie

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubgate.core.cookies import (
    HubCookieTags,
    expire_cookie,
    foreign_cookie_expiries,
    hub_cookie_expiries,
    hub_session,
    is_own_cookie,
    may_set,
    parse_cookies,
    set_cookie,
)
from hubgate.errors import ClientFault

OURS = "__Host-hubgate"


def tagging(*keys: bytes) -> HubCookieTags:
    """Tags under the last of these keys; all are in force."""

    def mac(message: bytes) -> bytes:
        return hmac.digest(keys[-1], message, "sha256")

    def matches(message: bytes, tag: bytes) -> bool:
        assert len(tag) == 16
        return any(hmac.compare_digest(hmac.digest(key, message, "sha256")[:16], tag) for key in keys)

    return HubCookieTags(mac, matches)


TAGS = tagging(b"key")


def stored(set_cookie_value: bytes | None) -> bytes:
    """What a browser sends back."""
    assert set_cookie_value is not None
    return set_cookie_value.split(b";")[0].strip()


def given_to(user: str, pair: bytes, tags: HubCookieTags = TAGS) -> bytes:
    return stored(tags.outgoing(pair, user_key=user, from_hub=True))


def to_hub(header: bytes, user: str, tags: HubCookieTags = TAGS) -> bytes:
    return tags.incoming(parse_cookies(header, OURS).rest, user_key=user).field


# -- sorting


def test_sorted_by_owner() -> None:
    cookies = parse_cookies(b"a=1; __Host-hubgate=id; _xsrf=2|x; __Host-hubgate-at-htc=h1;b = 2 ;a=3", OURS)
    assert cookies.session == ("id",)
    assert cookies.own == {"__Host-hubgate-at-htc": "h1"}
    assert cookies.rest == ((b"a", b"1"), (b"_xsrf", b"2|x"), (b"b", b"2"), (b"a", b"3"))


@pytest.mark.parametrize("header", [None, b"", ""])
def test_no_cookies(header: bytes | str | None) -> None:
    assert parse_cookies(header, OURS) == ((), {}, ())


def test_text_is_read_like_bytes() -> None:
    raw = b"a=\xc3\xa9; b=\xff; __Host-hubgate=1"
    assert parse_cookies(raw.decode("utf-8", "surrogateescape"), OURS) == parse_cookies(raw, OURS)


def test_two_sessions_are_both_seen() -> None:
    assert parse_cookies(b"__Host-hubgate=a; __Host-hubgate=b; __Host-hubgate=a", OURS).session == ("a", "b", "a")


def test_more_than_any_browser_sends_is_refused_before_it_is_read() -> None:
    """200 000 cookies of our name in one request, which the parser lets pass, were minutes of everybody's time."""
    with pytest.raises(ClientFault, match="headers_too_large") as caught:
        parse_cookies(b"hubgate=a; " * 3000, "hubgate")
    assert caught.value.status == 431
    assert len(parse_cookies(b"hubgate=a; " * 2900, "hubgate").session) == 2900


def test_disputed_cookies_of_ours_do_not_count() -> None:
    cookies = parse_cookies(b"hubgate-login=a; hubgate-login=b; hubgate-at-x=c; hubgate-at-x=c", "hubgate")
    assert cookies.own == {"hubgate-at-x": "c"}


def test_on_https_an_unprefixed_session_is_none() -> None:
    cookies = parse_cookies(b"hubgate=planted; hubgate-login=x", OURS)
    assert cookies.session == ()
    assert cookies.rest == ()
    assert cookies.own == {"hubgate": "planted", "hubgate-login": "x"}


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"=",
        b"=x",
        b"x",
        b"hubgate",
        b"\xa0a=1",
        b"a\x0b=1",
        b"a\x85=1",
        b"\x1fa=1",
        b"a b=1",
        b"\xe9=1",
        b"a\x00=1",
    ],
)
def test_nameless_and_odd_names_are_dropped(part: bytes) -> None:
    assert parse_cookies(b"; ".join((b"a=1", part, b"b=2")), OURS).rest == ((b"a", b"1"), (b"b", b"2"))


def test_values_stay_as_they_are() -> None:
    raw = b'a="q; b=\\"; c= x=y ; d={"k":[1,2]}; e=\xff\xfe; f='
    rest = parse_cookies(raw, OURS).rest
    assert b"; ".join(b"=".join(pair) for pair in rest) == raw.replace(b"= x", b"=x").replace(b"y ;", b"y;")


def test_repr_shows_no_value() -> None:
    cookies = parse_cookies(b"__Host-hubgate=secret; __Host-hubgate-x=secret; a=secret", OURS)
    assert "secret" not in repr(cookies)
    given_to("alice", b"jupyterhub-x=secret")
    assert "secret" not in repr(TAGS)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (b"hubgate", True),
        (b"__Host-hubgate", True),
        (b"hubgate-login", True),
        (b"__Host-hubgate-at-htc", True),
        (b"hubgates", False),
        (b"my-hubgate", False),
        (b"__Secure-hubgate", False),
        (b"", False),
    ],
)
def test_own_names(name: bytes, own: bool) -> None:
    assert is_own_cookie(name) is own
    assert may_set(name + b"=1") is (not own and name != b"")


# -- tags


def test_a_tag_goes_out_and_comes_off_again() -> None:
    attributes = b"; expires=Sat, 21 Nov 2026 06:52:28 GMT; HttpOnly; Path=/htc/user/alice/"
    value = b'jupyterhub-user-alice="2|1:0|10:1|a==|ff"'
    sent = TAGS.outgoing(value + attributes, user_key="alice", from_hub=False)
    assert sent is not None
    name, _, rest = sent.partition(b"=")
    assert name == b"jupyterhub-user-alice"
    assert rest[:1] == b'"'
    assert rest[23:] == b'.2|1:0|10:1|a==|ff"' + attributes
    for _ in range(2):
        assert to_hub(b"x=1; " + stored(sent) + b"; _xsrf=2", "alice") == (
            b'x=1; jupyterhub-user-alice="2|1:0|10:1|a==|ff"; _xsrf=2'
        )
        assert to_hub(b"x=1; " + stored(sent) + b"; _xsrf=2", "bob") == b"x=1; _xsrf=2"


def test_a_client_may_take_the_quotes_off() -> None:
    sent = given_to("alice", b'jupyterhub-hub-login="v"')
    assert to_hub(sent.replace(b'"', b""), "alice") == b"jupyterhub-hub-login=v"


@pytest.mark.parametrize(
    "name",
    [
        b"jupyterhub-hub-login",
        b"jupyterhub-session-id",
        b"jupyterhub-user-a%40b",
        b"jupyterhub-user-a-oauth-state-xyzABCde",
        b"service-grader",
        b"__Host-jupyterhub-user-a",
        b"__Host-service-grader",
    ],
)
def test_cookies_of_hubs(name: bytes) -> None:
    assert given_to("alice", name + b"=v") != name + b"=v"
    assert to_hub(name + b"=v", "alice") == b""
    assert to_hub(given_to("alice", name + b"=v"), "alice") == name + b"=v"


@pytest.mark.parametrize(
    "value", [b"_xsrf=2|x; Path=/htc/hub/", b"username-1=x", b"JupyterHub-x=1", b"x=jupyterhub-a=b"]
)
def test_other_cookies_are_left_alone(value: bytes) -> None:
    assert TAGS.outgoing(value, user_key="alice", from_hub=False) == value
    assert to_hub(stored(value), "alice") == stored(value)


@pytest.mark.parametrize(
    "value",
    [b"jupyterhub-hub-login=; Max-Age=0", b'jupyterhub-user-a=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/'],
)
def test_deletions_pass(value: bytes) -> None:
    assert TAGS.outgoing(value, user_key="alice", from_hub=True) == value
    assert to_hub(stored(value), "alice") == b""


def test_a_notebook_cannot_log_its_visitors_in_as_its_owner() -> None:
    for name in (b"jupyterhub-hub-login", b"jupyterhub-session-id"):
        assert TAGS.outgoing(name + b"=mallory; Path=/htc/hub/", user_key="alice", from_hub=False) is None


def test_tags_outlive_a_rotation_of_keys() -> None:
    old = given_to("alice", b"service-a=1", tagging(b"old"))
    assert to_hub(old, "alice", tagging(b"old", b"new")) == b"service-a=1"
    assert to_hub(old, "alice", tagging(b"new")) == b""


@pytest.mark.parametrize(
    "forge",
    [
        lambda tag, value: value,
        lambda tag, value: b"." + value,
        lambda tag, value: tag + value,
        lambda tag, value: tag[:-1] + b"." + value,
        lambda tag, value: tag + b"A." + value,
        lambda tag, value: b"!" * 22 + b"." + value,
        lambda tag, value: b"A" * 22 + b"." + value,
        lambda tag, value: b"\xff" * 22 + b"." + value,
        lambda tag, value: tag + b"." + value + b"x",
        lambda tag, value: tag + b"..",
        lambda tag, value: b'"' + tag + b"." + value,
        lambda tag, value: b'"',
    ],
)
def test_forged_tags(forge: object) -> None:
    assert callable(forge)
    name, _, tagged = given_to("alice", b"jupyterhub-hub-login=value").partition(b"=")
    tag, _, value = tagged.partition(b".")
    assert to_hub(name + b"=" + forge(tag, value), "alice") == b""
    # The tag is for this name only.
    assert to_hub(b"jupyterhub-user-alice=" + tagged, "alice") == b""


def test_where_the_user_ends_and_the_name_begins_is_signed_too() -> None:
    tagged = given_to("a", b"service-service-x=v").partition(b"=")[2]
    assert to_hub(b"service-x=" + tagged, "aservice-") == b""


_values = st.binary(min_size=1, max_size=30).filter(lambda v: not set(v) & set(b'; \t\r\n\v\f"\x00') and v != b"")
_names = st.sampled_from((b"jupyterhub-hub-login", b"jupyterhub-user-a", b"service-x"))


@given(_names, _values, st.text(), st.text(), st.booleans())
def test_a_hub_cookie_is_for_one_user(name: bytes, value: bytes, user: str, other: str, quoted: bool) -> None:
    pair = name + b"=" + (b'"' + value + b'"' if quoted else value)
    sent = given_to(user, pair)
    assert to_hub(sent, user) == pair
    if other != user:
        assert to_hub(sent, other) == b""


def test_remembered_tags_are_bounded() -> None:
    tags = tagging(b"key")
    for number in range(9000):
        pair = b"service-x=%d" % number
        assert to_hub(given_to("alice", pair, tags), "alice", tags) == pair
        assert to_hub(b"service-x=" + b"A" * 22 + b".%d" % number, "alice", tags) == b""
    assert len(tags._good) <= 8192


def _as_tornado(header: bytes) -> list[tuple[str, str]]:
    """tornado.httputil.parse_cookie: text from latin-1, split, strip every blank that Unicode knows."""
    pairs = []
    for chunk in header.decode("latin-1").split(";"):
        key, equals, value = chunk.partition("=")
        pairs.append((key.strip(), value.strip()) if equals else ("", chunk.strip()))
    return pairs


_CHUNKS = (
    *(
        b"__Host-hubgate",
        b"hubgate",
        b"hubgate-at-x",
        b"jupyterhub-hub-login",
        b"jupyterhub-user-a",
        b"service-a",
        b"_xsrf",
    ),
    *(b"=", b"=", b"=", b";", b"; ", b" ", b'"', b"\xa0", b"\x85", b"\x1f", b"\t", b"v", b".", b"\\"),
)
_chunks = st.lists(st.one_of(st.sampled_from(_CHUNKS), st.binary(max_size=3)), max_size=14).map(b"".join)


@given(_chunks)
@example(b"\xa0__Host-hubgate=x; hubgate\x85=y")
@example(b'a="; jupyterhub-hub-login=x"; __Host-hubgate=y')
def test_no_header_brings_our_cookies_or_untagged_ones_to_a_hub(header: bytes) -> None:
    good = given_to("alice", b"jupyterhub-user-a=good")
    upstream = to_hub(header + b"; " + good, "alice")
    names = [name for name, _ in _as_tornado(upstream)]
    assert not {"hubgate", "__Host-hubgate", "hubgate-at-x"} & set(names)
    assert [pair for pair in _as_tornado(upstream) if pair[0].startswith(("jupyterhub-", "service-"))] == [
        ("jupyterhub-user-a", "good")
    ]


# -- written


def test_written() -> None:
    assert set_cookie(OURS, "abc", secure=True) == "__Host-hubgate=abc; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert set_cookie("a", "", secure=False, max_age=5, http_only=False, same_site="Strict", path="/x/") == (
        "a=; Path=/x/; Max-Age=5; SameSite=Strict"
    )
    assert expire_cookie("a", secure=True, path="/x/") == (
        "a=; Path=/x/; Max-Age=0; Secure; HttpOnly; SameSite=Lax; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("", "a", "/"),
        ("a b", "a", "/"),
        ("a=b", "a", "/"),
        ("a", "a;b", "/"),
        ("a", "a\r\nb", "/"),
        ("a", 'a"', "/"),
        ("a", "ü", "/"),
        ("a", "a", "/;Domain=x"),
        ("a", "a b", "/"),
    ],
)
def test_what_a_cookie_cannot_hold(name: str, value: str, path: str) -> None:
    with pytest.raises(ValueError, match="can't be written"):
        set_cookie(name, value, secure=True, path=path)


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1))
def test_a_browser_reads_what_is_written(value: str) -> None:
    read = SimpleCookie(set_cookie("hubgate-x", value, secure=True, max_age=60))["hubgate-x"]
    assert (read.value, read["path"], read["max-age"], read["secure"]) == (value, "/", "60", True)


def test_hub_cookies_are_expired_where_jupyterhub_sets_them() -> None:
    expiries = hub_cookie_expiries("/htc/", "alice@x.org", secure=True)
    assert [tuple(part.strip() for part in line.split(";")[:2]) for line in expiries] == [
        ("jupyterhub-hub-login=", "Path=/htc/hub/"),
        ("jupyterhub-session-id=", "Path=/htc/"),
        ("jupyterhub-services=", "Path=/htc/services"),
        ("jupyterhub-user-alice%40x.org=", "Path=/htc/user/alice@x.org/"),
        ("jupyterhub-user-alice%40x.org-oauth-state=", "Path=/htc/user/alice@x.org/"),
        ("_xsrf=", "Path=/htc/hub/"),
        ("_xsrf=", "Path=/htc/user/alice@x.org/"),
    ]
    assert all("Max-Age=0" in line and "Secure" in line for line in expiries)
    assert "Secure" not in "".join(hub_cookie_expiries("/", "a", secure=False))


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (b"jupyterhub-session-id=0123abcd", "0123abcd"),
        (b'a=b; jupyterhub-session-id="0123abcd"; c=d', "0123abcd"),
        (b"", ""),
        (b"jupyterhub-session-id=", ""),
        (b"x-jupyterhub-session-id=0123abcd", ""),
        (b"jupyterhub-session-id=01 23", ""),
        (b"jupyterhub-session-id=" + b"a" * 129, ""),
    ],
)
def test_the_hubs_name_for_its_session(field: bytes, found: str) -> None:
    assert hub_session(field) == found


def test_names_of_which_only_anothers_cookies_came_are_told() -> None:
    alices, bobs = (given_to(user, b"jupyterhub-hub-login=x") for user in ("alice", "bob"))
    planted = b"service-a=x; jupyterhub-session-id=y; theme=dark"

    def foreign(header: bytes) -> frozenset[bytes]:
        return TAGS.incoming(parse_cookies(header, OURS).rest, user_key="bob").foreign

    assert foreign(b"; ".join((alices, planted))) == {b"jupyterhub-hub-login", b"service-a", b"jupyterhub-session-id"}
    assert foreign(b"; ".join((alices, bobs))) == foreign(b"; ".join((bobs, alices))) == frozenset()
    assert foreign(bobs) == foreign(b"theme=dark") == foreign(b"") == frozenset()


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        ("/htc", ["/htc/"]),
        ("/htc/", ["/htc/"]),
        ("/htc/hub/home", ["/htc/", "/htc/hub/"]),
        ("/htc/user/a%40b/api/x/y/z", ["/htc/", "/htc/user/", "/htc/user/a%40b/", "/htc/user/a%40b/api/"]),
        ("/htc/user/a;b/api", ["/htc/", "/htc/user/"]),
    ],
)
def test_a_cookie_is_looked_for_in_the_folders_that_lead_to_what_was_asked_for(path: str, folders: list[str]) -> None:
    lines = foreign_cookie_expiries({b"jupyterhub-user-a"}, path, "/htc/", secure=True)
    assert lines == [expire_cookie("jupyterhub-user-a", secure=True, path=folder) for folder in folders]


def test_an_answer_expires_no_more_cookies_than_it_has_room_for() -> None:
    names = {b"service-%d" % number for number in range(500)} | {b'jupyterhub-"'}
    lines = foreign_cookie_expiries(names, "/htc/user/a/b/c/d", "/htc/", secure=False)
    assert 4 < len(lines) < 40
    assert len("\r\n".join(lines)) < 6000
