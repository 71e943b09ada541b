"""Nobody speaks in our name, and no answer acts beyond itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubgate.core.headers import HeaderRules, UpstreamHeaders, client_address, forwarded_lines
from hubgate.errors import ClientFault

RULES = HeaderRules(identity_header="REMOTE_USER")
HOST = (b"Host", b"jupyter.example.org")


def sent(*fields: tuple[bytes, bytes], rules: HeaderRules = RULES) -> UpstreamHeaders:
    return rules.to_upstream([HOST, *fields])


def names(headers: UpstreamHeaders) -> list[bytes]:
    return [line.partition(b":")[0] for line in headers.lines]


# -- towards a hub


def test_end_to_end_fields_pass_as_they_are() -> None:
    fields = [
        (b"Host", b"Jupyter.example.org:443"),
        (b"user-agent", b"x"),
        (b"ACCEPT", b"*/*"),
        (b"Authorization", b"token abc"),
        (b"X-XSRFToken", b"2|a"),
        (b"If-None-Match", b'"a", "b"'),
        (b"Accept", b"text/html"),
        (b"Sec-WebSocket-Protocol", b"v1.kernel.websocket.jupyter.org"),
        (b"X-Latin", b"caf\xe9"),
        (b"X-Empty", b""),
    ]
    headers = RULES.to_upstream(fields)
    assert headers.lines == [b"%b: %b\r\n" % field for field in fields]
    assert headers.cookie is None


@pytest.mark.parametrize(
    "name",
    [
        *("Remote_User", "remote-user", "REMOTE.USER", "HTTP_REMOTE_USER", "http-http-Remote-User", "RemoteUser"),
        *("X-Remote-User", "X_REMOTE_USER", "Remote~User", "X-Remote-Groups", "X-Remote-Email", "Remote-Name"),
        *("X-Hubgate-Assertion", "x_hubgate_assertion", "HTTP_X_HUBGATE_ASSERTION", "X-Hubgate-Anything"),
        *("X-Forwarded-User", "X-Forwarded-Email", "X_Forwarded_Groups", "X-Forwarded-Preferred-Username"),
        *("X-Auth-Request-User", "X-Auth-Request-Email", "OIDC_CLAIM_sub", "X-Authenticated-User", "X-WebAuth-User"),
        *("Forwarded", "X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"),
        *("X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Method-Override"),
        *(
            "X-Scheme",
            "X-Host",
            "Proxy",
            "Proxy-Authorization",
            "True-Client-IP",
            "X-SSL-Client-Verify",
            "Front-End-Https",
        ),
        *("Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Expect"),
        *("Content-Length", "Transfer-Encoding"),
        *("Content_Length", "Transfer_Encoding", "Transfer.Encoding", "HTTP_HOST", "HTTP_COOKIE", "Coo-kie", "Ho_st"),
        *("HTTP_AUTHORIZATION", "__", "-"),
    ],
)
@pytest.mark.parametrize("respell", [str, str.lower, str.upper])
def test_dropped(name: str, respell: Callable[[str], str]) -> None:
    spelled = respell(name).encode()
    headers = sent((b"A", b"1"), (spelled, b"admin"), (b"B", b"2"), (spelled, b""))
    assert names(headers) == [b"Host", b"A", b"B"]
    assert headers.cookie is None


def test_the_identity_header_has_the_configured_name() -> None:
    rules = HeaderRules(identity_header="X-Lab-Person")
    for name in (b"x_lab_person", b"Lab-Person", b"HTTP_X_LAB_PERSON", b"X-X-Lab-Person"):
        assert names(sent((name, b"admin"), rules=rules)) == ([b"Host", name] if name == b"Lab-Person" else [b"Host"])
    # What other authenticators read stays dropped.
    assert names(sent((b"REMOTE_USER", b"admin"), rules=rules)) == [b"Host"]


@pytest.mark.parametrize(
    "name", ["", "Remote User", "Remote:User", "Cookie", "HOST", "http-Host", "Authorization", "--"]
)
def test_names_that_can_carry_no_identity(name: str) -> None:
    with pytest.raises(ValueError, match="identity header"):
        HeaderRules(identity_header=name)


def test_what_connection_lists_is_removed() -> None:
    headers = sent(
        (b"Connection", b"keep-alive, X-Secret"),
        (b"x-secret", b"1"),
        (b"connection", b" ACCEPT ,, host"),
        (b"Accept", b"*/*"),
        (b"X-Other", b"2"),
    )
    assert names(headers) == [b"Host", b"X-Other"]


@pytest.mark.parametrize("fields", [1, 120])
def test_a_connection_that_lists_without_end_is_refused(fields: int) -> None:
    """120 fields of 16 KiB, which the parser lets pass, cost two seconds when their names were united one by one."""
    listed = b",".join(b"%x" % number for number in range(1025 // fields))
    with pytest.raises(ClientFault, match="header_malformed"):
        sent(*[(b"Connection", listed + b",more names")] * fields)


def test_what_no_hub_would_take_is_refused_here() -> None:
    with pytest.raises(ClientFault, match="headers_too_large") as caught:
        sent(*[(b"X-Large", b"x" * 16_000)] * 5)
    assert caught.value.status == 431
    assert len(sent(*[(b"X-Large", b"x" * 16_000)] * 3).lines) == 4


@pytest.mark.parametrize("fields", [[], [HOST, HOST], [(b"host", b"a"), (b"HOST", b"b")]])
def test_host_exactly_once(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ClientFault, match="host_malformed"):
        RULES.to_upstream(fields)


@pytest.mark.parametrize(
    "field",
    [
        *(
            (name, b"x")
            for name in (b"", b"Remote User", b" X", b"X ", b"X\t", b"X\r\nY", b"X\0", b"\xe9", b"X:Y", b"X(")
        ),
        *((b"X", value) for value in (b"a\r\nREMOTE_USER: admin", b"a\rb", b"a\nb", b"a\0b")),
        *((b"Cookie", value) for value in (b"a\r\nREMOTE_USER: admin", b"a\rb", b"a\nb", b"a\0b")),
    ],
)
def test_what_would_break_a_line_is_refused(field: tuple[bytes, bytes]) -> None:
    for _ in range(2):
        with pytest.raises(ClientFault, match="header_malformed"):
            sent(field)


def test_what_passes_is_not_printed() -> None:
    """Cookies and Authorization are other people's secrets."""
    assert repr(sent((b"Authorization", b"secret"))) == "UpstreamHeaders(2 lines, no cookie)"
    assert repr(sent((b"Cookie", b"secret"))) == "UpstreamHeaders(1 lines, cookies)"


def test_cookies_are_joined() -> None:
    headers = sent((b"Cookie", b"a=1"), (b"X", b"y"), (b"cookie", b"b=2; c=3"))
    assert headers.cookie == b"a=1; b=2; c=3"
    assert names(headers) == [b"Host", b"X"]


def _as_environ(name: bytes) -> str:
    """CGI (RFC 3875, 4.1.18), and servers that turn everything odd into an underscore."""
    return "HTTP_" + re.sub("[^A-Z0-9]", "_", name.decode("latin-1").upper())


def _as_letters(name: bytes) -> str:
    return re.sub("[^a-z]", "", name.decode("latin-1").lower())


OWNED_ENVIRON = {
    "HTTP_REMOTE_USER",
    "REMOTE_USER",
    "HTTP_X_HUBGATE_ASSERTION",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_REAL_IP",
}
OWNED_LETTERS = {"remoteuser", "xhubgateassertion", "xforwardedfor", "xforwardedproto", "xrealip", "forwarded"}
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}

_spelled = st.sampled_from(
    (
        *(
            "REMOTE_USER",
            "X-Hubgate-Assertion",
            "X-Forwarded-For",
            "X-Real-IP",
            "Forwarded",
            "Connection",
            "Content-Length",
        ),
        *("Transfer-Encoding", "Host", "Cookie", "Upgrade", "TE", "Accept", "X-Custom", "Origin"),
    )
).flatmap(
    lambda name: st.tuples(
        st.sampled_from(("", "", "", "HTTP_", "http-", "X-", "x_")),
        st.lists(st.sampled_from("-_.~"), min_size=len(name), max_size=len(name)),
        st.lists(st.booleans(), min_size=len(name), max_size=len(name)),
        st.booleans(),
    ).map(
        lambda drawn: (
            drawn[0]
            + "".join(
                (
                    separator
                    if not character.isalpha() and drawn[3]
                    else character.upper()
                    if upper
                    else character.lower()
                )
                for character, separator, upper in zip(name, drawn[1], drawn[2], strict=True)
            )
        ).encode()
    )
)
_fields = st.lists(
    st.tuples(
        st.one_of(_spelled, st.binary(max_size=12)),
        st.one_of(
            st.sampled_from((b"admin", b"", b"5", b"chunked", b"upgrade, remote_user, Host", b"close", b"websocket")),
            st.binary(max_size=12),
        ),
    ),
    max_size=8,
)


@given(_fields)
@example([(b"Connection", b"Host, X-Hubgate-Assertion"), (b"Remote_User", b"admin")])
def test_no_client_speaks_in_our_name(fields: list[tuple[bytes, bytes]]) -> None:
    rules = HeaderRules(identity_header="REMOTE_USER")
    try:
        headers = rules.to_upstream([*fields, HOST])
    except ClientFault:
        return
    block = b"".join(headers.lines)
    read = [line.partition(b":")[0] for line in block.split(b"\r\n")[:-1]]
    assert len(read) == len(headers.lines)
    for name in read:
        assert _as_environ(name) not in OWNED_ENVIRON
        assert _as_letters(name) not in OWNED_LETTERS
        assert name.lower() not in HOP_BY_HOP
    assert [name.lower() for name in read].count(b"host") == 1
    assert headers.lines[-1] == b"Host: jupyter.example.org\r\n"
    # Whatever passes was sent like this, in this order.
    passed = iter([b"%b: %b\r\n" % field for field in [*fields, HOST]])
    assert all(line in passed for line in headers.lines)


@given(_fields)
def test_what_is_remembered_changes_nothing(fields: list[tuple[bytes, bytes]]) -> None:
    def judged(rules: HeaderRules) -> UpstreamHeaders | str:
        try:
            return rules.to_upstream([*fields, HOST])
        except ClientFault as fault:
            return fault.code

    assert judged(RULES) == judged(RULES) == judged(HeaderRules(identity_header="remote-user"))


def test_memory_for_names_is_bounded() -> None:
    rules = HeaderRules(identity_header="REMOTE_USER")
    for number in range(3000):
        sent((b"X-%d" % number, b""), rules=rules)
        sent((b"X" * 65 + b"%d" % number, b""), rules=rules)
        rules.to_client([b"X-%d: a" % number], same)
    assert len(rules._requests) <= 1024
    assert len(rules._answers) <= 1024
    assert all(len(name) <= 64 for name in rules._requests)


# -- towards a client


def same(value: bytes) -> bytes:
    return value


def test_an_answer_passes() -> None:
    lines = [
        b"Content-Type: text/plain",
        b"content-length: 5",
        b"X-Custom:no space",
        b"Set-Cookie: a=1; Path=/htc/",
        b"Location: /htc/hub/",
        b"Cache-Control: no-store",
        b"Sec-WebSocket-Accept: abc=",
        b"Link: <https://a/>; rel=x",
    ]
    assert RULES.to_client(lines, same) == lines


@pytest.mark.parametrize(
    "line",
    [
        *(b"Connection: keep-alive", b"connection: close", b"Keep-Alive: timeout=5", b"Transfer-Encoding: chunked"),
        *(b"Trailer: X", b"Upgrade: h2c", b"Proxy-Authenticate: Basic", b"TE: trailers", b"Proxy-Connection: close"),
        *(b'Alt-Svc: h3=":443"', b'Clear-Site-Data: "*"', b"Service-Worker-Allowed: /", b"NEL: {}", b"report-to: {}"),
        *(b"Strict-Transport-Security: max-age=0", b"X-Accel-Redirect: /etc/passwd", b"X-Sendfile: /etc/passwd"),
        *(b"X-Hubgate-Assertion: a", b"x_hubgate_x: a", b"Set-Cookie2: a=b"),
        *(b"Set-Cookie: __Host-hubgate=x; Path=/; Secure", b"set-cookie:hubgate=x", b"Set-Cookie: hubgate-login=x"),
        *(b"Set-Cookie: __Host-hubgate-at-htc=x", b"Set-Cookie:  hubgate = x", b"Set-Cookie: =hubgate=x"),
        *(b"Set-Cookie: hubgate", b"Set-Cookie: ", b"Set-Cookie: ;=x", b"Set-Cookie: \x0bhubgate=1"),
        *(b" folded: line", b"no colon here", b": nameless", b"X Y: z", b""),
    ],
)
def test_dropped_from_an_answer(line: bytes) -> None:
    assert RULES.to_client([b"A: 1", line, b"B: 2"], same) == [b"A: 1", b"B: 2"]


def test_what_an_answer_lists_as_connection_is_removed() -> None:
    lines = [b"X-A: 1", b"Connection: x-a, close", b"X-B: 2", b"CONNECTION: X-C", b"x-c: 3", b"X-D: 4"]
    assert RULES.to_client(lines, same) == [b"X-B: 2", b"X-D: 4"]


def test_cookies_of_an_answer_are_asked_about() -> None:
    def judge(value: bytes) -> bytes | None:
        return None if value.startswith(b"bad") else b"tag." + value

    lines = [b"Set-Cookie: a=1", b"set-cookie:bad=1", b"Set-Cookie:  hubgatex=3 "]
    assert RULES.to_client(lines, judge) == [b"Set-Cookie: tag.a=1", b"Set-Cookie: tag.hubgatex=3"]


# -- who is it, and how did they come


def test_forwarded_lines() -> None:
    assert forwarded_lines(client="192.0.2.1", host="jupyter.example.org", proto="https") == (
        b"X-Forwarded-For: 192.0.2.1\r\n"
        b"X-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: jupyter.example.org\r\n"
        b"X-Forwarded-Port: 443\r\n"
        b"X-Real-IP: 192.0.2.1\r\n"
        b'Forwarded: for=192.0.2.1;host="jupyter.example.org";proto=https\r\n'
    )
    ipv6 = forwarded_lines(client="2001:db8::1", host="[::1]:8443", proto="http").split(b"\r\n")
    assert b"X-Forwarded-Port: 8443" in ipv6
    assert b'Forwarded: for="[2001:db8::1]";host="[::1]:8443";proto=http' in ipv6
    assert b"X-Forwarded-Port: 80\r\n" in forwarded_lines(client="::1", host="[::1]", proto="http")


TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8:f::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["198.51.100.9, 10.0.0.2 , 10.0.0.3"], "198.51.100.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.9:4711"], "198.51.100.9"),
        ("10.0.0.1", ["198.51.100.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["", " , "], "10.0.0.1"),
        ("10.0.0.1", ["<script>"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["[2001:db8:f::2]:80"], "2001:db8:f::2"),
        ("::ffff:10.0.0.1", ["[2001:0DB8:a::2]:80, 2001:db8:f::2"], "2001:db8:a::2"),
        ("fe80::1%eth0", ["198.51.100.9"], "fe80::1"),
        ("unix", ["198.51.100.9"], "unix"),
    ],
)
def test_client_address(peer: str, forwarded_for: list[str], client: str) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == client


_addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(network="10.0.0.0/8").map(str),
    st.ip_addresses(network="2001:db8:f::/48").map(str),
)
_entries = st.one_of(
    _addresses, st.sampled_from(("", "unknown", "_x", "10.0.0.1,", "[::", "1.2.3.4:x")), st.text(max_size=9)
)


@given(_addresses, st.lists(_entries, max_size=5))
def test_an_untrusted_peer_is_never_believed(peer: str, forwarded_for: list[str]) -> None:
    assert client_address(peer, forwarded_for, ()) == client_address(peer, (), TRUSTED)
    if not any(ip_address(peer) in network for network in TRUSTED):
        assert client_address(peer, forwarded_for, TRUSTED) == client_address(peer, (), TRUSTED)


@given(
    st.lists(_entries, max_size=4), st.ip_addresses(network="198.51.100.0/24").map(str), st.lists(_entries, max_size=4)
)
def test_what_a_client_claims_never_replaces_what_our_proxy_saw(claimed: list[str], seen: str, ours: list[str]) -> None:
    """Left of the first untrusted address stands what its owner wrote; it changes nothing."""
    trusted = [entry for entry in ours if entry.startswith("10.") and entry.count(".") == 3 and not entry.endswith(",")]
    assert client_address("10.0.0.1", [*claimed, seen, *trusted], TRUSTED) == seen


@pytest.mark.parametrize("kind", [b"text/html", b"text/html; charset=UTF-8", b" Text/HTML", b"application/xhtml+xml"])
def test_no_page_stays_in_a_browser(kind: bytes) -> None:
    for name in (b"Content-Type:", b"content-type: "):
        page = name + kind
        for line in (b"Cache-Control: max-age=60", b"cache-control: private", b"CACHE-CONTROL: no-store, public"):
            for _ in range(2):  # the second time it is known
                assert RULES.to_client([b"A: 1", page, line], same) == [b"A: 1", page, b"Cache-Control: no-store"]
        assert RULES.to_client([page], same) == [page, b"Cache-Control: no-store"]


def test_what_is_no_page_is_kept_as_its_server_says() -> None:
    for kind in (b"text/css", b"application/javascript", b"application/json"):
        lines = [b"Content-Type: " + kind, b"Cache-Control: max-age=60"]
        for _ in range(2):
            assert RULES.to_client(lines, same) == lines
