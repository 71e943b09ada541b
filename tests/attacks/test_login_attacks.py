"""The way in, under attack: floods of logins, one state for many, a provider's errors, sessions that have ended.

What a foreign browser can do with a state is in test_login_csrf.py, what a lying provider can in tests/idp.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.attacks.door import HANDSHAKE, Door, door
from tests.kit.person import Person
from tests.kit.raw import Peer

FORM = b"Content-Type: application/x-www-form-urlencoded"
NAVIGATES = (b"Accept: text/html", b"Sec-Fetch-Mode: navigate")


@pytest.fixture
async def at():
    async with door(login=("alice", "bob")) as found:
        yield found


def sessions_in_store(at: Door) -> int:
    return sum(key.startswith("session:") for key in at.site.served.live._store._entries)


def states_in_store(at: Door) -> int:
    return sum(key.startswith("login:") for key in at.site.served.live._store._entries)


async def begun(at: Door, person: Person, after: str = "/htc/hub/home") -> str:
    """A login of a browser that the provider knows already: the address of the way back, not yet followed."""
    page = await person.get(f"{at.site.url}/_hubgate/login?next={after}&on=1", follow=False)
    page = await person.get(page.headers["Location"], follow=False)
    return page.headers["Location"]


async def known_to_the_provider(at: Door, name: str = "alice") -> Person:
    """A browser with a session at the provider and none here."""
    person = await at.site.logged_in(name)
    person.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
    return person


async def test_a_flood_of_logins_fills_no_store_whoever_it_claims_to_be(at) -> None:
    """The address that counts is the one that the connection has: no proxy is trusted here."""
    before = states_in_store(at)
    statuses = []
    for number in range(400):
        claims = (
            b"X-Forwarded-For: 203.0.113.%d" % (number % 250),
            b"X-Real-IP: 203.0.113.%d" % (number % 250),
            b"Forwarded: for=203.0.113.%d" % (number % 250),
            b"User-Agent: %d" % number,
            b"Cookie: hubgate-login=" + b"%043d" % number,
        )
        reply = await at.ask(b"/_hubgate/login?next=/&on=%d" % number, *NAVIGATES, *claims)
        statuses.append(reply.status)
        if reply.status == 429:
            assert int(reply.field("Retry-After") or 0) >= 1
            assert not reply.fields("Set-Cookie")
    assert set(statuses) == {302, 429}
    assert states_in_store(at) - before == statuses.count(302) < 200
    # Whoever is logged in is not kept from work by the flood, nor is a login that was begun before it.
    assert (await at.ask(b"/htc/hub/home", user="alice")).status == 200


async def test_requests_that_nobody_waits_for_begin_no_login(at) -> None:
    before = states_in_store(at)
    for fields in (
        (b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Dest: image"),
        (b"Sec-Fetch-Mode: cors", b"Accept: text/html"),
        (b"Sec-Fetch-Mode: websocket", *HANDSHAKE),
        (b"Sec-Fetch-Mode: same-origin",),
    ):
        (reply,) = await at.told(at.request(b"/_hubgate/login?next=/&on=1", *fields))
        assert reply.status == 401
    for method in (b"POST", b"PUT", b"DELETE"):
        assert (await at.ask(b"/_hubgate/login?next=/", method=method)).status == 405
    for target in (b"/", b"/htc/hub/home", b"/htc/user/x/api"):  # only the login page itself begins one
        await at.ask(target, *NAVIGATES)
    assert states_in_store(at) == before


async def test_of_many_callbacks_with_one_state_one_makes_a_session(at) -> None:
    async with await known_to_the_provider(at) as alice:
        url = await begun(at, alice)
        before = sessions_in_store(at)
        login = alice.cookies(at.site.url)["hubgate-login"]
        target = url.removeprefix(at.site.url).encode()
        cookie = b"Cookie: hubgate-login=" + login.encode()
        replies = await asyncio.gather(*(at.ask(target, cookie, *NAVIGATES) for _ in range(20)))
        made = [value for reply in replies for value in reply.fields("Set-Cookie") if value.startswith(b"hubgate=")]
        assert len(made) == 1
        assert sorted({reply.status for reply in replies}) == [303, 400]
        assert [reply.status for reply in replies].count(303) == 1
        assert sessions_in_store(at) == before + 1
        # Neither the code with another state of this browser, nor the state with another code.
        other = await begun(at, alice)
        codes = [parse_qs(urlsplit(each).query)["code"][0] for each in (url, other)]
        reply = await at.ask(other.removeprefix(at.site.url).replace(codes[1], codes[0]).encode(), cookie, *NAVIGATES)
        assert not [value for value in reply.fields("Set-Cookie") if value.startswith(b"hubgate=")]
        assert sessions_in_store(at) == before + 1


async def test_many_tabs_of_many_browsers_mix_up_nobody(at) -> None:
    """Twenty logins of two people on their way at once, whose ways back arrive in any order."""
    async with await known_to_the_provider(at) as alice, await known_to_the_provider(at, "bob") as bob:
        ways = []
        for number in range(10):
            for person, name in ((alice, "alice"), (bob, "bob")):
                url = await begun(at, person, f"/htc/hub/{name}/{number}")
                cookie = person.cookies(at.site.url)["hubgate-login"]
                ways.append(
                    (name, number, url.removeprefix(at.site.url).encode(), b"Cookie: hubgate-login=" + cookie.encode())
                )
        replies = await asyncio.gather(*(at.ask(target, cookie, *NAVIGATES) for _, _, target, cookie in reversed(ways)))
        for (name, number, _, _), reply in zip(reversed(ways), replies, strict=True):
            assert reply.field("Location") == f"/htc/hub/{name}/{number}".encode()
            (session,) = [v.partition(b";")[0] for v in reply.fields("Set-Cookie") if v.startswith(b"hubgate=")]
            answer = await at.ask(b"/htc/hub/home", b"Cookie: " + session)
            assert json.loads(answer.body)["users"] == [name]
        # Crossed: each with the other's cookie.
        crossed = [(await begun(at, alice), bob), (await begun(at, bob), alice)]
        for url, person in crossed:
            cookie = b"Cookie: hubgate-login=" + person.cookies(at.site.url)["hubgate-login"].encode()
            reply = await at.ask(url.removeprefix(at.site.url).encode(), cookie, *NAVIGATES)
            assert reply.status == 400
            assert not reply.fields("Set-Cookie")


async def test_a_planted_login_cookie_beside_the_browsers_own_makes_no_session(at) -> None:
    """Login CSRF by cookie tossing: a neighbour sets a cookie of our name, and sends the victim to its own way back."""
    async with await known_to_the_provider(at, "bob") as mallory, at.site.person() as victim:
        url = await begun(at, mallory)
        await victim.get(f"{at.site.url}/_hubgate/login?next=/&on=1", follow=False)
        planted = mallory.cookies(at.site.url)["hubgate-login"]
        own = victim.cookies(at.site.url)["hubgate-login"]
        for header in (f"{planted}; hubgate-login={own}", f"{own}; hubgate-login={planted}"):
            cookie = b"Cookie: hubgate-login=" + header.encode()
            reply = await at.ask(url.removeprefix(at.site.url).encode(), cookie, *NAVIGATES)
            assert reply.status == 400
            assert not reply.fields("Set-Cookie")
        for own_cookie in (
            b"",
            b"x",
            b"A" * 43,
            hashlib.sha256(planted.encode()).hexdigest().encode(),
            planted[:-1].encode(),
        ):
            reply = await at.ask(
                url.removeprefix(at.site.url).encode(), b"Cookie: hubgate-login=" + own_cookie, *NAVIGATES
            )
            assert reply.status == 400
            assert not reply.fields("Set-Cookie")


ERRORS = (
    *(
        "access_denied",
        "temporarily_unavailable",
        "server_error",
        "invalid_request",
        "unauthorized_client",
        "invalid_scope",
    ),
    *(
        "unsupported_response_type",
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
    ),
    *(
        "authentication_expired",
        "unmet_authentication_requirements",
        "request_not_supported",
        "registration_not_supported",
    ),
    *(
        "made_up",
        "<script>alert(1)</script>",
        "%00",
        "a" * 3000,
        "",
        "login_ok",
        "code",
        "ACCESS_DENIED",
        "../../etc/passwd",
    ),
)


async def test_errors_of_the_provider_make_no_session_and_say_nothing_back(at) -> None:
    async with await known_to_the_provider(at) as alice:
        before = sessions_in_store(at)
        for error in ERRORS:
            for more in (
                "",
                "&error_description=%3Cb%3Ewords%20of%20mallory%3C/b%3E&error_uri=https://evil.example",
                "&code=x",
            ):
                url = await begun(at, alice)
                state = parse_qs(urlsplit(url).query)["state"][0]
                issuer = parse_qs(urlsplit(url).query)["iss"][0]
                query = f"error={error.replace('<', '%3C').replace('>', '%3E')}&state={state}&iss={issuer}{more}"
                cookie = b"Cookie: hubgate-login=" + alice.cookies(at.site.url)["hubgate-login"].encode()
                reply = await at.ask(b"/_hubgate/callback?" + query.encode(), cookie, *NAVIGATES)
                assert reply.status in {302, 400, 403, 429, 502, 503}, (error, reply)
                assert b"mallory" not in reply.body + reply.head
                assert b"evil.example" not in reply.body + reply.head
                assert b"<script>alert" not in reply.body
                assert not [value for value in reply.fields("Set-Cookie") if value.startswith(b"hubgate=")]
                again = await at.ask(url.removeprefix(at.site.url).encode(), cookie, *NAVIGATES)
                assert again.status == 400, "an error has spent the state"
                if reply.status == 429:
                    return  # begun anew too often: as it should be
        assert sessions_in_store(at) == before


async def test_a_login_that_is_begun_anew_by_itself_comes_to_an_end(at) -> None:
    """A provider that always says "try again" must not have a browser go in circles."""
    async with await known_to_the_provider(at) as alice:
        url = await begun(at, alice)
        cookie = b"Cookie: hubgate-login=" + alice.cookies(at.site.url)["hubgate-login"].encode()
        statuses = []
        for _ in range(5):
            query = parse_qs(urlsplit(url).query)
            target = f"/_hubgate/callback?error=login_required&state={query['state'][0]}&iss={at.site.provider_url}"
            reply = await at.ask(target.encode(), cookie, *NAVIGATES)
            statuses.append(reply.status)
            if reply.status != 302:
                break
            url = (reply.field("Location") or b"").decode()
        assert statuses == [302, 302, 400]


async def log_out(at: Door, cookie: bytes) -> None:
    landing = await at.ask(b"/", b"Cookie: " + cookie)
    (token,) = set(re.findall(rb'name="csrf" value="([^"]+)"', landing.body))
    reply = await at.ask(b"/_hubgate/logout", b"Cookie: " + cookie, FORM, method=b"POST", body=b"csrf=" + token)
    assert reply.status == 303


def two_hosts(document) -> None:
    port = document["gateway"]["public_url"].rpartition(":")[2]
    document["pools"][1]["host"] = f"localhost:{port}"


async def test_an_ended_session_opens_nothing_anywhere() -> None:
    """Every door, with what was good before: cookie, alias on another host, a code on its way, a form's token."""
    async with door(two_hosts, login=()) as at:
        host = f"localhost:{at.port}"
        there = f"http://{host}"
        async with await at.site.logged_in() as alice:
            await alice.get(there + "/hpc/hub/home")
            cookie = b"hubgate=" + alice.cookies(at.site.url)["hubgate"].encode()
            alias = b"hubgate=" + alice.cookies(there)["hubgate"].encode()
            assert cookie != alias
            state = "s" * 43
            give = (
                f"/_hubgate/handover?host={host}&state={hashlib.sha256(state.encode()).hexdigest()}&next=/hpc/hub/home"
            )
            given = await at.ask(give.encode(), b"Cookie: " + cookie, *NAVIGATES)
            take = (given.field("Location") or b"").partition(host.encode())[2]
            token = re.findall(rb'name="csrf" value="([^"]+)"', (await at.ask(b"/", b"Cookie: " + cookie)).body)[0]
            tunnel = Peer(*await asyncio.open_connection("127.0.0.1", at.port))
            await tunnel.send(at.request(b"/htc/user/alice/ws", b"Cookie: " + cookie, *HANDSHAKE, close=False))
            assert (await tunnel.reply()).status == 101
            await log_out(at, cookie)
            await tunnel.gone()
            at.received()
            for opener, place in ((cookie, None), (alias, host.encode())):
                pool = b"/htc" if place is None else b"/hpc"
                for path in (pool + b"/hub/home", pool + b"/hub/login", pool + b"/user/alice/lab", pool):
                    for fields in ((), NAVIGATES, HANDSHAKE, (*HANDSHAKE, b"Origin: " + at.site.url.encode())):
                        for method in (b"GET", b"POST"):
                            if fields[:1] == HANDSHAKE[:1] and method == b"POST":
                                continue
                            field = b"Cookie: " + opener
                            (reply,) = await at.told(at.request(path, field, *fields, method=method, host=place))
                            assert reply.status in {302, 401}, (path, fields, reply)
                landing = await at.ask(b"/_hubgate/logout", b"Cookie: " + opener, *NAVIGATES, host=place)
                assert landing.status in {303, 307}
                for page in (b"/_hubgate/logout", b"/_hubgate/move"):
                    body = b"pool=htc&csrf=" + token
                    reply = await at.ask(page, b"Cookie: " + opener, FORM, method=b"POST", host=place, body=body)
                    assert reply.status in {303, 401}
                    assert not [
                        v for v in reply.fields("Set-Cookie") if v.startswith(b"hubgate=") and b"Max-Age=0" not in v
                    ]
            taken = await at.ask(take, b"Cookie: hubgate-handover=" + state.encode(), *NAVIGATES, host=host.encode())
            assert taken.status == 400, "a code that was given before the end opens nothing after it"
            assert not taken.fields("Set-Cookie")
            assert at.received() == []


async def test_a_handover_code_that_a_page_refused_is_spent() -> None:
    """It stands in that page's address: in a history, perhaps in front of a script of the same host."""
    async with door(two_hosts) as at:
        host = f"localhost:{at.port}"
        state = "s" * 43
        give = f"/_hubgate/handover?host={host}&state={hashlib.sha256(state.encode()).hexdigest()}&next=/"
        good = b"Cookie: hubgate-handover=" + state.encode()
        for shown in ((), (b"Cookie: hubgate-handover=" + b"x" * 43,), (b"Cookie: hubgate-handover=",)):
            given = await at.ask(give.encode(), *NAVIGATES, user="alice")
            take = (given.field("Location") or b"").partition(host.encode())[2]
            assert (await at.ask(take, *NAVIGATES, *shown, host=host.encode())).status == 400
            assert (await at.ask(take, *NAVIGATES, good, host=host.encode())).status == 400
        given = await at.ask(give.encode(), *NAVIGATES, user="alice")
        take = (given.field("Location") or b"").partition(host.encode())[2]
        assert (await at.ask(take, *NAVIGATES, good, host=host.encode())).status == 303, "and is good when it was not"


async def test_the_session_of_one_site_opens_nothing_at_another(at) -> None:
    """Two gateways with the same names of cookies: what one gave means nothing to the other, key and store apart."""

    def adapt(document) -> None:
        document["gateway"]["secret_keys"] = ["another key of thirty-two characters or more"]

    async with door(adapt, login=("bob",)) as other:
        for stolen in (at.cookies["alice"], other.cookies["bob"] + b"; " + at.cookies["alice"]):
            reply = await other.ask(b"/htc/hub/home", b"Cookie: " + stolen)
            assert reply.status == 401
        assert other.received() == []


@pytest.mark.parametrize(
    ("later", "status"), [(0.0, 200), (3601.0, 401), (7201.0, 401)], ids=["now", "idle", "expired"]
)
async def test_a_session_that_has_met_a_limit_opens_nothing_although_it_is_there(later, status) -> None:
    def adapt(document) -> None:
        document["session"] = {"idle": "1h", "max": "2h"}

    async with door(adapt) as at:
        before = sessions_in_store(at)
        for holder, name in ((at.site.served.front, "clock"), (at.site.served.live, "_clock")):
            object.__setattr__(holder, name, lambda: time.time() + later)
        for fields in ((), NAVIGATES, (b"Accept: application/json",)):
            reply = await at.ask(b"/htc/hub/home", *fields, user="alice")
            assert reply.status == (302 if fields == NAVIGATES and status == 401 else status)
        assert len(at.received()) == (3 if status == 200 else 0)
        assert sessions_in_store(at) == before


async def test_every_login_begins_a_session_of_its_own(at) -> None:
    """Fixation: what a browser showed before is not what it has after, whoever planted it."""
    async with await known_to_the_provider(at) as alice:
        seen = set()
        for planted in ("A" * 43, "x", at.cookies["bob"].decode().removeprefix("hubgate="), ""):
            url = await begun(at, alice)
            login = alice.cookies(at.site.url)["hubgate-login"]
            cookie = f"Cookie: hubgate-login={login}; hubgate={planted}".encode()
            reply = await at.ask(url.removeprefix(at.site.url).encode(), cookie, *NAVIGATES)
            (session,) = [v.partition(b";")[0] for v in reply.fields("Set-Cookie") if v.startswith(b"hubgate=")]
            assert session.removeprefix(b"hubgate=").decode() != planted
            assert session not in seen
            seen.add(session)
            answer = await at.ask(b"/htc/hub/home", b"Cookie: " + session)
            assert json.loads(answer.body)["users"] == ["alice"]
        # Bob's session was in the browser when alice logged in there: a switch of identity, which ended it.
        assert (await at.ask(b"/htc/hub/home", user="bob")).status == 401
