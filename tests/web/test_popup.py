"""A session ends under a page that works: what its script is told, and the small window in which somebody logs in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import quote, urlencode, urlsplit

import pytest
from aiohttp import WSServerHandshakeError

from tests.kit.person import FETCH, Page, Person
from tests.kit.phone import asks_for, enrolled
from tests.kit.stand import Stand, stand

POPUP = "/_hubgate/login?popup=1"
RENEWED = "/_hubgate/renewed"
LAB = "/htc/user/alice/"


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand() as running:
        yield running


async def ended(site: Stand) -> None:
    """Everybody's session is over, as by an administrator's word; their cookies stay in the browsers."""
    live = site.served.live
    await live._sessions.end([each.key for each in live._by_cookie.values()])
    async with asyncio.timeout(20):
        while live._by_cookie:
            await asyncio.sleep(0)


def passes(page: Page) -> str | None:
    """What the page lets the browser pass by; None: its script does not run."""
    found = re.search(r'data-through="([^"]*)"', page.text)
    return unescape(found[1]) if found else None


def popup(at: str, **more: str) -> str:
    return f"{POPUP}&{urlencode({'next': at, **more})}"


class TestScriptsOfAnEndedSession:
    async def test_fifty_tabs_leave_no_state_and_pile_up_no_cookie(self, site: Stand) -> None:
        async with await site.logged_in() as alice:
            await alice.get(site.url + "/htc/hub/home")
            await ended(site)
            records, cookies, arrived = set(site.store._entries), alice.cookies(site.url), len(site.received())  # type: ignore[attr-defined] # the one in memory

            async def tab(number: int) -> list[Page]:
                at = f"{site.url}/htc/user/alice/api"
                page = {"Referer": f"{site.url}/htc/user/alice/lab", "Origin": site.url}
                with pytest.raises(WSServerHandshakeError) as refused:
                    await alice.session.ws_connect(f"{at}/kernels/{number}/channels", headers={"Origin": site.url})
                assert refused.value.status == 401
                return [
                    await alice.fetch(f"{at}/kernels/{number}?1", headers=page),
                    await alice.fetch(f"{at}/contents/{number}.ipynb", "PUT", data=b"{}", headers=page),
                    await alice.fetch(f"{at}/sessions", "POST", data=b"{}", headers=page),
                    await alice.fetch(f"{at}/events/subscribe", headers={**page, "Accept": "text/event-stream"}),
                    await alice.fetch(f"{site.url}/_hubgate/login?popup=1", headers=page),
                    await alice.fetch(f"{site.url}/_hubgate/login?next=%2Fhtc%2F", headers=page),
                ]

            for answers in await asyncio.gather(*map(tab, range(50))):
                for answer in answers:
                    assert answer.status == 401, answer
                    assert answer.headers["Content-Type"] == "application/problem+json"
                    assert "Location" not in answer.headers
                    assert "Set-Cookie" not in answer.headers
                    told = json.loads(answer.text)
                    assert told["type"] == "urn:hubgate:problem:session_required"
                    assert told["login_url"].startswith(f"{site.url}/_hubgate/login?next=")
            assert set(site.store._entries) == records  # type: ignore[attr-defined] # see above
            assert alice.cookies(site.url) == cookies
            assert len(site.received()) == arrived
            # One login, and each of them goes on.
            page = await alice.login(site.url + popup(LAB), site.users["alice"])
            assert urlsplit(page.url).path == RENEWED
            assert (await alice.fetch(f"{site.url}/htc/user/alice/api/contents/1", "PUT", data=b"{}")).status == 200

    async def test_what_a_page_sends_as_a_form_is_answered_and_not_bounced(self, site: Stand) -> None:
        async with site.person() as nobody:
            answer = await nobody.request("POST", f"{site.url}/htc/hub/spawn", data={"x": "1"}, follow=False)
            assert answer.status == 401
            assert "Location" not in answer.headers
            assert "Set-Cookie" not in answer.headers

    async def test_a_poisoned_login_url(self, site: Stand) -> None:
        """The address that the page will open is this site's login, whatever else a request says about hosts."""
        evil = {
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "javascript",
            "X-Original-URL": "//evil.example/",
            "Forwarded": "host=evil.example;proto=https",
            "Referer": "https://evil.example/",
            "Origin": "https://evil.example",
        }
        async with site.person() as nobody:
            for path in (
                "/htc/user/alice/api/me",
                "/htc/user/alice//evil.example",
                "/_hubgate/session?was=evil.example",
            ):
                answer = await nobody.fetch(site.url + path, headers=evil)
                told = json.loads(answer.text)
                assert answer.status == 401, answer
                assert told["login_url"] == f"{site.url}/_hubgate/login?next={quote(path, safe='')}"
            host = f"evil.example:{urlsplit(site.url).port}"
            answer = await nobody.fetch(site.url + "/htc/user/alice/api/me", headers={"Host": host})
            assert answer.status == 421
            assert "evil" not in answer.text


class TestThePopup:
    @pytest.mark.parametrize(
        ("at", "onward"),
        [
            (LAB, "user/alice/files/"),
            ("/htc/user/alice/api/contents/a.ipynb?1", "user/alice/files/"),
            ("/htc/user/alice/gpu/", "user/alice/gpu/files/"),
            ("/htc/user/al%40ice/", "user/al%40ice/files/"),
            ("/htc/hub/api/user", "hub/home"),
            ("/htc/user/", "hub/home"),
        ],
    )
    async def test_it_passes_by_the_hub_and_the_server_that_is_meant(self, site: Stand, at: str, onward: str) -> None:
        async with site.person() as alice:
            page = await alice.login(site.url + popup(at), site.users["alice"])
            assert page.status == 200, page
            assert urlsplit(page.url).path == RENEWED
            assert passes(page) == f"/htc/hub/login?next={quote('/htc/' + onward, safe='')}"
            assert "Logged in as" in page.text
            assert "you may close it" in page.text, "without script"
            policy = page.headers["Content-Security-Policy"]
            assert "frame-src 'self'" in policy
            assert "unsafe" not in policy
            assert site.received() == [], "nobody was sent anywhere"

    async def test_with_a_session_it_is_at_its_end_at_once(self, site: Stand) -> None:
        async with await site.logged_in() as alice:
            page = await alice.get(site.url + popup(LAB))
            assert urlsplit(page.url).path == RENEWED
            assert not any(site.provider_url in step.url for step in page.trail)

    @pytest.mark.parametrize(
        "at",
        [
            *("https://evil.example/htc/user/alice/", "//evil.example/", "/\\evil.example/", "javascript:alert(1)"),
            *("/htc/../../evil/", "/htc/user/../x/", "/htcx/user/alice/", "/_hubgate/logout", "/", ""),
        ],
    )
    async def test_an_open_redirect_by_way_of_the_popup(self, site: Stand, at: str) -> None:
        """Whatever `next` says, the login ends at our page, and the frame stays empty."""
        async with await site.logged_in() as alice:
            page = await alice.get(site.url + popup(at))
            assert page.url.startswith(f"{site.url}{RENEWED}?"), page
            assert passes(page) == ""
            assert "evil" not in page.text
            assert "frame-src" not in page.headers["Content-Security-Policy"]
            page = await alice.get(f"{site.url}{RENEWED}?{urlencode({'at': at})}")
            assert passes(page) == ""

    async def test_no_way_through_a_pool_that_somebody_may_not_use(self, site: Stand) -> None:
        async with await site.logged_in("bob") as bob:
            assert passes(await bob.get(site.url + popup("/hpc/user/bob/"))) == ""

    async def test_somebody_else_is_told_and_nothing_goes_on(self, site: Stand) -> None:
        async with await site.logged_in() as browser:
            await ended(site)
            # Who is at this browser now forgets alice at the provider, and logs in as bob.
            browser.session.cookie_jar.clear(lambda morsel: not morsel.key.startswith("hubgate"))
            page = await browser.login(site.url + popup(LAB, was="alice"), site.users["bob"])
            assert "You are logged in as somebody else" in page.text
            assert "Bob" in page.text
            assert passes(page) is None
            assert "script-src" not in page.headers["Content-Security-Policy"]
            page = await browser.get(site.url + popup(LAB, was="bob"))
            assert passes(page), "the same person"

    async def test_a_name_in_the_address_is_no_text_of_the_page(self, site: Stand) -> None:
        async with await site.logged_in() as alice:
            page = await alice.get(site.url + popup(LAB, was="<b>mallory</b>"))
            assert "mallory" not in page.text

    async def test_its_end_is_not_for_scripts_nor_for_nobody(self, site: Stand) -> None:
        async with await site.logged_in() as alice:
            answer = await alice.fetch(f"{site.url}{RENEWED}?at={LAB}")
            assert answer.status == 403
            assert "alice" not in answer.text
        async with site.person() as nobody:
            answer = await nobody.get(f"{site.url}{RENEWED}?at={LAB}", follow=False)
            assert answer.status == 302
            assert answer.headers["Location"].startswith("/_hubgate/login?next=%2F_hubgate%2Frenewed")
            answer = await nobody.fetch(f"{site.url}{RENEWED}?at={LAB}")
            assert "Set-Cookie" not in answer.headers

    async def test_a_fresh_proof_is_asked_for_there_too(self) -> None:
        async with stand(own_factor=True) as site, site.person() as alice:
            await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + popup(LAB, max_age="0"))
            assert asks_for(page) == {"again"}


class TestOnAPoolsOwnHost:
    @pytest.fixture
    async def apart(self) -> AsyncIterator[Stand]:
        """The portal is at 127.0.0.1, the pool `hpc` at localhost."""

        def adapt(document: dict[str, object]) -> None:
            gateway, pools = document["gateway"], document["pools"]
            assert isinstance(gateway, dict)
            assert isinstance(pools, list)
            pools[1]["host"] = f"localhost:{urlsplit(gateway['public_url']).port}"

        async with stand(adapt) as running:
            yield running

    async def test_it_ends_on_that_host_and_renews_its_cookie(self, apart: Stand) -> None:
        hpc = f"http://localhost:{urlsplit(apart.url).port}"
        server = "/hpc/user/alice/"

        async def save(alice: Person) -> int:
            return (await alice.fetch(f"{hpc}{server}api/contents/a", "PUT", data=b"{}", headers=FETCH)).status

        async with apart.person() as alice:
            page = await alice.login(hpc + popup(server, was="alice"), apart.users["alice"])
            assert page.url.startswith(f"{hpc}{RENEWED}?"), page
            assert passes(page) == f"/hpc/hub/login?next={quote(server + 'files/', safe='')}"
            assert await save(alice) == 200
            await ended(apart)
            assert await save(alice) == 401
            page = await alice.login(hpc + popup(server, was="alice"), apart.users["alice"])
            assert page.url.startswith(f"{hpc}{RENEWED}?"), page
            assert await save(alice) == 200

    async def test_a_pool_of_another_host_is_none_of_its(self, apart: Stand) -> None:
        hpc = f"http://localhost:{urlsplit(apart.url).port}"
        async with await apart.logged_in() as alice:
            assert passes(await alice.get(hpc + popup("/htc/user/alice/"))) == ""
