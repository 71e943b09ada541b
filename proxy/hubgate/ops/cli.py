"""What can an operator say on the command line?

Each command is a function that returns an exit status. Sentences for people go to standard output, faults to standard
error; what runs for long logs as `logs` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hubgate.errors import OperatorFault, StoreFault
from hubgate.ops import garbage, health
from hubgate.ops.exits import Exit

if TYPE_CHECKING:
    from hubgate.config import Config, Fault

_ENDS = """exit status:
  0  stopped as asked, or nothing to complain about
  1  the configuration has faults; `health`: the gateway is not well
  2  wrong command line
  3  could not start (an address is taken, no worker comes up)
  4  broken: a fault of hubgate itself
  128+N  ended at once by a second signal N
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "demo":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if arguments.command == "health":
        return _health(arguments.config, ready=arguments.ready)
    # Here, not above: it takes three times as long as all else that a health check loads.
    from hubgate.config import ConfigFaults  # noqa: PLC0415

    try:
        match arguments.command:
            case "serve":
                return _serve(arguments.config)
            case "check-config":
                return _check(arguments.config)
            case "new-secret":
                return _new_secret()
            case "sessions":
                return _sessions(_load(arguments.config), arguments)
            case "users":
                return _USERS[arguments.action].run(_load(arguments.config), arguments.username)
            case _:
                return _demo(rest)
    except ConfigFaults as faults:
        print(faults, file=sys.stderr)
        return Exit.CONFIG
    except (OperatorFault, StoreFault) as fault:
        print(f"hubgate: {fault.message or fault.code}", file=sys.stderr)
        return Exit.START
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hubgate",
        description="One address, one login and one second factor in front of a site's JupyterHubs.",
        epilog=_ENDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hubgate {version('hubgate')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, meaning in (
        ("serve", "serve the site until SIGTERM or SIGINT; SIGHUP: take over the configuration anew"),
        ("check-config", "tell every fault of a configuration at once, and start nothing"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")
    meaning = "ask the gateway that runs with this configuration how it is; exit status 0: it answers"
    command = commands.add_parser("health", help=meaning, description=meaning, allow_abbrev=False)
    command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")
    command.add_argument("--ready", action="store_true", help="0 only if it can take people on, too")
    users = commands.add_parser("users", help="administer users").add_subparsers(
        dest="action", required=True, metavar="COMMAND"
    )
    for name, order in _USERS.items():
        command = users.add_parser(name, help=order.meaning, description=order.meaning, allow_abbrev=False)
        command.add_argument("username", metavar="NAME")
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")
    _session_commands(commands.add_parser("sessions", help="list and end sessions"))
    meaning = "bring up a whole site on this machine: a login, hubs and the gateway"
    # Its own options, `--help` too, are its own business.
    commands.add_parser("demo", help=meaning, add_help=False)
    meaning = "print a key for gateway.secret_keys"
    commands.add_parser("new-secret", help=meaning, description=meaning)
    return parser


def _load(path: str) -> Config:
    from hubgate.config import load  # noqa: PLC0415 - see `main`

    return load(path, further=[_store_address])


def _serve(path: str) -> int:
    garbage.while_starting()
    from hubgate.ops.server import serve  # noqa: PLC0415 - the other commands answer without loading a web server

    return serve(lambda: _load(path))


def _check(path: str) -> int:
    config = _load(path)
    from hubgate.web.render import Pages  # noqa: PLC0415 - see `_serve`

    try:
        # A site's own templates and sentences are tried out.
        Pages(
            config.site(), config.portal, override=Path(config.gateway.templates) if config.gateway.templates else None
        )
    except OperatorFault as fault:
        print(f"{path}: {fault.message}", file=sys.stderr)
        return Exit.CONFIG
    print("ok")
    for line in _summary(config):
        print(line)
    for caution in config.cautions:
        print(f"caution: {caution}")
    return Exit.OK


def _health(path: str, *, ready: bool) -> int:
    try:
        well, found = health.look(health.listener(path))
    except OperatorFault as fault:
        print(fault.message, file=sys.stderr)
        return Exit.UNWELL
    print(found)
    return Exit.OK if well or not ready else Exit.UNWELL


def _new_secret() -> int:
    print(secrets.token_urlsafe(48))
    return Exit.OK


def _release(config: Config, username: str) -> int:
    from hubgate.ops import people  # noqa: PLC0415 - see `_serve`

    if asyncio.run(people.released(config, username)):
        print(f"{username} is free: the next person who logs in with this name owns it.")
        return Exit.OK
    print(f"{username} belongs to nobody; nothing was changed.")
    return Exit.OK


def _reset_otp(config: Config, username: str) -> int:
    from hubgate.ops import people  # noqa: PLC0415 - see `_serve`

    told = asyncio.run(people.otp_reset(config, username))
    if told is not None:
        print(f"The second factor of {username} is gone: the next login with their password sets up a new one.")
        if config.mfa.enrolment == "open":
            print(f"So that it can be nobody else's login: hubgate users enrolment-ticket {username}")
        if told:
            print(f"A letter to {told} says so.")
        elif config.mail is not None:
            print("No letter could be sent about it: tell them by yourself.", file=sys.stderr)
        return Exit.OK
    print(f"{username} has no second factor; nothing was changed.")
    return Exit.OK


def _enrolment_ticket(config: Config, username: str) -> int:
    from hubgate.ops import people  # noqa: PLC0415 - see `_serve`

    ticket, days = asyncio.run(people.ticket_issued(config, username))
    print(ticket)
    print(
        f"Give it to {username} in a way that only they can read. It is good once, for {days} days; until then they "
        "can't set up one-time codes without it.",
        file=sys.stderr,
    )
    return Exit.OK


def _session_commands(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    meaning = "tell who is logged in, since when, where from, and when they were last there"
    listing = actions.add_parser("list", help=meaning, description=meaning, allow_abbrev=False)
    listing.add_argument("--user", metavar="NAME", help="this user's alone")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, with all that is known")
    meaning = "end sessions at once, on every gateway, with everything that is open in them"
    ending = actions.add_parser("end", help=meaning, description=meaning, allow_abbrev=False)
    chosen = ending.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "--user", metavar="NAME", help="all of this user's and their programs, at Keycloak too where it is set"
    )
    chosen.add_argument("--id", metavar="ID", help="one, by its id in `sessions list` or the audit log")
    chosen.add_argument("--all", action="store_true", help="everybody's, and all programs")
    for command in (listing, ending):
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")


def _sessions(config: Config, arguments: argparse.Namespace) -> int:
    from hubgate.ops import sessions  # noqa: PLC0415 - see `_serve`

    if arguments.action == "list":
        rows = asyncio.run(sessions.listed(config, sessions.Choice(user=arguments.user)))
        for line in map(json.dumps, rows) if arguments.json else sessions.table(rows):
            print(line)
        return Exit.OK
    ended = asyncio.run(sessions.ended(config, sessions.Choice(user=arguments.user, id=arguments.id)))
    count, connections = ended.closed.sessions, ended.closed.connections
    if ended.programs:
        everybodys = "all programs, until their owners log in again."
        print("Ended:", everybodys if arguments.all else "their programs, until they log in again.")
    if not count:
        print("There is no such session" + ("." if ended.programs else "; nothing was changed."))
        return Exit.OK
    print(f"Ended: {count} session{'s'[: count != 1]}, {connections} open connection{'s'[: connections != 1]}.")
    if not ended.closed.complete:
        print("Not every gateway process has said what it closed.", file=sys.stderr)
    if not ended.provider:
        print("The identity provider did not confirm the end of its own sessions.", file=sys.stderr)
    return Exit.OK


class _Order(NamedTuple):
    """A command about one user."""

    meaning: str
    run: Callable[[Config, str], int]


_USERS = {
    "release": _Order(
        "let the next person who logs in with a username own it, after its owner's account was deleted or renamed",
        _release,
    ),
    "reset-otp": _Order(
        'mfa.mode "gateway": forget the second factor of somebody who has lost phone and recovery codes', _reset_otp
    ),
    "enrolment-ticket": _Order(
        'mfa.mode "gateway": print a ticket that somebody must show to set up their second factor', _enrolment_ticket
    ),
}


def _demo(arguments: Sequence[str]) -> int:
    from hubgate.ops.demo import main as demo  # noqa: PLC0415 - needs what only `pip install hubgate[demo]` brings

    return demo(arguments)


def _store_address(config: Config) -> Iterator[Fault]:
    """What `hubgate.store` has to say about its address; the configuration itself can't know it."""
    from hubgate.config import Fault  # noqa: PLC0415 - see `main`
    from hubgate.store.address import parse_address  # noqa: PLC0415 - `new-secret` needs no Redis

    url = config.store.url.reveal()
    try:
        if url != "memory://":
            parse_address(url)
    except OperatorFault as fault:
        why = fault.message.removeprefix("store.url is wrong: ")
        yield Fault("store.url", "an address that can't be read (not shown)", why)


def _summary(config: Config) -> list[str]:
    gateway, site = config.gateway, config.site()
    listen = ", ".join(map(str, gateway.listen))
    lines = [
        f"{site.public_url}: {gateway.workers} worker{'s' if gateway.workers > 1 else ''} on {listen}"
        f"{' with TLS' if config.tls else ''}, vitals on {gateway.ops_listen or 'no listener'}",
        f"logins at {config.oidc.issuer}, second factor: {config.mfa.mode}, store: {_store(config)}",
    ]
    for pool in site.pools:
        hubs = ", ".join(upstream.name for upstream in pool.upstreams)
        who = ", ".join(pool.groups) if pool.groups else "everyone"
        lines.append(f"pool {pool.name} at {site.origin(site.pool_host(pool))}{pool.path} for {who}: {hubs}")
    return lines


def _store(config: Config) -> str:
    return config.store.url.reveal().partition("://")[0]
