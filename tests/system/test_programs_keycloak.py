"""Keycloak says that somebody is out, while their programs are at work and they are logged in nowhere."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest

from hubgate import app, config
from hubgate.idp import keycloak as keycloak_admin
from hubgate.idp.client import OIDCClient
from hubgate.idp.keycloak import KeycloakAdmin
from hubgate.web.programs import _ASK_ABOUT_PERSON
from tests.attacks.test_api_tokens import SOCKET, Program, audited, takes_tokens
from tests.kit.background import eventually
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider
from tests.kit.scene import SOON
from tests.kit.stand import Stand, stand

Deed = Callable[[KeycloakProvider, str], None]


def disable(realm: KeycloakProvider, subject: str) -> None:
    realm.admin("PUT", f"users/{subject}", {"enabled": False})


def remove(realm: KeycloakProvider, subject: str) -> None:
    realm.admin("DELETE", f"users/{subject}")


def sign_out_everywhere(realm: KeycloakProvider, subject: str) -> None:
    realm.admin("POST", f"users/{subject}/logout")


OUT = pytest.mark.parametrize("out", [disable, remove, sign_out_everywhere])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Keycloak takes on a machine that is busy."""
    monkeypatch.setattr(app, "OIDCClient", partial(OIDCClient, timeout=SOON))
    monkeypatch.setattr(keycloak_admin, "_TIMEOUT", SOON)


@pytest.fixture
async def site(patient: None, keycloak: KeycloakProvider) -> AsyncIterator[Stand]:
    account = {"client_id": keycloak.client_id, "client_secret": keycloak.client_secret}

    def at_keycloak(document: dict[str, Any]) -> None:
        takes_tokens(document)
        document["oidc"] = {"issuer": keycloak.issuer, **account}
        document["keycloak"] = account

    async with stand(at_keycloak) as made:
        async with made.person() as nobody:

            async def has_found_keycloak() -> bool:
                return (await nobody.get(f"{made.url}/_hubgate/login", follow=False)).status == 302

            await eventually(has_found_keycloak, within=SOON)
        yield made


@OUT
async def test_whoever_keycloak_shuts_out_has_no_programs(site: Stand, keycloak: KeycloakProvider, out: Deed) -> None:
    """Asked about those whose programs are at work, every five minutes."""
    handled = site.served.front.programs
    assert handled is not None
    ask, answered = handled._lets_in, set[str]()
    assert ask is not None

    async def lets_in(subject: str, *, since: int = 0) -> bool:
        said = await ask(subject, since=since)
        answered.add(subject)
        return said

    handled._lets_in = lets_in
    users = [keycloak.create_user(), keycloak.create_user()]
    for user in users:
        async with Person(site.url, keycloak.origin) as browser:
            assert (await browser.login(site.url + "/", user)).status == 200
            page = await browser.get(site.url + "/")
            page = await browser.submit(
                page, next(form for form in page.forms if form.action.endswith("/_hubgate/logout"))
            )
            assert "You are logged out" in page.text
    subject = keycloak.user_id(users[0].username)
    # Keycloak counts in seconds: who is signed out in the very second of the login might have logged in after it.
    owner = await handled._usernames.owner(users[0].username)
    assert owner is not None
    standing = await handled._standings.of(owner)
    assert standing is not None

    async def has_passed() -> bool:
        return time.time() >= standing.proof.auth_time + 1

    await eventually(has_passed, within=SOON)
    keys = [site.hubs["htc01"].gives(secrets.token_hex(16), user.username) for user in users]
    async with Program(site, keys[0]) as program, Program(site, keys[1]) as others:
        wires = [await each.session.ws_connect(site.url + SOCKET, headers=each.headers) for each in (program, others)]

        async def both_were_asked_about() -> bool:
            return len(answered) == 2

        await eventually(both_were_asked_about, within=SOON)
        for wire in wires:
            await wire.send_str("hello")
            assert (await wire.receive(timeout=SOON)).data == "hello"
        await asyncio.to_thread(out, keycloak, subject)
        handled._clock = lambda: time.time() + _ASK_ABOUT_PERSON
        assert (await wires[0].receive(timeout=SOON)).type is not aiohttp.WSMsgType.TEXT
        assert (await program.refused("token_owner_away")).status == 401
        await wires[1].send_str("still there")
        assert (await wires[1].receive(timeout=SOON)).data == "still there"
        assert (await others.ask())[0] == 200
    assert [line["user"] for line in audited(site) if line["outcome"] == "owner_disabled"] == [users[0].username]


@OUT
async def test_what_keycloaks_administration_tells(keycloak: KeycloakProvider, out: Deed) -> None:
    secret = config.Secret(keycloak.client_secret)
    oidc = config.Oidc(issuer=keycloak.issuer, client_id=keycloak.client_id, client_secret=secret)
    admin = KeycloakAdmin(oidc, config.Keycloak(client_id=keycloak.client_id, client_secret=secret))
    subject = keycloak.user_id(keycloak.create_user().username)
    logged_in = int(time.time()) - 1
    assert await admin.lets_in(subject, since=logged_in)
    await asyncio.to_thread(out, keycloak, subject)
    assert not await admin.lets_in(subject, since=logged_in)
    # Whoever logs in after that is another matter.
    assert await admin.lets_in(subject, since=int(time.time()) + 60) is (out is sign_out_everywhere)
    assert await admin.lets_in(subject) is (out is sign_out_everywhere)
