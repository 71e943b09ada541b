"""Login CSRF and stolen states: a callback is good once, for the browser that began it, and for nobody else."""

import pytest

from tests.kit.stand import stand


@pytest.fixture
async def site():
    async with stand() as running:
        yield running


async def callback_url(site, person, name="alice", after="/htc/hub/home"):
    """Log in at the provider, and stop before the browser follows the way back."""
    page = await person.get(f"{site.url}/_hubgate/login?next={after}")
    form = page.form_with("password")
    user = site.users[name]
    page = await person.submit(page, form, username=name, password=user.password)
    form = page.form_with("otp")
    from urllib.parse import urljoin

    from tests.kit.person import code_book

    answer = await person.request(
        "POST",
        urljoin(page.url, form.action),
        data={**form.fields, "otp": await code_book(user.totp_key).next()},
        headers={"Origin": site.provider_url.split("/realms")[0]},
        follow=False,
    )
    return answer.headers["Location"]


async def test_the_attackers_callback_in_the_victims_browser_makes_no_session(site):
    async with site.person() as mallory, site.person() as victim:
        url = await callback_url(site, mallory, "bob")
        assert (await victim.get(url, follow=False)).status == 400
        await victim.get(site.url + "/htc/hub/home")  # a login of her own is under way: she has a login cookie
        assert (await victim.get(url, follow=False)).status == 400
        assert "hubgate" not in victim.cookies(site.url)
    assert site.received() == []


async def test_a_forced_login_in_the_popup(site):
    """Mallory's login, begun as a popup's, is finished by nobody else: neither in a browser that waits for its own
    popup to be finished, nor by way of one that is logged in."""
    popup = "/htc/user/alice/&popup=1"
    async with site.person() as mallory, site.person() as victim:
        url = await callback_url(site, mallory, "bob", popup)
        await victim.get(f"{site.url}/_hubgate/login?next={popup}&was=alice", follow=False)
        refused = await victim.get(url, follow=False)
        assert refused.status == 400
        assert "hubgate" not in victim.cookies(site.url)
        # Her own attempt has not been spent by it.
        page = await victim.login(f"{site.url}/_hubgate/login?next={popup}&was=alice", site.users["alice"])
        assert page.url.startswith(f"{site.url}/_hubgate/renewed?"), page
        kept = victim.cookies(site.url)["hubgate"]
        async with site.person() as another:
            url = await callback_url(site, another, "bob", popup)
        assert (await victim.get(url, follow=False)).headers["Location"] == "/"
        assert victim.cookies(site.url)["hubgate"] == kept
    assert site.received() == []


async def test_the_victims_attempt_survives_being_lured(site):
    """The state is not spent when a browser without its cookie presents it."""
    async with site.person() as victim, site.person() as mallory:
        url = await callback_url(site, victim)
        assert (await mallory.get(url, follow=False)).status == 400
        assert (await victim.get(url)).status == 200


async def test_a_callback_is_good_once(site):
    async with site.person() as alice:
        url = await callback_url(site, alice)
        assert (await alice.get(url)).status == 200
        first = alice.cookies(site.url)["hubgate"]
        late = await alice.get(url)
        assert late.url == site.url + "/", "a late tab with a valid session is just sent on"
        assert alice.cookies(site.url)["hubgate"] == first
        alice.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
        assert (await alice.get(url, follow=False)).status == 400


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("state=", "state=x"),
        lambda url: url.split("?")[0],
        lambda url: url.split("?")[0] + "?code=x",
        lambda url: url + "&state=second",
        lambda url: url + "&code=second",
        lambda url: url + "&iss=https://evil.example",
        lambda url: url.split("?")[0] + "?error=access_denied",
        lambda url: url.split("?")[0] + "?error=%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cb%3Ehi",
        lambda url: url + "&state=" + "s" * 20_000,
    ],
    ids=["other", "none", "no-state", "two-states", "two-codes", "two-iss", "error", "reflection", "long"],
)
async def test_a_callback_that_was_tampered_with_makes_no_session_and_reflects_nothing(site, change):
    async with site.person() as alice:
        url = change(await callback_url(site, alice))
        page = await alice.get(url, follow=False)
        assert page.status in {400, 403, 414, 431}, page
        assert "hubgate" not in alice.cookies(site.url)
        assert "<script>alert" not in page.text
        assert "<b>hi" not in page.text


async def test_a_code_that_was_swapped_is_refused(site):
    """Code injection: bob's code in alice's attempt fails for PKCE."""
    from urllib.parse import parse_qs, urlsplit

    async with site.person() as alice, site.person() as bob:
        alices, bobs = await callback_url(site, alice), await callback_url(site, bob, "bob")
        code = {url: parse_qs(urlsplit(url).query)["code"][0] for url in (alices, bobs)}
        page = await alice.get(alices.replace(code[alices], code[bobs]), follow=False)
        assert page.headers["Location"].startswith(site.provider_url), "the login begins anew"
        assert "hubgate" not in alice.cookies(site.url)


async def test_the_session_id_changes_with_every_login(site):
    """Session fixation: what a browser had before the login is worth nothing after it."""
    async with site.person() as alice:
        await alice.login(site.url + "/", site.users["alice"])
        before = alice.cookies(site.url)["hubgate"]
        url = await callback_url_with_session(site, alice)
        page = await alice.get(url)
        assert page.status == 200
        after = alice.cookies(site.url)["hubgate"]
        assert after != before
        old = await alice.fetch(site.url + "/htc/hub/home", headers={"Cookie": f"hubgate={before}"})
        assert old.status in {200, 401}
        async with site.person() as thief:
            stolen = await thief.fetch(site.url + "/htc/hub/home", headers={"Cookie": f"hubgate={before}"})
            assert stolen.status == 401


async def callback_url_with_session(site, person):
    """A second login in the same browser: begun in a tab before the first one was finished."""
    kept = person.cookies(site.url)["hubgate"]
    person.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
    page = await person.get(f"{site.url}/_hubgate/login?next=/htc/hub/home&on=1", follow=False)
    answer = await person.get(page.headers["Location"], follow=False)
    person.session.cookie_jar.update_cookies({"hubgate": kept}, __import__("yarl").URL(site.url))
    return answer.headers["Location"]


async def test_scripts_begin_no_logins(site):
    async with site.person() as nobody:
        answer = await nobody.fetch(site.url + "/_hubgate/login?next=/")
        assert answer.status == 401
        assert "Set-Cookie" not in answer.headers


async def test_a_flood_of_logins_is_slowed_down(site):
    async with site.person() as flood:
        statuses = [
            (await flood.get(f"{site.url}/_hubgate/login?next=/&on={n}", follow=False)).status for n in range(140)
        ]
        assert statuses[0] == 302
        assert statuses[-1] == 429
