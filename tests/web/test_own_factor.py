"""The gateway's own second factor, as a person meets it: enrolment, codes, recovery, a new phone, tickets."""

from __future__ import annotations

import json
import re
import time
from html import unescape
from urllib.parse import unquote

import pyotp
import pytest

from hubgate.app import Served
from hubgate.core import totp
from hubgate.web.factors import Factors
from hubgate.web.tickets import Tickets
from tests.kit.phone import Phone, asks_for, enrolled, logged_in, phone_of, recovery_codes, step_form, with_password
from tests.kit.stand import stand

MFA = "/_hubgate/mfa"


@pytest.fixture
async def site():
    async with stand(own_factor=True) as running:
        yield running


def noted(site):
    """Audit lines about the second factor: outcome, user, and the code of a refusal."""
    lines = [json.loads(line) for line in site.lines]
    return [(line["outcome"], line["user"], line.get("code")) for line in lines if line["event"] == "second_factor"]


def session_cookie(site, person):
    return person.cookies(site.url).get("hubgate")


class TestTheFirstLogin:
    async def test_leads_through_setting_up_a_phone_to_where_somebody_wanted_to_go(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/htc/hub/home?x=1", site.users["alice"])
            assert page.url == site.url + MFA
            assert asks_for(page) == {"confirm"}
            assert session_cookie(site, alice) is None
            phone = phone_of(page)
            page = await alice.submit(page, step_form(page, "confirm"), code=await phone.code())
            assert page.status == 200
            codes = recovery_codes(page)
            assert len(set(codes)) == 10
            assert session_cookie(site, alice) is not None
            assert "hubgate-mfa" not in alice.cookies(site.url), "the login is no longer on its way"
            assert 'href="/htc/hub/home?x=1"' in page.text
            assert site.received() == []
            assert (await alice.get(site.url + "/htc/hub/home?x=1")).status == 200
            assert len(site.received()) == 1
        assert noted(site) == [("enrolled", "alice", None)]
        (login,) = [json.loads(line) for line in site.lines if b'"event": "login"' in line]
        assert login["factor"] == "pwd otp"

    async def test_key_address_and_qr_code_say_the_same(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
        uri = unescape(re.search(r'href="(otpauth:[^"]+)"', page.text)[1])
        app = pyotp.parse_uri(uri)
        assert (app.secret, app.issuer, app.name) == (phone_of(page).key.replace(" ", ""), "Example Lab", "alice")
        assert (app.digits, app.interval) == (6, 30)

    async def test_a_page_that_is_loaded_again_shows_the_same_key(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            again = await alice.get(site.url + MFA)
        assert phone_of(page).key == phone_of(again).key

    async def test_a_wrong_code_is_told_with_the_same_key(self, site):
        async with site.person() as alice:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            phone = phone_of(page)
            late = await alice.submit(page, step_form(page, "confirm"), code=phone.at(time.time() - 240))
            assert late.status == 403
            assert "your phone’s clock is 4 minutes behind" in re.sub(r"<[^>]+>", "", late.text)
            assert phone_of(late).key == phone.key
            assert session_cookie(site, alice) is None
            page = await alice.submit(late, step_form(late, "confirm"), code=await phone.code())
            assert len(recovery_codes(page)) == 10

    async def test_the_proof_says_what_was_shown(self, site):
        async with site.person() as alice:
            before = int(time.time())
            await enrolled(alice, site.url + "/", site.users["alice"])
            proof = live_session(site.served).proof
        assert (proof.acr, proof.amr) == ("mfa", ("pwd", "otp"))
        assert before <= proof.auth_time <= int(time.time())

    async def test_codes_can_be_saved_without_a_server(self, site):
        async with site.person() as alice:
            _, codes, page = await enrolled(alice, site.url + "/", site.users["alice"])
        href = unescape(re.search(r'href="(data:[^"]+)" download="recovery-codes.txt"', page.text)[1])
        assert unquote(href.partition(",")[2]).split("\n")[3:-1] == codes
        assert page.headers["Cache-Control"] == "no-store"


class TestALaterLogin:
    async def test_asks_for_a_code(self, site):
        async with site.person() as alice, site.person() as elsewhere:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(elsewhere, site.url + "/htc/", site.users["alice"])
            assert asks_for(page) == {"code", "recovery"}
            assert phone.key.replace(" ", "") not in page.text
            page = await elsewhere.submit(page, step_form(page, "code"), code=await phone.code())
            assert page.url == site.url + "/htc/"
            assert page.status == 200
        assert noted(site) == [("enrolled", "alice", None)]

    @pytest.mark.parametrize(
        ("typed", "slug", "words"),
        [
            (lambda phone: phone.at(time.time() + 150), "clock_ahead", "2 minutes ahead"),
            (lambda phone: phone.at(time.time() - 310), "clock_behind", "5 minutes behind"),
            (lambda phone: phone.at(time.time() - 40 * 86400), "wrong_code", "That code is not right"),
            (lambda _: "12345", "malformed_code", "A code has six digits"),
        ],
        ids=["ahead", "behind", "wrong", "short"],
    )
    async def test_says_kindly_what_is_wrong(self, site, typed, slug, words):
        async with site.person() as alice, site.person() as elsewhere:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(elsewhere, site.url + "/", site.users["alice"])
            page = await elsewhere.submit(page, step_form(page, "code"), code=typed(phone))
            assert page.status == 403
            assert words in re.sub(r"<[^>]+>", "", page.text)
            assert session_cookie(site, elsewhere) is None
            page = await elsewhere.submit(page, step_form(page, "code"), code=await phone.code())
            assert page.url == site.url + "/"
        refused = [] if slug == "malformed_code" else [("refused", "alice", slug)]
        assert noted(site)[1:] == refused, "a slip of the finger is no guess"

    async def test_says_that_a_code_was_used_already(self, site):
        async with site.person() as alice, site.person() as elsewhere:
            page = await with_password(alice, site.url + "/", site.users["alice"])
            phone = phone_of(page)
            used = await phone.code()
            await alice.submit(page, step_form(page, "confirm"), code=used)
            page = await with_password(elsewhere, site.url + "/", site.users["alice"])
            page = await elsewhere.submit(page, step_form(page, "code"), code=used)
            assert "This code was used already. Wait for the next one" in page.text

    async def test_in_another_tab_shows_where_we_are(self, site):
        async with site.person() as alice:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            await alice.log_out(site.url)
            first = await with_password(alice, site.url + "/htc/", site.users["alice"])
            second = await alice.get(site.url + "/_hubgate/login?next=/hpc/")
            assert asks_for(second) == {"code", "recovery"}
            late = await alice.submit(first, step_form(first, "code"), code=await phone.code())
            assert (late.status, session_cookie(site, alice)) == (403, None), "its form was overtaken"
            page = await alice.submit(second, step_form(second, "code"), code=await phone.code())
            assert page.url == site.url + "/hpc/"


class TestALostPhone:
    async def test_a_recovery_code_leads_to_another_phone_and_is_good_once(self, site):
        async with site.person() as alice, site.person() as elsewhere, site.person() as third:
            old, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(elsewhere, site.url + "/htc/", site.users["alice"])
            page = await elsewhere.submit(page, step_form(page, "recovery"), code=codes[3].upper().replace("-", " "))
            assert asks_for(page) == {"confirm"}
            assert session_cookie(site, elsewhere) is None, "nobody is let in before the new phone is set up"
            new = phone_of(page)
            assert new.key != old.key
            page = await elsewhere.submit(page, step_form(page, "confirm"), code=await new.code())
            fresh = recovery_codes(page)
            assert len(fresh) == 10
            assert not set(fresh) & set(codes)
            assert session_cookie(site, elsewhere) is not None

            page = await with_password(third, site.url + "/", site.users["alice"])
            page = await third.submit(page, step_form(page, "code"), code=old.at(time.time() + 30))
            assert page.status == 403, "the old phone counts no longer"
            page = await third.submit(page, step_form(page, "recovery"), code=codes[4])
            assert page.status == 403, "nor do the old codes"
            assert (await third.submit(page, step_form(page, "code"), code=await new.code())).status == 200
        assert [line[0] for line in noted(site)] == ["enrolled", "recovery_code_used", "replaced", "refused", "refused"]
        factors = [line["factor"] for line in map(json.loads, site.lines) if line["event"] == "login"]
        assert factors == ["pwd otp", "pwd recovery otp", "pwd otp"]

    async def test_who_stops_half_way_has_one_code_less_and_the_old_phone(self, site):
        async with site.person() as alice, site.person() as elsewhere, site.person() as third:
            phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await with_password(elsewhere, site.url + "/", site.users["alice"])
            await elsewhere.submit(page, step_form(page, "recovery"), code=codes[0])
            page = await with_password(third, site.url + "/", site.users["alice"])
            assert asks_for(page) == {"code", "recovery"}, "the password alone does not go on where the code led"
            page = await third.submit(page, step_form(page, "recovery"), code=codes[0])
            assert page.status == 403
            page = await third.submit(page, step_form(page, "code"), code=await phone.code())
            assert "You have 9 recovery codes left" in re.sub(r"<[^>]+>", "", (await third.get(site.url + MFA)).text)


class TestWithASession:
    async def test_a_new_phone_behind_a_code_of_the_old_one(self, site):
        async with site.person() as alice, site.person() as elsewhere:
            old, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            assert asks_for(page) == {"phone", "codes"}
            wrong = await alice.submit(page, step_form(page, "phone"), code="000000")
            assert wrong.status == 403
            assert asks_for(wrong) == {"phone", "codes"}
            page = await alice.submit(page, step_form(page, "phone"), code=await old.code())
            assert asks_for(page) == {"confirm", "cancel"}
            new = phone_of(page)
            page = await alice.submit(page, step_form(page, "confirm"), code=await new.code())
            assert len(recovery_codes(page)) == 10
            assert asks_for(await alice.get(site.url + MFA)) == {"phone", "codes"}
            page = await with_password(elsewhere, site.url + "/", site.users["alice"])
            assert (await elsewhere.submit(page, step_form(page, "code"), code=old.at(time.time() + 30))).status == 403
            page = await elsewhere.submit(page, step_form(page, "code"), code=await new.code())
            assert page.url == site.url + "/"

    async def test_setting_up_a_new_phone_can_be_left(self, site):
        async with site.person() as alice:
            old, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            page = await alice.submit(page, step_form(page, "phone"), code=await old.code())
            late = page
            page = await alice.submit(page, step_form(page, "cancel"))
            assert asks_for(page) == {"phone", "codes"}
            page = await alice.submit(late, step_form(late, "confirm"), code=await phone_of(late).code())
            assert recovery_codes(page) == []
            page = await alice.submit(page, step_form(page, "codes"), code=await old.code())
            assert len(recovery_codes(page)) == 10

    async def test_what_was_begun_is_over_when_another_phone_was_set_up_elsewhere(self, site):
        async with site.person() as alice:
            old, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            page = await alice.submit(page, step_form(page, "phone"), code=await old.code())
            assert asks_for(page) == {"confirm", "cancel"}
            factors, who = Factors(site.store, site.keyring), live_session(site.served).identity
            before = await factors.of(who)
            assert await factors.enrol(who, totp.new_key(b"k" * 20), step=0, replaces=before.id)
            assert asks_for(await alice.get(site.url + MFA)) == {"phone", "codes"}
            late = await alice.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
            assert recovery_codes(late) == []
            assert (await factors.of(who)).key == totp.new_key(b"k" * 20)

    async def test_new_recovery_codes_take_the_place_of_the_old(self, site):
        async with site.person() as alice, site.person() as elsewhere:
            phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            page = await alice.submit(page, step_form(page, "codes"), code=await phone.code())
            fresh = recovery_codes(page)
            assert len(fresh) == 10
            assert recovery_codes(await alice.get(site.url + MFA)) == []
            page = await with_password(elsewhere, site.url + "/", site.users["alice"])
            assert (await elsewhere.submit(page, step_form(page, "recovery"), code=codes[0])).status == 403
            page = await elsewhere.submit(page, step_form(page, "recovery"), code=fresh[0])
            assert asks_for(page) == {"confirm"}

    async def test_the_landing_page_leads_there(self, site):
        async with site.person() as alice:
            await enrolled(alice, site.url + "/", site.users["alice"])
            assert f'href="{MFA}"' in (await alice.get(site.url + "/")).text

    async def test_after_a_reset_the_page_says_so(self, site):
        async with site.person() as alice:
            phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
            page = await alice.get(site.url + MFA)
            await forget_factors(site)
            page = await alice.submit(page, step_form(page, "phone"), code=await phone.code())
            assert "There is no phone set up for your account" in page.text


class TestTickets:
    async def test_nobody_enrols_without_one_where_they_are_demanded(self):
        async with (
            stand(lambda raw: raw["mfa"].update(enrolment="ticket"), own_factor=True) as site,
            site.person() as alice,
        ):
            page = await with_password(alice, site.url + "/", site.users["alice"])
            assert asks_for(page) == {"ticket"}
            assert "otpauth" not in page.text
            refused = await alice.submit(page, step_form(page, "ticket"), code="0000-0000-0000")
            assert refused.status == 403
            ticket = await tickets_of(site).issue("alice")
            await tickets_of(site).issue("bob")
            page = await alice.submit(page, step_form(page, "ticket"), code=ticket)
            assert asks_for(page) == {"confirm"}
            page = await alice.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
            assert len(recovery_codes(page)) == 10
            assert not await tickets_of(site).recognised("alice", ticket), "it was for one enrolment"
            assert await tickets_of(site).needed("bob", shown="")
        assert [line[0::2] for line in noted(site)] == [("refused", "wrong_ticket"), ("enrolled", None)]

    async def test_one_that_was_issued_must_be_shown_everywhere(self, site):
        async with site.person() as alice, site.person() as bob:
            ticket = await tickets_of(site).issue("alice")
            assert asks_for(await with_password(alice, site.url + "/", site.users["alice"])) == {"ticket"}
            page = await with_password(bob, site.url + "/", site.users["bob"])
            assert asks_for(page) == {"confirm"}
            await tickets_of(site).issue("bob")
            page = await bob.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
            assert asks_for(page) == {"ticket"}, "also of somebody who is just setting up a phone"
            refused = await bob.submit(page, step_form(page, "ticket"), code=ticket)
            assert refused.status == 403, "it is for one person"

    async def test_the_last_one_counts(self, site):
        first, second = await tickets_of(site).issue("alice"), await tickets_of(site).issue("alice")
        assert not await tickets_of(site).recognised("alice", first)
        assert await tickets_of(site).recognised("alice", second.upper())
        assert not await tickets_of(site).recognised("bob", second)


async def test_in_other_modes_there_is_no_such_page():
    async with stand() as site, site.person() as alice:
        assert (await alice.get(site.url + MFA, follow=False)).status == 404
        await alice.login(site.url + "/", site.users["alice"])
        assert (await alice.get(site.url + MFA)).status == 404
        assert f'href="{MFA}"' not in (await alice.get(site.url + "/")).text


async def test_on_a_pools_host_it_leads_to_the_portal():
    def apart(raw):
        raw["pools"][0]["host"] = raw["gateway"]["public_url"].replace("http://127.0.0.1", "localhost")

    async with stand(apart, own_factor=True) as site, site.person() as alice:
        elsewhere = site.url.replace("127.0.0.1", "localhost")
        page = await alice.get(elsewhere + MFA, follow=False)
        assert page.headers["Location"] == site.url + MFA
        page = await alice.request("POST", elsewhere + MFA, data={"code": "123456"}, follow=False)
        assert (page.status, page.headers["Location"]) == (303, site.url + MFA), "a code is not passed on"


async def test_the_key_is_not_in_the_store_in_clear(site):
    async with site.person() as alice:
        phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        kept = b"".join(value for value in everything(site) if isinstance(value, bytes))
        for secret in (phone.key, phone.key.replace(" ", ""), *codes, *(code.replace("-", "") for code in codes)):
            assert secret.encode() not in kept
        lines = b"".join(site.lines) + repr(site.access).encode()
        for secret in (phone.key.replace(" ", ""), *codes):
            assert secret.encode() not in lines


async def test_logging_in_and_out_works_as_often_as_somebody_likes(site):
    """Right codes don't count as tries; three of them fit into one moment."""
    async with site.person() as alice:
        phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        for _ in range(2):
            await alice.log_out(site.url)
            page = await logged_in(alice, site.url + "/", site.users["alice"], phone)
            assert page.url == site.url + "/"


def test_a_phone_is_a_phone():
    assert Phone("JBSW Y3DP EHPK 3PXP " * 2).at(0) == pyotp.TOTP("JBSWY3DPEHPK3PXP" * 2).at(0)


# -- behind the scenes


def tickets_of(site):
    return Tickets(site.store, site.keyring, demanded=False)


def everything(site):
    return [entry.value for entry in site.store._entries.values()]


async def forget_factors(site):
    await site.store.delete(*[key for key in site.store._entries if key.startswith("enrolment:")])


def live_session(served: Served):
    (live,) = served.live._by_cookie.values()
    return live.session
