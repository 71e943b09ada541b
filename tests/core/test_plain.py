"""What is taken for a plain request is one to a complete parser, too, and says the same to both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubgate.core import plain
from hubgate.core.access import Kind, kind_of
from hubgate.core.headers import HeaderRules, canonical_address, client_address
from hubgate.core.plain import LARGEST, PlainFields, PlainRequests
from hubgate.core.routing import NoRoute, Router, parse_target
from hubgate.errors import ClientFault
from tests.core.strategies import HOSTS, PORTAL, SITE, paths

RULES = HeaderRules(identity_header="REMOTE_USER")
COOKIE = b"Cookie: hubgate=s3cret; jupyterhub-hub-login=x.y; theme=dark"
BROWSER = (
    b"Host: jupyter.example.org",
    b"Connection: keep-alive",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
    b"Accept: text/html,*/*;q=0.8",
    b"Accept-Encoding: gzip, deflate, br",
    b'sec-ch-ua: "Chromium";v="130"',
    b"Sec-Fetch-Mode: navigate",
    b'If-None-Match: W/"caf\xc3\xa9"',
    COOKIE,
)
LINE = b"GET /htc/hub/static/a.js?v=1&x=/../%2f HTTP/1.1"


def requests(*, behind_proxies: bool = True) -> PlainRequests:
    """With memories of their own, all empty."""
    return PlainRequests(HeaderRules(identity_header="REMOTE_USER"), secure=True, behind_proxies=behind_proxies)


def head(*lines: bytes, line: bytes = LINE, first: tuple[bytes, ...] = BROWSER) -> bytes:
    return b"\r\n".join((line, *first, *lines, b"", b""))


def told(found: tuple[bytes, str, PlainFields] | None) -> Any:
    """What was read, so that it can be compared."""
    if found is None:
        return None
    line, path, fields = found
    return line, path, fields.host, fields.cookie, fields.passed, fields.forwarded_for, fields.navigates


def fields_of(data: bytes) -> PlainFields:
    found = requests().read(data)
    assert found is not None, data
    return found[2]


# -- the other reader


def parsed(data: bytes) -> Any:
    """What aiohttp makes of it, with the gateway's limits: the message, or None if it is refused or not all of it.

    AssertionError if it has a body, or if something is left over.
    """
    protocol: Any = SimpleNamespace(pause_reading=None, resume_reading=None)
    loop: Any = None
    parser = HttpRequestParser(
        protocol, loop, 2**18, max_line_size=16 * 1024, max_field_size=16 * 1024, max_headers=128, auto_decompress=False
    )
    try:
        messages, upgraded, tail = parser.feed_data(data)
    except HttpProcessingError:
        return None
    if len(messages) != 1:
        return None
    message, payload = messages[0]
    assert payload.is_eof()
    assert not upgraded
    assert tail == b""
    return message


def normalised(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return b"%b: %b\r\n" % (name, value.strip(b" \t"))


def agrees(found: tuple[bytes, str, PlainFields], data: bytes, *, behind_proxies: bool = True) -> None:
    """That the other reader, and whoever judges what it read, come to the same."""
    line, path, fields = found
    message = parsed(data)
    assert message is not None
    assert (message.method, message.version, message.should_close) == ("GET", (1, 1), False)
    assert not message.chunked
    assert not message.upgrade
    assert line == b"GET %b HTTP/1.1" % message.path.encode("utf-8", "surrogateescape")
    upstream = RULES.to_upstream(message.raw_headers)
    assert [normalised(each) for each in fields.passed.split(b"\r\n")] == upstream.lines
    assert fields.cookie == upstream.cookie
    target = parse_target(message.path, message.headers.getall("Host"), secure=True)
    assert (target.raw.encode(), target.path, target.host) == (line.split(b" ")[1], path, fields.host)
    assert target.plain
    assert fields.navigates is (kind_of("GET", message.headers) is Kind.NAVIGATION)
    forwarded = message.headers.getall("X-Forwarded-For", ()) if behind_proxies else ()
    assert fields.forwarded_for == tuple(forwarded)


# -- what is recognised


def test_a_browsers_request_is() -> None:
    found = requests().read(head())
    assert found is not None
    agrees(found, head())
    line, path, fields = found
    assert (line, path) == (LINE, "/htc/hub/static/a.js")
    assert (fields.host, fields.cookie, fields.navigates) == (PORTAL, COOKIE[8:], True)
    assert fields.passed == b"\r\n".join((BROWSER[0], *BROWSER[2:8]))


def test_what_is_secret_is_not_printed() -> None:
    reader = requests()
    found = reader.read(head(b"X-Api-Key: other"))
    assert found is not None
    assert "s3cret" not in repr(found[2])
    assert "other" not in repr(found[2])
    assert repr(reader) == "PlainRequests(1 blocks, 9 lines)"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nabc",
        b"GET / HTTP/1.1\r\n\r\n",
        *(head()[:size] for size in range(1, len(head()), 7)),
        head()[:-1],
        head() + b"x",
        head() + b"\r\n",
        head() + head(),
        b"\r\n" + head(),
        head().replace(b"\r\n", b"\n"),
        head().replace(b"\r\n", b"\n", 1),
        head()[:-2] + b"\n\r\n",
        head(b" folded: yes"),
        head(b"\tfolded"),
        head(b""),
        head(b"NoColon"),
        head(b": v"),
        head(b"X : v"),
        head(b"X\t: v"),
        head(b"X: v "),
        head(b"X: v\t"),
        head(b"X:v\rY: z"),
        head(b"X: v\nY: z"),
        head(b"X: \0"),
        head(b"X: \x7f"),
        head(b"\xff: v"),
        head(b"X" * 17000),
        head(b"X: " + b"x" * LARGEST),
        head(*(b"X-%d: v" % number for number in range(92))),
    ],
)
def test_what_is_no_single_complete_head_is_not(data: bytes) -> None:
    assert requests().read(data) is None


@pytest.mark.parametrize(
    "line",
    [
        *(b"HEAD / HTTP/1.1", b"POST / HTTP/1.1", b"get / HTTP/1.1", b"GETX / HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        *(b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET / http/1.1", b"GET / HTTP/2.0", b"GET /", b"GET / HTTP/1.1 "),
        *(b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET / x HTTP/1.1"),
        *(b"GET https://jupyter.example.org/ HTTP/1.1", b"GET * HTTP/1.1", b"GET x HTTP/1.1", b"GET ? HTTP/1.1"),
        *(
            b"GET //x HTTP/1.1",
            b"GET /a//b HTTP/1.1",
            b"GET /a/../b HTTP/1.1",
            b"GET /./ HTTP/1.1",
            b"GET /.x HTTP/1.1",
        ),
        *(
            b"GET /%61 HTTP/1.1",
            b"GET /a;b HTTP/1.1",
            b"GET /a\\b HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"GET /?a#b HTTP/1.1",
        ),
        *(
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET /?\xc3\xa9 HTTP/1.1",
            b"GET /\0 HTTP/1.1",
            b'GET /" HTTP/1.1',
            b"GET /\r HTTP/1.1",
        ),
    ],
)
def test_a_target_with_two_readings_is_not(line: bytes) -> None:
    assert requests().read(head(line=line)) is None


def test_our_own_pages_are_left_to_the_long_way_and_not_remembered() -> None:
    read = requests()
    assert read.read(head(line=b"GET /_hubgate/login?next=%2F HTTP/1.1")) is None
    assert repr(read) == "PlainRequests(0 blocks, 0 lines)"
    assert read.read(head(line=b"GET /_hubgate HTTP/1.1")) is not None


@pytest.mark.parametrize(
    "field",
    [
        *(b"Content-Length: 0", b"content-length: 5", b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING: identity"),
        *(b"Expect: 100-continue", b"Upgrade: websocket", b"TE: trailers", b"Trailer: x", b"HTTP2-Settings: x"),
        *(
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: x",
            b"Authorization: token x",
        ),
        *(
            b"Connection: close",
            b"Connection: keep-alive, x",
            b"Connection: Upgrade",
            b"Connection:",
            b"connection: accept",
        ),
        *(b"Cookie: a=b", b"cookie: a=b", b"COOKIE:a=b", b"Host: jupyter.example.org", b"HOST: other", b"Host: a,b"),
        *(b"User-Agent: twice", b"user-agent:", b"Sec-Fetch-Mode:", b"Sec-WebSocket-Key1: x"),
    ],
)
def test_fields_that_leave_a_doubt_are_not(field: bytes) -> None:
    reader = requests()
    for _ in range(3):
        assert reader.read(head(field)) is None
        assert reader.read(head(field, first=(BROWSER[0], COOKIE, *BROWSER[1:-1]))) is None
        assert reader.read(head(first=(field, *BROWSER))) is None
        assert reader.read(head()) is not None  # warm


@pytest.mark.parametrize(
    "host", [b"", b"a,b", b"a b", b"user@jupyter.example.org", b"jupyter.example.org:0", b"\xc3\xa9"]
)
def test_a_host_that_is_none_counts(host: bytes) -> None:
    """Else there could be another one behind it."""
    odd = b"Host: " + host
    assert requests().read(head(first=(odd, *BROWSER))) is None
    assert requests().read(head(first=(odd, *BROWSER[1:]))) is None
    assert requests().read(head(odd)) is None


@pytest.mark.parametrize(
    "cookie",
    [b"Cookie: a\0", b"Cookie: a\nX: y", b"Cookie: a\rX: y", b"Cookie: a ", b"Cookie:a", b"cookie: a", b"Cookie:  a"],
)
def test_a_cookie_field_is_read_in_one_spelling(cookie: bytes) -> None:
    found = requests().read(head(first=(*BROWSER[:-1], cookie)))
    assert found is None or found[2].cookie != b"a"


@pytest.mark.parametrize("missing", [BROWSER[0], COOKIE])
def test_without_host_or_cookie_it_is_not(missing: bytes) -> None:
    assert requests().read(head(first=tuple(line for line in BROWSER if line != missing))) is None


@pytest.mark.parametrize(
    ("fields", "navigates"),
    [
        ((), False),
        ((b"Accept: text/html",), True),
        ((b"Accept: */*", b"Accept: text/html"), False),
        ((b"Accept: text/html", b"Accept: */*"), True),
        ((b"Accept: text/html", b"Sec-Fetch-Mode: cors"), False),
        ((b"Sec-Fetch-Mode: cors", b"Accept: text/html"), False),
        ((b"Sec-Fetch-Mode: navigate", b"Accept: */*"), True),
        ((b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Mode: cors"), True),
        ((b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Mode: navigate"), False),
        ((b"Sec-Fetch-Mode: Navigate", b"Accept: text/html"), False),
        ((b"accept:text/html", b"SEC-FETCH-MODE:   navigate"), True),
    ],
)
def test_who_navigates(fields: tuple[bytes, ...], *, navigates: bool) -> None:
    data = head(*fields, first=(BROWSER[0], COOKIE))
    reader = requests()
    for _ in range(2):
        found = reader.read(data)
        assert found is not None
        assert found[2].navigates is navigates
        agrees(found, data)


def test_whose_word_counts_for_the_address() -> None:
    fields = (b"X-Forwarded-For: 192.0.2.1, 10.0.0.2", b"x-forwarded-for:\t10.0.0.1", b"X-Forwarded-For: \xa010.0.0.9")
    found = requests(behind_proxies=True).read(head(*fields))
    assert found is not None
    agrees(found, head(*fields))
    assert len(found[2].forwarded_for) == 3
    assert b"orwarded" not in found[2].passed
    believed = client_address("10.0.0.9", found[2].forwarded_for, [ip_network("10.0.0.0/8")])
    assert believed == "10.0.0.9", "a blank of Latin-1 makes no address of it"
    found = requests(behind_proxies=False).read(head(*fields))
    assert found is not None
    agrees(found, head(*fields), behind_proxies=False)
    assert found[2].forwarded_for == ()


SPELLINGS = [
    *(b"REMOTE_USER", b"Remote-User", b"remote.user", b"HTTP_REMOTE_USER", b"X-Remote-User", b"X-Hubgate-Assertion"),
    *(b"x_hubgate_assertion", b"X-Forwarded-Host", b"X_FORWARDED_PROTO", b"Forwarded", b"X-Real-IP", b"OIDC_CLAIM_sub"),
    *(b"Transfer_Encoding", b"Content_Length", b"Connection_", b"Cookie_", b"HTTP-Host", b"Proxy-Authenticate"),
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_nobody_speaks_in_our_name(name: bytes) -> None:
    reader = requests()
    for _ in range(3):
        for data in (
            head(name + b": mallory"),
            head(name.lower() + b":mallory"),
            head(first=(name + b": mallory", *BROWSER)),
        ):
            found = reader.read(data)
            assert found is not None
            assert b"mallory" not in found[2].passed
            agrees(found, data)


# -- whatever is sent

_NASTY = st.sampled_from(
    [
        *(
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b"\x0b",
            b"\x7f",
            b"\xff",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"\\",
            b"%2e",
        ),
        *(
            b"/",
            b"//",
            b"/.",
            b"?",
            b"#",
            b'"',
            b"x",
            b"HTTP/1.1",
            b"GET / HTTP/1.1\r\n",
            b"\r\n ",
            b"\r\n\t",
            b"\x85",
            b"\xa0",
        ),
    ]
)
_NAMES = st.sampled_from(
    [
        *(b"Host", b"Cookie", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Expect", b"TE"),
        *(b"Accept", b"Sec-Fetch-Mode", b"X-Forwarded-For", b"User-Agent", b"Content-Type", b"ETag", b"Server", b"X"),
        *(b"Content-Encoding", b"Max-Forwards", b"Content-Range", b"Content-Location", b"Sec-WebSocket-Key", b"Range"),
        *SPELLINGS,
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"", b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"0", b"5", b"chunked", b"gzip", b"websocket"),
            *(
                b"text/html",
                b"navigate",
                b"cors",
                b"10.0.0.1",
                b"jupyter.example.org",
                b"jupyter.example.org:443",
                b"h",
            ),
            *(b"[::1]", b"a\tb", b"a  b", b"\xe9", b"hubgate=1", b"x" * 600),
        ]
    ),
    st.binary(max_size=8),
)
_LINES = st.one_of(
    st.sampled_from(BROWSER),
    st.builds(
        lambda name, case, blank, value, after: getattr(name, case)() + b":" + blank + value + after,
        _NAMES,
        st.sampled_from(["lower", "upper", "title", "swapcase"]),
        st.sampled_from([b" ", b" ", b"", b"\t", b"  "]),
        _VALUES,
        st.sampled_from([b"", b"", b"", b" ", b"\t"]),
    ),
)
_TARGETS = st.one_of(
    st.sampled_from([b"/", b"/htc/hub/home", b"/?q", b"/a?b?c//..%", b"/x" * 50, b"/" + b"y" * 9000]),
    paths.map(lambda path: path.encode("utf-8", "surrogateescape")),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads of browsers, some with fields more, fields less, or bytes that don't belong there."""
    lines = draw(st.lists(_LINES, max_size=8))
    if draw(st.booleans()):
        lines = [*BROWSER[:1], *lines, COOKIE] if draw(st.booleans()) else [*BROWSER, *lines]
    if draw(st.integers(0, 3)) == 0:
        lines = draw(st.permutations(lines))
    data = head(line=b"GET " + draw(_TARGETS) + b" HTTP/1.1", first=tuple(lines))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(_NASTY) + data[place + draw(st.sampled_from([0, 0, 1, 2])) :]
    return data


WARM = requests()


@settings(max_examples=400)
@given(heads())
@example(head(b"Content-Type: a", b"content-type: b"))
@example(head(b"Sec-WebSocket-Key1: x"))
def test_whatever_is_taken_is_the_same_to_a_complete_parser(data: bytes) -> None:
    found = requests().read(data)
    if found is not None:
        agrees(found, data)


@settings(max_examples=300)
@given(st.lists(heads(), min_size=1, max_size=4))
def test_what_is_remembered_changes_nothing(several: list[bytes]) -> None:
    """Cold, warm from others, warm from the very same, with memories for almost nothing, and for no long lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "_MOST_LINES", 2)
        patch.setattr(plain, "_MOST_IN_BLOCKS", 700)
        forgetful = requests()
        for data in (*several, *several):
            cold = told(requests().read(data))
            assert told(forgetful.read(data)) == cold
            assert told(WARM.read(data)) == cold
            assert told(WARM.read(data)) == cold
            assert len(forgetful._lines) <= 2
            assert sum(map(len, forgetful._blocks)) <= max(700, len(data))


@given(st.lists(st.sampled_from(BROWSER), max_size=12), st.integers(0, 3))
def test_known_lines_in_other_company(lines: list[bytes], more: int) -> None:
    """Lines that were judged one by one come together in a head that they make malformed, or not."""
    for line in lines:
        WARM.read(head(first=(BROWSER[0], COOKIE, line)))
        WARM.read(head(line, first=(BROWSER[0], COOKIE)))
    data = head(*([b"X: y"] * more), first=tuple(lines))
    found = WARM.read(data)
    assert told(found) == told(requests().read(data))
    if found is not None:
        agrees(found, data)


def test_a_known_block_excuses_no_long_line() -> None:
    reader = requests()
    assert reader.read(head()) is not None
    assert reader.read(head(line=b"GET /" + b"x" * LARGEST + b" HTTP/1.1")) is None


def test_memory_is_bounded_whatever_strangers_send() -> None:
    reader = requests()
    for number in range(4000):
        padding = tuple(b"X-%d: %d %b" % (field, number, b"y" * 480) for field in range(30))
        assert reader.read(head(*padding)) is not None
        if number % 500 == 0:
            assert reader.read(head()) is not None
    assert sum(map(len, reader._blocks)) <= 32 * 1024 * 1024
    assert len(reader._lines) <= 4096
    assert sum(map(sys.getsizeof, reader._lines)) < 4 * 1024 * 1024
    assert reader.read(head(b"X: " + b"z" * 600)) is not None
    assert not any(len(line) > 512 for line in reader._lines)


@pytest.mark.parametrize(
    "line",
    [
        lambda size: b"X:" + b" " * size + b"\x01",
        lambda size: b"X:" + b" " * (size // 2) + b"a" + b" " * (size // 2),
        lambda size: b"X: " + b"a " * (size // 2),
        lambda size: b"X: " + b" a" * (size // 2) + b"\x01",
        lambda size: b"X" * size,
        lambda size: b"X:" * (size // 2),
        lambda size: b"X:" + b"\t " * (size // 2) + b"\x7f",
    ],
)
def test_no_line_is_dear_to_read(line: Callable[[int], bytes]) -> None:
    """What grows with the square of a line stood still for seconds, and nobody has to be logged in to send it."""

    def spent(size: int) -> float:
        data = head(line(size))
        times = []
        for _ in range(7):
            reader = requests()
            began = time.perf_counter()
            reader.read(data)
            times.append(time.perf_counter() - began)
        return min(times)

    assert spent(15_000) < 80 * spent(1_000), "15 times as long; its square would be 225 times"


# -- where it belongs


@given(paths, st.sampled_from([*HOSTS, "unknown.example.org"]))
def test_a_plain_path_has_the_route_of_its_target(path: str, host: str) -> None:
    router = Router(SITE)
    try:
        target = parse_target(path, [host], secure=True)
    except ClientFault:
        return
    if target.plain:
        assert router.match_plain(target.host, target.path) == router.match(target)


def test_an_unknown_host_has_no_route() -> None:
    assert Router(SITE).match_plain("unknown.example.org", "/htc/") == NoRoute("unknown_host")
    assert Router(SITE).match_plain(PORTAL, "/nowhere") == NoRoute("unknown_path")


def test_places_have_names_of_their_own() -> None:
    router = Router(SITE)
    routes = [
        router.match_plain(host, path + rest)
        for host in HOSTS
        for path in ("/htc/", "/hpc/", "/lab/", "/lab/deep/", "/", "/dev/")
        for rest in ("", "hub/", "hub/login", "user/x/")
    ]
    named: dict[str, Any] = {}
    for route in routes:
        if hasattr(route, "name"):
            assert named.setdefault(route.name, route) == route
    assert len(named) == 3 * 6


@pytest.mark.parametrize(
    ("text", "address"), [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("x", "x")]
)
def test_an_address_is_written_in_one_way(text: str, address: str) -> None:
    assert canonical_address(text) == address
