"""The same logins at a real Keycloak, and what its administration does for us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from hubgate import config
from hubgate.core.oidc import LoginAttempt
from hubgate.errors import ClientFault, ProviderFault
from hubgate.idp.client import Login, OIDCClient
from hubgate.idp.keycloak import KeycloakAdmin
from hubgate.ops.demo import realm as demo_realm
from hubgate.ops.demo.realm import DemoUser
from tests.idp.person import App, Person, Seen
from tests.kit.provider import KeycloakProvider

# Nobody listens there: the person stops where the browser would leave Keycloak.
GATEWAY = "http://127.0.0.1:9"
CALLBACK = f"{GATEWAY}/_hubgate/callback"


def settings(keycloak: KeycloakProvider, **changed: Any) -> config.Oidc:
    values: dict[str, Any] = {"issuer": keycloak.issuer, "client_id": keycloak.client_id}
    return config.Oidc(**(values | {"client_secret": config.Secret(keycloak.client_secret)} | changed))


@asynccontextmanager
async def client_of(
    keycloak: KeycloakProvider, mfa: config.Mfa | None = None, **changed: Any
) -> AsyncIterator[OIDCClient]:
    async with OIDCClient(settings(keycloak, **changed), mfa or config.Mfa(), cool_down=0, timeout=60) as client:
        yield client


def another_realm(keycloak: KeycloakProvider, name: str, **changes: Any) -> KeycloakProvider:
    """A realm of a test's own, without people: Keycloak's administration takes no realm with one-time codes in it."""
    users = [user for user in demo_realm.document()["users"] if "serviceAccountClientId" in user]
    return keycloak.create_realm(name, {"users": users, **changes})


def admin_of(keycloak: KeycloakProvider) -> KeycloakAdmin:
    account = config.Keycloak(client_id=keycloak.client_id, client_secret=config.Secret(keycloak.client_secret))
    return KeycloakAdmin(settings(keycloak), account, config.Mfa())


async def begin(client: OIDCClient, **how: Any) -> tuple[str, LoginAttempt]:
    return await client.begin(redirect_uri=CALLBACK, next="/", browser="b", **how)


async def log_in(client: OIDCClient, person: Person, user: DemoUser) -> Login:
    url, attempt = await begin(client)
    seen = await person.log_in(url, user.username, user.password, App(user.totp_key) if user.totp_key else None)
    return await client.finish(attempt, seen.answer)


async def asks_for_a_login(client: OIDCClient, person: Person) -> bool:
    seen = await person.visit((await begin(client))[0])
    return seen.status == 200 and "password" in seen.form.fields


@pytest.fixture
async def person(keycloak: KeycloakProvider) -> AsyncIterator[Person]:
    async with Person(keycloak.issuer) as person:
        yield person


async def test_password_and_code_make_a_login(keycloak: KeycloakProvider, person: Person) -> None:
    user = keycloak.create_user(groups=("htc-users", "hpc-users"))
    async with client_of(keycloak, config.Mfa(amr=("otp",))) as client:
        login = await log_in(client, person, user)
    assert (login.proof.acr, login.proof.amr) == ("mfa", ("pwd", "otp"))
    assert abs(login.proof.auth_time - int(str(login.claims["iat"]))) < 60
    assert login.provider_sid == login.claims["sid"]
    assert (login.claims["preferred_username"], login.claims["email_verified"]) == (user.username, True)
    assert set(login.claims["groups"]) == {"htc-users", "hpc-users"}  # type: ignore[call-overload]  # an object, to mypy


async def test_somebody_without_a_code_is_led_through_setting_one_up(
    keycloak: KeycloakProvider, person: Person
) -> None:
    user = keycloak.create_user(totp=False)
    async with client_of(keycloak) as client:
        login = await log_in(client, person, user)
        assert login.proof.acr == "mfa"
        assert await admin_of(keycloak).has_otp(str(login.claims["sub"]))
        async with Person(keycloak.issuer) as elsewhere:
            url, attempt = await begin(client)
            seen = await elsewhere.log_in(url, user.username, user.password, person.enrolled)
            assert (await client.finish(attempt, seen.answer)).proof.amr == ("pwd", "otp")


async def test_a_weaker_login_is_refused_and_tells_whose_it_was(keycloak: KeycloakProvider, person: Person) -> None:
    """Whoever changes what the browser asks for gets a login at Keycloak, and none here."""
    user = keycloak.create_user(totp=False)
    async with client_of(keycloak) as client:
        for changed in ("acr_values=pwd", "x=y"):
            url, attempt = await begin(client, prompt="login")
            url = url.replace("acr_values=mfa", changed)
            seen = await person.log_in(url, user.username, user.password)
            with pytest.raises(ClientFault) as caught:
                await client.finish(attempt, seen.answer)
            assert (caught.value.code, caught.value.evidence["reason"]) == ("second_factor_missing", "acr")
            assert caught.value.evidence["subject"] == keycloak.user_id(user.username)


async def test_who_logged_in_with_a_password_elsewhere_is_asked_for_the_code_alone(
    keycloak: KeycloakProvider, person: Person
) -> None:
    user = keycloak.create_user()
    async with client_of(keycloak, config.Mfa(acr="pwd")) as other_service, client_of(keycloak) as client:
        url, attempt = await begin(other_service)
        assert await other_service.finish(attempt, (await person.log_in(url, user.username, user.password)).answer)
        url, attempt = await begin(client)
        seen = await person.visit(url)
        assert set(seen.form.fields) >= {"otp"}
        assert "password" not in seen.form.fields
        seen = await person.send(seen, otp=App(user.totp_key).code())
        assert (await client.finish(attempt, seen.answer)).proof.acr == "mfa"


async def test_a_code_is_good_once_and_for_its_own_attempt(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        await log_in(client, person, keycloak.create_user())
        url, attempt = await begin(client)
        answer = (await person.visit(url)).answer
        _, victims = await begin(client)
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(victims, answer)
        url, attempt = await begin(client)
        answer = (await person.visit(url)).answer
        tokens = (await client.finish(attempt, answer)).tokens
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(attempt, answer)
        # Keycloak takes a code that comes twice for a theft, and takes back what it gave for it (RFC 6749, 4.1.2).
        with pytest.raises(ProviderFault, match="refresh_refused"):
            await client.refresh(tokens.refresh_token)


async def test_a_login_without_pkce_is_refused_by_keycloak_itself(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        url, attempt = await begin(client)
        seen: Seen = await person.visit(url.replace("code_challenge=", "c="))
        with pytest.raises(ProviderFault) as caught:
            await client.finish(attempt, seen.answer)
        assert (caught.value.code, caught.value.evidence["error"]) == ("provider_error", "invalid_request")


async def test_nobody_there_to_log_in_is_a_reason_to_begin_anew(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        url, attempt = await begin(client, prompt="none")
        with pytest.raises(ClientFault, match="login_restart"):
            await client.finish(attempt, (await person.visit(url)).answer)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_secret_with_everything_in_it_arrives(keycloak: KeycloakProvider, method: str) -> None:
    realm = another_realm(keycloak, f"secret-{method.rpartition('_')[2]}")
    client = realm.admin("GET", f"clients?clientId={realm.client_id}")[0]
    realm.client_secret = "p+ss/w%41rd: ü&=?"
    realm.admin("PUT", f"clients/{client['id']}", client | {"secret": realm.client_secret})
    async with client_of(realm, token_endpoint_auth_method=method) as oidc, Person(realm.issuer) as person:
        login = await log_in(oidc, person, realm.create_user())
        assert await oidc.end_session(login.tokens.refresh_token)
    async with client_of(realm, client_secret=config.Secret("wrong")) as oidc, Person(realm.issuer) as person:
        with pytest.raises(ProviderFault) as caught:
            await log_in(oidc, person, realm.create_user())
        assert caught.value.code == "provider_error"
        assert caught.value.evidence["error"] in {"invalid_client", "unauthorized_client"}


async def test_a_key_that_keycloak_changed_to_is_found_at_once(keycloak: KeycloakProvider) -> None:
    realm = another_realm(keycloak, "rotation")
    async with client_of(realm) as client, Person(realm.issuer) as person:
        await log_in(client, person, realm.create_user())
        key = {"priority": ["200"], "algorithm": ["RS256"], "keySize": ["2048"]}
        realm.admin(
            "POST",
            "components",
            {
                "name": "newer",
                "providerId": "rsa-generated",
                "providerType": "org.keycloak.keys.KeyProvider",
                "config": key,
            },
        )
        url, attempt = await begin(client)
        assert await client.finish(attempt, (await person.visit(url)).answer)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA"])
async def test_other_ways_of_signing_are_understood(keycloak: KeycloakProvider, algorithm: str) -> None:
    realm = another_realm(keycloak, f"signed-{algorithm}", defaultSignatureAlgorithm=algorithm)
    if algorithm == "EdDSA":
        component = {"name": "ed", "providerId": "eddsa-generated", "providerType": "org.keycloak.keys.KeyProvider"}
        realm.admin("POST", "components", component | {"config": {"priority": ["100"]}})
    async with client_of(realm) as client, Person(realm.issuer) as person:
        assert (await log_in(client, person, realm.create_user())).proof.acr == "mfa"


async def test_by_way_of_an_internal_address(keycloak: KeycloakProvider, person: Person) -> None:
    inside = keycloak.issuer.replace("127.0.0.1", "localhost")
    async with client_of(keycloak, internal_url=inside) as client:
        url, _ = await begin(client)
        assert urlsplit(url).hostname == "127.0.0.1"
        login = await log_in(client, person, keycloak.create_user())
        assert await client.refresh(login.tokens.refresh_token, subject=str(login.claims["sub"]))
    account = config.Keycloak(client_id=keycloak.client_id, client_secret=config.Secret(keycloak.client_secret))
    admin = KeycloakAdmin(settings(keycloak, internal_url=inside), account)
    assert await admin.has_otp(str(login.claims["sub"]))


# --- The end


async def test_a_log_out_behind_the_browser_ends_keycloaks_session(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        login = await log_in(client, person, keycloak.create_user())
        tokens, _ = await client.refresh(login.tokens.refresh_token, subject=str(login.claims["sub"]))
        assert tokens.id_token
        assert not await asks_for_a_login(client, person)
        assert await client.end_session(tokens.refresh_token) is True
        assert await asks_for_a_login(client, person)
        with pytest.raises(ProviderFault, match="refresh_refused"):
            await client.refresh(tokens.refresh_token)
        # Keycloak confirms what is over already; a token that it never gave out it refuses.
        assert await client.end_session(tokens.refresh_token) is True
        assert await client.end_session("made-up") is False


async def test_the_browser_can_log_out_as_well(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        login = await log_in(client, person, keycloak.create_user())
        receipt = f"{GATEWAY}/_hubgate/logged-out"
        url = await client.end_session_url(id_token=login.tokens.id_token, post_logout_redirect_uri=receipt)
        assert url is not None
        assert (await person.visit(url)).url == receipt
        assert await asks_for_a_login(client, person)


async def test_the_session_of_a_disabled_user_is_over(keycloak: KeycloakProvider, person: Person) -> None:
    user = keycloak.create_user()
    async with client_of(keycloak) as client:
        login = await log_in(client, person, user)
        keycloak.admin("PUT", f"users/{login.claims['sub']}", {"enabled": False})
        with pytest.raises(ProviderFault) as caught:
            await client.refresh(login.tokens.refresh_token)
        assert (caught.value.code, caught.value.status) == ("refresh_refused", 401)


# --- Administration


async def test_the_service_account_ends_somebodys_sessions(keycloak: KeycloakProvider, person: Person) -> None:
    async with client_of(keycloak) as client:
        login = await log_in(client, person, keycloak.create_user())
        await admin_of(keycloak).end_sessions(str(login.claims["sub"]))
        assert await asks_for_a_login(client, person)
        with pytest.raises(ProviderFault, match="refresh_refused"):
            await client.refresh(login.tokens.refresh_token)


async def test_the_service_account_has_somebody_set_up_a_code(keycloak: KeycloakProvider) -> None:
    """Also where the realm's flow doesn't lead there by itself."""
    admin, user = admin_of(keycloak), keycloak.create_user(totp=False)
    subject = keycloak.user_id(user.username)
    assert await admin.has_otp(subject) is False
    before = keycloak.admin("GET", f"users/{subject}")
    for _ in range(2):
        await admin.require_totp(subject)
        assert keycloak.admin("GET", f"users/{subject}") == before | {"requiredActions": ["CONFIGURE_TOTP"]}
    async with client_of(keycloak, config.Mfa(mode="off")) as client, Person(keycloak.issuer) as person:
        url, attempt = await begin(client)
        seen = await person.log_in(url.replace("acr_values", "x"), user.username, user.password)
        assert await client.finish(attempt, seen.answer)
        assert person.enrolled
    assert await admin.has_otp(subject) is True
    assert await admin.has_otp(keycloak.user_id("alice")) is True


async def test_a_realm_is_looked_over(keycloak: KeycloakProvider) -> None:
    weak = another_realm(
        keycloak,
        "weak",
        bruteForceProtected=False,
        otpPolicyCodeReusable=True,
        registrationAllowed=True,
        attributes={},
    )
    told = " ".join(await admin_of(weak).realm_warnings())
    for word in ("brute force", "more than once", "register", "wildcard", "acr 'mfa'", "26.7.2"):
        assert word in told
    usual = " ".join(await admin_of(keycloak).realm_warnings())
    assert "wildcard" in usual
    for word in ("brute force", "more than once", "register", "PKCE", "acr 'mfa'", "plain http"):
        assert word not in usual


async def test_an_account_without_its_secret_or_roles_is_told_as_that(keycloak: KeycloakProvider) -> None:
    realm = another_realm(keycloak, "no-roles")
    account = realm.user_id("service-account-hubgate")
    management = realm.admin("GET", "clients?clientId=realm-management")[0]["id"]
    path = f"users/{account}/role-mappings/clients/{management}"
    realm.admin("DELETE", path, realm.admin("GET", path))
    for secret, status in ((realm.client_secret, "403"), ("wrong", "401")):
        realm.client_secret = secret
        with pytest.raises(ProviderFault) as caught:
            await admin_of(realm).realm_warnings()
        assert (caught.value.code, dict(caught.value.evidence)) == ("provider_error", {"status": status})
