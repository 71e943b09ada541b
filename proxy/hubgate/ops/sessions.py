"""Who is logged in, and how does an administrator end that? `hubgate sessions`, past any gateway that runs.

What is listed lies in the store, where presence is noted about once a minute. What is ended is gone for every gateway
within a second, and each session that ends has a line in the audit log with the account of the system that did it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from hubgate.app import hub_apis
from hubgate.audit import Audit, timestamp
from hubgate.config import Config
from hubgate.core.keyring import Keyring
from hubgate.errors import OperatorFault, ProviderFault
from hubgate.idp.client import OIDCClient
from hubgate.idp.keycloak import KeycloakAdmin
from hubgate.ops.people import audit_log, opened_store, operator
from hubgate.web.account import seat
from hubgate.web.affinity import Bindings
from hubgate.web.endings import Ended, Endings
from hubgate.web.sessions import Closed, Found, Sessions
from hubgate.web.standings import Standings
from hubgate.web.usernames import Usernames

_PATIENCE = 30.0  # seconds for the provider and the hubs, which an administrator would rather wait for


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions: those of a user, the one with this id, or (neither of them) all."""

    user: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """The sessions of a site, opened by `directory`."""

    config: Config
    sessions: Sessions
    usernames: Usernames
    bindings: Bindings
    standings: Standings

    async def chosen(self, choice: Choice) -> list[Found]:
        """The sessions that are meant, the oldest first. Raises StoreFault."""
        if choice.user is not None and (owner := await self.usernames.owner(choice.user)) is not None:
            return await self.sessions.of(owner)
        everybodys = await self.sessions.everybodys()
        if choice.user is not None:
            return [found for found in everybodys if found.session.identity.username == choice.user]
        return [found for found in everybodys if choice.id in {None, found.session.handle}]


@asynccontextmanager
async def directory(config: Config) -> AsyncIterator[Directory]:
    """The site's sessions in the store. Raises OperatorFault `not_our_store` for one in a gateway's memory."""
    if config.store.url.reveal() == "memory://":
        raise OperatorFault("not_our_store", "store.url is memory://: only the running gateway knows its sessions")
    keyring = Keyring(config.keys)
    async with opened_store(config) as store:
        sessions = Sessions(store, keyring, config.session_limits(), host=config.site().host)
        bindings = Bindings(
            store,
            keyring,
            config.site().pools,
            lifetime=config.affinity.lifetime,
            move_after=config.health.move_after,
            candidates=lambda _: (),  # nobody is placed from here
        )
        standings = Standings(store, keyring, age=config.mfa.api_tokens_for)
        yield Directory(config, sessions, Usernames(store, keyring), bindings, standings)


async def listed(config: Config, choice: Choice) -> list[dict[str, Any]]:
    """Facts about sessions that live, as JSON has them. Raises StoreFault."""
    site = config.site()
    async with directory(config) as opened:
        found = [each.session for each in await opened.chosen(choice) if opened.sessions.is_live(each.session)]
    rows = []
    for session in found:
        told = seat(session, site)
        rows.append(
            {
                "id": session.handle,
                "user": session.identity.username,
                "since": timestamp(session.created),
                "last_seen": timestamp(session.last_seen),
                "address": session.address,
                "browser": told.browser,
                "system": told.system,
                "pools": [pool.name for pool in told.pools],
                "hubs": [hub for hub, _ in session.hubs],
                "factor": " ".join(session.proof.amr) or session.proof.acr,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines for people, with a heading; of times, the minutes."""
    heading = ("ID", "USER", "SINCE (UTC)", "LAST SEEN", "ADDRESS", "BROWSER", "POOLS")
    lines = [
        (
            row["id"],
            row["user"],
            *(row[key][:16].replace("T", " ") for key in ("since", "last_seen")),
            row["address"],
            ", ".join(filter(None, (row["browser"], row["system"]))) or "-",
            ", ".join(row["pools"]) or "-",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heading, *lines, strict=True)]
    for line in (heading, *lines):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


async def ended(config: Config, choice: Choice) -> Ended:
    """End sessions, with all that hangs on them; of a user, or of all, programs too, whoever is logged in; of a user at
    Keycloak also the sessions that hubgate knows nothing of.

    Raises StoreFault: nothing can be said about what goes on.
    """
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(directory(config))
        audit = stack.enter_context(audit_log(config))
        found = await opened.chosen(choice)
        programs = await _programs_ended(opened, choice, audit)
        if not found:
            return Ended((), Closed(0), provider=True, programs=programs)
        provider = await stack.enter_async_context(OIDCClient(config.oidc, config.mfa))
        endings = await stack.enter_async_context(
            Endings(
                opened.sessions,
                live=None,
                bindings=opened.bindings,
                provider=provider,
                hubs=await stack.enter_async_context(hub_apis(config)),
                stop_servers=config.session.stop_servers,
                patience=_PATIENCE,
            )
        )
        done = await endings.end(found)
        for each in done.sessions:
            session = each.session
            audit.event("session_end", "admin", user=session.identity.username, session=session.handle, by=operator())
        if choice.user is not None and config.keycloak is not None:
            admin = KeycloakAdmin(config.oidc, config.keycloak, config.mfa)
            done = replace(done, provider=await _ended_at_keycloak(admin, found))
    return replace(done, programs=programs)


async def _programs_ended(opened: Directory, choice: Choice, audit: Audit) -> bool:
    """Whether there may have been any."""
    if choice.user is not None:
        owner = await opened.usernames.owner(choice.user)
        found = owner is not None and await opened.standings.end(owner)
        if found:
            audit.event("api_token", "owner_ended", user=choice.user, by=operator())
        return found
    if choice.id is not None or not any(pool.api_tokens for pool in opened.config.site().pools):
        return False
    await opened.standings.end_all()
    audit.event("api_token", "all_ended", by=operator())
    return True


async def _ended_at_keycloak(admin: KeycloakAdmin, found: Sequence[Found]) -> bool:
    try:
        for subject in {each.session.identity.subject for each in found}:
            await admin.end_sessions(subject)
    except ProviderFault:
        return False
    return True
