"""The embedded provider as a process of its own, for machines where no Keycloak can be had.

    python -m hubgate.ops.demo.embedded PORT [no-codes]

It has the demo realm's users and client. Development only, see ops/devidp.py.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from aiohttp import web

from hubgate.ops.demo import realm
from hubgate.ops.demo.child import Child, answers, free_ports
from hubgate.ops.devidp import DevIdp, DevUser


def issuer_at(port: int) -> str:
    """Its issuer's address, shaped as Keycloak's."""
    return f"http://127.0.0.1:{port}/realms/{realm.document()['realm']}"


def provider(port: int, *, second_factor: bool = True) -> DevIdp:
    """The demo realm as the embedded provider knows it."""
    document = realm.document()
    people = {
        name: DevUser(user.password, user.totp_key, user.groups, user.name, user.email, user.subject)
        for name, user in realm.users(document).items()
    }
    return DevIdp(people, *realm.client(document), issuer_at(port), second_factor=second_factor)


class EmbeddedProvider(Child):
    """The process. `issuer` is for `[oidc]`."""

    def __init__(self, folder: Path, *, port: int = 0, second_factor: bool = True) -> None:
        super().__init__("provider", log=folder / "provider.log")
        self.port = port or free_ports(1)[0]
        self.second_factor = second_factor

    @property
    def issuer(self) -> str:
        return issuer_at(self.port)

    def start(self) -> None:
        """Starts it; what it remembered before is gone."""
        self.launch([sys.executable, "-m", "hubgate.ops.demo.embedded", str(self.port), *_words(self.second_factor)])

    def ready(self, *, timeout: float = 30) -> None:
        """Returns when it answers with its discovery document."""
        url = f"{self.issuer}/.well-known/openid-configuration"
        self.wait_until(lambda: answers(url), timeout=timeout)


def _words(second_factor: bool) -> list[str]:
    return [] if second_factor else ["no-codes"]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(
        provider(int(sys.argv[1]), second_factor=len(sys.argv) < 3).app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
    )
