"""A place that demands a fresh second factor: how people and programs get there, in both modes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from html import unescape

import jwt
import pytest

from tests.kit.phone import asks_for, enrolled, logged_in, step_form
from tests.kit.stand import stand

ADMIN = "/htc/hub/admin?x=1"
LOGIN = "/_hubgate/login?next=%2Fhtc%2Fhub%2Fadmin%3Fx%3D1&max_age=900"


def guarded(raw):
    raw["pools"][0] |= {"step_up": ["admin", "start"], "step_up_max_age": "15m"}


@pytest.fixture
async def ours():
    async with stand(guarded, own_factor=True) as site:
        yield site


@pytest.fixture
async def theirs():
    async with stand(guarded) as site:
        yield site


def sessions(site):
    return list(site.served.live._by_cookie.values())


def grow_old(site, seconds=1000, acr="mfa"):
    """As if everybody's second factor had been shown a while ago."""
    for live in sessions(site):
        proof = dataclasses.replace(live.session.proof, auth_time=int(time.time()) - seconds, acr=acr)
        live.session = dataclasses.replace(live.session, proof=proof)
        live.cleared.clear()
        live.page_lines.clear()


def asserted(site):
    """The claims of the last assertion that a hub got."""
    (token,) = site.received()[-1].values("X-Hubgate-Assertion")
    return jwt.decode(token, options={"verify_signature": False})


class TestOurs:
    async def test_a_person_shows_a_code_and_goes_on(self, ours):
        async with ours.person() as alice:
            phone, _, _ = await enrolled(alice, ours.url + "/", ours.users["alice"])
            assert (await alice.get(ours.url + ADMIN)).status == 200, "fresh from the login"
            grow_old(ours)
            (before,) = sessions(ours)
            seen = len(ours.received())
            page = await alice.get(ours.url + ADMIN)
            assert asks_for(page) == {"again"}
            assert "once more" in page.text
            assert len(ours.received()) == seen
            wrong = await alice.submit(page, step_form(page, "again"), code="000000")
            assert wrong.status == 403
            assert asks_for(wrong) == {"again"}
            cookie = alice.cookies(ours.url)["hubgate"]
            page = await alice.submit(wrong, step_form(wrong, "again"), code=await phone.code())
            assert page.url == ours.url + ADMIN
            assert page.status == 200
            claims = asserted(ours)
            assert time.time() - claims["auth_time"] < 60
            assert (claims["acr"], claims["amr"]) == ("mfa", ["pwd", "otp"])
            assert alice.cookies(ours.url)["hubgate"] != cookie, "a new id, as after every proof"
            (after,) = sessions(ours)
            assert after.session.created == before.session.created, "its end comes no later"
        events = [(line["event"], line["outcome"]) for line in map(json.loads, ours.lines)]
        assert events[-1] == ("step_up", "ok")
        assert events.count(("login", "ok")) == 1

    async def test_the_old_cookie_opens_nothing(self, ours):
        async with ours.person() as alice, ours.person() as thief:
            phone, _, _ = await enrolled(alice, ours.url + "/", ours.users["alice"])
            cookie = alice.cookies(ours.url)["hubgate"]
            grow_old(ours)
            page = await alice.get(ours.url + ADMIN)
            await alice.submit(page, step_form(page, "again"), code=await phone.code())
            page = await thief.fetch(ours.url + "/htc/hub/home", headers={"Cookie": f"hubgate={cookie}"})
            assert page.status == 401

    async def test_a_code_that_was_used_is_not_good_for_it(self, ours):
        async with ours.person() as alice, ours.person() as other:
            phone, _, _ = await enrolled(alice, ours.url + "/", ours.users["alice"])
            await logged_in(other, ours.url + "/", ours.users["alice"], phone)
            grow_old(ours)
            page = await alice.get(ours.url + ADMIN)
            used = phone.at(phone._last * 30)
            page = await alice.submit(page, step_form(page, "again"), code=used)
            assert page.status == 403
            assert "used already" in page.text

    async def test_it_leads_nowhere_else(self, ours):
        async with ours.person() as alice:
            phone, _, _ = await enrolled(alice, ours.url + "/", ours.users["alice"])
            page = await alice.get(ours.url + "/_hubgate/mfa?next=https://evil.example/")
            form = step_form(page, "again")
            assert form.fields["next"] == "/"
            fields = {**form.fields, "next": "//evil.example/", "code": await phone.code()}
            page = await alice.request("POST", ours.url + "/_hubgate/mfa", data=fields, follow=False)
            assert page.headers["Location"] == "/"

    async def test_who_is_reset_meanwhile_is_told(self, ours):
        async with ours.person() as alice:
            await enrolled(alice, ours.url + "/", ours.users["alice"])
            for key in [key for key in ours.store._entries if key.startswith("enrolment:")]:
                await ours.store.delete(key)
            grow_old(ours)
            page = await alice.get(ours.url + ADMIN)
            assert "There is no phone set up" in page.text
            assert ours.received() == []


class TestTheProviders:
    async def test_a_person_logs_in_again_and_goes_on(self, theirs):
        async with await theirs.logged_in() as alice:
            assert (await alice.get(theirs.url + ADMIN)).status == 200
            grow_old(theirs)
            seen = len(theirs.received())
            page = await alice.get(theirs.url + ADMIN)
            asked = next(step.url for step in page.trail if "/protocol/openid-connect/auth" in step.url)
            assert "max_age=900" in asked
            assert "prompt=login" in asked
            assert page.form_with("password"), "the provider's session is not enough"
            assert len(theirs.received()) == seen
            page = await alice.login(theirs.url + ADMIN, theirs.users["alice"])
            assert page.url == theirs.url + ADMIN
            assert time.time() - asserted(theirs)["auth_time"] < 60

    async def test_a_provider_that_does_not_ask_again_opens_nothing(self, theirs, monkeypatch):
        """The answer is held against the age that was asked for, whatever the provider did."""
        async with await theirs.logged_in() as alice:
            grow_old(theirs)
            begin = type(theirs.served.provider).begin

            async def forgetful(provider, **asked):
                asked["prompt"] = None
                url, attempt = await begin(provider, **asked)
                return re.sub("&max_age=[0-9]+", "", url), dataclasses.replace(attempt, max_age=-31)

            monkeypatch.setattr(type(theirs.served.provider), "begin", forgetful)
            page = await alice.get(theirs.url + ADMIN)
            assert page.status == 502
            assert theirs.received() == []

    async def test_a_session_from_before_it_was_demanded_at_all(self, theirs):
        async with await theirs.logged_in() as alice:
            grow_old(theirs, seconds=1, acr="")
            page = await alice.get(theirs.url + ADMIN, follow=False)
            assert page.headers["Location"] == LOGIN


class TestWhoeverCannotBeLed:
    async def test_a_program_is_told_what_it_lacks(self, theirs):
        async with await theirs.logged_in() as alice:
            grow_old(theirs)
            for method in ("GET", "POST", "DELETE"):
                page = await alice.request(
                    method, theirs.url + ADMIN, headers={"Accept": "*/*", "Sec-Fetch-Mode": "cors"}, follow=False
                )
                assert page.status == 401
                assert page.headers["WWW-Authenticate"] == (
                    'Bearer error="insufficient_user_authentication", max_age="900", acr_values="mfa"'
                )
                told = json.loads(page.text)
                assert page.headers["Content-Type"].startswith("application/problem+json")
                assert (told["code"], told["max_age"], told["acr_values"]) == ("fresh_factor_required", "900", "mfa")
                assert told["login_url"] == theirs.url + LOGIN
            assert theirs.received() == []

    async def test_a_form_is_refused_and_not_bounced(self, theirs):
        async with await theirs.logged_in() as alice:
            grow_old(theirs)
            page = await alice.request(
                "POST", theirs.url + "/htc/hub/spawn", data={"x": "1"}, headers={"Accept": "text/html"}, follow=False
            )
            assert page.status == 401
            assert "show your second factor again" in page.text
            assert "/_hubgate/login?next=%2Fhtc%2Fhub%2Fspawn&max_age=900" in unescape(page.text)
            assert theirs.received() == []

    async def test_a_handshake_is_refused(self, theirs):
        async with await theirs.logged_in() as alice:
            grow_old(theirs)
            socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            socket["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
            page = await alice.fetch(theirs.url + "/htc/hub/api/users/alice/server/progress", headers=socket)
            assert page.status == 401
            assert theirs.received() == []

    async def test_other_places_are_as_they_were(self, theirs):
        async with await theirs.logged_in() as alice:
            grow_old(theirs)
            for path in ("/htc/hub/home", "/htc/user/alice/lab", "/hpc/hub/admin"):
                assert (await alice.get(theirs.url + path)).status == 200, path


async def test_whoever_is_fresh_is_sent_on(theirs):
    """A second tab, or the back button: nobody is asked twice."""
    async with await theirs.logged_in() as alice:
        page = await alice.get(theirs.url + LOGIN, follow=False)
        assert page.headers["Location"] == "/htc/hub/admin?x=1"
        for wish in ("x", "", "-1", "9" * 10):
            page = await alice.get(f"{theirs.url}/_hubgate/login?next=/&max_age={wish}", follow=False)
            assert page.headers["Location"] == "/", wish


async def test_a_pool_with_a_host_of_its_own():
    """The proof is made at the portal, and the pool's host gets a cookie of the session that has it."""

    def apart(raw):
        port = raw["gateway"]["public_url"].rpartition(":")[2]
        raw["pools"][0] |= {"host": f"localhost:{port}", "step_up": ["admin"]}

    async with stand(apart, own_factor=True) as site, site.person() as alice:
        phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        there = site.url.replace("127.0.0.1", "localhost")
        assert (await alice.get(there + ADMIN)).status == 200
        grow_old(site)
        page = await alice.get(there + ADMIN)
        assert page.url.startswith(site.url)
        assert asks_for(page) == {"again"}
        page = await alice.submit(page, step_form(page, "again"), code=await phone.code())
        assert (page.url, page.status) == (there + ADMIN, 200)
        assert time.time() - asserted(site)["auth_time"] < 60
