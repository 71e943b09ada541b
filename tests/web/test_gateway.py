"""The gateway from the outside: a person, a provider, and hubs that keep what they get."""

import asyncio
import json

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from tests.kit.stand import stand


@pytest.fixture
async def site():
    async with stand() as running:
        yield running


async def test_a_scientist_logs_in_chooses_and_is_known_to_the_hub(site):
    async with await site.logged_in() as alice:
        landing = await alice.get(site.url + "/")
        assert "High throughput" in landing.text
        assert "High performance" in landing.text
        page = await alice.get(site.url + "/htc/hub/home")
        assert page.status == 200, page
        (got,) = site.received()
        assert got.values("REMOTE_USER") == ["alice"]
        assert len(got.values("X-Hubgate-Assertion")) == 1
        assert got.target == "/htc/hub/home"
        assert got.values("Host") == [site.url.removeprefix("http://")]


async def test_our_cookies_never_go_upstream(site):
    async with await site.logged_in() as alice:
        await alice.get(site.url + "/htc/hub/home")
        await alice.get(site.url + "/htc/hub/home")
        assert len(site.received()) == 2
        for got in site.received():
            assert not got.values("Cookie"), got


async def test_notebooks_are_not_told_who_is_there(site):
    async with await site.logged_in() as alice:
        await alice.get(site.url + "/htc/user/bob/lab")
        (got,) = site.received()
        assert not got.lookalikes("REMOTE_USER")
        assert not got.lookalikes("X-Hubgate-Assertion")


async def test_without_a_session_nothing_reaches_a_hub(site):
    async with site.person() as nobody:
        navigated = await nobody.get(site.url + "/htc/hub/home?x=1", follow=False)
        assert navigated.status == 302
        assert navigated.headers["Location"] == "/_hubgate/login?next=%2Fhtc%2Fhub%2Fhome%3Fx%3D1"
        fetched = await nobody.fetch(site.url + "/htc/user/alice/api/contents/x", "PUT")
        assert fetched.status == 401
        assert fetched.headers["Content-Type"].startswith("application/problem+json")
        assert json.loads(fetched.text)["login_url"].startswith(site.url + "/_hubgate/login?next=")
        assert "Set-Cookie" not in fetched.headers
        with pytest.raises(WSServerHandshakeError) as refused:
            await nobody.session.ws_connect(site.url + "/htc/user/alice/api/kernels/1/channels")
        assert refused.value.status == 401
    assert site.received() == []


async def test_a_deep_link_with_query_is_restored_after_the_login(site):
    async with site.person() as alice:
        page = await alice.login(site.url + "/htc/hub/spawn?profile=gpu%2F1&x=a+b", site.users["alice"])
        assert page.status == 200, page
        assert page.url == site.url + "/htc/hub/spawn?profile=gpu%2F1&x=a+b"
        assert site.received()[0].target == "/htc/hub/spawn?profile=gpu%2F1&x=a+b"


async def test_many_tabs_log_in_at_once_in_any_order(site):
    async with site.person() as alice:
        tabs = [await alice.get(f"{site.url}/htc/hub/tab{number}") for number in range(3)]
        form = tabs[1].form_with("password")
        page = await alice.submit(tabs[1], form, username="alice", password="alice-pw")
        page = await alice._fill(page, site.users["alice"], password="", code="")
        assert page.url == site.url + "/htc/hub/tab1"
        # the others were left at the provider's form, which knows alice by now
        for number in (0, 2):
            again = await alice.get(tabs[number].trail[-1].url)
            assert again.url == f"{site.url}/htc/hub/tab{number}", again


async def test_a_pool_that_needs_a_group_is_closed_to_others_and_says_what_to_do(site):
    async with await site.logged_in("bob") as bob:
        page = await bob.get(site.url + "/hpc/hub/home")
        assert page.status == 403
        assert "request" in page.text.lower()
        assert (await bob.fetch(site.url + "/hpc/hub/api/x")).status == 403
    assert site.received() == []
    assert any(b'"access"' in line and b'"denied"' in line and b'"bob"' in line for line in site.lines)


async def test_a_browser_sticks_to_its_hub_and_new_people_spread(site):
    async with await site.logged_in() as alice:
        for _ in range(4):
            await alice.get(site.url + "/htc/hub/home")
        assert sorted(len(hub.received) for hub in site.hubs.values()) == [0, 0, 4]
        assert "hubgate-at-htc" in alice.cookies(site.url)


async def test_log_out_ends_session_cookies_and_the_providers_session(site):
    async with await site.logged_in() as alice:
        await alice.get(site.url + "/htc/hub/home")
        kept = alice.cookies(site.url)
        landing = await alice.get(site.url + "/")
        page = await alice.submit(landing, landing.form_with("csrf"))
        assert page.url.startswith(site.url + "/_hubgate/logged-out"), page
        assert page.status == 200
        assert not alice.cookies(site.url).keys() & {"hubgate", "hubgate-at-htc"}
        alice.session.cookie_jar.update_cookies(kept)
        back = await alice.get(site.url + "/htc/hub/home")
        assert back.form_with("password"), "neither the kept cookie nor the provider's session may log in again"
    assert any(b'"logout"' in line for line in site.lines)


async def test_another_site_cant_log_anybody_out(site):
    async with await site.logged_in() as alice:
        await alice.get(site.url + "/_hubgate/logout", headers={"Sec-Fetch-Site": "cross-site"})
        await alice.request("POST", site.url + "/_hubgate/logout", data={"csrf": "x"})
        await alice.request(
            "POST", site.url + "/_hubgate/logout", data={"csrf": "x"}, headers={"Origin": "https://evil.example"}
        )
        assert (await alice.get(site.url + "/")).url == site.url + "/"


async def test_jupyterhubs_own_log_out_leads_through_the_gateway(site):
    async with await site.logged_in() as alice:
        page = await alice.log_out(site.url)
        assert page.url.startswith(site.url + "/_hubgate/logged-out")
        assert (await alice.get(site.url + "/")).form_with("password")


async def test_a_websocket_passes_and_is_closed_when_its_session_ends(site):
    async with await site.logged_in() as alice:
        url = site.url + "/htc/user/alice/api/kernels/1/channels"
        socket = await alice.session.ws_connect(url, headers={"Origin": site.url})
        await socket.send_str("hello")
        assert (await socket.receive_str()) == "hello"
        landing = await alice.get(site.url + "/")
        await alice.submit(landing, landing.form_with("csrf"))
        async with asyncio.timeout(60):
            message = await socket.receive()
        assert message.type in {WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
async def test_cross_site_websocket_hijacking_is_refused(site, origin):
    async with await site.logged_in() as alice:
        with pytest.raises(WSServerHandshakeError) as refused:
            await alice.session.ws_connect(site.url + "/htc/user/alice/x", headers={"Origin": origin})
        assert refused.value.status == 403
    assert site.received() == []


async def test_a_second_user_in_the_same_browser_gets_nothing_of_the_first(site):
    async with await site.logged_in() as browser:
        await browser.get(site.url + "/htc/hub/home")
        landing = await browser.get(site.url + "/")
        await browser.submit(landing, landing.form_with("csrf"))
        page = await browser.login(site.url + "/htc/hub/home", site.users["bob"])
        assert page.status == 200, page
        assert site.received()[-1].values("REMOTE_USER") in (["bob"], ["alice"])
        users = {value for got in site.received() for value in got.values("REMOTE_USER")}
        assert users == {"alice", "bob"}


async def test_unknown_places_are_pages_with_a_request_id(site):
    async with await site.logged_in() as alice:
        page = await alice.get(site.url + "/nowhere")
        assert page.status == 404
        access_ids = {line["request_id"] for _, line in site.access}
        assert any(request_id in page.text for request_id in access_ids)
        wrong_host = await alice.get(site.url + "/", headers={"Host": "elsewhere.example"})
        assert wrong_host.status == 421
        wrong_method = await alice.request("DELETE", site.url + "/")
        assert wrong_method.status == 405


async def test_the_keys_are_published(site):
    async with site.person() as anybody:
        keys = json.loads((await anybody.get(site.url + "/_hubgate/jwks.json")).text)
        assert keys["keys"]
        assert all("d" not in key for key in keys["keys"])


async def test_nothing_secret_is_in_the_audit_log(site):
    async with await site.logged_in() as alice:
        secrets = set(alice.cookies(site.url).values())
        assert secrets
        assert not any(secret.encode() in line for line in site.lines for secret in secrets)
    login = json.loads(next(line for line in site.lines if b'"login"' in line))
    assert login["outcome"] == "ok"
    assert login["user"] == "alice"
    assert login["factor"] == "pwd otp"
