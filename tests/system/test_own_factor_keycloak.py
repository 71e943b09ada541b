"""The gateway's own second factor after a real Keycloak that is asked for nothing but the password."""

from __future__ import annotations

from collections.abc import Callable

from tests.kit.person import Person
from tests.kit.phone import asks_for, enrolled, logged_in, step_form, with_password
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway
from tests.kit.scene import pool


async def test_keycloak_asks_for_the_password_and_hubgate_for_the_code(
    keycloak: KeycloakProvider, gateway: Callable[..., RunningGateway], person: Callable[..., Person]
) -> None:
    at = gateway(
        pools=[pool("htc", {"name": "htc01", "url": "http://127.0.0.1:9"})],
        provider=keycloak,
        mfa={"mode": "gateway"},
    )
    user = keycloak.create_user(totp=False)
    first, second = person(at.url, keycloak.origin), person(at.url, keycloak.origin)
    phone, codes, page = await enrolled(first, at.url + "/", user)
    assert len(codes) == 10
    assert not [step for step in page.trail if "login-actions/required-action" in step.url], "Keycloak enrols nobody"
    assert (await first.get(at.url + "/")).status == 200

    page = await logged_in(second, at.url + "/", user, phone)
    assert page.url == at.url + "/"
    (one, two) = at.events("login")
    assert (one["factor"], two["factor"]) == ("pwd otp", "pwd otp")

    # Log Out ends Keycloak's session as well: the next login begins with the password.
    await second.log_out(at.url)
    await keycloak.forgotten(user.username, left=1)
    assert (await second.get(at.url + "/")).form_with("password") is not None
    page = await with_password(second, at.url + "/", user)
    page = await second.submit(page, step_form(page, "recovery"), code=codes[0])
    assert asks_for(page) == {"confirm"}
