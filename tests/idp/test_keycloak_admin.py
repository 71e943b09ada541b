"""What is said about a realm, and what becomes of an administration that doesn't answer as it should."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from hubgate import config
from hubgate.errors import OperatorFault, ProviderFault
from hubgate.idp.keycloak import KeycloakAdmin, advice
from tests.idp.conftest import SECRET, Clock, oidc
from tests.idp.hostile import Provider, serving

REALM: dict[str, Any] = {
    "bruteForceProtected": True,
    "otpPolicyCodeReusable": False,
    "otpPolicyLookAheadWindow": 1,
    "accessTokenLifespan": 300,
    "ssoSessionMaxLifespan": 43200,
    "sslRequired": "external",
    "attributes": {"acr.loa.map": '{"pwd": "1", "mfa": "2"}'},
}
CLIENT: dict[str, Any] = {
    "clientId": "hubgate",
    "redirectUris": ["https://jupyter.example.org/_hubgate/callback"],
    "attributes": {"pkce.code.challenge.method": "S256"},
}
ACCOUNT = config.Keycloak(client_id="hubgate", client_secret=config.Secret(SECRET))


def test_a_realm_that_is_well_set_up_is_not_talked_about() -> None:
    assert advice(REALM, CLIENT, version="26.7.2", acr="mfa") == []
    assert advice(REALM, CLIENT, version="27.0.0.Final", acr="") == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"bruteForceProtected": False}, "brute force"),
        ({"bruteForceProtected": None}, "brute force"),
        ({"otpPolicyCodeReusable": True}, "more than once"),
        ({"otpPolicyLookAheadWindow": 10}, "look around"),
        ({"registrationAllowed": True}, "register"),
        ({"resetPasswordAllowed": True}, "Forgot password"),
        ({"editUsernameAllowed": True}, "Edit username"),
        ({"accessTokenLifespan": 3600}, "15 minutes"),
        ({"ssoSessionMaxLifespan": 30 * 86400}, "a week"),
        ({"sslRequired": "none"}, "plain http"),
        ({"attributes": {}}, "acr 'mfa'"),
        ({"attributes": {"acr.loa.map": "not JSON"}}, "acr 'mfa'"),
        ({"attributes": {"acr.loa.map": '["mfa"]'}}, "acr 'mfa'"),
        ({"attributes": {"acr.loa.map": '{"MFA": "2"}'}}, "acr 'mfa'"),
    ],
)
def test_each_weak_setting_of_a_realm_is_one_sentence(changed: dict[str, Any], word: str) -> None:
    sentences = advice(REALM | changed, CLIENT, version="26.7.2", acr="mfa")
    assert [word in sentence for sentence in sentences] == [True]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"attributes": {}}, "PKCE"),
        ({"attributes": {"pkce.code.challenge.method": "plain"}}, "PKCE"),
        ({"publicClient": True}, "public"),
        ({"directAccessGrantsEnabled": True}, "password alone"),
        ({"implicitFlowEnabled": True}, "implicit"),
        *(
            ({"redirectUris": ["https://a/_hubgate/callback", uri]}, "wildcard")
            for uri in (
                "*",
                "https://*",
                "https://jupyter.example.org*",
                "http://127.0.0.1:*",
                "https://a/*",
                "https://*/x/*",
            )
        ),
    ],
)
def test_each_weak_setting_of_the_client_is_one_sentence(changed: dict[str, Any], word: str) -> None:
    sentences = advice(REALM, CLIENT | changed, version="26.7.2", acr="mfa")
    assert [word in sentence for sentence in sentences] == [True]


def test_what_is_fine_is_not_complained_about() -> None:
    fine = CLIENT | {"redirectUris": ["https://jupyter.example.org/_hubgate/*"]}
    assert advice(REALM, fine, version="26.7.2", acr="mfa") == []
    own_levels = CLIENT | {"attributes": CLIENT["attributes"] | {"acr.loa.map": '{"mfa": "3"}'}}
    assert advice(REALM | {"attributes": {}}, own_levels, version="26.7.2", acr="mfa") == []
    assert advice(REALM | {"sslRequired": "none"}, CLIENT, version="26.7.2", https=False) == []
    assert advice(REALM | {"otpPolicyType": "hotp", "otpPolicyLookAheadWindow": 10}, CLIENT, version="26.7.2") == []


@pytest.mark.parametrize(
    ("version", "word"),
    [("26.5.6", "26.5.6"), ("26.7.1", "26.7.1"), ("9.0.0", "9.0.0"), ("", "make sure"), ("nightly", "update")],
)
def test_old_versions_are_told(version: str, word: str) -> None:
    (sentence,) = advice(REALM, CLIENT, version=version)
    assert word in sentence
    assert "26.7.2" in sentence


def test_a_client_that_is_not_there_is_told_as_that_alone() -> None:
    (sentence,) = advice(REALM, {}, version="26.7.2", acr="other")
    assert "oidc.client_id" in sentence


@pytest.mark.parametrize(
    "issuer", ["https://id.example.org", "https://id.example.org/realms/", "https://id.example.org/realms/a/b"]
)
def test_an_issuer_that_is_none_of_keycloaks_is_refused(issuer: str) -> None:
    with pytest.raises(OperatorFault) as caught:
        KeycloakAdmin(oidc(issuer), ACCOUNT)
    assert (caught.value.code, issuer in caught.value.message) == ("keycloak_issuer", True)


def test_the_internal_address_is_the_one_that_is_asked() -> None:
    admin = KeycloakAdmin(
        oidc("https://id.example.org/realms/site", internal_url="http://kc:8080/auth/realms/site"), ACCOUNT
    )
    assert repr(admin) == "KeycloakAdmin(http://kc:8080/auth/, 'site')"


# --- An administration that isn't one


class Administration(Provider):
    """Answers every call with one prepared answer, and keeps what was asked."""

    answer: tuple[int, str] = (200, "{}")
    calls: list[tuple[str, str]]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/token"):
            return web.json_response({"access_token": "t", "expires_in": 60})
        self.calls.append((request.method, request.raw_path))
        return web.Response(status=self.answer[0], text=self.answer[1], content_type="application/json")


@pytest.fixture
async def administration(clock: Clock) -> AsyncIterator[Administration]:
    provider = Administration(clock)
    provider.calls = []
    async with serving(provider):
        yield provider


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((403, '{"error": "HTTP 403 secret-in-the-text"}'), "403"),
        ((404, '{"error": "User not found"}'), "404"),
        ((500, "<html>"), "500"),
        ((302, ""), "302"),
        ((200, "<html>maintenance</html>"), "garbage"),
        ((200, '"text"'), "garbage"),
    ],
)
async def test_refusals_are_told_by_their_status(
    administration: Administration, answer: tuple[int, str], status: str
) -> None:
    administration.answer = answer
    with pytest.raises(ProviderFault) as caught:
        await KeycloakAdmin(oidc(administration.issuer), ACCOUNT).has_otp("u")
    assert (caught.value.code, dict(caught.value.evidence)) == ("provider_error", {"status": status})
    assert "secret-in-the-text" not in f"{caught.value!r}{caught.value}"


@pytest.mark.parametrize(
    ("answer", "enabled"),
    [
        ((200, '{"id": "u", "enabled": true}'), True),
        ((200, '{"id": "u", "enabled": false}'), False),
        ((200, '{"id": "u", "enabled": true, "notBefore": 1000}'), True),
        ((200, '{"id": "u", "enabled": true, "notBefore": 1001}'), False),
        ((404, '{"error": "User not found"}'), False),
    ],
)
async def test_somebody_disabled_signed_out_or_gone_is_told_from_no_answer(
    administration: Administration, answer: tuple[int, str], enabled: bool
) -> None:
    administration.answer = answer
    assert await KeycloakAdmin(oidc(administration.issuer), ACCOUNT).lets_in("u", since=1000) is enabled


@pytest.mark.parametrize("answer", [(403, "{}"), (500, ""), (200, '"text"'), (200, "[]")])
async def test_an_administration_that_does_not_say_disables_nobody(
    administration: Administration, answer: tuple[int, str]
) -> None:
    administration.answer = answer
    with pytest.raises(ProviderFault):
        await KeycloakAdmin(oidc(administration.issuer), ACCOUNT).lets_in("u")


async def test_a_subject_stays_one_segment_of_the_path(administration: Administration) -> None:
    admin = KeycloakAdmin(oidc(administration.issuer), ACCOUNT)
    administration.answer = (200, json.dumps([{"type": "password"}, {"type": "webauthn"}]))
    assert await admin.has_otp("../groups/x?y#z%2f") is True
    administration.answer = (200, json.dumps([{"type": "password"}]))
    assert await admin.has_otp("f:1234:alice") is False
    assert administration.calls == [
        ("GET", "/admin/realms/site/users/..%2Fgroups%2Fx%3Fy%23z%252f/credentials"),
        ("GET", "/admin/realms/site/users/f%3A1234%3Aalice/credentials"),
    ]
    for nobody in ("", ".", ".."):
        with pytest.raises(ProviderFault, match="provider_error"):
            await admin.end_sessions(nobody)
    assert len(administration.calls) == 2


async def test_an_administration_that_is_away_is_told_as_that(unused_tcp_port: int) -> None:
    admin = KeycloakAdmin(oidc(f"http://127.0.0.1:{unused_tcp_port}/realms/site"), ACCOUNT)
    for call in (admin.realm_warnings(), admin.has_otp("u"), admin.require_totp("u"), admin.end_sessions("u")):
        with pytest.raises(ProviderFault) as caught:
            await call
        assert (caught.value.code, caught.value.status) == ("provider_unavailable", 503)
