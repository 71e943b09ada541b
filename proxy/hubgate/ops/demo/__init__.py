"""`hubgate demo`: everything around the gateway, brought up for real on one machine.

    hubgate demo                 start it all; Ctrl-C ends it all
    hubgate demo code alice      a one-time code for one of its users, or for the key that an enrolment page shows

Its parts are nouns of their own (a Redis, a Keycloak, JupyterHubs, the gateway's process), and the tests are built on
the same ones. Nothing in here is for production: passwords and keys stand in the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, codes, hubs, realm
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.stand import POOLS, Stand

PORT = 8888


def main(argv: Sequence[str] | None = None) -> int:
    """`argv` is what follows `hubgate demo`. Gives the exit status: 0 after a Ctrl-C, 1 when something can't be had."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "code":
            return _code(" ".join(options.who))
        return _run(Stand(cache.root() / "demo" / str(options.port), options.port, options.provider, Progress()))
    except OperatorFault as fault:
        print(f"hubgate demo: {fault.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hubgate demo", description="Three JupyterHubs, Keycloak, Redis and the gateway on this machine."
    )
    parser.add_argument("--port", type=_port, default=PORT, help=f"where to open it in a browser (default {PORT})")
    parser.add_argument(
        "--provider",
        choices=("auto", "keycloak", "embedded"),
        default="auto",
        help="who people log in at; auto: a real Keycloak where it can be had, else the embedded provider",
    )
    commands = parser.add_subparsers(dest="command", metavar="{code}")
    code = commands.add_parser("code", help="a one-time code without a phone")
    code.add_argument("who", nargs="+", help="a user of the demo, or the key that an enrolment page shows")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1024 <= int(text) <= 65534):
        raise argparse.ArgumentTypeError(f"{text}: a port from 1024 to 65534")
    return int(text)


def _code(who: str) -> int:
    people = realm.users(realm.document())
    user = people.get(who)
    if user is not None and not user.totp_key:
        print(
            f"{who} has no codes yet: log in, and where the QR code is shown choose to type the key instead.\n"
            f"Then: {_ourselves()} demo code KEY",
            file=sys.stderr,
        )
        return 1
    now = time.time()
    try:
        code = codes.code(user.totp_key if user else who, now)
    except ValueError:
        named = ", ".join(name for name, each in people.items() if each.totp_key)
        print(f"{who} is neither a user with codes ({named}) nor a key as an enrolment page shows it", file=sys.stderr)
        return 1
    print(code)
    print(f"good for {codes.seconds_left(now)} s, and once", file=sys.stderr)
    return 0


def _run(stand: Stand) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    print("hubgate demo: bringing up its parts, the first time takes some minutes", file=sys.stderr)
    begun = time.monotonic()
    try:
        stand.run()
        stand.progress.say("all", f"ready, {time.monotonic() - begun:.0f} s in all\n")
        print(welcome(stand), flush=True)
        while True:
            part = stand.ended()
            if part is not None:
                raise OperatorFault("part_ended", f"{part.name} ended by itself, its log says:\n{part.tail()}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # ending is bounded in time, and not to be cut short
        stand.progress.say("all", "ending …")
        stand.stop()
        stand.progress.say("all", "ended, nothing is left running")


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def welcome(stand: Stand) -> str:
    """What somebody needs to know to use it; fits a terminal of 80 by 24."""
    people = realm.users(realm.document())
    lines = [f"The demo is at   {stand.url}", "", f"  {'user':<8}{'password':<14}{'pools':<12}one-time code"]
    command = _ourselves()
    for name, user in people.items():
        pools = ", ".join(
            each["section"] for each in POOLS.values() if not each["groups"] or {*each["groups"]} & {*user.groups}
        )
        code = f"{command} demo code {name}" if user.totp_key else "is set up at the first login"
        lines.append(f"  {name:<8}{user.password:<14}{pools:<12}{code}")
    behind = ", ".join(name for each in POOLS.values() for name in each["hubs"])
    return "\n".join(
        (
            *lines,
            "",
            "Codes without a phone: run the command above in another terminal. For bob, have",
            f"the key shown in place of the QR code, then: {command} demo code KEY",
            "",
            f"Behind it: {behind} (JupyterHub {hubs.NEWEST}), Redis {stand.redis_version},",
            f"  {stand.provider}",
            f"Its configuration: {_short(stand.config)}",
            f"Logs, notebooks:   {_short(stand.folder)}",
            "",
            "Ctrl-C ends all of it.",
        )
    )


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _ourselves() -> str:
    """How this program is called from here."""
    found = shutil.which("hubgate")
    beside = Path(sys.executable).with_name("hubgate")
    if found and Path(found) == beside:
        return "hubgate"
    return _short(beside)
