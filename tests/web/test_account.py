"""The account page: what somebody sees of their sessions, and how they end them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.person import Form, Page, Person
from tests.kit.stand import Stand, stand

ACCOUNT = "/_hubgate/account"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 CriOS/142.0 Mobile Safari/604"


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand() as made:
        yield made


async def browser(site: Stand, name: str = "alice", agent: str = FIREFOX) -> Person:
    """Somebody who has just logged in with this browser."""
    person = site.person()
    person.session.headers["User-Agent"] = agent
    page = await person.login(site.url + "/", site.users[name])
    assert page.status == 200, page
    return person


def end_forms(page: Page) -> list[Form]:
    """The buttons that end other sessions, one by one."""
    return [form for form in page.forms if form.fields.get("end") not in {None, "others"}]


def audited(site: Stand, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, site.lines) if line["event"] == event]


async def is_in(site: Stand, person: Person) -> bool:
    page = await person.get(site.url + "/htc/hub/home", follow=False)
    assert page.status in {200, 302}, page
    return page.status == 200


async def test_it_shows_where_somebody_is_logged_in_and_ends_one_of_them(site: Stand) -> None:
    async with (
        await browser(site) as here,
        await browser(site, agent=PHONE) as phone,
        await browser(site, "bob") as bob,
    ):
        assert await is_in(site, phone)
        async with phone.session.ws_connect(
            site.url + "/htc/user/alice/api/kernels/k/channels", headers={"Origin": site.url}
        ) as wire:
            await wire.send_str("hello")
            assert (await wire.receive(timeout=60)).data == "hello"
            async with asyncio.timeout(60):
                while "High throughput" not in (page := await here.get(site.url + ACCOUNT)).text:
                    await asyncio.sleep(0.1)  # noted in the background, within a second or two
            assert page.status == 200
            assert "Firefox" in page.text
            assert "this one" in page.text
            assert "Chrome" in page.text
            assert "iPhone" in page.text
            (form,) = end_forms(page)
            page = await here.submit(page, form)
            assert page.status == 200
            assert "1 session was ended." in page.text
            assert "1 open connection was closed." in page.text
            assert not end_forms(page)
            async with asyncio.timeout(60):
                async for _ in wire:
                    continue
        assert not await is_in(site, phone)
        assert await is_in(site, here)
        assert await is_in(site, bob)
    (line,) = audited(site, "session_end")
    assert (line["outcome"], line["user"], line["session"]) == ("own_account", "alice", form.fields["end"])


async def test_all_others_at_once(site: Stand) -> None:
    async with (
        await browser(site) as here,
        await browser(site) as one,
        await browser(site) as two,
        await browser(site, "bob") as bob,
    ):
        page = await here.get(site.url + ACCOUNT)
        assert len(end_forms(page)) == 2
        everyone = next(form for form in page.forms if form.fields.get("end") == "others")
        page = await here.submit(page, everyone)
        assert "2 sessions were ended." in page.text
        assert [await is_in(site, each) for each in (here, one, two, bob)] == [True, False, False, True]
        assert not any(form.fields.get("end") for form in page.forms)
    assert len(audited(site, "session_end")) == 2


async def another_tab(site: Stand, person: Person, address: str = "/") -> None:
    """One that logs in while its browser does so already: each comes back with a session of its own."""
    person.session.cookie_jar.clear(lambda morsel: morsel.key == "hubgate")
    page = await person.get(site.url + address)
    assert page.status == 200, page


async def test_tabs_that_logged_in_at_once_are_one_browser(site: Stand) -> None:
    """The provider's session is one: what ends it from elsewhere must not end with a session that nobody sees."""
    async with await browser(site) as here, await browser(site, agent=PHONE) as phone:
        for person in (here, phone, phone):
            await another_tab(site, person)
        page = await here.get(site.url + ACCOUNT)
        (row,) = end_forms(page)
        page = await here.submit(page, row)
        assert "1 session was ended." in page.text
        assert [await is_in(site, each) for each in (here, phone)] == [True, False]
        assert len(audited(site, "session_end")) == 3, "of which two were nobody's any more"


async def test_log_out_ends_what_other_tabs_began(site: Stand) -> None:
    async with await browser(site) as here, await browser(site, agent=PHONE) as phone:
        await another_tab(site, here)
        page = await here.get(site.url + "/")
        page = await here.submit(page, next(form for form in page.forms if form.action.endswith("/_hubgate/logout")))
        assert "Your session at the login service has ended" in page.text
        assert [await is_in(site, each) for each in (here, phone)] == [False, True]
        (ended,) = audited(site, "session_end")
        assert ended["outcome"] == "logout"


async def test_the_one_that_somebody_is_in_ends_by_log_out(site: Stand) -> None:
    async with await browser(site) as here:
        page = await here.get(site.url + ACCOUNT)
        (row,) = [form for form in page.forms if form.action.endswith("/_hubgate/logout")][1:]
        page = await here.submit(page, row)
        assert page.url.partition("?")[0] == site.url + "/_hubgate/logged-out"
        assert not await is_in(site, here)


async def test_nobody_ends_a_session_of_somebody_else(site: Stand) -> None:
    async with await browser(site) as alice, await browser(site, "bob") as bob:
        (handle,) = {line["session"] for line in audited(site, "login") if line["user"] == "alice"}
        page = await bob.get(site.url + ACCOUNT)
        csrf = page.forms[0].fields["csrf"]
        page = await bob.submit(page, Form(ACCOUNT, "post", {"csrf": csrf, "end": handle}))
        assert page.status == 200
        assert "That session had ended already." in page.text
        assert await is_in(site, alice)
    assert not audited(site, "session_end")


async def test_it_is_for_the_person_and_not_for_scripts_or_strangers(site: Stand) -> None:
    async with await browser(site) as here, site.person() as stranger:
        assert (await here.fetch(site.url + ACCOUNT)).status == 403
        page = await stranger.get(site.url + ACCOUNT, follow=False)
        assert page.status == 302
        assert page.headers["Location"].startswith("/_hubgate/login?next=")
        page = await stranger.submit(page, Form(ACCOUNT, "post", {"csrf": "x", "end": "others"}))
        assert page.status == 401
        assert (await here.get(site.url + ACCOUNT)).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("query", ["?ended=1", "?ended=x&closed=1", "?ended=1&closed=-1", "?ended=99999&closed=1"])
async def test_what_the_address_makes_up_is_not_told(site: Stand, query: str) -> None:
    async with await browser(site) as here:
        assert 'role="status"' not in (await here.get(site.url + ACCOUNT + query)).text


async def test_a_browsers_name_is_none_of_its_own_making(site: Stand) -> None:
    async with await browser(site, agent="<script>alert(1)</script>") as here:
        page = await here.get(site.url + ACCOUNT)
        assert "alert(1)" not in page.text
        assert "Unknown browser" in page.text


async def test_the_way_there_is_in_every_pages_header(site: Stand) -> None:
    async with await browser(site) as here:
        assert f'href="{site.url}{ACCOUNT}"' in (await here.get(site.url + "/")).text
