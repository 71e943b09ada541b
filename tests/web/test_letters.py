"""Who hears of a change to a second factor: its owner, at the address of today and at the one of before."""

from __future__ import annotations

import dataclasses
import re

import pytest

from hubgate.web.factors import Factors
from tests.kit.phone import enrolled, phone_of, recovery_codes, step_form, with_password
from tests.kit.postbox import postbox
from tests.kit.stand import stand

MFA = "/_hubgate/mfa"


@pytest.fixture
async def box():
    async with postbox() as running:
        yield running


@pytest.fixture
async def site(box):
    def with_mail(raw):
        raw["mail"] = {"smtp": f"smtp://127.0.0.1:{box.port}", "sender": "Example Lab <jupyter@example.org>"}

    async with stand(with_mail, own_factor=True) as running:
        yield running


def subjects(box):
    return [message["Subject"] for _, message in box.letters]


async def test_every_change_is_told(site, box):
    async with site.person() as alice, site.person() as elsewhere:
        phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        await box.come(1)
        page = await alice.get(site.url + MFA)
        page = await alice.submit(page, step_form(page, "codes"), code=await phone.code())
        codes = recovery_codes(page)
        await box.come(2)
        page = await alice.get(site.url + MFA)
        page = await alice.submit(page, step_form(page, "phone"), code=await phone.code())
        await alice.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
        await box.come(3)
        page = await with_password(elsewhere, site.url + "/", site.users["alice"])
        late = await elsewhere.submit(page, step_form(page, "recovery"), code=codes[0])
        assert late.status == 403, "new phone, new codes"
        page = await alice.get(site.url + MFA)
    assert subjects(box) == [
        "Example Lab: one-time codes were set up for your account",
        "Example Lab: you have new recovery codes",
        "Example Lab: another phone was set up for your account",
    ]
    assert {tuple(recipients) for recipients, _ in box.letters} == {("alice@example.org",)}


async def test_a_recovery_code_and_what_follows_are_two_letters(site, box):
    async with site.person() as alice, site.person() as elsewhere:
        _, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        page = await with_password(elsewhere, site.url + "/", site.users["alice"])
        page = await elsewhere.submit(page, step_form(page, "recovery"), code=codes[0])
        await box.come(2)
        await elsewhere.submit(page, step_form(page, "confirm"), code=await phone_of(page).code())
        await box.come(3)
    assert subjects(box)[1:] == [
        "Example Lab: a recovery code of yours was used",
        "Example Lab: another phone was set up for your account",
    ]


async def test_what_it_says(site, box):
    async with site.person() as alice:
        phone, codes, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        ((_, message),) = await box.come(1)
    text = message.get_content().replace("\r\n", "\n")
    assert text.startswith("Hello alice,\n")
    assert "A phone was set up for your account" in text
    assert re.search(r"(?m)^Time: \w+, .* 20\d\d, \d\d:\d\d UTC$", text), text
    assert f"Site: {site.url}\n" in text
    assert "Network address: 127.0.0.1\n" in text
    assert "change it, and tell the people who run this site" in text
    for secret in (phone.key, phone.key.replace(" ", ""), *codes):
        assert secret not in message.as_string()


async def test_an_address_that_was_changed_hides_nothing(site, box):
    """Somebody changed the address of the account before the second factor: the old one is told as well."""
    async with site.person() as alice:
        phone, _, _ = await enrolled(alice, site.url + "/", site.users["alice"])
        await box.come(1)
        (live,) = site.served.live._by_cookie.values()
        live.session = dataclasses.replace(
            live.session, identity=dataclasses.replace(live.session.identity, email="eve@evil.example")
        )
        page = await alice.get(site.url + MFA)
        await alice.submit(page, step_form(page, "codes"), code=await phone.code())
        await box.come(3)
    assert [recipients for recipients, _ in box.letters[1:]] == [["alice@example.org"], ["eve@evil.example"]]


async def test_who_resets_learns_the_address(site):
    async with site.person() as alice:
        await enrolled(alice, site.url + "/", site.users["alice"])
        (live,) = site.served.live._by_cookie.values()
        factors = Factors(site.store, site.keyring)
        assert await factors.reset(live.user_key) == "alice@example.org"
        assert await factors.reset(live.user_key) is None


async def test_a_mail_server_that_is_away_is_nobodys_problem():
    async with postbox() as gone:
        pass

    def with_mail(raw):
        raw["mail"] = {"smtp": f"smtp://127.0.0.1:{gone.port}", "sender": "jupyter@example.org"}

    async with stand(with_mail, own_factor=True) as site, site.person() as alice:
        _, codes, page = await enrolled(alice, site.url + "/", site.users["alice"])
        assert len(codes) == 10
        assert "mail" not in page.text.lower()
