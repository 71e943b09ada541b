"""A proof that is wished to be fresh, at a real Keycloak and after one: its session of its own is not enough."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from tests.kit.person import Person
from tests.kit.phone import asks_for, enrolled, step_form
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway
from tests.kit.scene import pool

AGAIN = "/_hubgate/login?next=/%3Fback&max_age=0"
"""Whatever there is, it is too old."""


async def test_keycloak_asks_for_both_factors_again_and_says_when(
    keycloak: KeycloakProvider, gateway: Callable[..., RunningGateway], person: Callable[..., Person]
) -> None:
    at = gateway(pools=[pool("htc", {"name": "htc01", "url": "http://127.0.0.1:9"})], provider=keycloak)
    user = keycloak.create_user()
    alice = person(at.url, keycloak.origin)
    assert (await alice.login(at.url + "/", user)).url == at.url + "/"
    cookie = alice.cookies(at.url)["hubgate"]

    page = await alice.get(at.url + "/_hubgate/login?next=/%3Fback")
    assert page.url == at.url + "/?back", "a session is enough for those who wish nothing"
    page = await alice.get(at.url + AGAIN)
    assert page.form_with("password") is not None, "Keycloak's own session is not"
    asked = next(parse_qs(urlsplit(step.url).query) for step in page.trail if "/openid-connect/auth" in step.url)
    assert (asked["max_age"], asked["prompt"], asked["acr_values"]) == (["0"], ["login"], ["mfa"])
    page = await alice.login(at.url + AGAIN, user)
    assert page.url == at.url + "/?back"
    assert page.status == 200
    assert alice.cookies(at.url)["hubgate"] != cookie
    first, second = at.events("login")
    assert (first["factor"], second["factor"]) == ("pwd otp", "pwd otp")


async def test_in_mode_gateway_keycloak_is_not_asked_at_all(
    keycloak: KeycloakProvider, gateway: Callable[..., RunningGateway], person: Callable[..., Person]
) -> None:
    at = gateway(
        pools=[pool("htc", {"name": "htc01", "url": "http://127.0.0.1:9"})],
        provider=keycloak,
        mfa={"mode": "gateway"},
    )
    user = keycloak.create_user(totp=False)
    alice = person(at.url, keycloak.origin)
    phone, _, _ = await enrolled(alice, at.url + "/", user)
    page = await alice.get(at.url + AGAIN)
    assert asks_for(page) == {"again"}
    assert not [step for step in page.trail if step.url.startswith(keycloak.origin)]
    page = await alice.submit(page, step_form(page, "again"), code=await phone.code())
    assert page.url == at.url + "/?back"
    assert at.events("step_up")
