"""Pools on hosts of their own: one login, each host with its own cookie, handed over by a one-time code."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kit.stand import stand


@pytest.fixture
async def site():
    """The portal is at 127.0.0.1, the pool `hpc` at localhost."""

    def adapt(document):
        port = urlsplit(document["gateway"]["public_url"]).port
        document["pools"][1]["host"] = f"localhost:{port}"

    async with stand(adapt) as running:
        yield running


@pytest.fixture
def hpc(site):
    return f"http://localhost:{urlsplit(site.url).port}"


async def test_a_pools_host_gets_its_own_cookie_after_one_login(site, hpc):
    async with site.person() as alice:
        page = await alice.login(hpc + "/hpc/hub/home?x=a%2Fb", site.users["alice"])
        assert page.status == 200, page
        assert page.url == hpc + "/hpc/hub/home?x=a%2Fb"
        here, there = alice.cookies(hpc)["hubgate"], alice.cookies(site.url)["hubgate"]
        assert here != there
        (got,) = site.received()
        assert got.values("REMOTE_USER") == ["alice"]
        assert got.values("Host") == [urlsplit(hpc).netloc]


async def test_a_session_that_is_there_is_handed_over_without_a_login(site, hpc):
    async with await site.logged_in() as alice:
        page = await alice.get(hpc + "/hpc/hub/home")
        assert page.url == hpc + "/hpc/hub/home"
        assert page.status == 200
        assert not any("realms" in step.url for step in page.trail)


async def test_a_cookie_of_one_host_opens_nothing_on_another(site, hpc):
    async with await site.logged_in() as alice:
        await alice.get(hpc + "/hpc/hub/home")
        here, there = alice.cookies(hpc)["hubgate"], alice.cookies(site.url)["hubgate"]
        async with site.person() as thief:
            for origin, stolen in ((hpc, there), (site.url, here)):
                path = "/hpc/hub/home" if origin == hpc else "/htc/hub/home"
                answer = await thief.fetch(origin + path, headers={"Cookie": f"hubgate={stolen}"})
                assert answer.status == 401
    assert len(site.received()) == 1


async def test_the_landing_page_leads_to_the_pools_host(site, hpc):
    async with await site.logged_in() as alice:
        assert f'href="{hpc}/hpc/' in (await alice.get(site.url + "/")).text


async def test_pages_of_the_portal_are_not_on_a_pools_host(site, hpc):
    async with await site.logged_in() as alice:
        page = await alice.get(hpc + "/_hubgate/logout?x=%2F", follow=False)
        assert page.status == 307
        assert page.headers["Location"] == site.url + "/_hubgate/logout?x=%2F"
        assert (await alice.get(hpc + "/htc/hub/home")).status == 404, "a pool of another host"


async def code_for(person, hpc):
    """The address with a fresh code that the portal would send this browser to, not yet used."""
    page = await person.get(hpc + "/hpc/hub/home", follow=False)
    for _ in range(5):
        location = page.headers["Location"]
        page_url = location if location.startswith("http") else hpc + location
        if "code=" in location:
            return page_url
        page = await person.get(page_url, follow=False)
    raise AssertionError(page)


async def test_a_handover_code_is_good_once(site, hpc):
    async with await site.logged_in() as alice:
        url = await code_for(alice, hpc)
        assert (await alice.get(url)).status == 200
        again = await alice.get(url, follow=False)
        assert again.status in {400, 403}, again


async def test_a_handover_code_is_useless_in_another_browser(site, hpc):
    """Session fixation across hosts: mallory's code must not log alice's browser in as mallory."""
    async with await site.logged_in("bob") as mallory, site.person() as alice:
        url = await code_for(mallory, hpc)
        assert (await alice.get(url, follow=False)).status in {400, 403}
        await alice.get(hpc + "/_hubgate/login?next=/", follow=False)  # she has a state cookie of her own by now
        assert (await alice.get(url, follow=False)).status in {400, 403}
        assert "hubgate" not in alice.cookies(hpc)


@pytest.mark.parametrize(
    "query",
    [
        "host=evil.example&state={state}&next=/",
        "host=127.0.0.1&state={state}&next=/",
        "host=&state={state}",
        "host={hpc}&state=short",
        "host={hpc}",
        "",
    ],
)
async def test_the_portal_hands_over_to_hosts_of_the_site_alone(site, hpc, query):
    async with await site.logged_in() as alice:
        query = query.format(state="0" * 64, hpc=urlsplit(hpc).netloc)
        page = await alice.get(f"{site.url}/_hubgate/handover?{query}", follow=False)
        assert page.status == 400
        assert "Location" not in page.headers


async def test_next_stays_on_the_pools_host(site, hpc):
    async with await site.logged_in() as alice:
        page = await alice.get(hpc + "/_hubgate/login?next=https://evil.example/", follow=False)
        asked = parse_qs(urlsplit(page.headers["Location"]).query)
        assert asked["next"] == ["/"]


async def test_log_out_ends_it_on_every_host(site, hpc):
    async with await site.logged_in() as alice:
        await alice.get(hpc + "/hpc/hub/home")
        kept = alice.cookies(hpc)
        landing = await alice.get(site.url + "/")
        page = await alice.submit(landing, landing.form_with("csrf"))
        assert page.url.startswith(site.url + "/_hubgate/logged-out"), page
        assert any(step.url.startswith(hpc + "/_hubgate/farewell") for step in page.trail)
        assert not alice.cookies(hpc).keys() & {"hubgate", "hubgate-at-hpc"}
        answer = await alice.fetch(hpc + "/hpc/hub/home", headers={"Cookie": f"hubgate={kept['hubgate']}"})
        assert answer.status == 401


async def test_a_farewell_link_cant_log_out_whoever_follows_it(site, hpc):
    async with await site.logged_in() as alice, await site.logged_in("bob") as mallory:
        await alice.get(hpc + "/hpc/hub/home")
        landing = await mallory.get(site.url + "/")
        page = await mallory.submit(landing, landing.form_with("csrf"))
        farewell = next(step.url for step in page.trail if "/farewell" in step.url)
        await alice.get(farewell)
        assert "hubgate" in alice.cookies(hpc)
        assert (await alice.get(hpc + "/hpc/hub/home")).status == 200
        assert (await alice.get(hpc + "/_hubgate/farewell?code=guess", follow=False)).status == 404
