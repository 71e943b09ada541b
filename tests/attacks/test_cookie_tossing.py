"""Cookies that somebody else planted: on a sibling path or host, twice, oversized, of another kind."""

import pytest

from tests.kit.stand import stand


@pytest.fixture
async def site():
    async with stand() as running:
        yield running


async def test_two_cookies_of_our_name_open_nothing(site):
    async with await site.logged_in() as alice, await site.logged_in("bob") as bob, site.person() as victim:
        mine, planted = (person.cookies(site.url)["hubgate"] for person in (alice, bob))
        for header in (f"hubgate={planted}; hubgate={mine}", f"hubgate={mine}; hubgate={planted}"):
            answer = await victim.fetch(site.url + "/htc/hub/home", headers={"Cookie": header})
            assert answer.status == 401
    assert site.received() == []


@pytest.mark.parametrize(
    "value",
    ["", "x", "a" * 43, "a" * 7000, '"quoted"', "%00", "../../etc/passwd", "a b", "ä", "=", ";"],
)
async def test_a_cookie_that_was_never_ours_opens_nothing(site, value):
    async with site.person() as nobody:
        answer = await nobody.fetch(site.url + "/htc/hub/home", headers={"Cookie": f"hubgate={value}"})
        assert answer.status in {400, 401, 431}
    assert site.received() == []


async def test_a_truncated_or_lengthened_cookie_opens_nothing(site):
    async with await site.logged_in() as alice, site.person() as thief:
        cookie = alice.cookies(site.url)["hubgate"]
        for changed in (
            cookie[:-1],
            cookie + "x",
            cookie[:-1] + ("A" if cookie[-1] != "A" else "B"),
            cookie.swapcase(),
        ):
            answer = await thief.fetch(site.url + "/htc/hub/home", headers={"Cookie": f"hubgate={changed}"})
            assert answer.status == 401
    assert site.received() == []


async def test_hub_cookies_of_another_user_or_of_nobody_never_reach_a_hub(site):
    async with await site.logged_in() as alice:
        await alice.get(
            site.url + "/htc/hub/home",
            headers={
                "Cookie": f"hubgate={alice.cookies(site.url)['hubgate']}; jupyterhub-hub-login=planted; _xsrf=ours"
            },
        )
    (got,) = site.received()
    assert got.values("Cookie") == ["_xsrf=ours"]
