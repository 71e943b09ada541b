"""What can an operator say on the command line?

Each command is a function that returns an exit status. Sentences for people go to standard output, faults to standard
error; what runs for long logs as `logs` does.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from hubgate.config import Config, ConfigFaults, Fault, load
from hubgate.errors import OperatorFault, StoreFault
from hubgate.ops import garbage
from hubgate.ops.exits import Exit

_ENDS = """exit status:
  0  stopped as asked, or nothing to complain about
  1  the configuration has faults
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
    try:
        match arguments.command:
            case "serve":
                return _serve(arguments.config)
            case "check-config":
                return _check(arguments.config)
            case "new-secret":
                return _new_secret()
            case "users":
                return _release(arguments.config, arguments.username)
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
        ("serve", "serve the site until SIGTERM or SIGINT"),
        ("check-config", "tell every fault of a configuration at once, and start nothing"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")
    users = commands.add_parser("users", help="administer users").add_subparsers(required=True, metavar="COMMAND")
    meaning = "let the next person who logs in with a username own it, after its owner's account was deleted or renamed"
    command = users.add_parser("release", help=meaning, description=meaning, allow_abbrev=False)
    command.add_argument("username", metavar="NAME")
    command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, in TOML")
    meaning = "bring up a whole site on this machine: a login, hubs and the gateway"
    # Its own options, `--help` too, are its own business.
    commands.add_parser("demo", help=meaning, add_help=False)
    meaning = "print a key for gateway.secret_keys"
    commands.add_parser("new-secret", help=meaning, description=meaning)
    return parser


def _serve(path: str) -> int:
    config = load(path, further=[_store_address])
    garbage.while_starting()
    from hubgate.ops.server import serve  # noqa: PLC0415 - the other commands answer without loading a web server

    return serve(config)


def _check(path: str) -> int:
    config = load(path, further=[_store_address])
    print("ok")
    for line in _summary(config):
        print(line)
    for caution in config.cautions:
        print(f"caution: {caution}")
    return Exit.OK


def _new_secret() -> int:
    print(secrets.token_urlsafe(48))
    return Exit.OK


def _release(path: str, username: str) -> int:
    config = load(path, further=[_store_address])
    if asyncio.run(_released(config, username)):
        print(f"{username} is free: the next person who logs in with this name owns it.")
        return Exit.OK
    print(f"{username} belongs to nobody; nothing was changed.")
    return Exit.OK


async def _released(config: Config, username: str) -> bool:
    from hubgate.core.keyring import Keyring  # noqa: PLC0415 - see `_serve`
    from hubgate.store import open_store  # noqa: PLC0415
    from hubgate.web.usernames import Usernames  # noqa: PLC0415

    store = open_store(config.store.url.reveal(), ca=config.store.ca or None)
    try:
        return await Usernames(store, Keyring(config.keys)).release(username)
    finally:
        await store.close()


def _demo(arguments: Sequence[str]) -> int:
    from hubgate.ops.demo import main as demo  # noqa: PLC0415 - needs what only `pip install hubgate[demo]` brings

    return demo(arguments)


def _store_address(config: Config) -> Iterator[Fault]:
    """What `hubgate.store` has to say about its address; the configuration itself can't know it."""
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
