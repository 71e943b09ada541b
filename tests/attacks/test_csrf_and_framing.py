"""Nothing changes unless the person's own click in our own page asks for it, and no page of ours can be looked into.

Which pages there are is asked of the application itself, so that a page which is added is attacked as well.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.attacks.door import HANDSHAKE, Door, door
from tests.kit.phone import enrolled, step_form
from tests.kit.raw import Reply
from tests.kit.stand import stand

URLENCODED = b"Content-Type: application/x-www-form-urlencoded"
FETCHES = (b"cors", b"no-cors", b"same-origin", b"websocket", b"nested-navigate", b"x")


async def token_of(at: Door, user: str) -> bytes:
    """What is in the forms of this person's pages."""
    landing = await at.ask(b"/", user=user)
    (token,) = set(re.findall(rb'name="csrf" value="([^"]+)"', landing.body))
    return token


async def still_there(at: Door, user: str) -> bool:
    reply = await at.ask(b"/htc/hub/home", user=user)
    at.received()
    return reply.status == 200


@pytest.fixture
async def at():
    async with door(login=("alice", "bob")) as found:
        yield found


def forgeries(own: str, token: bytes, foreign: bytes) -> dict[str, tuple[tuple[bytes, ...], bytes]]:
    """Fields and body of requests that look like our form and are not."""
    good = b"csrf=" + token
    form = (URLENCODED,)
    part = b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n%b\r\n--b--\r\n' % token
    made: dict[str, tuple[tuple[bytes, ...], bytes]] = {
        "nothing": ((), b""),
        "no token": (form, b"pool=htc&next=/"),
        "an empty token": (form, b"csrf="),
        "a token of blanks": (form, b"csrf=+++"),
        "a guess": (form, b"csrf=" + b"A" * 43),
        "another person's token": (form, b"csrf=" + foreign),
        "a part of it": (form, good[:-1]),
        "more than it": (form, good + b"A"),
        "in other case": (form, b"csrf=" + token.swapcase()),
        "under another name": (form, b"CSRF=" + token + b"&csrf_token=" + token + b"&csrf[]=" + token),
        "a wrong one behind it": (form, good + b"&csrf=x"),
        "behind a NUL": (form, b"csrf=%00" + token),
        "as UTF-8 that is none": (form, b"csrf=%ff" + token),
        "with raw octets": (form, good + b"&x=\xff\xfe"),
        "of many fields": (form, b"&".join(b"a%d=b" % number for number in range(100)) + b"&" + good),
        "as JSON": ((b"Content-Type: application/json",), b'{"csrf": "' + token + b'"}'),
        "as text": ((b"Content-Type: text/plain",), good),
        "of no type": ((), good),
        "of an empty type": ((b"Content-Type:",), good),
        "of two types": ((b"Content-Type: text/plain", URLENCODED), good),
        "as multipart": ((b"Content-Type: multipart/form-data; boundary=b",), part),
        "as multipart without a name": (
            (b"Content-Type: multipart/form-data; boundary=b",),
            b"--b\r\n\r\nx\r\n--b--\r\n",
        ),
        "as multipart without a boundary": ((b"Content-Type: multipart/form-data",), part),
        "in UTF-16": ((URLENCODED + b"; charset=utf-16",), good.decode().encode("utf-16")),
        "too long": (form, good + b"&x=" + b"x" * 20_000),
        "as a cookie": ((URLENCODED, b"Cookie: csrf=" + token), b""),
        "in a header": ((URLENCODED, b"X-CSRF-Token: " + token, b"X-XSRFToken: " + token), b""),
    }
    for origin in (
        *("https://evil.example", "null", "", own + "/", own + ".evil.example", own.replace("http:", "https:")),
        *("http://127.0.0.1", own.upper() + "X", own + " https://evil.example", "file://", own + "\\", own.swapcase()),
    ):
        made[f"from {origin!r}"] = ((URLENCODED, b"Origin: " + origin.encode()), good)
    made["from us and them"] = ((URLENCODED, b"Origin: " + own.encode(), b"Origin: https://evil.example"), good)
    made["from them and us"] = ((URLENCODED, b"Origin: https://evil.example", b"Origin: " + own.encode()), good)
    for site in (b"cross-site", b"same-site", b"", b"x", b"same-origin, cross-site"):
        made[f"Sec-Fetch-Site {site!r}"] = ((URLENCODED, b"Sec-Fetch-Site: " + site), good)
    for mode in FETCHES:
        made[f"by a script, {mode!r}"] = (
            (URLENCODED, b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Site: same-origin"),
            good,
        )
    return made


async def test_nobody_is_logged_out_by_a_form_that_is_not_ours(at) -> None:
    vectors = forgeries(at.site.url, await token_of(at, "alice"), await token_of(at, "bob"))
    assert len(vectors) > 50
    for name, (fields, body) in vectors.items():
        reply = await at.ask(b"/_hubgate/logout", *fields, method=b"POST", user="alice", body=body)
        assert reply.status in {400, 403, 413}, (name, reply)
        assert not reply.fields("Set-Cookie"), name
        assert await still_there(at, "alice"), name


SAME_ORIGIN = (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: same-origin")


def led_by(own: bytes) -> list[bytes]:
    """Pages that are no hub's, or none of this host's."""
    return [
        *(own, own + b"/", own + b"/_hubgate/mfa?next=%2Fhtc%2F", own + b"/htc", own.replace(b"http:", b"https:")),
        *(b"", b"/htc/hub/home", b"https://evil.example/htc/hub/home", b"https://evil.example/?" + own + b"/htc/"),
    ]


async def test_a_link_to_the_login_logs_nobody_out() -> None:
    """Our own page leads on to whatever a link names as `next`: a form that was sent there is of this very origin."""
    async with stand(own_factor=True) as site, site.person() as alice:
        phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        lure = site.url + "/_hubgate/login?max_age=0&next=/_hubgate/logout"
        page = await alice.get(lure)
        page = await alice.submit(page, step_form(page, "again"), code=await phone.code())
        assert page.url == site.url + "/_hubgate/logout"
        assert page.form_with("csrf") is not None, "asked"
        assert (await alice.fetch(site.url + "/htc/hub/home")).status == 200


async def test_nobody_is_logged_out_without_a_form(at) -> None:
    token = await token_of(at, "alice")
    hub_page = at.site.url.encode() + b"/htc/hub/home"
    for target in (b"/_hubgate/logout", b"/_hubgate/logout?csrf=" + token, b"/_hubgate/logout?next=/&_method=POST"):
        for method in (b"GET", b"HEAD"):
            for fields in (
                (),
                (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: cross-site"),
                (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: same-site"),
                (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: none"),
                (b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Dest: image"),
                (b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Site: same-origin"),
                *((*SAME_ORIGIN, b"Referer: " + referer) for referer in led_by(at.site.url.encode())),
                SAME_ORIGIN,
                (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: cross-site", b"Referer: " + hub_page),
                (b"Accept: text/html", b"Referer: " + at.site.url.encode() + b"/htc/hub/home"),
                (b"X-HTTP-Method-Override: POST", b"X-CSRF-Token: " + token),
                (URLENCODED, b"Content-Length: 48\r\n\r\ncsrf=" + token + b"\r\n\r\n")[:1],
            ):
                reply = await at.ask(target, *fields, method=method, user="alice")
                assert reply.status in {200, 403}, (target, fields, reply)
                assert await still_there(at, "alice"), (target, fields)
        for method in (b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND"):
            reply = await at.ask(target, URLENCODED, method=method, user="alice", body=b"csrf=" + token)
            assert reply.status == 405, (method, reply)
            assert await still_there(at, "alice")
    for other in (b"/_hubgate/farewell?code=x", b"/_hubgate/logged-out?ended=1", b"/_hubgate/callback?error=x&state=y"):
        await at.ask(other, b"Accept: text/html", user="alice")
        assert await still_there(at, "alice"), other


async def test_our_own_form_logs_out_once(at) -> None:
    """Without this, the tests above could hold for a page that never works."""
    token = await token_of(at, "alice")
    fields = (
        URLENCODED,
        b"Origin: " + at.site.url.encode(),
        b"Sec-Fetch-Site: same-origin",
        b"Sec-Fetch-Mode: navigate",
    )
    reply = await at.ask(b"/_hubgate/logout", *fields, method=b"POST", user="alice", body=b"csrf=" + token)
    assert reply.status == 303
    assert not await still_there(at, "alice")
    assert await still_there(at, "bob")
    again = await at.ask(b"/_hubgate/logout", *fields, method=b"POST", user="bob", body=b"csrf=" + token)
    assert again.status == 403, "alice's token is nobody's now"
    assert await still_there(at, "bob")


async def test_nobody_is_moved_by_a_form_that_is_not_ours() -> None:
    def adapt(document: dict[str, Any]) -> None:
        document["health"] = {"move_after": "0s", "fall": 1, "interval": "60s"}

    async with door(adapt, login=("alice", "bob")) as at:
        first = await at.ask(b"/htc/hub/home", user="alice")
        (home,) = [name for name, hub in at.hubs.items() if hub.raw]
        assert home.encode() in first.body
        at.received()
        from hubgate.core.health import Observation

        registry = at.site.served.registry
        registry.report(home, Observation.UNREACHABLE, 0.0, reason="for a test")
        waiting = await at.ask(b"/htc/hub/home", b"Accept: text/html", user="alice")
        assert waiting.status == 503
        assert b'action="/_hubgate/move"' in waiting.body
        token, foreign = await token_of(at, "alice"), await token_of(at, "bob")
        for name, (fields, body) in forgeries(at.site.url, token, foreign).items():
            more = body.replace(b"csrf=", b"pool=htc&next=/&csrf=", 1)
            reply = await at.ask(b"/_hubgate/move", *fields, method=b"POST", user="alice", body=more)
            assert reply.status in {400, 403, 413}, (name, reply)
            stays = await at.ask(b"/htc/hub/home", user="alice")
            assert stays.status == 503, name
        for method in (b"GET", b"HEAD", b"PUT"):
            query = b"?pool=htc&next=/&csrf=" + token
            assert (await at.ask(b"/_hubgate/move" + query, method=method, user="alice")).status == 405
        # A pool that isn't hers to use, or isn't there, is none to be moved in.
        body = b"pool=hpc&next=/&csrf=" + foreign
        assert (await at.ask(b"/_hubgate/move", URLENCODED, method=b"POST", user="bob", body=body)).status == 403
        assert (await at.ask(b"/htc/hub/home", user="alice")).status == 503
        body = b"pool=htc&next=/&csrf=" + token
        assert (await at.ask(b"/_hubgate/move", URLENCODED, method=b"POST", user="alice", body=body)).status == 303
        assert (await at.ask(b"/htc/hub/home", user="alice")).status == 200, "our own form moves"
        assert at.received()


async def test_a_script_never_reads_the_token(at) -> None:
    """On a host that is shared with notebooks, a visitor's browser runs the notebook's script as of our origin."""
    token = await token_of(at, "alice")
    targets = [b"/", b"/_hubgate/logout", b"/_hubgate/login", b"/_hubgate/nowhere", b"/nowhere", b"/hpc", b"/%2e%2e/x"]
    targets += [
        b"/_hubgate/handover?host=x",
        b"/_hubgate/callback",
        b"/_hubgate/logged-out",
        b"/favicon.ico",
        b"/htc//hub/x/..",
    ]
    targets += [path.encode() for path in own_paths(at)]
    readable = 0
    for target in dict.fromkeys(targets):
        for method in (b"GET", b"HEAD", b"POST", b"DELETE"):
            for mode in FETCHES if method == b"GET" else FETCHES[:1]:
                for accept in (b"text/html", b"*/*"):
                    reply = await at.ask(
                        *(target, b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Site: same-origin", b"Accept: " + accept),
                        method=method,
                        user="alice",
                    )
                    assert token not in reply.body, (target, method, mode)
                    assert token not in reply.head
                    at.received()
            person = await at.ask(
                target, b"Sec-Fetch-Mode: navigate", b"Accept: text/html", method=method, user="alice"
            )
            readable += token in person.body
            at.received()
    assert readable > 10, "pages for people have it"


def own_paths(at: Door) -> list[str]:
    """Every page of the application, as an address."""
    found = {resource.canonical for resource in at.site.served.pages.router.resources()}
    return sorted(path.replace("{name}", "hubgate.css") for path in found)


def _policy(reply: Reply) -> dict[str, list[str]]:
    (value,) = reply.fields("Content-Security-Policy")
    directives = [directive.split() for directive in value.decode().split(";")]
    return {name: sources for name, *sources in directives}


def judge_headers(reply: Reply, what: object) -> None:
    """That an answer of ours can't be stored, sniffed, framed, embedded, or read by another origin."""

    def one(name: str) -> str:
        values = reply.fields(name)
        assert len(values) == 1, (what, name, reply.head)
        return values[0].decode()

    assert one("X-Content-Type-Options") == "nosniff", what
    assert one("X-Frame-Options") == "DENY", what
    assert one("Cross-Origin-Opener-Policy") == "same-origin", what
    assert one("Cross-Origin-Resource-Policy") == "same-origin", what
    assert one("Referrer-Policy") in {"no-referrer", "strict-origin"}, what
    assert not re.search(r"\d", one("Server")), what
    for name in (
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
        "X-Powered-By",
        "Set-Cookie2",
        "Alt-Svc",
    ):
        assert not reply.fields(name), what
    for cookie in reply.fields("Set-Cookie"):
        attributes = {attribute.strip().lower() for attribute in cookie.split(b";")[1:]}
        assert {b"httponly", b"samesite=lax"} <= attributes, (what, cookie)
        assert not [attribute for attribute in attributes if attribute.startswith(b"domain")], (what, cookie)
    kind = (reply.field("Content-Type") or b"").partition(b";")[0]
    public = kind in {b"text/css", b"text/javascript", b"image/svg+xml", b"text/plain", b"application/jwk-set+json"}
    if not (public and reply.status in {200, 304}):
        assert one("Cache-Control") == "no-store", what
    if kind == b"text/html":
        policy = _policy(reply)
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"], what
        assert "object-src" not in policy
        assert all(source.startswith("'nonce-") for source in policy.get("script-src", ())), what
        assert not [s for sources in policy.values() for s in sources if s in {"*", "'unsafe-inline'", "'unsafe-eval'"}]
        assert not re.search(rb"(?i)<[^>]+\s(?:on\w+|style)\s*=", reply.body), what
        assert all(b"nonce=" in tag for tag in re.findall(rb"(?i)<script[^>]*>", reply.body)), what


async def test_the_headers_of_every_page_that_there_is(at) -> None:
    paths = own_paths(at)
    assert {"/", "/_hubgate/logout", "/_hubgate/callback", "/_hubgate/jwks.json"} <= set(paths)
    for path in paths:
        for query in ("", "?next=/htc/", "?code=x&state=y", "?error=access_denied&state=y"):
            for user in ("alice", ""):
                for method in (b"GET",) if query else (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE"):
                    for accept in (b"text/html", b"application/json"):
                        fields = (
                            b"Accept: " + accept,
                            b"Origin: https://evil.example",
                            b"Access-Control-Request-Method: POST",
                        )
                        reply = await at.ask((path + query).encode(), *fields, method=method, user=user)
                        judge_headers(reply, (path + query, user, method, accept))


async def test_the_headers_of_every_refusal(at) -> None:
    seen = set()
    for target, fields, more in (
        (b"/nowhere", (), {}),
        (b"/nowhere", (b"Accept: text/html",), {"user": "alice"}),
        (b"/htc/hub/home", (), {}),
        (b"/htc/hub/home", (b"Accept: text/html",), {}),
        (b"/htc/hub/home", HANDSHAKE, {}),
        (b"/htc/hub/home", (*HANDSHAKE, b"Origin: https://evil.example"), {"user": "alice"}),
        (b"/hpc/hub/home", (b"Accept: text/html",), {"user": "bob"}),
        (b"/hpc/hub/home", (), {"user": "bob"}),
        (b"/htc/../x", (b"Accept: text/html",), {"user": "alice"}),
        (b"/", (b"Accept: text/html",), {"host": b"evil.example"}),
        (b"/", (b"Accept: text/html",), {"host": b"a b"}),
        (b"/", (b"Cookie: " + b"a=b; " * 3000, b"Cookie: " + b"a=b; " * 3000, b"Cookie: " + b"a=b; " * 3000), {}),
        (b"/htc/hub/home", (*((b"X-Large: " + b"x" * 16000,) * 5),), {"user": "alice"}),
        (b"/htc/hub/home", (b"Expect: a-miracle",), {"user": "alice", "method": b"POST", "body": b"x"}),
        (b"/htc/hub/home", (b"Transfer-Encoding: gzip, chunked",), {"user": "alice"}),
    ):
        end = b"0\r\n\r\n" if b"chunked" in b"".join(fields) else b""
        (reply,) = await at.told(at.request(target, *fields, **more) + end)
        assert 300 <= reply.status < 500 or reply.status == 501, reply
        seen.add(reply.status)
        judge_headers(reply, (target[:40], [field[:40] for field in fields[:2]], more))
    assert {302, 400, 401, 403, 404, 417, 421, 431, 501} <= seen
    # What the parser refuses never becomes a request; its answer says nothing, in plain text.
    for target, fields in (
        (b"/htc/hub/home", (b"REMOTE_USER : x",)),
        (b"/" + b"a" * 20_000, ()),
        (b"/", (b"X: " + b"x" * 20_000,)),
        (b"/", (b"X: y",) * 200),
        (b"/\0<script>", ()),
    ):
        (reply,) = await at.told(at.request(target, *fields, user="alice"))
        assert reply.status in {400, 431}
        assert reply.body == b"The request could not be understood.\n"
        for name, value in {
            "Server": b"hubgate",
            "Cache-Control": b"no-store",
            "X-Content-Type-Options": b"nosniff",
        }.items():
            assert reply.fields(name) == [value], reply
    assert at.received() == []


async def test_cookies_over_https_can_not_be_planted_by_neighbours() -> None:
    """RFC 6265bis, 4.1.3.2: with this prefix a browser takes them from this host alone, for all of it, over https."""

    def adapt(document: dict[str, Any]) -> None:
        document["gateway"]["public_url"] = document["gateway"]["public_url"].replace("http:", "https:")

    async with door(adapt, login=()) as at:
        reply = await at.ask(b"/_hubgate/login?next=/", b"Accept: text/html")
        judge_headers(reply, "login")
        assert reply.status == 302
        (cookie,) = reply.fields("Set-Cookie")
        assert re.fullmatch(
            rb"__Host-hubgate-login=[\w-]{43}; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax", cookie
        )
        assert reply.field("Strict-Transport-Security")
        # The names that plain http gives them are nobody's here.
        planted = await at.ask(b"/htc/hub/home", b"Cookie: hubgate=" + b"a" * 43)
        assert planted.status == 401


async def test_a_pools_host_ends_no_session_and_passes_no_form_on() -> None:
    """Where notebooks run on a host of their own, a form of that host is a foreign one at the portal."""

    def adapt(document: dict[str, Any]) -> None:
        port = document["gateway"]["public_url"].rpartition(":")[2]
        document["pools"][1]["host"] = f"localhost:{port}"

    async with door(adapt) as at:
        there = f"localhost:{at.port}".encode()
        token = await token_of(at, "alice")
        reply = await at.ask(b"/_hubgate/logout", URLENCODED, method=b"POST", host=there, body=b"csrf=" + token)
        assert reply.status == 303
        assert reply.field("Location") == at.site.url.encode() + b"/_hubgate/logout"
        asks = await at.ask(
            b"/_hubgate/logout", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Site: same-site", user="alice"
        )
        assert b'name="csrf"' in asks.body
        origin = b"Origin: http://" + there
        for fields in ((URLENCODED, origin), (URLENCODED, origin, b"Sec-Fetch-Site: same-site")):
            refused = await at.ask(b"/_hubgate/logout", *fields, method=b"POST", user="alice", body=b"csrf=" + token)
            assert refused.status == 403
        assert await still_there(at, "alice")


async def test_no_foreign_page_opens_a_socket(at) -> None:
    """Cross-site WebSocket hijacking: cookies come along, and nothing but Origin tells who asks."""
    own = at.site.url.encode()
    port = own.rpartition(b":")[2]
    foreign = [
        *(
            b"https://evil.example",
            b"null",
            b"",
            b" ",
            b"http://127.0.0.1",
            b"https://127.0.0.1:" + port,
            own + b"/",
            own + b".",
        ),
        *(
            own + b".evil.example",
            b"http://evil.example:" + port,
            b"http://localhost:" + port,
            b"http://127.0.0.1:80" + port,
        ),
        *(
            own + b", https://evil.example",
            b"https://evil.example, " + own,
            own + b" " + own,
            b"//127.0.0.1:" + port,
            b"*",
        ),
        *(
            own + b"@evil.example",
            b"http://evil.example#" + own,
            own.replace(b"http", b"ws"),
            b"file://",
            b"about:blank",
        ),
        *(
            b"chrome-extension://abc",
            b'"' + own + b'"',
            b"http://user@127.0.0.1:" + port,
            b"127.0.0.1:" + port,
            b"\xff",
        ),
    ]
    vectors = [(b"Origin: " + origin,) for origin in foreign]
    vectors += [
        (b"Origin: " + own, b"Origin: https://evil.example"),
        (b"Origin: https://evil.example", b"Origin: " + own),
    ]
    vectors += [(b"Origin: " + own, b"Origin: " + own), (b"origin: https://evil.example",), (b"ORIGIN: null",)]
    vectors += [(b"Origin: https://evil.example", b"Sec-WebSocket-Origin: " + own, b"Connection: Origin")]
    vectors += [(b"Origin: https://evil.example", b"Referer: " + own + b"/", b"Sec-Fetch-Site: same-origin")]
    offers = [
        *(
            b"websocket",
            b"WebSocket",
            b"WEBSOCKET",
            b"websocket ",
            b"websocket,",
            b",websocket",
            b"websocket, websocket",
        ),
        *(
            b"websocket/13",
            b"h2c, websocket",
            b"websocket;x",
            b'"websocket"',
            b"xwebsocket",
            b"web socket",
            b"websocket\x0b",
        ),
    ]
    for target in (b"/htc/user/alice/api/kernels/1/channels", b"/htc/hub/api/x", b"/htc/"):
        for fields in vectors:
            (reply,) = await at.told(at.request(target, *HANDSHAKE, *fields, user="alice"))
            assert reply.status in {400, 403}, (fields, reply)
            assert at.received() == [], fields
    for offer in offers:
        for connection in (b"Upgrade", b"upgrade, keep-alive", b"keep-alive,UPGRADE", b"close", b"keep-alive, close"):
            for also in ((), (b"Upgrade: websocket",), (b"Upgrade: x",)):
                upgrade = (b"Connection: " + connection, b"Upgrade: " + offer, *also, *HANDSHAKE[2:])
                data = at.request(b"/htc/user/x/ws", *upgrade, b"Origin: https://evil.example", user="alice")
                replies = await at.told(data)
                assert [reply.status for reply in replies] in ([200], [400], [403]), (upgrade, replies)
                assert not [got for got in at.received() if got.values(b"Upgrade")], "a socket is asked about"
    for fields in ((b"Origin: " + own,), (b"Origin: " + own.upper().replace(b"HTTP", b"http"),), ()):
        (switch,) = await at.told(at.request(b"/htc/user/x/ws", *HANDSHAKE, *fields, user="alice", close=False) + b"\n")
        assert switch.status == 101, fields
        at.received()
