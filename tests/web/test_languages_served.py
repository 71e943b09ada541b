"""A whole gateway in front of somebody whose browser asks for French: every page of ours comes in it, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.kit.person import Page, Person
from tests.kit.phone import with_password
from tests.kit.stand import Stand, stand

FRENCH = {"Accept-Language": "fr-CH, fr;q=0.9, en;q=0.5"}


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand(lambda document: document.update(health={"interval": "100ms"})) as running:
        yield running


@pytest.fixture
async def alice(site: Stand) -> AsyncIterator[Person]:
    person = await site.logged_in()
    yield person
    await person.session.close()


def in_french(page: Page) -> bool:
    told = '<html lang="fr"' in page.text or page.headers["Content-Type"].startswith("application/problem+json")
    return told and page.headers["Content-Language"] == "fr" and page.headers["Vary"] == "Accept-Language"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/_hubgate/account", 200), ("/_hubgate/logout", 200), ("/nowhere", 404), ("/_hubgate/nothing", 404)],
)
async def test_pages_of_somebody_who_is_logged_in(site: Stand, alice: Person, path: str, status: int) -> None:
    page = await alice.get(site.url + path, headers=FRENCH)
    assert page.status == status
    assert in_french(page)
    assert 'lang="en"' in (await alice.get(site.url + path)).text


async def test_the_page_of_a_hub_that_is_away(site: Stand, alice: Person) -> None:
    assert (await alice.get(site.url + "/htc/hub/home")).status == 200
    for hub in site.hubs.values():
        hub.healthy = False
    async with asyncio.timeout(30):
        while (page := await alice.get(site.url + "/htc/hub/home", headers=FRENCH)).status == 200:
            await asyncio.sleep(0.05)
    assert page.status == 503
    assert "Nous l’attendons avec vous." in page.text
    assert in_french(page)


async def test_strangers_and_programs(site: Stand) -> None:
    async with site.person() as stranger:
        for page in (
            await stranger.get(site.url + "/_hubgate/logged-out", headers=FRENCH),
            await stranger.fetch(site.url + "/htc/hub/api/user", headers=FRENCH),
        ):
            assert in_french(page), page
        step = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        page = await stranger.fetch(site.url + "/_hubgate/login?next=/htc/", headers={**FRENCH, **step})
        assert 'lang="fr"' in page.text, page


async def test_what_a_hub_says_is_its_own_business(site: Stand, alice: Person) -> None:
    page = await alice.get(site.url + "/htc/hub/home", headers=FRENCH)
    assert "Content-Language" not in page.headers
    (received,) = site.received()
    assert received.values("Accept-Language") == [FRENCH["Accept-Language"]]


async def test_the_second_factor() -> None:
    async with stand(own_factor=True) as site, site.person() as alice:
        await with_password(alice, site.url + "/", site.users["alice"])
        page = await alice.get(site.url + "/_hubgate/mfa", headers=FRENCH)
        assert "Configurer les codes à usage unique" in page.text
        assert in_french(page)
