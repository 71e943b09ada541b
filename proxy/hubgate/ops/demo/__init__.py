"""`hubgate demo`: everything around the gateway, brought up for real on one machine.

    hubgate demo                 start it all; Ctrl-C ends it all
    hubgate demo code alice      a one-time code for one of its users, or for the key that an enrolment page shows
    hubgate demo qr alice        the QR code that puts a user's codes on a real phone

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
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import qrcode

from hubgate.core import totp
from hubgate.errors import HubgateFault, OperatorFault, StoreFault
from hubgate.ops.demo import cache, codes, hubs, phones, realm
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.stand import POOLS, Stand
from hubgate.ops.exits import Exit

PORT = 8800
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHORT = 8
"""Seconds in which nobody types a code: the next one is told, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """`argv` is what follows `hubgate demo`. Gives the exit status: 0 after a Ctrl-C, 3 when something can't be had or
    ended by itself, 128+N when signal N came before all was up.
    """
    options = _parser().parse_args(argv)
    folder = cache.root() / "demo" / str(options.port)
    try:
        if options.command is not None:
            key = _key(" ".join(options.who), folder / "hubgate.toml", options.port)
            return _code(key) if options.command == "code" else _qr(options.who[0], key)
        return _run(Stand(folder, options.port, options.provider, Progress(), factor=options.mfa, fresh=options.fresh))
    except HubgateFault as fault:
        print(f"hubgate demo: {fault.message or fault.code}", file=sys.stderr)
        return Exit.START


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hubgate demo",
        description="Three JupyterHubs, Keycloak, Redis and the gateway on this machine.",
        epilog="exit status: 0 ended by Ctrl-C; 2 wrong command line; 3 something can't be had, or ended by itself; "
        "128+N a signal N before all was up",
    )
    parser.add_argument("--port", type=_port, default=PORT, help=f"where to open it in a browser (default {PORT})")
    parser.add_argument(
        "--mfa",
        choices=("keycloak", "gateway"),
        default="keycloak",
        help="who asks for the one-time code after Keycloak's password: Keycloak as well, or hubgate itself",
    )
    parser.add_argument(
        "--provider",
        choices=("auto", "keycloak", "embedded"),
        default="auto",
        help="who people log in at; auto: a real Keycloak where it can be had, else the embedded provider",
    )
    parser.add_argument("--fresh", action="store_true", help="forget logins and phones of earlier runs")
    commands = parser.add_subparsers(dest="command", metavar="{code,qr}")
    for name, meaning, whose in (
        ("code", "a one-time code without a phone", "a user of the demo, or the key that an enrolment page shows"),
        ("qr", "put a user's one-time codes on a phone: the QR code, in this terminal", "a user of the demo"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        command.add_argument("who", nargs="+" if name == "code" else 1, help=whose)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1024 <= int(text) <= 65534):
        raise argparse.ArgumentTypeError(f"{text}: a port from 1024 to 65534")
    return int(text)


# -- one-time codes


def _key(who: str, config: Path, port: int) -> str:
    """The key of a user's one-time codes, or what was typed as one. OperatorFault for a user who has none."""
    user = realm.users(realm.document()).get(who)
    if user is None:
        return who
    running = _settings(config)
    if running.get("mfa", {}).get("mode") == "gateway":
        try:
            enrolled = phones.key(config, user.identity(running["oidc"]["issuer"]))
        except StoreFault as fault:
            if not user.totp_key:
                raise OperatorFault("demo_not_running", f"the demo on port {port} isn't running") from fault
        else:
            if not enrolled:
                raise OperatorFault("no_codes", f"{who} has no codes yet: log in, and set them up at the QR code")
            return enrolled
    elif not user.totp_key:
        raise OperatorFault(
            "no_codes",
            f"{who} has no phone yet, and what Keycloak gives one is Keycloak's secret. Log in, scan the QR code\n"
            f"there with a phone; or choose to type the key instead, then: {_ourselves(port)} code KEY",
        )
    return user.totp_key


def _settings(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text())
    except FileNotFoundError:
        return {}


def _code(key: str) -> int:
    now = time.time()
    try:
        code = codes.code(key, now)
    except ValueError as error:
        people = ", ".join(realm.users(realm.document()))
        raise OperatorFault(
            "no_key", f"{key} is neither a user of the demo ({people}) nor a key as an enrolment page shows it"
        ) from error
    left = codes.seconds_left(now)
    after = f", then {codes.code(key, now + left)}" if left < _SHORT else ""
    print(code, flush=True)
    print(f"good for {left} s, and once{after}", file=sys.stderr)
    return Exit.OK


def _qr(who: str, key: str) -> int:
    if who == key:
        raise OperatorFault("no_user", f"{who} is no user of the demo ({', '.join(realm.users(realm.document()))})")
    # On a screen there is no dirt to correct, and it has to fit 24 lines.
    picture = qrcode.QRCode(border=2, error_correction=qrcode.constants.ERROR_CORRECT_L)
    picture.add_data(totp.provisioning_uri(key, account=who, issuer="hubgate demo"))
    picture.print_ascii(tty=sys.stdout.isatty())
    print(f"Or type the key: {totp.in_fours(key)}")
    return Exit.OK


# -- the demo itself


def _run(stand: Stand) -> int:
    stand.demand_port()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    first = "" if stand.config.exists() else ", the first time takes a minute or two"
    stand.progress.say("all", f"bringing up hubs, Keycloak, Redis and the gateway{first}; Ctrl-C ends it")
    begun, ready = time.monotonic(), False
    try:
        stand.run()
        ready = True
        stand.progress.say("all", f"ready, {time.monotonic() - begun:.0f} s in all\n")
        print(welcome(stand), flush=True)
        while True:
            part = stand.ended()
            if part is not None:
                raise OperatorFault("part_ended", f"{part.name} ended by itself, its log says:\n{part.tail()}")
            time.sleep(0.5)
    except _Interrupted as interrupted:
        return Exit.OK if ready else 128 + interrupted.number
    finally:
        for number in _SIGNALS:  # ending takes a few seconds; whoever asks again can't wait
            signal.signal(number, lambda *_: stand.hurry())
        stand.progress.say("all", "ending …")
        stand.stop()
        stand.progress.say("all", "ended, nothing is left running")


class _Interrupted(BaseException):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, frame: object) -> NoReturn:
    raise _Interrupted(number)


def welcome(stand: Stand) -> str:
    """What somebody needs to know to use it; fits a terminal of 80 by 24."""
    people = realm.users(realm.document())
    command = _ourselves(stand.port)
    lines = [f"The demo is at  {stand.url}", "", f"  {'user':<7}{'password':<12}{'pools':<10}one-time code"]
    for name, user in people.items():
        pools = ", ".join(
            each["section"] for each in POOLS.values() if not each["groups"] or {*each["groups"]} & {*user.groups}
        )
        code = f"{command} code {name}" if user.totp_key else "shown a QR code at the first login"
        lines.append(f"  {name:<7}{user.password:<12}{pools:<10}{code}")
    lines += [
        "",
        "Run that command in another terminal; each code is good once. With a phone:",
        f"  {command} qr alice      for any authenticator app",
        "Bob without a phone: copy the key that is shown with his QR code, then",
        f"  {command} code {'bob' if stand.factor == 'gateway' else 'KEY'}",
        "",
    ]
    for name, each in POOLS.items():
        lines.append(f"  {each['section']} at /{name}/: {' and '.join(each['hubs'])} (JupyterHub {hubs.NEWEST})")
    asks, other = ("hubgate", "keycloak") if stand.factor == "gateway" else ("Keycloak", "gateway")
    return "\n".join(
        (
            *lines,
            f"  Login: {stand.provider}",
            f"  Codes: {asks} asks for them; the other way: make demo MFA={other}",
            f"  Configuration, logs, notebooks: {_short(stand.folder)}",
            "",
            "Ctrl-C ends all of it.",
        )
    )


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _ourselves(port: int) -> str:
    """How this program is called from here, for the demo on that port."""
    found = shutil.which("hubgate")
    beside = Path(sys.executable).with_name("hubgate")
    program = "hubgate" if found and Path(found) == beside else _short(beside)
    return f"{program} demo" if port == PORT else f"{program} demo --port {port}"
