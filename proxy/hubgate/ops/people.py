"""What an administrator does about one person, from the command line, past any gateway that runs.

Everything goes through the store, so gateways see it with their next request. What was done about a second factor goes
to the audit log, with the account of the system that did it.
"""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from hubgate.audit import Audit, LineFile
from hubgate.config import Config
from hubgate.core.keyring import Keyring
from hubgate.errors import OperatorFault
from hubgate.mail import Post
from hubgate.store import open_store
from hubgate.store.base import Store
from hubgate.web.factors import Factors
from hubgate.web.letters import letters_of, mail_server
from hubgate.web.standings import Standings
from hubgate.web.tickets import LIFETIME, Tickets
from hubgate.web.usernames import Usernames


async def released(config: Config, username: str) -> bool:
    """Let the next person own a username, which ends the programs of the one before; whether anybody did. Raises
    StoreFault."""
    keyring = Keyring(config.keys)
    async with opened_store(config) as store:
        usernames = Usernames(store, keyring)
        owner = await usernames.owner(username)
        freed = await usernames.release(username)
        if owner is not None:
            await Standings(store, keyring, age=config.mfa.api_tokens_for).end(owner)
        return freed


async def otp_reset(config: Config, username: str) -> str | None:
    """Forget somebody's second factor. Answers the address that a letter about it went to, "" if none did; None: there
    was none to forget. Raises StoreFault, OperatorFault `not_our_factor`.
    """
    _demand_own_factor(config)
    keyring = Keyring(config.keys)
    async with opened_store(config) as store:
        owner = await Usernames(store, keyring).owner(username)
        address = None if owner is None else await Factors(store, keyring).reset(owner)
        if owner is not None:
            await Standings(store, keyring, age=config.mfa.api_tokens_for).end(owner)
    if address is None:
        return None
    with audit_log(config) as audit:
        audit.event("second_factor", "reset", user=username, by=operator())
    return address if address and await _told(config, username, address) else ""


async def _told(config: Config, username: str, address: str) -> bool:
    if config.mail is None:
        return False
    ends: list[str] = []
    async with Post(mail_server(config.mail), on_end=ends.append, pauses=(), farewell=30.0).kept() as post:
        letters_of(config, post.send).tell("reset", username, address)
    return ends == ["sent"]


async def ticket_issued(config: Config, username: str) -> tuple[str, int]:
    """A new enrolment ticket, and for how many days it is good. Raises StoreFault, OperatorFault `not_our_factor`."""
    _demand_own_factor(config)
    async with opened_store(config) as store:
        ticket = await Tickets(store, Keyring(config.keys), demanded=False).issue(username)
    with audit_log(config) as audit:
        audit.event("second_factor", "ticket_issued", user=username, by=operator())
    return ticket, int(LIFETIME // 86400)


@asynccontextmanager
async def opened_store(config: Config) -> AsyncIterator[Store]:
    """The configured store, for as long as a command takes."""
    store = open_store(config.store.url.reveal(), ca=config.store.ca or None)
    try:
        yield store
    finally:
        await store.close()


def _demand_own_factor(config: Config) -> None:
    if config.mfa.mode != "gateway":
        raise OperatorFault(
            "not_our_factor", f'mfa.mode is "{config.mfa.mode}": second factors are the identity provider\'s, not ours'
        )
    if config.store.url.reveal() == "memory://":
        raise OperatorFault("not_our_factor", "store.url is memory://: only the running gateway reaches its enrolments")


@contextmanager
def audit_log(config: Config) -> Iterator[Audit]:
    """Where security events go, the same as a gateway's."""
    lines = LineFile(config.log.audit)
    try:
        yield Audit(lines.write)
    finally:
        lines.close()


def operator() -> str:
    """The account of the system that runs this command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"  # an account without a name, in a container
