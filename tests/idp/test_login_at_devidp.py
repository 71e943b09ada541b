"""A whole login over HTTP, with the development provider on the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from hubgate import config
from hubgate.core.identity import Proof
from hubgate.core.oidc import LoginAttempt
from hubgate.errors import ClientFault, HubgateFault, ProviderFault
from hubgate.idp.client import Login, OIDCClient
from hubgate.ops.devidp import DevIdp
from tests.idp.conftest import ALICE_KEY, CALLBACK, Clock, oidc
from tests.idp.person import App, Person


@asynccontextmanager
async def client_of(
    idp: DevIdp, clock: Clock, mfa: config.Mfa | None = None, **changed: Any
) -> AsyncIterator[OIDCClient]:
    async with OIDCClient(oidc(idp.issuer, **changed), mfa or config.Mfa(), clock=clock) as client:
        yield client


async def begin(client: OIDCClient, **how: Any) -> tuple[str, LoginAttempt]:
    return await client.begin(redirect_uri=CALLBACK, next="/htc/", browser="b", **how)


async def log_in(client: OIDCClient, person: Person, app: App) -> Login:
    url, attempt = await begin(client)
    seen = await person.log_in(url, "alice", "alice-pw", app)
    return await client.finish(attempt, seen.answer)


@pytest.fixture
def app(clock: Clock) -> App:
    return App(ALICE_KEY, clock)


async def test_password_and_code_make_a_login(devidp: DevIdp, clock: Clock, app: App) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        login = await log_in(client, person, app)
    assert login.proof == Proof("mfa", ("pwd", "otp"), int(clock.now))
    assert {
        name: login.claims[name] for name in ("iss", "preferred_username", "email", "email_verified", "groups")
    } == {
        "iss": devidp.issuer,
        "preferred_username": "alice",
        "email": "alice@example.org",
        "email_verified": True,
        "groups": ["atlas", "portal-admins"],
    }
    assert login.provider_sid == login.claims["sid"]
    assert login.tokens.expires_at == clock.now + 60
    assert not any(token in repr(login) for token in (login.tokens.id_token, login.tokens.access_token, "alice@"))
    assert not any(token in repr(login.tokens) for token in (login.tokens.refresh_token, login.tokens.id_token))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_secret_arrives_however_it_is_sent(devidp: DevIdp, clock: Clock, app: App, method: str) -> None:
    async with client_of(devidp, clock, token_endpoint_auth_method=method) as client, Person(devidp.issuer) as person:
        assert (await log_in(client, person, app)).claims["preferred_username"] == "alice"


async def test_the_authorization_request_asks_for_all_that_is_checked(devidp: DevIdp, clock: Clock) -> None:
    async with client_of(devidp, clock, scopes=["openid", "groups"], prompt="consent", idp_hint="cern") as client:
        url, attempt = await begin(client, tries=1)
        again, other = await begin(client, prompt="login")
    asked = dict(parse_qsl(urlsplit(url).query))
    challenge = asked.pop("code_challenge")
    assert len(challenge) == 43
    assert asked == {
        "response_type": "code",
        "client_id": "hubgate",
        "redirect_uri": CALLBACK,
        "scope": "openid groups",
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge_method": "S256",
        "acr_values": "mfa",
        "prompt": "consent",
        "kc_idp_hint": "cern",
    }
    assert (attempt.redirect_uri, attempt.next, attempt.browser, attempt.tries) == (CALLBACK, "/htc/", "b", 1)
    assert (attempt.begun, len(attempt.verifier)) == (int(clock.now), 64)
    assert attempt.verifier not in url
    assert parse_qs(urlsplit(again).query)["prompt"] == ["login"]
    assert {attempt.state, attempt.nonce, attempt.verifier}.isdisjoint({other.state, other.nonce, other.verifier})


@pytest.mark.parametrize("mfa", [config.Mfa(mode="off"), config.Mfa(acr="")])
async def test_nothing_is_asked_for_that_is_not_demanded(devidp: DevIdp, clock: Clock, mfa: config.Mfa) -> None:
    async with client_of(devidp, clock, mfa) as client:
        url, _ = await begin(client)
    assert not {"acr_values", "prompt", "kc_idp_hint"} & set(parse_qs(urlsplit(url).query))


@pytest.mark.parametrize(
    ("mfa", "reason"),
    [
        (config.Mfa(acr="phr"), "acr"),
        (config.Mfa(amr=("hwk", "face")), "amr"),
        (config.Mfa(acr="", amr=("hwk",)), "amr"),
    ],
)
async def test_a_login_that_is_too_weak_ends_with_the_name_of_who_it_was(
    devidp: DevIdp, clock: Clock, app: App, mfa: config.Mfa, reason: str
) -> None:
    async with client_of(devidp, clock, mfa) as client, Person(devidp.issuer) as person:
        with pytest.raises(ClientFault) as caught:
            await log_in(client, person, app)
    assert (caught.value.code, caught.value.evidence["reason"]) == ("second_factor_missing", reason)
    assert len(caught.value.evidence["subject"]) == 36


@pytest.mark.parametrize("mfa", [config.Mfa(acr="phr", mode="off"), config.Mfa(amr=("otp", "hwk"))])
async def test_a_login_that_is_strong_enough_goes_through(
    devidp: DevIdp, clock: Clock, app: App, mfa: config.Mfa
) -> None:
    async with client_of(devidp, clock, mfa) as client, Person(devidp.issuer) as person:
        assert (await log_in(client, person, app)).proof.acr == "mfa"


async def test_a_code_is_good_once(devidp: DevIdp, clock: Clock, app: App) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        url, attempt = await begin(client)
        seen = await person.log_in(url, "alice", "alice-pw", app)
        await client.finish(attempt, seen.answer)
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(attempt, seen.answer)


async def test_a_code_does_not_fit_another_attempt(devidp: DevIdp, clock: Clock, app: App) -> None:
    """The attacker's code in the victim's browser: the verifier is the victim's, and the code is refused."""
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        url, _ = await begin(client)
        seen = await person.log_in(url, "alice", "alice-pw", app)
        _, victims = await begin(client)
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(victims, seen.answer)


async def test_a_wrong_secret_is_the_operators_to_mend(devidp: DevIdp, clock: Clock, app: App) -> None:
    async with (
        client_of(devidp, clock, client_secret=config.Secret("wrong-one")) as client,
        Person(devidp.issuer) as person,
    ):
        with pytest.raises(ProviderFault) as caught:
            await log_in(client, person, app)
    assert (caught.value.code, dict(caught.value.evidence)) == ("provider_error", {"error": "invalid_client"})
    assert "wrong-one" not in f"{caught.value!r}{caught.value}"


async def test_refresh_goes_on_until_the_session_ends(devidp: DevIdp, clock: Clock, app: App) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        login = await log_in(client, person, app)
        clock.pass_by(600)
        tokens, _ = await client.refresh(login.tokens.refresh_token, subject=str(login.claims["sub"]))
        assert tokens.expires_at == clock.now + 60
        assert tokens.access_token != login.tokens.access_token
        assert tokens.id_token
        with pytest.raises(ProviderFault) as caught:
            await client.refresh(tokens.refresh_token, subject="somebody else")
        assert (caught.value.code, caught.value.evidence["reason"]) == ("id_token_refused", "sub")
        assert await client.end_session(tokens.refresh_token) is True
        with pytest.raises(ProviderFault, match="refresh_refused"):
            await client.refresh(tokens.refresh_token)
        assert await client.end_session(tokens.refresh_token) is False


async def test_after_a_log_out_behind_the_browser_the_next_login_asks_again(
    devidp: DevIdp, clock: Clock, app: App
) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        login = await log_in(client, person, app)
        url, attempt = await begin(client)
        assert (await client.finish(attempt, (await person.visit(url)).answer)).provider_sid == login.provider_sid
        assert await client.end_session(login.tokens.refresh_token)
        assert "password" in (await person.visit((await begin(client))[0])).form.fields


async def test_the_browser_can_log_out_as_well(devidp: DevIdp, clock: Clock, app: App) -> None:
    receipt = "https://127.0.0.1:8443/_hubgate/logged-out?a=1&b=ü"
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        login = await log_in(client, person, app)
        url = await client.end_session_url(id_token=login.tokens.id_token, post_logout_redirect_uri=receipt)
        assert url is not None
        seen = await person.visit(url)
        assert (seen.status, seen.url) == (0, receipt)
        assert "password" in (await person.visit((await begin(client))[0])).form.fields


async def test_a_refused_login_tells_so(devidp: DevIdp, clock: Clock) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        url, attempt = await begin(client)
        seen = await person.send(await person.visit(url), username="alice", password="alice-pw")
        for _ in range(5):
            seen = await person.send(seen, otp="000000")
        assert seen.answer["error"] == "access_denied"
        with pytest.raises(ClientFault, match="login_denied"):
            await client.finish(attempt, seen.answer)
        url, attempt = await begin(client, prompt="none")
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(attempt, (await person.visit(url)).answer)


async def test_many_tabs_log_in_at_once(devidp: DevIdp, clock: Clock, app: App) -> None:
    async with client_of(devidp, clock) as client, Person(devidp.issuer) as person:
        tabs = [await begin(client) for _ in range(5)]
        first = await person.log_in(tabs[0][0], "alice", "alice-pw", app)
        answers = [first.answer, *[(await person.visit(url)).answer for url, _ in tabs[1:]]]
        logins = await asyncio.gather(
            *(client.finish(attempt, answer) for (_, attempt), answer in zip(tabs, answers, strict=True))
        )
    assert len({login.claims["sub"] for login in logins}) == 1
    assert len({login.claims["nonce"] for login in logins}) == 5


async def test_the_gateway_starts_before_its_provider(devidp: DevIdp, clock: Clock, unused_tcp_port: int) -> None:
    issuer = f"http://127.0.0.1:{unused_tcp_port}/realms/dev"
    async with OIDCClient(oidc(issuer), config.Mfa(), clock=clock) as client:
        with pytest.raises(HubgateFault) as caught:
            await begin(client)
        fault = caught.value
        assert (fault.code, fault.status, client.available) == ("provider_unavailable", 503, False)
        assert fault.retry_after
        assert await client.end_session("t") is False
        with pytest.raises(ProviderFault, match="provider_unavailable"):
            await client.end_session_url(id_token="t", post_logout_redirect_uri="https://x/")
        from hubgate.ops.devidp import serving

        async with serving({}, "hubgate", "s", port=unused_tcp_port):
            clock.pass_by(2)
            url, _ = await begin(client)
            assert url.startswith(issuer)
            assert client.available
        # It went away again: whoever logs in is told by us, as soon as the last sign of life is old.
        clock.pass_by(11)
        with pytest.raises(ProviderFault, match="provider_unavailable"):
            await begin(client)
        assert client.available


async def test_it_becomes_available_by_itself(devidp: DevIdp, clock: Clock) -> None:
    async with client_of(devidp, clock) as client:
        async with asyncio.timeout(60):
            while not client.available:
                await asyncio.sleep(0.01)
        assert "available=True" in repr(client)
