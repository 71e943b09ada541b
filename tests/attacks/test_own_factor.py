"""The gateway's own second factor against somebody who knows the password, and against somebody who knows more.

Wherever a session must not come to be, the hubs must not have heard anything either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time

import pytest
from yarl import URL

from hubgate import app
from hubgate.core import totp
from hubgate.core.guesses import PLACE
from hubgate.web.factors import Factors
from hubgate.web.tickets import Tickets
from tests.kit.hesitant import Hesitant
from tests.kit.phone import asks_for, enrolled, logged_in, phone_of, recovery_codes, step_form, with_password
from tests.kit.stand import stand

MFA = "/_hubgate/mfa"
PATHS = ("/", "/htc/", "/htc/hub/home", "/htc/user/alice/lab", "/hpc/hub/api/", "/_hubgate/logout")


@pytest.fixture
async def site():
    async with stand(own_factor=True) as running:
        yield running


def behind_a_proxy(raw):
    """Addresses as the test says: `from_address`."""
    raw["gateway"]["trusted_proxies"] = ["127.0.0.1/32"]


def from_address(address):
    return {"X-Forwarded-For": address}


def session_of(site, person):
    return person.cookies(site.url).get("hubgate")


async def guess(person, page, code, address="", step="code"):
    """Send a code as from an address, wherever the form stood."""
    headers = {"Origin": page.url.split("/_hubgate")[0], **(from_address(address) if address else {})}
    fields = {**step_form(page, step).fields, "code": code}
    return await person.request("POST", page.url, data=fields, headers=headers)


async def wrong_codes(phone):
    """Codes that are none of this phone's for hours around now."""
    near = {phone.at(time.time() + 30 * step) for step in range(-60, 60)}
    return [code for number in range(500) if (code := f"{number:06d}") not in near]


async def one_of_two_replicas(store_url):
    """Each code is sent to two gateways at once, by browsers that know the password: one of them gets a session."""

    def first(raw):
        raw["store"]["url"] = store_url

    async with stand(first, own_factor=True) as one:

        def second(raw):
            first(raw)
            raw["oidc"]["issuer"] = one.provider_url

        async with stand(second, own_factor=True) as two, one.person() as alice:
            user = one.users["alice"]
            phone, _, _ = await enrolled(alice, one.url + "/", user)
            for _ in range(2):
                code = await phone.code()
                async with contextlib.AsyncExitStack() as stack:
                    sites = [one, two] * 4
                    people = [await stack.enter_async_context(site.person()) for site in sites]
                    pages = [
                        await with_password(each, site.url + "/", user)
                        for each, site in zip(people, sites, strict=True)
                    ]
                    await asyncio.gather(*(guess(each, page, code) for each, page in zip(people, pages, strict=True)))
                    let_in = [session_of(site, each) is not None for each, site in zip(people, sites, strict=True)]
                    assert sum(let_in) == 1


class TestBetweenPasswordAndCode:
    async def test_no_way_leads_past_the_page(self, site):
        async with site.person() as alice, site.person() as thief:
            await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/htc/", site.users["alice"])
            assert asks_for(page) == {"code", "recovery"}
            seen = len(site.received())
            for path in PATHS:
                page = await thief.get(site.url + path, follow=False)
                assert page.status in {302, 303}, page
                fetched = await thief.fetch(site.url + path)
                assert fetched.status in {302, 303, 401}, fetched
            socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            socket["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
            page = await thief.fetch(site.url + "/htc/user/alice/api/kernels/k/channels", headers=socket)
            assert page.status == 401
            assert session_of(site, thief) is None
            assert len(site.received()) == seen

    async def test_nor_does_the_callback_a_second_time(self, site):
        async with site.person() as alice, site.person() as thief:
            await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/htc/", site.users["alice"])
            callback = next(step.url for step in page.trail if "/_hubgate/callback" in step.url)
            assert (await thief.get(callback, follow=False)).status == 400
            assert session_of(site, thief) is None
            assert asks_for(await thief.get(site.url + MFA)) == {"code", "recovery"}

    async def test_the_cookie_of_a_pending_login_is_no_session(self, site):
        async with site.person() as thief:
            await with_password(thief, site.url + "/htc/", site.users["alice"])
            pending = thief.cookies(site.url)["hubgate-mfa"]
            page = await thief.fetch(site.url + "/htc/hub/home", headers={"Cookie": f"hubgate={pending}"})
            assert page.status == 401

    async def test_another_browser_has_no_part_in_it(self, site):
        async with site.person() as alice, site.person() as mallory:
            page = await with_password(alice, site.url + "/htc/", site.users["alice"])
            code = await phone_of(page).code()
            assert (await mallory.get(site.url + MFA, follow=False)).status == 302
            stolen = await guess(mallory, page, code, step="confirm")
            assert stolen.status == 400
            for cookie in ("x" * 43, "", "é", "a" * 5000, alice.cookies(site.url)["hubgate-login"]):
                page_of = await mallory.request(
                    "POST",
                    site.url + MFA,
                    data={"code": code, "step": "confirm"},
                    headers={"Cookie": f"hubgate-mfa={cookie}"},
                )
                assert page_of.status in {400, 431}, cookie
            assert session_of(site, mallory) is None
            assert (await alice.submit(page, step_form(page, "confirm"), code=code)).status == 200

    async def test_a_planted_cookie_is_never_taken_over(self, site):
        """Fixation: whoever set cookies in this browser before the login knows none that is worth something after."""
        async with site.person() as mallory, site.person() as alice:
            await with_password(mallory, site.url + "/", site.users["bob"])
            planted = {name: mallory.cookies(site.url)[name] for name in ("hubgate-mfa", "hubgate-login")}
            alice.session.cookie_jar.update_cookies({**planted, "hubgate": "f" * 43}, URL(site.url))
            page = await with_password(alice, site.url + "/htc/", site.users["alice"])
            assert alice.cookies(site.url)["hubgate-mfa"] != planted["hubgate-mfa"]
            assert phone_of(page).key != phone_of(await mallory.get(site.url + MFA)).key
            await alice.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
            assert session_of(site, alice) not in {"f" * 43, *planted.values()}
            assert session_of(site, mallory) is None

    async def test_a_form_of_another_page_is_refused(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            fields = {**step_form(page, "confirm").fields, "code": await phone_of(page).code()}
            for headers, changed in (
                ({"Origin": "https://evil.example"}, {}),
                ({"Origin": "null"}, {}),
                ({"Sec-Fetch-Site": "cross-site"}, {}),
                ({"Sec-Fetch-Mode": "cors"}, {}),
                ({}, {"csrf": "x" * 43}),
                ({}, {"csrf": ""}),
            ):
                sent = await alice.request("POST", site.url + MFA, data={**fields, **changed}, headers=headers)
                assert sent.status == 403, (headers, changed)
            assert session_of(site, alice) is None
            assert (await alice.request("POST", site.url + MFA, data=fields)).status == 200

    async def test_a_script_reads_neither_key_nor_token(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            key = phone_of(page).key
            for _ in range(2):
                read = await alice.fetch(site.url + MFA)
                assert read.status == 403
                assert key not in read.text
                assert "csrf" not in read.text.replace("csrf_failed", "")
                await alice.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
            assert session_of(site, alice) is not None

    async def test_its_time_is_short(self, site, monkeypatch):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            code = await phone_of(page).code()
            store = site.store
            later = store._clock() + 901
            monkeypatch.setattr(store, "_clock", lambda: later)
            page = await alice.submit(page, step_form(page, "confirm"), code=code)
            assert page.status == 400
            assert "took too long" in page.text
            assert session_of(site, alice) is None


class TestOnce:
    async def test_one_code_in_parallel_lets_one_in(self, site):
        """Ten browsers that have the password, at the same moment, with the same right code."""
        async with contextlib.AsyncExitStack() as stack:
            alice = await stack.enter_async_context(site.person())
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            people = [await stack.enter_async_context(site.person()) for _ in range(6)]
            pages = [await with_password(each, site.url + "/", site.users["alice"]) for each in people]
            code = await phone.code()
            answers = await asyncio.gather(*(guess(each, page, code) for each, page in zip(people, pages, strict=True)))
            assert sum(session_of(site, each) is not None for each in people) == 1
            refused = [answer for answer in answers if answer.status == 403]
            assert len(refused) == 5
            assert all("used already" in answer.text for answer in refused)

    async def test_also_on_two_replicas_with_a_store_in_memory(self, monkeypatch):
        store = Hesitant()
        monkeypatch.setattr(app, "open_store", lambda *_, **__: store)
        await one_of_two_replicas("memory://")

    async def test_also_on_two_replicas_with_a_redis(self, redis_server):
        await one_of_two_replicas(redis_server.url)

    async def test_one_recovery_code_in_parallel_leads_one_on(self, site):
        async with site.person() as alice, site.person() as first, site.person() as second:
            _, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            pages = [await with_password(each, site.url + "/", site.users["alice"]) for each in (first, second)]
            answers = await asyncio.gather(
                *(
                    guess(each, page, codes[0], step="recovery")
                    for each, page in zip((first, second), pages, strict=True)
                )
            )
            assert sorted(asks_for(answer) == {"confirm"} for answer in answers) == [False, True]

    async def test_two_first_enrolments_in_parallel_make_one(self, site):
        """Who confirms first has enrolled; the other one is asked for that phone's code."""
        async with site.person() as alice, site.person() as thief:
            pages = [await with_password(each, site.url + "/", site.users["alice"]) for each in (alice, thief)]
            codes = [await phone_of(page).code() for page in pages]
            answers = await asyncio.gather(
                *(
                    guess(each, page, code, step="confirm")
                    for each, page, code in zip((alice, thief), pages, codes, strict=True)
                )
            )
            assert sorted(bool(recovery_codes(answer)) for answer in answers) == [False, True]
            assert [session_of(site, each) for each in (alice, thief)].count(None) == 1

    async def test_the_same_form_twice_makes_one_session(self, monkeypatch):
        """Two right codes, one after the other, for one pending login: the second finds it gone."""
        monkeypatch.setattr(app, "open_store", lambda *_, **__: Hesitant())
        async with stand(own_factor=True) as site, site.person() as alice:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await alice.log_out(site.url)
            page = await with_password(alice, site.url + "/", site.users["alice"])
            codes = [await phone.code(), await phone.code()]
            before = len(site.lines)
            answers = await asyncio.gather(*(guess(alice, page, code) for code in codes))
            lines = [json.loads(line) for line in site.lines[before:]]
            assert [line["outcome"] for line in lines if line["event"] == "login"] == ["ok"]
            assert sorted(answer.status for answer in answers)[0] == 200


class TestAThiefOfThePassword:
    async def test_enrols_nothing_after_the_first_enrolment(self, site):
        async with site.person() as alice, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            for _ in range(3):
                page = await with_password(thief, site.url + "/", site.users["alice"])
                assert asks_for(page) == {"code", "recovery"}
                assert "otpauth" not in page.text
                for step in ("confirm", "phone", "codes", "ticket", "cancel", ""):
                    fields = {**step_form(page, "code").fields, "step": step, "code": "123456"}
                    page = await thief.request("POST", site.url + MFA, data=fields)
                    assert asks_for(page) == {"code", "recovery"}, step
                    assert "otpauth" not in page.text
                thief.session.cookie_jar.clear()
            assert session_of(site, thief) is None
            assert (await logged_in(thief, site.url + "/", site.users["alice"], phone)).url == site.url + "/"

    async def test_who_began_to_enrol_first_has_lost_when_the_owner_was_faster(self, site):
        async with site.person() as alice, site.person() as thief:
            page = await with_password(thief, site.url + "/", site.users["alice"])
            theirs = phone_of(page)
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await guess(thief, page, await theirs.code(), step="confirm")
            assert asks_for(page) == {"code", "recovery"}
            assert session_of(site, thief) is None
            page = await guess(thief, page, theirs.at(time.time()))
            assert page.status == 403
            assert (await guess(thief, page, await phone.code())).status == 200

    async def test_guesses_a_few_times_and_then_waits(self, site):
        async with site.person() as alice, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            statuses = [(await guess(thief, page, code)).status for code in wrong[:12]]
            assert statuses == [403] * int(PLACE.burst) + [429] * (12 - int(PLACE.burst))
            refused = await guess(thief, page, await phone.code())
            assert refused.status == 429, "even the right code"
            assert int(refused.headers["Retry-After"]) <= 1 / PLACE.per_second
            assert "Please wait 14 minutes" in refused.text.replace("<bdi>", "").replace("</bdi>", "")
            assert session_of(site, thief) is None
            thief.session.cookie_jar.clear()
            page = await with_password(thief, site.url + "/", site.users["alice"])
            assert (await guess(thief, page, wrong[99])).status == 429, "nor does another login help"
        codes = [line["code"] for line in map(json.loads, site.lines) if line["outcome"] == "refused"]
        assert codes == ["wrong_code"] * 8 + ["too_many"] * 6

    async def test_guesses_recovery_codes_at_a_pace(self, site):
        async with site.person() as alice, site.person() as thief:
            await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/", site.users["alice"])
            statuses = [(await guess(thief, page, f"0000-0000-00{n}", step="recovery")).status for n in range(10, 22)]
            assert statuses[:10] == [403] * 10
            assert 429 in statuses[10:]

    async def test_does_not_keep_the_owner_from_a_recovery_code(self):
        """Whoever has so many addresses that a new browser must wait can't keep the owner's paper out."""
        async with stand(behind_a_proxy, own_factor=True) as site, site.person() as alice, site.person() as thief:
            phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            for number in range(101):
                await guess(thief, page, wrong[number], f"203.0.{number}.1")
            async with site.person() as traveller:
                page = await with_password(traveller, site.url + "/", site.users["alice"])
                assert (await guess(traveller, page, await phone.code(), "198.51.100.7")).status == 429
                page = await guess(traveller, page, codes[0], "198.51.100.7", step="recovery")
                assert asks_for(page) == {"confirm"}

    async def test_does_not_lock_the_owner_out_from_the_same_address(self, site):
        """A browser that was let in before is in a lane of its own, also after Log Out."""
        async with site.person() as alice, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await alice.log_out(site.url)
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            for code in wrong[:20]:
                await guess(thief, page, code)
            assert (await guess(thief, page, wrong[20])).status == 429
            assert (await logged_in(alice, site.url + "/", site.users["alice"], phone)).url == site.url + "/"

    async def test_does_not_lock_the_owner_out_from_elsewhere(self):
        """Nor in a new browser at a new address, whatever a few attackers do at theirs."""
        async with (
            stand(behind_a_proxy, own_factor=True) as site,
            site.person() as alice,
            site.person() as thief,
            site.person() as traveller,
        ):
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            for number in range(80):
                await guess(thief, page, wrong[number], f"203.0.113.{number % 5}")
            assert (await guess(thief, page, wrong[90], "203.0.113.1")).status == 429
            page = await with_password(traveller, site.url + "/", site.users["alice"])
            page = await guess(traveller, page, await phone.code(), "198.51.100.7")
            assert page.url == site.url + "/"

    async def test_nor_does_somebody_else_who_is_behind_the_same_address(self, site):
        async with site.person() as alice, site.person() as bob:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            theirs, _, _ = await enrolled(bob, site.url + "/", site.users["bob"])
            async with site.person() as thief, site.person() as newcomer:
                page = await with_password(thief, site.url + "/", site.users["alice"])
                for code in (await wrong_codes(phone))[:20]:
                    await guess(thief, page, code)
                page = await logged_in(newcomer, site.url + "/", site.users["bob"], theirs)
                assert page.url == site.url + "/"

    async def test_with_many_addresses_is_bounded_all_the_same(self):
        async with stand(behind_a_proxy, own_factor=True) as site, site.person() as alice, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await alice.log_out(site.url)
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            statuses = [(await guess(thief, page, wrong[n], f"203.0.{n}.1")).status for n in range(120)]
            assert statuses == [403] * 100 + [429] * 20
            assert (await logged_in(alice, site.url + "/", site.users["alice"], phone)).url == site.url + "/"

    async def test_gains_nothing_with_a_foreign_or_forged_cookie_of_a_known_browser(self, site):
        async with site.person() as alice, site.person() as bob, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await enrolled(bob, site.url + "/", site.users["bob"])
            wrong = await wrong_codes(phone)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            for code in wrong[:8]:
                await guess(thief, page, code)
            bobs = bob.cookies(site.url)["hubgate-known"]
            alices = alice.cookies(site.url)["hubgate-known"]
            for number, value in enumerate((bobs, "a" * 22 + alices[22:], alices[:-2], "x", alices + "=")):
                thief.session.cookie_jar.update_cookies({"hubgate-known": value}, URL(site.url))
                assert (await guess(thief, page, wrong[20 + number])).status == 429, value

    async def test_learns_no_code_of_the_future(self, site):
        """Five minutes ahead is told, since it helps; that code is then never taken."""
        async with site.person() as alice, site.person() as thief:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/", site.users["alice"])
            ahead = phone.at(time.time() + 90)
            told = await guess(thief, page, ahead)
            assert "ahead" in told.text
            (live,) = site.served.live._by_cookie.values()
            later = Factors(site.store, site.keyring, clock=lambda: time.time() + 90)
            assert await later.judge(live.session.identity, ahead) == totp.Used()
            assert isinstance(await later.judge(live.session.identity, phone.at(time.time() + 120)), totp.Right)


class TestAThiefOfARecoveryCode:
    async def test_is_too_late_when_the_owner_has_made_new_ones(self, site):
        """A mail said that a code was used, and its owner has acted: what the thief began with it is over."""
        async with site.person() as alice, site.person() as thief:
            phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/", site.users["alice"])
            page = await guess(thief, page, codes[0], step="recovery")
            theirs = phone_of(page)
            own = await alice.get(site.url + MFA)
            own = await alice.submit(own, step_form(own, "codes"), code=await phone.code())
            assert len(recovery_codes(own)) == 10
            page = await guess(thief, page, await theirs.code(), step="confirm")
            assert asks_for(page) == {"code", "recovery"}
            assert session_of(site, thief) is None
            assert (await guess(thief, page, codes[1], step="recovery")).status == 403

    async def test_has_nothing_left_after_a_reset(self, site):
        """An administrator resets and issues a ticket while somebody is just setting up a phone with a stolen code."""
        async with site.person() as alice, site.person() as thief:
            _, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(thief, site.url + "/", site.users["alice"])
            page = await guess(thief, page, codes[0], step="recovery")
            theirs = phone_of(page)
            (live,) = site.served.live._by_cookie.values()
            await Tickets(site.store, site.keyring, demanded=False).issue("alice")
            assert await Factors(site.store, site.keyring).reset(live.user_key)
            page = await guess(thief, page, await theirs.code(), step="confirm")
            assert asks_for(page) == {"ticket"}
            assert "otpauth" not in page.text
            assert session_of(site, thief) is None


class TestAReset:
    async def test_needs_the_ticket_of_today(self):
        """A login that once showed a ticket, and still waits, is no way past the ticket that was issued later."""
        async with (
            stand(lambda raw: raw["mfa"].update(enrolment="ticket"), own_factor=True) as site,
            site.person() as alice,
            site.person() as other,
        ):
            tickets = Tickets(site.store, site.keyring, demanded=True)
            ticket = await tickets.issue("alice")
            pages = [await with_password(each, site.url + "/", site.users["alice"]) for each in (alice, other)]
            pages = [
                await guess(each, page, ticket, step="ticket") for each, page in zip((alice, other), pages, strict=True)
            ]
            assert [asks_for(page) for page in pages] == [{"confirm"}] * 2
            await guess(alice, pages[0], await phone_of(pages[0]).code(), step="confirm")
            (live,) = site.served.live._by_cookie.values()
            await Factors(site.store, site.keyring).reset(live.user_key)
            for _ in range(2):
                late = await guess(other, pages[1], await phone_of(pages[1]).code(), step="confirm")
                assert asks_for(late) == {"ticket"}
                await tickets.issue("alice")
            assert session_of(site, other) is None

    async def test_turns_a_login_on_its_way_into_an_enrolment_and_no_other_into_a_session(self, site):
        """Whoever waits for a code meets the page to enrol; the code that they have no longer counts."""
        async with site.person() as alice, site.person() as late:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(late, site.url + "/", site.users["alice"])
            (live,) = site.served.live._by_cookie.values()
            await Factors(site.store, site.keyring).reset(live.user_key)
            page = await guess(late, page, await phone.code())
            assert asks_for(page) == {"confirm"}
            assert phone_of(page).key != phone.key
            assert session_of(site, late) is None


class TestAThiefOfTheSession:
    """Somebody at an open browser, or with its cookie."""

    async def test_changes_nothing_without_a_code(self, site):
        async with site.person() as alice:
            phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            assert phone.key not in page.text
            assert not [code for code in codes if code in page.text]
            for step in ("confirm", "code", "recovery", "ticket", ""):
                fields = {**step_form(page, "phone").fields, "step": step, "code": codes[0]}
                page = await alice.request("POST", site.url + MFA, data=fields)
                assert asks_for(page) == {"phone", "codes"}, step
            assert recovery_codes(page) == []
            fields = {**step_form(page, "phone").fields, "code": codes[0]}
            assert (await alice.request("POST", site.url + MFA, data=fields)).status == 403, (
                "a recovery code is no code"
            )

    async def test_guesses_no_more_often_than_at_the_login(self, site):
        async with site.person() as alice:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            statuses = [
                (await guess(alice, page, code, step="codes")).status for code in (await wrong_codes(phone))[:10]
            ]
            assert statuses == [403] * 8 + [429] * 2

    async def test_a_new_phone_is_this_sessions_alone(self, site):
        """What one session began behind a code is not gone on with from another one."""
        async with site.person() as alice, site.person() as other:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await logged_in(other, site.url + "/", site.users["alice"], phone)
            page = await alice.get(site.url + MFA)
            page = await alice.submit(page, step_form(page, "phone"), code=await phone.code())
            assert asks_for(page) == {"confirm", "cancel"}
            assert asks_for(await other.get(site.url + MFA)) == {"phone", "codes"}


class TestTraces:
    async def test_no_secret_is_kept_logged_counted_or_passed_on(self, site, caplog):
        """All that a person does with codes, and what of it stays anywhere but on their screen and their phone."""
        caplog.set_level(logging.DEBUG)
        async with site.person() as alice, site.person() as other:
            phone, recovery, last = await enrolled(alice, site.url + "/", site.users["alice"])
            pages, typed = [last], []

            async def send(person, page, step, code):
                typed.append(code)
                pages.append(await guess(person, page, code, step=step))
                return pages[-1]

            page = await with_password(other, site.url + "/htc/", site.users["alice"])
            pages.append(page)
            await send(other, page, "code", "918273")
            await send(other, page, "recovery", "7777-8888-9999")
            enrol = await send(other, page, "recovery", recovery[0])
            second = phone_of(enrol)
            await send(other, enrol, "confirm", await second.code())
            page = await other.get(site.url + MFA)
            page = await send(other, page, "codes", await second.code())
            fresh = recovery_codes(page)
            page = await send(other, await other.get(site.url + MFA), "phone", await second.code())
            third = phone_of(page)
            again = await other.get(site.url + MFA + "?next=/")
            pages += [page, again]
            everything = [*typed, *recovery, *fresh, *(each.key for each in (phone, second, third))]
            secrets = {form for each in everything for form in (each, each.replace(" ", ""), each.replace("-", ""))}
            for page in pages:
                assert page.headers["Cache-Control"] == "no-store", page
                assert page.headers["Referrer-Policy"] in {"strict-origin", "no-referrer"}, page
                told = [page.url, *(step.url for step in page.trail), *page.headers.values()]
                assert not [secret for secret in secrets for text in told if secret in text], page
        records = "".join(str(vars(record)) + record.getMessage() for record in caplog.records)
        counted = (await site.served.front.metrics.render()).decode()
        kept = b"".join(site.lines).decode() + repr(site.access) + records + counted
        assert len(typed) == 6
        # Six digits alone may be part of a number somewhere: here it is words that count.
        words = set(re.findall(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*", kept))
        assert not secrets & words
        assert not [secret for secret in secrets if len(secret) > 6 and secret in kept]


class TestTheStore:
    async def test_an_enrolment_that_was_tampered_with_is_not_taken_for_none(self, site):
        async with site.person() as alice, site.person() as thief:
            await enrolled(alice, site.url + "/", site.users["alice"])
            store = site.store
            (key,) = [key for key in store._entries if key.startswith("enrolment:")]
            whole = await store.get(key)
            for spoilt in (b"", b"x", whole[:-1] + bytes([whole[-1] ^ 1])):
                await store.put(key, spoilt, ttl=60)
                page = await with_password(thief, site.url + "/", site.users["alice"])
                assert page.status == 503, spoilt
                assert "otpauth" not in page.text
                thief.session.cookie_jar.clear()
            assert session_of(site, thief) is None

    async def test_another_persons_enrolment_fits_nowhere_else(self, site):
        async with site.person() as alice, site.person() as bob, site.person() as thief:
            await enrolled(alice, site.url + "/", site.users["alice"])
            store = site.store
            (alices,) = [key for key in store._entries if key.startswith("enrolment:")]
            phone, _, _ = await enrolled(bob, site.url + "/", site.users["bob"])
            (bobs,) = [key for key in store._entries if key.startswith("enrolment:") and key != alices]
            await store.put(alices, await store.get(bobs), ttl=60)
            page = await with_password(thief, site.url + "/", site.users["alice"])
            assert page.status == 503
            await phone.code()

    async def test_enrolments_have_no_end(self, site):
        async with site.person() as alice, site.person() as later:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await logged_in(later, site.url + "/", site.users["alice"], phone)
            store = site.store
            ends = [entry.expires for key, entry in store._entries.items() if key.startswith("enrolment:")]
            assert ends == [float("inf")]
