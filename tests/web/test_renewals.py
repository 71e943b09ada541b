"""Tokens are renewed once, whoever notices, and what comes of the answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from hubgate.audit import Audit
from hubgate.core.identity import Identity
from hubgate.core.session import Session
from hubgate.errors import ClientFault, ProviderFault, StoreFault
from hubgate.idp.client import TokenSet
from hubgate.store.memory import MemoryStore
from hubgate.upstream.hubapi import HubApis
from hubgate.web import renewals
from hubgate.web.affinity import Bindings
from hubgate.web.endings import Endings
from hubgate.web.renewals import Renewals
from hubgate.web.sessions import Found, Sessions, user_key
from tests.kit.background import eventually
from tests.web.people import HOST, KEYRING, LIMITS, PROOF, Clock, person


class Rotating:
    """A provider that takes each refresh token once, and a second use for theft."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.good = "first"
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.claims: Mapping[str, object] | None = {"groups": ["atlas"]}

    async def refresh(self, refresh_token: str, *, subject: str = "") -> tuple[TokenSet, Mapping[str, object] | None]:
        assert subject == "subject-alice"
        self.asked.append(refresh_token)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if refresh_token != self.good:
            raise ProviderFault("refresh_refused", status=401)
        self.good = secrets.token_hex(4)
        return TokenSet("id", "access", self.good, int(self.clock()) + 300, ""), self.claims

    async def end_session(self, refresh_token: str) -> bool:
        self.ended.append(refresh_token)
        return True


class Site:
    """One store, and several workers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = MemoryStore()
        self.provider = Rotating(clock)
        self.lines: list[bytes] = []
        self.sessions = Sessions(self.store, KEYRING, LIMITS, host=HOST, clock=clock)
        self.workers: list[Renewals] = []

    def judge(self, claims: Mapping[str, object]) -> Identity:
        groups = claims["groups"]
        assert isinstance(groups, list)
        if "banned" in groups:
            raise ClientFault("login_not_allowed", status=403)
        return replace(person(), username="renamed", name="New Name", groups=tuple(groups))

    async def begun(
        self, *, provider_sid: str = "", refresh_token: str = "first", renew_at: float | None = None
    ) -> Found:
        _, found = await self.sessions.create(
            person(),
            PROOF,
            provider_sid=provider_sid,
            id_token="",
            refresh_token=refresh_token,
            address="",
            user_agent="",
            renew_at=self.clock() - 1 if renew_at is None else renew_at,
        )
        return found

    async def provider_is_asked(self) -> None:
        async with asyncio.timeout(60):
            while not self.provider.asked:
                await asyncio.sleep(0.01)

    async def all_notice(self, found: Found) -> None:
        for worker in self.workers:
            for _ in range(50):
                worker.begin(found)
        async with asyncio.timeout(60):
            while any(worker._running for worker in self.workers):
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(clock: Clock) -> AsyncIterator[Site]:
    made = Site(clock)
    async with AsyncExitStack() as stack:
        bindings = Bindings(
            made.store, KEYRING, (), lifetime=60.0, move_after=60.0, candidates=lambda _: (), clock=clock
        )
        for _ in range(2):
            endings = await stack.enter_async_context(
                Endings(made.sessions, live=None, bindings=bindings, provider=made.provider, hubs=HubApis(()))  # type: ignore[arg-type]  # as far as it is asked
            )
            made.workers.append(
                await stack.enter_async_context(
                    Renewals(
                        sessions=made.sessions,
                        store=made.store,
                        provider=made.provider,
                        endings=endings,
                        judge=made.judge,
                        audit=Audit(made.lines.append),
                        clock=clock,
                    )
                )
            )
        yield made
    await made.store.close()


async def test_of_one_that_is_in_doubt_the_provider_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing is due; who is still welcome there goes on."""
    monkeypatch.setattr(renewals, "_IN_DOUBT", (0.0,))
    found = await site.begun()
    await site.sessions.renewed(found.key, lambda session: replace(session, renew_at=site.clock() + 600))

    async def in_doubt() -> None:
        for worker in site.workers:
            worker.doubt(user_key(person()))
        async with asyncio.timeout(60):
            while any(worker._running or worker._doubts for worker in site.workers):
                await asyncio.sleep(0.01)

    await in_doubt()
    still = await site.sessions.get(found.key)
    assert still is not None
    assert still.session.refresh_token == site.provider.good != "first"
    site.provider.good = "void"
    await in_doubt()
    assert await site.sessions.get(found.key) is None
    assert b"tokens_refused" in b"".join(site.lines)


async def test_two_workers_notice_a_hundred_times_and_one_asks_once(site: Site) -> None:
    found = await site.begun()
    await site.all_notice(found)
    assert site.provider.asked == ["first"]
    renewed = await site.sessions.get(found.key)
    assert renewed is not None
    assert renewed.session.refresh_token == site.provider.good
    assert renewed.session.renew_at == int(site.clock()) + 240
    await site.all_notice(found)
    assert len(site.provider.asked) == 1, "who comes late looks again"


async def test_who_gets_the_lease_late_looks_again(site: Site) -> None:
    found = await site.begun()
    site.provider.gate.clear()
    first, second = site.workers
    first.begin(found)
    await site.provider_is_asked()
    second.begin(found)
    async with asyncio.timeout(60):
        while second._running:  # somebody is at it: nobody waits
            await asyncio.sleep(0.01)
    site.provider.gate.set()
    await site.all_notice(found)
    assert len(site.provider.asked) == 1


async def test_a_lease_is_renewed_while_the_provider_thinks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the next worker would show the same token while the first one's is still being looked at."""
    monkeypatch.setattr(renewals, "_RENEW_LEASE", 0.01)
    touched: list[str] = []
    touch = site.store.touch

    async def counted(key: str, *, ttl: float) -> bool:
        touched.append(key)
        return await touch(key, ttl=ttl)

    monkeypatch.setattr(site.store, "touch", counted)
    found = await site.begun()
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await eventually(lambda: _long_enough(touched), within=60, every=0.01, what="a lease that is held")
    assert set(touched) == {f"renewing:{found.key}"}
    site.provider.gate.set()
    await site.all_notice(found)
    assert site.provider.asked == ["first"]


async def _long_enough(touched: list[str]) -> bool:
    return len(touched) >= 3


async def test_presence_that_was_noted_meanwhile_is_kept_and_the_name_as_well(site: Site) -> None:
    found = await site.begun()
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await site.provider_is_asked()
    await site.sessions.note([(found.key, replace(found.session, last_seen=site.clock() + 7).visited("htc01"))])
    site.provider.claims = {"groups": ["cms"]}
    site.provider.gate.set()
    await site.all_notice(found)
    renewed = await site.sessions.get(found.key)
    assert renewed is not None
    assert renewed.session.last_seen == site.clock() + 7
    assert renewed.session.hubs == (("htc01", ""),)
    identity = renewed.session.identity
    assert (identity.username, identity.name, identity.groups) == ("alice", "New Name", ("cms",))


@pytest.mark.parametrize("code", ["provider_unavailable", "provider_error", "id_token_refused"])
async def test_a_provider_that_fails_ends_nothing_and_is_left_alone_for_a_while(site: Site, code: str) -> None:
    found = await site.begun()
    site.provider.fault = ProviderFault(code, status=503)
    await site.all_notice(found)
    await site.all_notice(found)
    assert len(site.provider.asked) == 1
    assert await site.sessions.get(found.key) == found
    assert not site.lines


REFUSALS: dict[str, Callable[[Site], None]] = {
    "refused": lambda site: setattr(site.provider, "good", "another"),
    "not admitted": lambda site: setattr(site.provider, "claims", {"groups": ["banned"]}),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_renewal_ends_the_session(site: Site, refusal: str) -> None:
    found = await site.begun()
    REFUSALS[refusal](site)
    await site.all_notice(found)
    assert await site.sessions.get(found.key) is None
    (line,) = site.lines
    assert b'"event": "session_end", "outcome": "tokens_refused", "user": "alice"' in line
    assert len(site.provider.asked) == 1
    # Whoever may not be here any more is to be let in by no single sign-on either: with the token that is good now.
    assert site.provider.ended == ([site.provider.good] if refusal == "not admitted" else [])


async def test_a_refusal_of_a_token_that_is_nobodys_any_more_ends_nothing(site: Site) -> None:
    found = await site.begun()
    site.provider.good = "another"
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await site.provider_is_asked()
    await site.sessions.renewed(found.key, _renewed_elsewhere)
    site.provider.gate.set()
    await site.all_notice(found)
    assert await site.sessions.get(found.key) is not None
    assert not site.lines


def _renewed_elsewhere(session: Session) -> Session:
    return replace(session, refresh_token="second", renew_at=session.renew_at + 300)


async def test_a_session_that_ended_meanwhile_leaves_no_token_behind(site: Site) -> None:
    found = await site.begun()
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await site.provider_is_asked()
    await site.sessions.end([found.key])
    site.provider.gate.set()
    await site.all_notice(found)
    assert await site.sessions.get(found.key) is None
    assert site.provider.ended == [site.provider.good]


async def test_a_second_factor_that_is_shown_anew_amid_a_renewal_logs_nobody_out(site: Site) -> None:
    """The session goes on under another name, with the token that is just being used: the new one is its, and the
    provider's session is not ended under it."""
    found = await site.begun()
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await site.provider_is_asked()
    heir = await site.begun(renew_at=0.0)
    assert await site.sessions.take(found.key) is not None
    await site.sessions.end([found.key])
    site.provider.gate.set()
    await site.all_notice(found)
    renewed = await site.sessions.get(heir.key)
    assert renewed is not None
    assert renewed.session.refresh_token == site.provider.good
    assert renewed.session.renew_at > site.clock()
    assert site.provider.ended == []


async def test_a_login_amid_a_renewal_keeps_its_session_at_the_provider(site: Site) -> None:
    """The same when the provider was asked again, and gave tokens of their own: one session there, and one here."""
    found = await site.begun(provider_sid="one")
    site.provider.gate.clear()
    site.workers[0].begin(found)
    await site.provider_is_asked()
    heir = await site.begun(provider_sid="one", refresh_token="another", renew_at=0.0)
    await site.sessions.end([found.key])
    site.provider.gate.set()
    await site.all_notice(found)
    assert await site.sessions.get(heir.key) == heir
    assert site.provider.ended == []


async def test_new_tokens_are_written_as_soon_as_the_store_takes_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await site.begun()
    replaced, failures = site.store.replace, 3

    async def failing(*args: object, **options: object) -> bool:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreFault("store_unreachable")
        return await replaced(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(site.store, "replace", failing)
    await site.all_notice(found)
    assert site.provider.asked == ["first"], "the first token is void: the new one must not be lost"
    renewed = await site.sessions.get(found.key)
    assert renewed is not None
    assert renewed.session.refresh_token == site.provider.good
