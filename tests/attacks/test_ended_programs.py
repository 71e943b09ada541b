"""Whoever holds an API token that was ended, or whose owner's programs were, gets nothing with it from then on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from hubgate.core.identity import Identity, Proof
from hubgate.errors import StoreFault
from hubgate.web import account, programs
from tests.attacks.test_api_tokens import SOCKET, Program, audited, ended, logged_in, takes_tokens, token
from tests.attacks.test_backchannel_logout import claims, signed, told
from tests.kit.background import eventually
from tests.kit.person import Form, Page, Person
from tests.kit.stand import Stand, stand

ACCOUNT = "/_hubgate/account"
ENDS = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


def may_revoke(document: dict[str, Any]) -> None:
    """The first hub gave hubgate a service's token."""
    takes_tokens(document)
    document["pools"][0]["hubs"][0]["api_token"] = "a-service-token-for-the-tests-alone"


@asynccontextmanager
async def at_rest() -> AsyncIterator[Stand]:
    """A site whose programs' half minute lasts as long as the test wants."""
    async with stand(may_revoke) as made:
        handled, now = of(made), time.time()
        handled._clock = lambda: now
        yield made


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with at_rest() as made:
        yield made


def of(site: Stand) -> programs.Programs:
    handled = site.served.front.programs
    assert handled is not None
    return handled


def end_forms(page: Page) -> list[Form]:
    return [form for form in page.forms if form.fields.get("end_token")]


async def end_it(site: Stand, person: Person) -> Page:
    page = await person.get(site.url + ACCOUNT)
    (form,) = end_forms(page)
    return await person.submit(page, form)


async def socket_of(site: Stand, program: Program) -> aiohttp.ClientWebSocketResponse:
    wire = await program.session.ws_connect(site.url + SOCKET, headers=program.headers)
    await wire.send_str("hello")
    assert (await wire.receive(timeout=60)).data == "hello"
    return wire


async def test_a_token_that_its_owner_ended_and_the_hub_revoked(site: Stand) -> None:
    hub = site.hubs["htc01"]
    stolen, kept = hub.gives(token(), "alice"), hub.gives(token(), "alice")
    async with logged_in(site) as alice, Program(site, kept) as mine, Program(site, stolen) as thief:
        wire = await socket_of(site, thief)
        page = await end_it(site, alice)
        assert "its API token was revoked at the hub" in page.text
        assert (await wire.receive(timeout=60)).type in ENDS
        assert list(hub.tokens) == [kept]
        assert not end_forms(page), "nothing is left of it to show"
        answer = await thief.refused("token_ended")
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        async with logged_in(site):
            await thief.refused("token_ended")
        assert (await mine.ask())[0] == 200
    (line,) = (line for line in audited(site) if line["outcome"] == "revoked")
    assert (line["user"], line["upstream"], line["token"]) == ("alice", "htc01", "a0")
    assert not any(stolen.encode() in line for line in site.lines)
    assert stolen not in repr(vars(site.store))


@pytest.mark.parametrize("trouble", ["no token of ours", "a token without a name", "refuses", "fails", "knows nothing"])
async def test_a_token_that_its_owner_ended_and_the_hub_still_takes(
    site: Stand, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page says is what was done."""
    hub = site.hubs["htc02" if trouble == "no token of ours" else "htc01"]
    key = hub.gives(token(), "alice", **({"token_id": None} if trouble == "a token without a name" else {}))
    hub.revokes = {"refuses": 403, "fails": 500, "knows nothing": 404}.get(trouble, 204)
    async with logged_in(site) as alice, Program(site, key) as thief:
        assert (await thief.ask())[0] == 200
        page = await end_it(site, alice)
        assert "its API token is refused here from now on" in page.text
        assert "was revoked at the hub" not in page.text
        assert "refused here</span>" in page.text
        assert f'href="{site.url}/htc/hub/token"' in page.text
        assert not end_forms(page)
        assert key in hub.tokens
        now = of(site)._clock() + programs.BELIEVED
        monkeypatch.setattr(of(site), "_clock", lambda: now)  # the hub is asked again, and still says that it is good
        await thief.refused("token_ended")
        async with logged_in(site):
            await thief.refused("token_ended")
        assert "refused here</span>" in (await alice.get(site.url + ACCOUNT)).text
    assert [line["outcome"] for line in audited(site)] == ["accepted", "refused_here"]


async def test_a_hub_that_hangs_holds_up_no_end(site: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_PATIENCE", 0.0)
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site) as alice, Program(site, key) as thief:
        assert (await thief.ask())[0] == 200
        assert "refused here from now on" in (await end_it(site, alice)).text
        await thief.refused("token_ended")


async def test_a_program_that_was_ended_twice(site: Stand) -> None:
    """In two windows: what is gone can't be ended, and nothing else is."""
    hub = site.hubs["htc01"]
    async with logged_in(site) as alice, Program(site, hub.gives(token(), "alice")) as program:
        assert (await program.ask())[0] == 200
        page = await alice.get(site.url + ACCOUNT)
        (form,) = end_forms(page)
        assert "revoked at the hub" in (await alice.submit(page, form)).text
        page = await alice.submit(page, form)
        assert page.status == 200
        assert 'role="status"' not in page.text


async def test_somebody_else_ends_my_program(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site) as alice, logged_in(site, "bob") as bob, Program(site, key) as program:
        assert (await program.ask())[0] == 200
        (form,) = end_forms(await alice.get(site.url + ACCOUNT))
        page = await bob.get(site.url + ACCOUNT)
        csrf = next(form.fields["csrf"] for form in page.forms if "csrf" in form.fields)
        page = await bob.submit(page, Form(ACCOUNT, "post", {**form.fields, "csrf": csrf}))
        assert page.status == 200
        assert 'role="status"' not in page.text
        assert (await program.ask())[0] == 200
        assert key in site.hubs["htc01"].tokens
        # Nor another site, nor whoever has no session.
        for browser, fields in ((alice, {**form.fields, "csrf": csrf}), (site.person(), form.fields)):
            async with browser:
                page = await browser.submit(page, Form(site.url + ACCOUNT, "post", fields))
                assert page.status in {401, 403}
        assert (await program.ask())[0] == 200


async def test_programs_of_people_who_logged_out_end_with_everybodys(site: Stand) -> None:
    """As by `hubgate sessions end --all`."""
    keys = {name: site.hubs["htc01"].gives(token(), name) for name in ("alice", "bob")}
    for name in keys:
        async with logged_in(site, name) as person:
            page = await person.get(site.url + "/")
            await person.submit(page, next(form for form in page.forms if form.action.endswith("/_hubgate/logout")))
    async with Program(site, keys["alice"]) as one, Program(site, keys["bob"]) as other:
        wires = [await socket_of(site, each) for each in (one, other)]
        await of(site)._standings.end_all()
        for wire in wires:
            assert (await wire.receive(timeout=60)).type in ENDS
        for each in (one, other):
            assert (await each.refused("token_owner_away")).status == 401
        async with logged_in(site):
            assert (await one.ask())[0] == 200
        await other.refused("token_owner_away")
        await of(site)._standings.end_all()

        async def is_out() -> bool:
            return (await one.ask())[1].get("code") == "token_owner_away"

        await eventually(is_out, within=60)


async def test_a_silent_hub_keeps_nobodys_programs_alive_that_an_administrator_ended(
    site: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = site.hubs["htc01"]
    async with logged_in(site), Program(site, hub.gives(token(), "alice")) as program:
        wire = await socket_of(site, program)
        hub.silent = True
        now = of(site)._clock() + programs.BELIEVED
        monkeypatch.setattr(of(site), "_clock", lambda: now)
        assert (await program.ask())[0] == 200
        await ended(site, "alice")
        assert (await wire.receive(timeout=60)).type in ENDS


async def test_a_store_that_is_away_makes_no_second_factor_younger(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(document: dict[str, Any]) -> None:
        takes_tokens(document)
        document["mfa"]["api_tokens_for"] = "60s"

    async with stand(short) as site, logged_in(site):
        handled, now = of(site), time.time()
        handled._clock = lambda: now
        async with Program(site, site.hubs["htc01"].gives(token(), "alice")) as program:
            assert (await program.ask())[0] == 200

            async def away(_: str) -> None:
                raise StoreFault("store_unavailable")

            monkeypatch.setattr(handled._standings, "of", away)
            (known,) = handled._programs.values()
            until = known.good_until
            assert until <= now + 60
            handled._clock = lambda: until - 1
            known.believed_until = 0.0
            assert (await program.ask())[0] == 200, "as long as the site lets known ones go on"
            handled._clock = lambda: until
            await program.refused("store_unavailable")


async def test_log_out_elsewhere_at_the_provider_ends_no_night_job(site: Stand) -> None:
    """Back-channel logout by `sid`, the person's last session: it can't be told from Log Out at another application,
    and that doesn't end programs here either. By `sub` alone it would."""
    async with logged_in(site), Program(site, site.hubs["htc01"].gives(token(), "alice")) as program:
        wire = await socket_of(site, program)
        page = await told(site, signed(site, claims(site, sub=None)))
        assert page.status == 200, page
        assert "backchannel" in [line["outcome"] for line in audited(site, "session_end")]
        await wire.send_str("still there")
        assert (await wire.receive(timeout=60)).data == "still there"
        assert (await program.ask())[0] == 200


async def test_the_provider_is_asked_at_once_about_whom_it_has_ended_a_session_of(site: Stand) -> None:
    """An administrator there signs somebody out everywhere: of that, the provider tells of one session."""
    handled = of(site)
    asked: list[int] = []
    signed_out = False

    async def lets_in(_: str, *, since: int = 0) -> bool:
        asked.append(since)
        return not signed_out

    handled._lets_in = lets_in
    async with logged_in(site), Program(site, site.hubs["htc01"].gives(token(), "alice")) as program:
        wire = await socket_of(site, program)

        async def was_asked() -> bool:
            return bool(asked)

        await eventually(was_asked, within=60)
        (known,) = handled._programs.values()
        assert set(asked) == {known.live.session.proof.auth_time}
        signed_out = True
        page = await told(site, signed(site, claims(site, sub=None)))
        assert page.status == 200, page
        assert (await wire.receive(timeout=60)).type in ENDS
        await program.refused("token_owner_away")


async def test_who_was_signed_out_and_came_back_has_programs(site: Stand) -> None:
    """The answer is about the login of before: the one after it counts, and no other end is lost by that."""
    handled = of(site)
    asked, answered = asyncio.Event(), asyncio.Event()
    about: list[int] = []

    async def lets_in(_: str, *, since: int = 0) -> bool:
        about.append(since)
        if len(about) == 1:
            asked.set()
            await answered.wait()
        return len(about) > 1

    handled._lets_in = lets_in
    async with logged_in(site) as alice, Program(site, site.hubs["htc01"].gives(token(), "alice")) as program:
        assert (await program.ask())[0] == 200
        await asyncio.wait_for(asked.wait(), 60)
        await handled._standings.note(await alice_of(site), Proof("mfa", ("otp",), about[0] + 1))
        answered.set()

        async def asked_anew() -> bool:
            return about[-1] == about[0] + 1

        await eventually(asked_anew, within=60)
        assert (await program.ask())[0] == 200
        assert "owner_disabled" not in [line["outcome"] for line in audited(site)]
        assert (await alice.get(site.url + "/")).status == 200


async def alice_of(site: Stand) -> Identity:
    owner = await of(site)._usernames.owner("alice")
    assert owner is not None
    standing = await of(site)._standings.of(owner)
    assert standing is not None
    return standing.identity
