"""The development provider: for one person's machine, and still no place where a login can be had cheaply."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
from aiohttp import web

from hubgate.errors import OperatorFault
from hubgate.ops.devidp import DevIdp, serving
from tests.idp.conftest import ALICE_KEY, CALLBACK, SECRET, USERS, Clock
from tests.idp.person import App, Person, Seen

VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def authorize(idp: DevIdp, **changed: str | None) -> str:
    asked = {
        "response_type": "code",
        "client_id": "hubgate",
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "state": "the-state",
        "nonce": "the-nonce",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | changed
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"{idp.issuer}/protocol/openid-connect/auth?{query}"


async def token(idp: DevIdp, *, auth: Any = ("hubgate", SECRET), **form: str) -> tuple[int, dict[str, Any]]:
    credentials = {"client_id": auth[0], "client_secret": auth[1]} if auth else {}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{idp.issuer}/protocol/openid-connect/token", data=form | credentials) as response,
    ):
        return response.status, await response.json()


async def code_for(idp: DevIdp, clock: Clock, person: Person, app: App | None = None) -> dict[str, str]:
    seen = await person.log_in(authorize(idp), "alice", "alice-pw", app or App(ALICE_KEY, clock))
    return {
        "grant_type": "authorization_code",
        "code": seen.answer["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }


async def at_the_code(idp: DevIdp, person: Person, username: str = "alice") -> Seen:
    return await person.send(await person.visit(authorize(idp)), username=username, password=f"{username}-pw")


async def test_for_a_gateway_with_its_own_second_factor_the_password_is_all(clock: Clock) -> None:
    async with serving(USERS, "hubgate", SECRET, second_factor=False, clock=clock) as idp, Person(idp.issuer) as person:
        seen = await at_the_code(idp, person)
        grant = {"grant_type": "authorization_code", "code": seen.answer["code"], "redirect_uri": CALLBACK}
        _, tokens = await token(idp, **grant, code_verifier=VERIFIER)
        payload = tokens["id_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["acr"], claims["amr"]) == ("pwd", ["pwd"])


# --- Where it serves


@pytest.mark.parametrize(
    "issuer",
    ["https://id.example.org/realms/dev", "http://10.0.0.1:8080", "http://0.0.0.0/", "http://[::]/", "http:///x", "x"],
)
def test_an_issuer_elsewhere_is_refused(issuer: str) -> None:
    with pytest.raises(OperatorFault, match="devidp_not_loopback"):
        DevIdp(USERS, "hubgate", SECRET, issuer)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org"])
async def test_it_binds_to_loopback_alone(host: str) -> None:
    with pytest.raises(OperatorFault, match="devidp_not_loopback"):
        async with serving(USERS, "hubgate", SECRET, host=host):
            pass


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
async def test_any_address_of_loopback_will_do(host: str) -> None:
    async with (
        serving(USERS, "hubgate", SECRET, host=host) as idp,
        aiohttp.ClientSession() as http,
        http.get(idp.issuer + "/.well-known/openid-configuration") as response,
    ):
        assert (await response.json())["issuer"] == idp.issuer


async def test_the_application_answers_nobody_on_another_address(tmp_path: Any) -> None:
    """Whoever starts it by hand somewhere else: here on a socket that is no address of loopback."""
    idp = DevIdp(USERS, "hubgate", SECRET, "http://127.0.0.1:1/realms/dev")
    runner = web.AppRunner(idp.app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "s"))) as http,
        http.get("http://x/realms/dev/.well-known/openid-configuration") as response,
    ):
        assert (response.status, "loopback" in await response.text()) == (403, True)
    await runner.cleanup()


def test_it_says_what_it_is_and_keeps_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    idp = DevIdp(USERS, "hubgate", SECRET, "http://127.0.0.1:1/realms/dev")
    assert "devidp_development_only" in caplog.text
    assert "development only" in repr(idp)
    assert not any(secret in f"{idp!r}{USERS!r}{caplog.text}" for secret in (SECRET, "alice-pw", ALICE_KEY))


# --- The forms


@pytest.mark.parametrize("changed", [{"client_id": "other"}, {"client_id": None}, {"redirect_uri": None}])
async def test_nobody_is_sent_back_to_a_stranger(devidp: DevIdp, changed: dict[str, str | None]) -> None:
    async with Person(devidp.issuer) as person:
        assert (await person.visit(authorize(devidp, **changed))).status == 400
        for target in (
            "https://evil.example.org/cb",
            "//evil.example.org",
            CALLBACK + "#x",
            "https://127.0.0.1.evil.org/",
        ):
            assert (await person.visit(authorize(devidp, redirect_uri=target))).status == 400


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        ("invalid_request", {"code_challenge": None}),
        ("invalid_request", {"code_challenge_method": "plain"}),
        ("invalid_request", {"code_challenge_method": None}),
        ("invalid_request", {"response_type": "token"}),
        ("invalid_scope", {"scope": "profile"}),
        ("login_required", {"prompt": "none"}),
    ],
)
async def test_requests_that_it_does_not_take(devidp: DevIdp, error: str, changed: dict[str, str | None]) -> None:
    async with Person(devidp.issuer) as person:
        answer = (await person.visit(authorize(devidp, **changed))).answer
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "the-state", devidp.issuer)
    assert "code" not in answer


async def test_a_parameter_that_comes_twice_is_refused(devidp: DevIdp) -> None:
    async with Person(devidp.issuer) as person:
        assert (await person.visit(authorize(devidp) + "&nonce=other")).answer["error"] == "invalid_request"


async def test_no_code_no_login(devidp: DevIdp, clock: Clock) -> None:
    app = App(ALICE_KEY, clock)
    good = app.code()
    fullwidth = good.translate({ord("0") + n: ord("０") + n for n in range(10)})
    async with Person(devidp.issuer) as person:
        for wrong in ("", "000000", fullwidth, good + "0", f"-{good[1:]}", good[:5], "alice-pw"):
            seen = await person.send(await at_the_code(devidp, person), otp=wrong)
            assert (seen.status, "Invalid authenticator code" in seen.text) == (200, True)
        assert (await person.send(seen, otp=good)).answer["code"]


async def test_a_one_time_code_is_good_once_even_for_two_at_once(devidp: DevIdp, clock: Clock) -> None:
    code = App(ALICE_KEY, clock).code()
    async with Person(devidp.issuer) as one, Person(devidp.issuer) as other:
        forms = await asyncio.gather(at_the_code(devidp, one), at_the_code(devidp, other))
        seen = await asyncio.gather(one.send(forms[0], otp=code), other.send(forms[1], otp=code))
        assert sorted(each.status for each in seen) == [0, 200]
    clock.pass_by(30)
    async with Person(devidp.issuer) as third:
        assert (await third.send(await at_the_code(devidp, third), otp=code)).status == 200


@pytest.mark.parametrize(("seconds", "accepted"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
async def test_codes_of_now_and_one_step_around_it(devidp: DevIdp, clock: Clock, seconds: int, accepted: bool) -> None:
    phone = Clock(clock.now + seconds)
    async with Person(devidp.issuer) as person:
        seen = await person.send(await at_the_code(devidp, person), otp=App(ALICE_KEY, phone).code())
    assert (seen.status == 0) is accepted


async def test_an_older_code_is_refused_after_a_newer_one(devidp: DevIdp, clock: Clock) -> None:
    older, newer = App(ALICE_KEY, Clock(clock.now - 30)).code(), App(ALICE_KEY, clock).code()
    async with Person(devidp.issuer) as one, Person(devidp.issuer) as other:
        assert (await one.send(await at_the_code(devidp, one), otp=newer)).status == 0
        assert (await other.send(await at_the_code(devidp, other), otp=older)).status == 200


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "x"), ("nobody", "alice-pw"), ("", ""), ("alice", ""), ("bob", "alice-pw")]
)
async def test_a_wrong_password_does_not_tell_who_exists(devidp: DevIdp, username: str, password: str) -> None:
    async with Person(devidp.issuer) as person:
        seen = await person.send(await person.visit(authorize(devidp)), username=username, password=password)
        assert "Invalid username or password." in seen.text
        assert set(seen.form.fields) == {"username", "password"}
        assert (await person.send(seen, otp="000000")).form.fields.keys() == {"username", "password"}


async def test_guessing_ends_the_login(devidp: DevIdp) -> None:
    async with Person(devidp.issuer) as person:
        form = seen = await at_the_code(devidp, person)
        for _ in range(5):
            seen = await person.send(seen, otp="123456")
        assert seen.answer["error"] == "access_denied"
        assert (await person.send(form, otp="123456")).status == 400


async def test_logins_that_nobody_finishes_give_way(devidp: DevIdp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubgate.ops.devidp._MOST_FLOWS", 3)
    async with Person(devidp.issuer) as person:
        forms = [await person.visit(authorize(devidp)) for _ in range(4)]
        seen = [await person.send(form, username="alice", password="alice-pw") for form in forms]
    assert [each.status for each in seen] == [400, 200, 200, 200]


async def test_somebody_without_a_key_sets_one_up_once(devidp: DevIdp, clock: Clock) -> None:
    async with Person(devidp.issuer) as person:
        page = await at_the_code(devidp, person, "bob")
        raw = page.form.fields["totpSecret"]
        key = base64.b32encode(raw.encode()).decode()
        assert key in page.text
        assert "<svg" in page.text
        wrong = await person.send(page, totp="000000", totpSecret="AAAAAAAAAAAAAAAAAAAA")
        assert wrong.form.fields["totpSecret"] == raw, "the key is the provider's, whatever the form says"
        app = App(key, clock)
        assert (await person.send(wrong, totp=app.code(), totpSecret="AAAAAAAAAAAAAAAAAAAA", userLabel="x")).answer[
            "code"
        ]
    async with Person(devidp.issuer) as other:
        page = await at_the_code(devidp, other, "bob")
        assert set(page.form.fields) == {"otp"}
        assert (await other.send(page, otp=app.code())).answer["code"]


async def test_a_code_of_the_same_step_as_the_enrolment_is_refused(devidp: DevIdp, clock: Clock) -> None:
    async with Person(devidp.issuer) as one, Person(devidp.issuer) as other:
        page = await at_the_code(devidp, one, "bob")
        key = base64.b32encode(page.form.fields["totpSecret"].encode()).decode()
        assert (await one.send(page, totp=App(key, clock).code())).status == 0
        assert (await other.send(await at_the_code(devidp, other, "bob"), otp=App(key, clock).code())).status == 200


async def test_pages_are_not_stored_framed_or_sniffed(devidp: DevIdp) -> None:
    async with aiohttp.ClientSession() as http, http.get(authorize(devidp)) as response:
        said = response.headers
    assert said["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in said["Content-Security-Policy"]
    assert "unsafe" not in said["Content-Security-Policy"]


# --- Sessions


async def test_a_browser_that_is_logged_in_is_sent_on(devidp: DevIdp, clock: Clock) -> None:
    async with Person(devidp.issuer) as person:
        await code_for(devidp, clock, person)
        assert (await person.visit(authorize(devidp))).answer["code"]
        assert (await person.visit(authorize(devidp, prompt="none"))).answer["code"]
        assert (await person.visit(authorize(devidp, max_age="60"))).answer["code"]
        clock.pass_by(61)
        for changed in ({"prompt": "login"}, {"max_age": "60"}, {"max_age": "0"}):
            assert "password" in (await person.visit(authorize(devidp, **changed))).form.fields


# --- The client's side


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        ("invalid_grant", {"code": "other"}),
        ("invalid_grant", {"code_verifier": "w" * 64}),
        ("invalid_grant", {"code_verifier": ""}),
        ("invalid_grant", {"redirect_uri": CALLBACK + "x"}),
        ("unsupported_grant_type", {"grant_type": "password"}),
        ("unsupported_grant_type", {"grant_type": ""}),
    ],
)
async def test_a_code_is_redeemed_by_whoever_asked_for_it(
    devidp: DevIdp, clock: Clock, error: str, changed: dict[str, str]
) -> None:
    async with Person(devidp.issuer) as person:
        form = await code_for(devidp, clock, person)
    assert await token(devidp, **(form | changed)) == (400, {"error": error})


async def test_a_code_is_redeemed_once_and_soon(devidp: DevIdp, clock: Clock) -> None:
    app = App(ALICE_KEY, clock)
    async with Person(devidp.issuer) as person:
        form = await code_for(devidp, clock, person, app)
        assert (await token(devidp, **form))[0] == 200
        assert await token(devidp, **form) == (400, {"error": "invalid_grant"})
        late = form | {"code": (await person.visit(authorize(devidp))).answer["code"]}
    clock.pass_by(61)
    assert await token(devidp, **late) == (400, {"error": "invalid_grant"})


@pytest.mark.parametrize("auth", [("hubgate", "wrong"), ("hubgate", ""), ("other", SECRET), ("", ""), None])
async def test_a_client_without_its_secret_gets_nothing(
    devidp: DevIdp, clock: Clock, auth: tuple[str, str] | None
) -> None:
    async with Person(devidp.issuer) as person:
        form = await code_for(devidp, clock, person)
    assert await token(devidp, auth=auth, **form) == (401, {"error": "invalid_client"})
    assert (await token(devidp, **form))[0] == 200


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic aHViZ2F0ZQ==", "Bearer x", "Basic /w=="])
async def test_odd_credentials_are_none(devidp: DevIdp, header: str) -> None:
    url = f"{devidp.issuer}/protocol/openid-connect/token"
    async with aiohttp.ClientSession() as http, http.post(url, headers={"Authorization": header}) as response:
        assert response.status == 401


async def test_refreshing_ends_with_the_session(devidp: DevIdp, clock: Clock) -> None:
    async with Person(devidp.issuer) as person:
        _, tokens = await token(devidp, **await code_for(devidp, clock, person))
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await token(devidp, **refresh))[0] == 200
    clock.pass_by(12 * 3600)
    assert await token(devidp, **refresh) == (400, {"error": "invalid_grant"})


async def test_a_log_out_needs_a_token_of_this_session(devidp: DevIdp, clock: Clock) -> None:
    app = App(ALICE_KEY, clock)
    url = f"{devidp.issuer}/protocol/openid-connect/logout"
    async with Person(devidp.issuer) as person, Person(devidp.issuer) as other:
        _, tokens = await token(devidp, **await code_for(devidp, clock, person, app))
        _, others = await token(devidp, **await code_for(devidp, clock, other, app))
        for hint in ("", "a.b.c", others["id_token"], tokens["id_token"][:-4] + "AAAA"):
            assert (await person.visit(f"{url}?{urlencode({'id_token_hint': hint})}")).status == 400
        assert (await person.visit(authorize(devidp))).answer["code"], "still logged in"
        given = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": "https://evil.example.org/"}
        assert (await person.visit(f"{url}?{urlencode(given)}")).status == 200
        assert "password" in (await person.visit(authorize(devidp))).form.fields
        # Once more, with a state: it is said goodbye to twice.
        given |= {"post_logout_redirect_uri": "https://127.0.0.1/bye", "state": "s"}
        seen = await person.visit(f"{url}?{urlencode(given)}")
        assert (seen.status, parse_qs(urlsplit(seen.url).query)) == (0, {"state": ["s"]})


async def test_a_log_out_behind_the_browser_needs_the_clients_secret(devidp: DevIdp, clock: Clock) -> None:
    url = f"{devidp.issuer}/protocol/openid-connect/logout"
    async with Person(devidp.issuer) as person, aiohttp.ClientSession() as http:
        _, tokens = await token(devidp, **await code_for(devidp, clock, person))
        for secret, refresh, status in (
            ("wrong", tokens["refresh_token"], 401),
            (SECRET, "another", 400),
            (SECRET, tokens["refresh_token"], 204),
        ):
            form = {"client_id": "hubgate", "client_secret": secret, "refresh_token": refresh}
            async with http.post(url, data=form) as response:
                assert response.status == status
