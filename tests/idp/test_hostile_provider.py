"""A provider that lies, stalls, leads elsewhere or answers with rubbish gets nobody in and takes nothing down."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from joserfc.jwk import ECKey, RSAKey

from hubgate import config
from hubgate.core.oidc import LoginAttempt
from hubgate.errors import ClientFault, HubgateFault, ProviderFault
from hubgate.idp.client import Login, OIDCClient, TokenSet
from tests.idp import hostile
from tests.idp.conftest import CALLBACK, SECRET, Clock, oidc
from tests.idp.hostile import ACCESS_TOKEN, KEY, OTHER_KEY, Provider

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
async def provider(clock: Clock) -> AsyncIterator[Provider]:
    async with hostile.serving(Provider(clock)) as provider:
        yield provider


@asynccontextmanager
async def client_of(
    provider: Provider, clock: Clock, timeout: float = 8.0, **changed: Any
) -> AsyncIterator[OIDCClient]:
    async with OIDCClient(oidc(provider.issuer, **changed), config.Mfa(), clock=clock, timeout=timeout) as client:
        yield client


async def begin(client: OIDCClient, provider: Provider) -> LoginAttempt:
    _, attempt = await client.begin(redirect_uri=CALLBACK, next="/", browser="b")
    provider.nonce = attempt.nonce
    return attempt


async def log_in(client: OIDCClient, provider: Provider, **params: str) -> Login:
    attempt = await begin(client, provider)
    return await client.finish(attempt, {"code": "the-code", "iss": provider.issuer, **params})


async def refused(provider: Provider, clock: Clock, **how: Any) -> HubgateFault:
    """The fault that a login ends with. None of its words may be the provider's secrets."""
    async with client_of(provider, clock, **how) as client:
        with pytest.raises(HubgateFault) as caught:
            await log_in(client, provider)
    told = f"{caught.value!r}{caught.value}{caught.value.evidence}"
    assert not any(secret in told for secret in (ACCESS_TOKEN, "the-refresh-token", "the-code", SECRET, "eyJ"))
    return caught.value


async def test_left_honest_it_lets_people_in(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        login = await log_in(client, provider)
    assert (login.claims["sub"], login.provider_sid) == ("subject-1", "")
    assert login.tokens == TokenSet(
        login.tokens.id_token, ACCESS_TOKEN, "the-refresh-token", int(clock.now) + 60, "openid"
    )


@pytest.mark.parametrize(
    ("reason", "claims"),
    [
        ("iss", {"iss": "https://evil.example.org"}),
        ("aud", {"aud": "account"}),
        ("azp", {"aud": ["hubgate", "account"], "azp": "account"}),
        ("nonce", {"nonce": "another"}),
        ("nonce", {"nonce": None}),
        ("at_hash", {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
        ("sub", {"sub": ""}),
        ("expired", {"exp": 1_799_999_000}),
        ("future", {"iat": 1_800_000_031}),
        ("typ", {"typ": "Bearer"}),
        ("auth_time_future", {"auth_time": 1_800_000_031}),
    ],
)
async def test_claims_that_are_not_ours(provider: Provider, clock: Clock, reason: str, claims: dict[str, Any]) -> None:
    provider.claims = claims
    fault = await refused(provider, clock)
    assert (fault.code, fault.status, fault.evidence["reason"]) == ("id_token_refused", 502, reason)


@pytest.mark.parametrize("claims", [{"acr": "pwd"}, {"acr": None}, {"acr": "1"}])
async def test_a_login_without_the_second_factor(provider: Provider, clock: Clock, claims: dict[str, Any]) -> None:
    provider.claims = claims
    fault = await refused(provider, clock)
    assert (fault.code, fault.evidence["subject"]) == ("second_factor_missing", "subject-1")


async def test_the_skew_is_as_configured(provider: Provider, clock: Clock) -> None:
    provider.claims = {"iat": int(clock.now) + 100, "auth_time": int(clock.now) + 100}
    assert (await refused(provider, clock)).evidence["reason"] == "future"
    async with client_of(provider, clock, clock_skew="2m") as client:
        assert await log_in(client, provider)


@pytest.mark.parametrize(
    ("reason", "header"),
    [
        ("algorithm", {"alg": "none"}),
        ("algorithm", {"alg": "HS256"}),
        ("signature", {"alg": "RS384"}),
        ("key", {"alg": "ES256"}),
        ("typ", {"typ": "at+jwt"}),
        ("key", {"kid": "unknown"}),
        ("malformed", {"crit": ["exp"]}),
        ("malformed", {"kid": "x" * 1000}),
    ],
)
async def test_headers_that_lie(provider: Provider, clock: Clock, reason: str, header: dict[str, Any]) -> None:
    provider.header = header
    fault = await refused(provider, clock)
    assert (fault.code, fault.evidence["reason"]) == ("id_token_refused", reason)


async def test_a_key_that_only_claims_to_be_the_providers(provider: Provider, clock: Clock) -> None:
    provider.signing = RSAKey.generate_key(2048, {"kid": "first"})
    assert (await refused(provider, clock)).evidence["reason"] == "signature"
    provider.signing, provider.algorithm = ECKey.generate_key("P-256", {"kid": "first"}), "ES256"
    provider.header = {"jwk": provider.signing.as_dict(private=False), "jku": f"{provider.issuer}/own-keys"}
    assert (await refused(provider, clock)).evidence["reason"] == "key"
    assert provider.times("/own-keys") == 0


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ("token_type", {"token_type": "mac"}),
        ("token_type", {"token_type": None}),
        ("token_type", {"token_type": 7}),
        ("access_token", {"access_token": None}),
        ("access_token", {"access_token": ""}),
        ("access_token", {"access_token": ["a"]}),
        ("access_token", {"access_token": "x" * 17_000}),
        ("id_token", {"id_token": None}),
        ("id_token", {"id_token": {"a": 1}}),
        ("id_token", {"id_token": "x" * 17_000}),
        ("refresh_token", {"refresh_token": 7}),
        ("expires_in", {"expires_in": -1}),
        ("expires_in", {"expires_in": True}),
        ("expires_in", {"expires_in": "soon"}),
        ("expires_in", {"expires_in": [60]}),
    ],
)
async def test_token_responses_that_are_none(
    provider: Provider, clock: Clock, reason: str, reply: dict[str, Any]
) -> None:
    provider.reply = reply
    fault = await refused(provider, clock)
    assert (fault.code, fault.status, fault.evidence["reason"]) == ("provider_error", 502, reason)


@pytest.mark.parametrize(("said", "lifetime"), [(None, 300), ("90", 90), (0, 0), (10**9, 86400), (7200, 7200)], ids=str)
async def test_lifetimes_that_can_be_understood(provider: Provider, clock: Clock, said: Any, lifetime: int) -> None:
    provider.reply = {"expires_in": said, "token_type": "bearer", "refresh_token": None}
    async with client_of(provider, clock) as client:
        tokens = (await log_in(client, provider)).tokens
    assert (tokens.expires_at, tokens.refresh_token) == (clock.now + lifetime, "")


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, "invalid_grant", ("login_restart", 400)),
        (401, "invalid_client", ("provider_error", 502)),
        (400, "unauthorized_client", ("provider_error", 502)),
        (400, "<script>alert(1)</script>", ("provider_error", 502)),
        (400, ["invalid_grant"], ("provider_error", 502)),
        (404, None, ("provider_error", 502)),
        (302, None, ("provider_error", 502)),
        (204, None, ("provider_error", 502)),
        (429, "slow_down", ("provider_unavailable", 503)),
        (500, "server_error", ("provider_unavailable", 503)),
        (503, None, ("provider_unavailable", 503)),
    ],
)
async def test_errors_of_the_token_endpoint(
    provider: Provider, clock: Clock, status: int, error: Any, expected: tuple[str, int]
) -> None:
    provider.reply = {"error": error, "error_description": "about the-code"}
    provider.status = status
    fault = await refused(provider, clock)
    assert (fault.code, fault.status) == expected
    assert "script" not in str(dict(fault.evidence))


async def test_refresh_tells_an_ended_session_from_an_absent_provider(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        login = await log_in(client, provider)
        provider.reply, provider.status = {"error": "invalid_grant"}, 400
        with pytest.raises(ProviderFault) as caught:
            await client.refresh(login.tokens.refresh_token)
        assert (caught.value.code, caught.value.status) == ("refresh_refused", 401)
        for status in (500, 502, 503, 429):
            provider.status = status
            with pytest.raises(ProviderFault, match="provider_unavailable"):
                await client.refresh(login.tokens.refresh_token)
        provider.reply, provider.status = {"error": "invalid_client"}, 401
        with pytest.raises(ProviderFault, match="provider_error"):
            await client.refresh(login.tokens.refresh_token)


async def test_a_refreshed_id_token_is_checked_as_well(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        login = await log_in(client, provider)
        clock.pass_by(300)
        provider.reply, provider.claims = {"refresh_token": None, "id_token": None}, {}
        tokens, claims = await client.refresh("old-one", subject="subject-1")
        assert claims is None
        assert (tokens.refresh_token, tokens.id_token, tokens.expires_at) == ("old-one", "", int(clock.now) + 60)
        provider.reply, provider.claims = {}, {"nonce": None, "acr": None, "amr": None}
        tokens, claims = await client.refresh(login.tokens.refresh_token, subject="subject-1")
        assert tokens.id_token
        assert claims
        assert claims["sub"] == "subject-1"
        for wrong in (
            {"sub": "somebody-else"},
            {"aud": "account"},
            {"iss": "x"},
            {"exp": 1_800_000_000},
            {"at_hash": "x"},
        ):
            provider.claims = wrong
            with pytest.raises(ProviderFault, match="id_token_refused"):
                await client.refresh(login.tokens.refresh_token, subject="subject-1")


async def test_the_issuer_is_checked_before_the_code_is_shown_to_anybody(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        attempt = await begin(client, provider)
        for params in ({"code": "c", "iss": "https://evil.example.org"}, {"code": "c"}, {"error": "access_denied"}):
            with pytest.raises(ClientFault, match="callback_malformed"):
                await client.finish(attempt, params)
    assert provider.times("/token") == 0


async def test_a_provider_that_promises_no_issuer_needs_to_send_none(provider: Provider, clock: Clock) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": None}
    async with client_of(provider, clock) as client:
        attempt = await begin(client, provider)
        assert await client.finish(attempt, {"code": "the-code"})


async def test_the_code_is_sent_with_its_verifier_and_the_secret(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock, token_endpoint_auth_method="client_secret_post") as client:
        attempt = await begin(client, provider)
        await client.finish(attempt, {"code": "a+b&c=d é", "iss": provider.issuer})
    assert provider.asked[-2].path == "/token"
    assert provider.asked[-2].form == {
        "grant_type": "authorization_code",
        "redirect_uri": CALLBACK,
        "code": "a+b&c=d é",
        "code_verifier": attempt.verifier,
        "client_id": "hubgate",
        "client_secret": SECRET,
    }


async def test_cookies_of_the_provider_are_forgotten(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        await log_in(client, provider)
    assert {"/token", "/certs"} < {asked.path for asked in provider.asked}
    assert not any("Cookie" in asked.headers for asked in provider.asked)


# --- Keys


async def test_a_rotated_key_is_found_at_once_and_by_one_fetch(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        attempts = []
        await log_in(client, provider)
        clock.pass_by(31)
        provider.keys, provider.signing = [KEY, OTHER_KEY], OTHER_KEY
        provider.claims = {"nonce": "shared"}
        for _ in range(20):
            _, attempt = await client.begin(redirect_uri=CALLBACK, next="/", browser="b")
            attempts.append(LoginAttempt(**(attempt.as_record() | {"nonce": "shared"})))
        params = {"code": "the-code", "iss": provider.issuer}
        logins = await asyncio.gather(*(client.finish(attempt, params) for attempt in attempts))
        assert len(logins) == 20
        assert provider.times("/certs") == 2


async def test_made_up_key_ids_are_asked_for_once_per_cool_down(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        await log_in(client, provider)
        fetched = [provider.times("/certs")]
        for n, pause in enumerate((0, 10, 19, 2, 1, 28, 3600)):
            provider.header = {"kid": f"made-up-{n}"}
            clock.pass_by(pause)
            with pytest.raises(ProviderFault, match="id_token_refused"):
                await log_in(client, provider)
            fetched.append(provider.times("/certs"))
    assert fetched == [1, 1, 1, 1, 2, 2, 2, 3]


async def test_a_key_that_was_taken_away_is_not_believed_for_ever(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        await log_in(client, provider)
        provider.keys = [OTHER_KEY]
        clock.pass_by(3599)
        assert await log_in(client, provider)
        clock.pass_by(1)
        with pytest.raises(ProviderFault) as caught:
            await log_in(client, provider)
    assert caught.value.evidence["reason"] == "key"


async def test_a_clock_that_is_set_back_does_not_keep_old_keys(provider: Provider, clock: Clock) -> None:
    async with client_of(provider, clock) as client:
        await log_in(client, provider)
        clock.pass_by(-86400)
        provider.keys, provider.signing = [OTHER_KEY], OTHER_KEY
        assert await log_in(client, provider)


# --- Answers that are none


def answering(**what: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(**what)

    return answer


def streaming(chunk: bytes, times: int, **what: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(**what)
        await response.prepare(request)
        for _ in range(times):
            await response.write(chunk)
        return response

    return answer


def broken_off() -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer


RUBBISH = {
    "an error page": (
        answering(status=200, text="<html>maintenance</html>", content_type="text/html"),
        "provider_error",
    ),
    "no body": (answering(status=200), "provider_error"),
    "a list": (answering(text="[]"), "provider_error"),
    "a deep list": (answering(text="[" * 200_000), "provider_error"),
    "no UTF-8": (answering(body=b'{"a": "\xff"}'), "provider_error"),
    "not found": (answering(status=404, text="{}"), "provider_error"),
    "a gateway's error": (answering(status=502, text="{}"), "provider_unavailable"),
    "too many requests": (answering(status=429, text="{}"), "provider_unavailable"),
    "10 MB": (streaming(b" " * 100_000, 100), "provider_error"),
    "10 MB in 10 kB": (
        answering(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
        "provider_error",
    ),
    "broken gzip": (answering(body=b"not gzip", headers={"Content-Encoding": "gzip"}), "provider_unavailable"),
    "half an answer": (broken_off(), "provider_unavailable"),
    "a huge header": (answering(headers={"X": "x" * 20_000}), "provider_unavailable"),
}


@pytest.mark.parametrize("path", [DISCOVERY, "/certs", "/token"])
@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_rubbish_is_told_as_the_providers_fault(
    provider: Provider, clock: Clock, path: str, rubbish: str
) -> None:
    provider.answers[path], code = RUBBISH[rubbish]
    assert (await refused(provider, clock)).code == code


@pytest.mark.parametrize("path", [DISCOVERY, "/certs", "/token", "/logout"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(provider: Provider, clock: Clock, path: str, status: int) -> None:
    async with hostile.serving(Provider(clock, issuer=provider.issuer)) as elsewhere:
        provider.answers[path] = answering(status=status, headers={"Location": elsewhere.base + path})
        async with client_of(provider, clock) as client:
            if path == "/logout":
                assert await client.end_session("the-refresh-token") is False
            else:
                with pytest.raises(ProviderFault, match="provider_error"):
                    await log_in(client, provider)
        assert elsewhere.asked == []


@pytest.mark.parametrize("path", [DISCOVERY, "/certs", "/token"])
async def test_a_provider_that_never_answers_is_waited_for_no_longer_than_said(
    provider: Provider, clock: Clock, path: str
) -> None:
    enough = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        await enough.wait()
        return web.Response()

    provider.answers[path] = never
    async with asyncio.timeout(60):
        fault = await refused(provider, clock, timeout=0.3)
    enough.set()
    assert (fault.code, fault.status) == ("provider_unavailable", 503)


async def test_a_provider_that_drips_is_waited_for_no_longer_either(provider: Provider, clock: Clock) -> None:
    gone = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        except ConnectionError:
            gone.set()
        return response

    provider.answers["/token"] = drip
    assert (await refused(provider, clock, timeout=0.4)).code == "provider_unavailable"
    async with asyncio.timeout(60):
        await gone.wait()


async def test_no_http_at_all(clock: Clock) -> None:
    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        provider = Provider(clock, issuer=f"http://127.0.0.1:{port}/realms/site")
        assert (await refused(provider, clock)).code == "provider_unavailable"


# --- Log Out


@pytest.mark.parametrize("answer", ["a page that asks", "no endpoint", "an error", "nothing"])
async def test_a_log_out_that_was_not_confirmed_is_none(provider: Provider, clock: Clock, answer: str) -> None:
    match answer:
        case "a page that asks":
            provider.answers["/logout"] = answering(text="<html>Do you want to log out?</html>")
        case "no endpoint":
            provider.metadata = {"end_session_endpoint": None}
        case "an error":
            provider.answers["/logout"] = answering(status=400, text='{"error": "invalid_grant"}')
        case "nothing":
            provider.answers["/logout"] = broken_off()
    async with client_of(provider, clock) as client:
        assert await client.end_session("the-refresh-token") is False
        if answer == "nothing":
            # Nobody is sent to a provider that has just failed to answer us.
            with pytest.raises(ProviderFault, match="provider_unavailable"):
                await client.end_session_url(id_token="", post_logout_redirect_uri="https://x/?a=b&c")
            clock.pass_by(2)
        url = await client.end_session_url(id_token="", post_logout_redirect_uri="https://x/?a=b&c")
    if answer == "no endpoint":
        assert url is None
    else:
        assert (
            url == f"{provider.issuer}/logout?client_id=hubgate&post_logout_redirect_uri=https%3A%2F%2Fx%2F%3Fa%3Db%26c"
        )


async def test_a_log_out_shows_the_refresh_token_and_who_we_are(provider: Provider, clock: Clock) -> None:
    provider.metadata = {"end_session_endpoint": f"{provider.issuer}/logout?tenant=1"}
    async with client_of(provider, clock, token_endpoint_auth_method="client_secret_post") as client:
        assert await client.end_session("the-refresh-token") is True
        url = await client.end_session_url(id_token="a.b.c", post_logout_redirect_uri="https://x/")
    assert provider.asked[-1].form["refresh_token"] == "the-refresh-token"
    assert provider.asked[-1].form["client_secret"] == SECRET
    assert url is not None
    assert url.startswith(f"{provider.issuer}/logout?tenant=1&id_token_hint=a.b.c&client_id=hubgate&")
