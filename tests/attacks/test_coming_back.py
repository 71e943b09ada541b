"""A session that somebody ended, and requests that were on their way: none of them brings it back, or keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from hubgate.errors import StoreFault
from hubgate.ops import devidp
from hubgate.web import mfa
from hubgate.web.forms import own_form
from hubgate.web.live import LiveSession
from hubgate.web.sessions import Closed, Sessions
from tests.attacks.test_login_csrf import callback_url_with_session
from tests.kit.background import eventually
from tests.kit.person import Person
from tests.kit.phone import enrolled, logged_in, step_form, with_password
from tests.kit.stand import Stand, stand

PATIENCE = 60.0


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand() as made:
        yield made


@pytest.fixture
async def ours() -> AsyncIterator[Stand]:
    async with stand(own_factor=True) as made:
        yield made


async def is_in(site: Stand, person: Person) -> bool:
    return (await person.fetch(site.url + "/htc/hub/home")).status == 200


def the_session(site: Stand) -> LiveSession:
    (live,) = site.served.live._by_cookie.values()
    return live


def records(site: Stand) -> list[str]:
    return [key for key in site.store._entries if key.startswith("session:")]  # type: ignore[attr-defined]


async def test_a_code_that_is_shown_after_the_end_brings_nothing_back(
    ours: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds is how long a form may take: its head is there when the session ends, and the code comes then."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow_form(request: web.Request, *rest: Any) -> Mapping[str, str]:
        arrived.set()
        await go_on.wait()
        return await own_form(request, *rest)

    async with ours.person() as thief:
        phone, _, _ = await enrolled(thief, ours.url + "/", ours.users["alice"])
        page = await thief.get(ours.url + "/_hubgate/mfa?next=/")
        monkeypatch.setattr(mfa, "own_form", slow_form)
        sent = asyncio.ensure_future(
            thief.submit(page, step_form(page, "again"), code=await phone.code())  # a good one
        )
        async with asyncio.timeout(PATIENCE):
            await arrived.wait()
        await ours.served.front.live._sessions.end([the_session(ours).key])
        go_on.set()
        page = await sent
        assert page.status == 401, page
        assert records(ours) == []
        assert not await is_in(ours, thief)


async def test_two_good_codes_at_once_make_one_session_of_one(ours: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    both = asyncio.Barrier(2)

    async def good(*_: object) -> None:
        await both.wait()

    async with ours.person() as alice:
        await enrolled(alice, ours.url + "/", ours.users["alice"])
        page = await alice.get(ours.url + "/_hubgate/mfa?next=/")
        monkeypatch.setattr(mfa.MfaPages, "_tried", good)
        form = step_form(page, "again")
        pages = await asyncio.gather(*(alice.submit(page, form, code=code) for code in ("000001", "000002")))
        assert 401 in {page.status for page in pages}, pages
        assert len(records(ours)) == 1


async def test_a_session_that_is_ended_while_it_begins_is_not_kept(
    site: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tab logs in; the provider ends it all while the session before is being ended, on another worker."""
    end = Sessions.end
    rounds = 0

    async def end_all(self: Sessions, keys: list[str]) -> Closed:
        nonlocal rounds
        rounds += 1
        closed = await end(self, keys)
        if rounds == 1:
            await end(self, [key.removeprefix("session:") for key in records(site)])
        return closed

    async with await site.logged_in() as alice:
        before = alice.cookies(site.url)["hubgate"]
        callback = await callback_url_with_session(site, alice)
        monkeypatch.setattr(Sessions, "end", end_all)
        await alice.get(callback, follow=False)
        assert rounds >= 1
        assert alice.cookies(site.url)["hubgate"] != before
        assert not await is_in(site, alice)
        assert len(site.served.live) == 0


async def test_a_login_that_waited_for_the_code_is_over_if_the_providers_session_is(
    ours: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its back-channel logout finds no session of ours to end: there is none yet."""
    monkeypatch.setattr(devidp, "_ACCESS_LIFETIME", 3600)
    async with ours.person() as owner, ours.person() as thief:
        phone, _, _ = await enrolled(owner, ours.url + "/", ours.users["alice"])
        owners = {session.sid for session in ours.provider._refresh.values()}
        page = await with_password(thief, ours.url + "/", ours.users["alice"])
        known = ours.provider._refresh
        ours.provider._refresh = {token: each for token, each in known.items() if each.sid in owners}
        page = await thief.submit(page, step_form(page, "code"), code=await phone.code())
        assert (page.status, urlsplit(page.url).path) == (200, "/"), page

        async def over() -> bool:
            return not await is_in(ours, thief)

        await eventually(over, within=PATIENCE, every=0.05, what="the end of a session that the provider knows not")
        assert await is_in(ours, owner)


async def test_who_has_just_shown_a_code_stays(ours: Stand) -> None:
    """The same, but the provider's session is there: its tokens are renewed, once."""
    async with ours.person() as owner, ours.person() as again:
        phone, _, _ = await enrolled(owner, ours.url + "/", ours.users["alice"])
        await logged_in(again, ours.url + "/", ours.users["alice"], phone)

        async def renewed() -> bool:
            return all(live.session.renew_at > live.session.created for live in ours.served.live._by_cookie.values())

        await eventually(renewed, within=PATIENCE, every=0.05, what="new tokens")
        assert await is_in(ours, owner)
        assert await is_in(ours, again)


async def test_log_out_without_the_store_holds_here_and_then_everywhere(
    site: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who walks away from a page that says "not now" has not been logged out for a minute only."""
    async with await site.logged_in() as alice:
        page = await alice.get(site.url + "/")
        form = next(form for form in page.forms if form.action.endswith("/_hubgate/logout"))
        delete = site.store.delete

        async def away(*keys: str) -> int:
            raise StoreFault("store_unreachable")

        monkeypatch.setattr(site.store, "delete", away)
        page = await alice.submit(page, form)
        assert page.status == 503
        assert not page.headers.getall("Set-Cookie", []), "the cookie is still good somewhere"
        assert len(site.served.live) == 0
        assert records(site) != []
        monkeypatch.setattr(site.store, "delete", delete)

        async def over() -> bool:
            return records(site) == []

        await eventually(over, within=PATIENCE, every=0.05, what="the end, now that the store is back")
        assert not await is_in(site, alice)
