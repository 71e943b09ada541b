"""The demo's realm: its users, groups, and the client that the gateway is.

`realm.json` is an ordinary Keycloak realm and the one source for all of it: the terminal's codes, the embedded provider
and the tests read the same users from it. It is also what a site may start its own realm from.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from hubgate.core.identity import Identity


@dataclass(frozen=True, slots=True)
class DemoUser:
    """`totp_key` is the base32 key of the one-time codes, empty for somebody who has to enrol first;
    `subject` what the provider calls them, where the realm says so.
    """

    username: str
    password: str
    name: str
    email: str
    groups: tuple[str, ...]
    totp_key: str
    subject: str = ""

    def identity(self, issuer: str) -> Identity:
        """Who that is for a gateway whose issuer has imported this realm."""
        return Identity(issuer=issuer, subject=self.subject, username=self.username)

    def __repr__(self) -> str:
        return f"<{self.username}>"


def document() -> dict[str, Any]:
    """A fresh copy of the realm as it is imported."""
    text = files("hubgate.ops.demo").joinpath("realm.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def for_addresses(public_urls: Sequence[str], *, second_factor: bool = True) -> dict[str, Any]:
    """The realm with a client that may return to these addresses and no other.

    Without `second_factor` it asks for the password alone, by Keycloak's own flow, and knows nobody's phone.
    """
    realm = document()
    if not second_factor:
        del realm["browserFlow"]
        for user in realm["users"]:
            user["credentials"] = [each for each in user.get("credentials", ()) if each["type"] != "otp"]
    client = realm["clients"][0]
    client["redirectUris"] = [f"{url}/_hubgate/callback" for url in public_urls]
    client["attributes"]["backchannel.logout.url"] = f"{public_urls[0]}/_hubgate/backchannel-logout"
    client["attributes"]["backchannel.logout.session.required"] = "true"
    client["attributes"]["post.logout.redirect.uris"] = "##".join(f"{url}/*" for url in public_urls)
    return realm


def users(realm: dict[str, Any]) -> dict[str, DemoUser]:
    """The people in it, by user name."""
    people = [entry for entry in realm["users"] if "serviceAccountClientId" not in entry]
    return {entry["username"]: _user(entry) for entry in people}


def client(realm: dict[str, Any]) -> tuple[str, str]:
    """Id and secret of the gateway's client."""
    entry = realm["clients"][0]
    return entry["clientId"], entry["secret"]


def totp_credential(raw_key: str) -> dict[str, str]:
    """A Keycloak credential for one-time codes from `raw_key` (the bytes of the key, as text)."""
    parameters = {"subType": "totp", "digits": 6, "counter": 0, "period": 30, "algorithm": "HmacSHA1"}
    return {
        "type": "otp",
        "userLabel": "demo",
        "secretData": json.dumps({"value": raw_key}),
        "credentialData": json.dumps(parameters),
    }


def base32_key(raw_key: str) -> str:
    """The key as authenticator apps show it."""
    return base64.b32encode(raw_key.encode()).decode().rstrip("=")


def _user(entry: dict[str, Any]) -> DemoUser:
    credentials = {credential["type"]: credential for credential in entry["credentials"]}
    otp = credentials.get("otp")
    return DemoUser(
        username=entry["username"],
        password=credentials["password"]["value"],
        name=f"{entry['firstName']} {entry['lastName']}",
        email=entry["email"],
        groups=tuple(entry["groups"]),
        totp_key=base32_key(json.loads(otp["secretData"])["value"]) if otp else "",
        subject=entry.get("id", ""),
    )
