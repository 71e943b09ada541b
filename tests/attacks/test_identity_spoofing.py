"""Nobody but the gateway says who is there: every spelling of the names that hubs believe, on every zone.

Each forged value is a word that the gateway never writes itself; a hub that finds it anywhere in what it received was
spoken to by the client.
"""

from __future__ import annotations

import base64
import json
import re

import pytest

from tests.attacks.door import HANDSHAKE, Door, door, letters
from tests.kit.strict import Request

FORGED = b"mallory"
ZONES = {b"/htc/hub/login": "login", b"/htc/hub/home": "page", b"/htc/user/bob/lab": "notebook"}
TOLD = {"login": {"login"}, "hub": {"login", "page"}, "all": {"login", "page", "notebook"}}

NAMES = (
    *("REMOTE_USER", "X-Hubgate-Assertion", "X-Remote-User", "Remote-User", "Remote-Groups", "Remote-Email"),
    *("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username"),
    *("X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Access-Token"),
    *("X-Hubgate-User", "X-Hubgate", "X-WebAuth-User", "X-Authenticated-User", "OIDC_CLAIM_preferred_username"),
)
PROXIES = (
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-IP"),
    *("X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-Uri"),
    *("X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Method-Override"),
    *("X-Scheme", "X-Host", "Proxy", "Proxy-Authorization", "Proxy-Connection", "True-Client-IP", "X-Client-IP"),
    *("TE", "Trailer", "Keep-Alive", "HTTP2-Settings"),
)


def spellings(name: str) -> set[str]:
    """What a reader who is careless about case, separators or CGI's prefix takes for this name."""
    separators = ["-", "_", ".", "~", "'", "^", "|", "!", "*", "+", "#", "$", "%", "&", "`", "", "--", "-_", "__"]
    spelled = {re.sub("[-_]", lambda _, s=separator: s, name) for separator in separators}
    spelled |= {respell(name) for respell in (str.lower, str.upper, str.title, str.swapcase)}
    spelled |= {prefix + name for prefix in ("HTTP_", "http-", "HTTP_HTTP_", "Http.", "-", "_", "~")}
    return spelled | {name + "-", name + "_", name.replace("_", "-").replace("-", "_", 1)}


ALL_SPELLINGS = sorted(spelling.encode() for name in (*NAMES, *PROXIES) for spelling in spellings(name))

# Each a whole line, or several, that begins or continues a field in a way that two readers take differently.
MALFORMED = {
    "blank before the colon": b"REMOTE_USER : mallory",
    "tab before the colon": b"REMOTE_USER\t: mallory",
    "assertion, blank before the colon": b"X-Hubgate-Assertion : mallory",
    "blank in the name": b"REMOTE USER: mallory",
    "blank before the name": b" REMOTE_USER: mallory",
    "tab before the name": b"\tREMOTE_USER: mallory",
    "folded value": b"X-Custom: a\r\n REMOTE_USER: mallory",
    "folded with a tab": b"X-Custom: a\r\n\tREMOTE_USER: mallory",
    "folded name": b"REMOTE\r\n _USER: mallory",
    "folded own value": b"REMOTE_USER:\r\n mallory",
    "bare LF": b"X-Custom: a\nREMOTE_USER: mallory",
    "bare CR": b"X-Custom: a\rREMOTE_USER: mallory",
    "CR CR LF": b"X-Custom: a\r\r\nREMOTE_USER: mallory",
    "LF CR": b"X-Custom: a\n\rREMOTE_USER: mallory",
    "NUL in the name": b"REMOTE_USER\0: mallory",
    "NUL in a value": b"X-Custom: a\0REMOTE_USER: mallory",
    "vertical tab before the name": b"\x0bREMOTE_USER: mallory",
    "form feed behind the name": b"REMOTE_USER\x0c: mallory",
    "DEL in the name": b"REMOTE\x7fUSER: mallory",
    "no-break space": b"REMOTE_USER\xa0: mallory",
    "soft hyphen": b"REMOTE\xadUSER: mallory",
    "full-width letters": "ＲＥＭＯＴＥ_ＵＳＥＲ: mallory".encode(),
    "kelvin sign": "X-Hubgate-To\u212aen: mallory".encode(),
    "dotless i": "X-Hubgate-Assert\u0131on: mallory".encode(),
    "no name": b": mallory",
    "no colon": b"REMOTE_USER mallory",
    "colon first": b":REMOTE_USER: mallory",
    "bracketed": b"(REMOTE_USER): mallory",
    "quoted": b'"REMOTE_USER": mallory',
    "slashed": b"REMOTE/USER: mallory",
    "comma in the name": b"REMOTE,USER: mallory",
    "semicolon in the name": b"REMOTE_USER;: mallory",
    "at sign": b"REMOTE@USER: mallory",
}

PLACED = {
    "before and after": (b"REMOTE_USER: mallory", b"X-Custom: a", b"remote-user: mallory"),
    "many times": (b"REMOTE_USER: mallory",) * 50,
    "after a hundred others": (*(b"X-Custom-%d: a" % number for number in range(100)), b"REMOTE_USER: mallory"),
    "comma list": (b"REMOTE_USER: alice, mallory", b"X-Hubgate-Assertion: mallory, mallory"),
    "semicolons": (b"REMOTE_USER: alice; mallory",),
    "quoted": (b'REMOTE_USER: "mallory"',),
    "blanks around": (b"REMOTE_USER: \t  mallory \t ",),
    "16 KB": (b"REMOTE_USER: " + b"mallory" * 2000,),
    "Latin-1": (b"REMOTE_USER: \xe9mallory\xff",),
    "empty": (b"REMOTE_USER:", b"X-Hubgate-Assertion:"),
    "empty and listed": (b"REMOTE_USER:", b"Connection: REMOTE_USER"),
    "listed": (b"Connection: REMOTE_USER, X-Hubgate-Assertion",),
    "listed in other cases": (b"Connection: remote_user", b"connection: x-HUBGATE-assertion"),
    "listed in several fields": (
        b"Connection: keep-alive",
        b"CONNECTION: Remote_User",
        b"Connection: X-Hubgate-Assertion",
    ),
    "listed with blanks": (b"Connection: , ,  REMOTE_USER  ,\tX-Hubgate-Assertion\t,",),
    "listed with look-alikes": (b"Connection: remote-user, HTTP_REMOTE_USER, remoteuser",),
    "listed in quotes": (b'Connection: "REMOTE_USER", (X-Hubgate-Assertion)',),
    "listed and forged": (b"Connection: REMOTE_USER", b"REMOTE_USER: mallory"),
    "listed in Proxy-Connection": (b"Proxy-Connection: REMOTE_USER, X-Hubgate-Assertion",),
    "listed in Keep-Alive": (b"Keep-Alive: REMOTE_USER",),
    "Cookie and Host are listed": (b"Connection: Cookie, Host, Forwarded, X-Forwarded-For",),
    "Connection among names": (b"Connection: Connection, close",),
}


def judge(got: Request, zone: str, disclose: str, hub: str, user: str = "alice") -> None:
    """That exactly what the gateway says is there, once, and nothing that could be taken for it."""
    assert FORGED not in got.line + b"".join(name + value for name, value in got.fields) + got.body, got
    told = zone in TOLD[disclose]
    believed = [
        name for name, _ in got.fields if letters(name) in {b"remoteuser", b"xhubgateassertion", b"xremoteuser"}
    ]
    assert believed == ([b"REMOTE_USER", b"X-Hubgate-Assertion"] if told else []), got
    assert len(got.values(b"Host")) == 1
    for name in (b"X-Forwarded-For", b"X-Real-IP"):
        assert got.values(name) == [b"127.0.0.1"]
    assert not [value for _, value in got.fields if b"hubgate=" in value], "a cookie of ours"
    if told:
        assert got.values(b"REMOTE_USER") == [user.encode()]
        (assertion,) = got.values(b"X-Hubgate-Assertion")
        payload = assertion.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        assert (claims["sub"], claims["aud"]) == (user, hub)
        assert claims["use"] == ("login" if zone == "login" else "page")


def judge_all(at: Door, zone: str, disclose: str, count: int = 1) -> None:
    for hub in at.hubs.values():
        for got in hub.requests:
            judge(got, zone, disclose, hub.name)
    assert len(at.received()) == count


@pytest.fixture(params=["hub", "login", "all"])
async def disclosing(request: pytest.FixtureRequest):
    async with door(disclose=request.param) as at:
        yield at, request.param


async def test_no_spelling_passes_on_any_zone(disclosing) -> None:
    at, disclose = disclosing
    assert len(ALL_SPELLINGS) > 1000
    for target, zone in ZONES.items():
        for start in range(0, len(ALL_SPELLINGS), 110):
            fields = [name + b": " + FORGED for name in ALL_SPELLINGS[start : start + 110]]
            reply = await at.ask(target, *fields, user="alice")
            assert reply.status == 200, reply
            judge_all(at, zone, disclose)


async def test_no_place_passes_on_any_zone(disclosing) -> None:
    at, disclose = disclosing
    for target, zone in ZONES.items():
        for name, fields in PLACED.items():
            replies = await at.told(at.request(target, *fields, user="alice"))
            assert [reply.status for reply in replies] == [200], (name, replies)
            judge_all(at, zone, disclose)


async def test_nothing_passes_on_a_handshake(disclosing) -> None:
    at, disclose = disclosing
    for target, zone in ZONES.items():
        vectors = [
            [name + b": " + FORGED for name in ALL_SPELLINGS[start : start + 110]] for start in range(0, 700, 110)
        ]
        vectors += [[*PLACED["listed"]], [*PLACED["before and after"]], [*PLACED["listed in other cases"]]]
        for fields in vectors:
            # Connection may list more than `Upgrade`; a list that is a field of its own counts as well.
            data = at.request(target, *HANDSHAKE, *fields, user="alice", close=False)
            (switch,) = await at.told(data + b"payload\n")
            assert switch.status == 101
            assert switch.body == b"payload\n"
            judge_all(at, zone, disclose)


async def test_nothing_passes_in_trailers_nor_behind_them(disclosing) -> None:
    """Trailers are fields to some readers. To aiohttp 3.14.5 the last one is a field of the next request, which may be
    somebody else's where a proxy shares connections: so there is none."""
    at, disclose = disclosing
    for target, zone in ZONES.items():
        for trailers in (
            b"REMOTE_USER: mallory\r\n",
            b"X-Hubgate-Assertion: mallory\r\nremote-user: mallory\r\nConnection: REMOTE_USER\r\n",
            b"Forwarded: for=mallory\r\nCookie: hubgate=mallory\r\n",
            b"X-Custom: mallory\r\n",
            b"Authorization: Bearer mallory\r\n",
        ):
            for announced in ((), (b"Trailer: REMOTE_USER, X-Hubgate-Assertion",), (b"TE: trailers",)):
                chunked = at.request(
                    target, b"Transfer-Encoding: chunked", *announced, method=b"POST", user="alice", close=False
                )
                body = b"3;REMOTE_USER=mallory\r\nabc\r\n0\r\n" + trailers + b"\r\n"
                (reply,) = await at.told(chunked + body + at.request(target, user="alice"))
                assert (reply.status, reply.field("Connection")) == (200, b"close")
                judge_all(at, zone, disclose)


async def test_trailers_behind_a_refused_handshake_are_the_last_words_too(at) -> None:
    """What comes behind a handshake is read by another way of aiohttp's."""
    refused = at.request(b"/htc/user/bob/ws", *HANDSHAKE, close=False)
    chunked = at.request(b"/htc/hub/a", b"Transfer-Encoding: chunked", method=b"POST", user="alice", close=False)
    trailer = b"0\r\nCookie: hubgate=mallory\r\n\r\n"
    replies = await at.told(refused + chunked + trailer + at.request(b"/htc/hub/b", user="alice"))
    assert [reply.status for reply in replies] == [401, 200]
    assert [got.line for got in at.received()] == [b"POST /htc/hub/a HTTP/1.1"]


@pytest.mark.parametrize("offer", ["h2c", "foo", "websocket, h2c", "TLS/1.0"])
async def test_behind_an_offer_to_upgrade_that_is_not_taken_the_connection_ends(at, offer) -> None:
    """What a client has sent behind it is lost to aiohttp, and could be read from its middle."""
    upgrade = (b"Connection: Upgrade", b"Upgrade: " + offer.encode())
    behind = at.request(b"/htc/hub/behind", user="alice")
    for target in (b"/htc/hub/home", b"/htc/user/bob/lab", b"/", b"/_hubgate/login?next=/", b"/nowhere"):
        for user in ("alice", ""):
            for method, body in ((b"GET", b""), (b"POST", behind), (b"GET", behind)):
                first = at.request(target, *upgrade, method=method, user=user, body=body, close=False)
                (reply,) = await at.told(first + behind)
                assert reply.field("Connection") == b"close", (target, reply)
                assert not [got for got in at.received() if b"behind" in got.line]


async def test_nothing_passes_from_one_pipelined_request_to_the_next(disclosing) -> None:
    at, disclose = disclosing
    for target, zone in ZONES.items():
        forged = at.request(
            target, b"REMOTE_USER: mallory", b"Connection: X-Hubgate-Assertion", user="alice", close=False
        )
        anonymous = at.request(target, b"REMOTE_USER: mallory", b"X-Hubgate-Assertion: mallory", close=False)
        plain = at.request(target, user="alice")
        replies = await at.told(forged + anonymous + forged + plain)
        assert [reply.status for reply in replies] == [200, 401, 200, 200]
        judge_all(at, zone, disclose, 3)


@pytest.fixture
async def at():
    async with door() as found:
        yield found


@pytest.mark.parametrize("user", ["alice", ""], ids=["alice", "anonymous"])
async def test_fields_with_two_readings_end_their_request(at, user) -> None:
    for target in ZONES:
        for name, field in MALFORMED.items():
            for fields in ((field,), (b"X-First: a", field, b"X-Last: a")):
                replies = await at.told(at.request(target, *fields, user=user))
                assert [reply.status for reply in replies] == [400], (name, replies)
                assert at.received() == [], name


async def test_without_a_session_no_claim_opens_anything(at) -> None:
    claims = [b"REMOTE_USER: alice", b"X-Hubgate-Assertion: e30.e30.e30", b"Authorization: Bearer alice"]
    claims += [b"X-Forwarded-User: alice", b"Cookie: REMOTE_USER=alice", b"X-Hubgate-User: alice"]
    for target in (*ZONES, b"/htc/services/x/", b"/htc/hub/api/user", b"/htc", b"/hpc/hub/"):
        for method in (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"HEAD"):
            reply = await at.ask(target, *claims, method=method)
            assert reply.status == 401, reply
        for fields in ((*HANDSHAKE,), (b"Accept: text/html",), (b"Sec-Fetch-Mode: navigate",)):
            replies = await at.told(at.request(target, *claims, *fields))
            assert [reply.status for reply in replies] == [401 if fields[0].startswith(b"Conn") else 302], replies
    assert at.received() == []


async def test_a_replayed_assertion_never_comes_from_us_twice(at) -> None:
    """The hub takes each login assertion once: two attempts carry two, and what a client replays is not among them."""
    await at.ask(b"/htc/hub/login", user="alice")
    (first,) = at.received()
    (seen,) = first.values(b"X-Hubgate-Assertion")
    await at.ask(b"/htc/hub/login", b"X-Hubgate-Assertion: " + seen, user="alice")
    (second,) = at.received()
    assert len(second.values(b"X-Hubgate-Assertion")) == 1
    assert second.values(b"X-Hubgate-Assertion") != [seen]


async def test_an_identity_header_of_another_name_is_guarded_alike() -> None:
    def adapt(document) -> None:
        document["identity"] = {"header": "X-Site-Person"}

    async with door(adapt) as at:
        for spelling in sorted(spellings("X-Site-Person") | spellings("REMOTE_USER")):
            reply = await at.ask(b"/htc/hub/home", spelling.encode() + b": mallory", user="alice")
            assert reply.status == 200
            (got,) = at.received()
            assert FORGED not in b"".join(value for _, value in got.fields), spelling
            assert [name for name, _ in got.fields if letters(name) == b"xsiteperson"] == [b"X-Site-Person"]
            assert got.values(b"X-Site-Person") == [b"alice"]
