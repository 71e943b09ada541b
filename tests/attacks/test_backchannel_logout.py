"""Whoever can make the gateway believe that the provider has spoken can log anybody out. Tokens of every other kind,
and good ones shown twice (OpenID Connect Back-Channel Logout 1.0, 2.6)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from hubgate.core.logout_token import EVENT
from hubgate.errors import StoreFault
from tests.kit.background import eventually
from tests.kit.person import Page, Person
from tests.kit.stand import Stand, stand

PATH = "/_hubgate/backchannel-logout"


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand() as made:
        yield made


def claims(site: Stand, person: Person | None = None, **changes: Any) -> dict[str, Any]:
    """What a logout token says about alice's session."""
    (live,) = [each for each in site.served.live._by_cookie.values() if each.session.identity.username == "alice"]
    now = int(time.time())
    said = {
        "iss": site.provider_url,
        "aud": "hubgate",
        "sub": live.session.identity.subject,
        "sid": live.session.provider_sid,
        "iat": now,
        "exp": now + 120,
        "jti": secrets.token_hex(8),
        "events": {EVENT: {}},
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def signed(site: Stand, said: dict[str, Any], *, key: Any = None, algorithm: str = "ES256", **header: Any) -> str:
    mine = site.provider._signing
    full = {"alg": algorithm, "typ": "logout+jwt", "kid": mine.kid} | header
    return jws.serialize_compact(full, json.dumps(said), key or mine, algorithms=[algorithm])


async def told(site: Stand, token: str, **more: Any) -> Page:
    async with site.person() as nobody:
        data = {"logout_token": token}
        return await nobody.request("POST", site.url + PATH, data=data, headers={"Sec-Fetch-Mode": "x"}, **more)


async def is_in(site: Stand, person: Person) -> bool:
    return (await person.get(site.url + "/htc/hub/home", follow=False)).status == 200


def refusals(site: Stand) -> list[str]:
    lines = [json.loads(line) for line in site.lines]
    return [line["code"] for line in lines if line["event"] == "backchannel_logout"]


async def test_the_providers_word_ends_the_session_and_only_that(site: Stand) -> None:
    async with await site.logged_in() as alice, await site.logged_in("bob") as bob:
        page = await told(site, signed(site, claims(site)))
        assert (page.status, page.body) == (200, b"")
        assert page.headers["Cache-Control"] == "no-store"
        assert not await is_in(site, alice)
        assert await is_in(site, bob)


FORGERIES: dict[str, Callable[[Stand], str]] = {
    "another issuer": lambda site: signed(site, claims(site, iss="https://evil.example")),
    "for another client": lambda site: signed(site, claims(site, aud="other")),
    "an ID token": lambda site: signed(site, claims(site, nonce="n")),
    "an ID token's type": lambda site: signed(site, claims(site, typ="ID")),
    "no event": lambda site: signed(site, claims(site, events={})),
    "another event": lambda site: signed(site, claims(site, events={"http://evil.example": {}})),
    "nobody": lambda site: signed(site, claims(site, sub=None, sid=None)),
    "old": lambda site: signed(site, claims(site, iat=int(time.time()) - 900, exp=int(time.time()) + 900)),
    "expired": lambda site: signed(site, claims(site, exp=int(time.time()) - 60)),
    "from the future": lambda site: signed(site, claims(site, iat=int(time.time()) + 900)),
    "without an id": lambda site: signed(site, claims(site, jti=None)),
    "another key": lambda site: signed(site, claims(site), key=ECKey.generate_key("P-256")),
    "an unknown key": lambda site: signed(site, claims(site), key=ECKey.generate_key("P-256"), kid="unknown"),
    "hmac with a guess": lambda site: signed(site, claims(site), key=OctKey.generate_key(256), algorithm="HS256"),
    "unsigned": lambda site: "eyJhbGciOiJub25lIn0." + signed(site, claims(site)).split(".")[1] + ".",
    "cut": lambda site: signed(site, claims(site))[:-8],
    "long": lambda site: signed(site, claims(site, more="x" * 20_000)),
    "nothing": lambda _: "",
    "dots": lambda _: "..",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_the_provider_did_not_say_is_a_400_and_ends_nothing(site: Stand, forgery: str) -> None:
    async with await site.logged_in() as alice:
        page = await told(site, FORGERIES[forgery](site))
        assert page.status == 400
        assert page.headers["Cache-Control"] == "no-store"
        assert json.loads(page.text)["error"] == "invalid_request"
        assert await is_in(site, alice)
        assert len(refusals(site)) == 1


async def test_a_replayed_logout_token_ends_no_later_session(site: Stand) -> None:
    async with await site.logged_in() as alice:
        token = signed(site, claims(site, sid=None))
        assert (await told(site, token)).status == 200
        assert not await is_in(site, alice)
        page = await alice.login(site.url + "/", site.users["alice"])
        assert page.status == 200, page
        assert (await told(site, token)).status == 400
        assert refusals(site) == ["replayed"]
        assert await is_in(site, alice)


async def test_sid_and_subject_must_both_fit(site: Stand) -> None:
    async with await site.logged_in() as alice:
        assert (await told(site, signed(site, claims(site, sub="somebody-else")))).status == 200
        assert (await told(site, signed(site, claims(site, sid="another")))).status == 200
        assert await is_in(site, alice)


async def test_a_flood_of_forgeries_does_not_fill_the_audit_log(site: Stand) -> None:
    async with await site.logged_in() as alice:
        for _ in range(100):
            assert (await told(site, "..")).status == 400
        assert len(refusals(site)) < 80
        assert (await told(site, signed(site, claims(site)))).status == 200, "and the provider is heard"
        assert not await is_in(site, alice)


async def test_without_the_store_it_is_503_and_what_is_held_here_is_dropped(
    site: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await site.logged_in() as alice, await site.logged_in("bob"):
        token = signed(site, claims(site))
        held = len(site.served.live)

        async def away(*_: object, **__: object) -> bool:
            raise StoreFault("store_unreachable")

        with monkeypatch.context() as patched:
            patched.setattr(site.store, "add", away)
            page = await told(site, token)
        assert page.status == 503
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Retry-After"] == "5"
        assert len(site.served.live) == held - 1
        assert refusals(site) == ["store_unreachable"]

        async def over() -> bool:
            return not await is_in(site, alice)

        await eventually(over, within=20, every=0.1, what="the end of the session, now that the store is back")


async def test_it_is_not_for_reading(site: Stand) -> None:
    async with site.person() as nobody:
        assert (await nobody.get(site.url + PATH)).status == 405
