"""What is wrong with this hub's configuration, before the first person finds out?

One sentence for each thing: what is wrong, what comes of it, what to write instead. An error keeps people out or lets
the wrong ones in; a warning is something that the administrator may have meant.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import jupyterhub

from .assertion import HEADER
from .keys import fetcher, file_of

if TYPE_CHECKING:
    from .authenticator import HubgateAuthenticator

Complaint = tuple[int, str]
"""A level of `logging`, and a sentence."""

SAFE_JUPYTERHUB = (5, 5, 1)
"""The first 5.x with the fixes of GHSA-c4gm-pwx9-9w8j (sharing) and GHSA-69wv-m5fw-2fhp (filtered admin roles)."""


def complaints(authenticator: HubgateAuthenticator, app: Any) -> list[Complaint]:
    """What is wrong, as far as that can be said without asking anybody. `app`: the JupyterHub, or None."""
    if authenticator.trust_header_alone:
        found = _about_trust(authenticator)
    else:
        found = [*_about_gateway(authenticator), *_about_jwks(authenticator)]
    found += _about_people(authenticator)
    if app is not None:
        found += _about_app(app)
    return found


def _about_trust(authenticator: HubgateAuthenticator) -> list[Complaint]:
    header = authenticator.identity_header
    found = [
        (
            logging.WARNING,
            f"trust_header_alone: ANYBODY who reaches this hub's port, every notebook included, logs in as ANYBODY by "
            f"sending {header}; behind hubgate, take trust_header_alone out and set gateway_url and hub_name",
        )
    ]
    if authenticator.allowed_groups or authenticator.admin_groups:
        found.append(
            (
                logging.ERROR,
                "allowed_groups and admin_groups have no effect with trust_header_alone: no groups are sent",
            )
        )
    return found


def _about_gateway(authenticator: HubgateAuthenticator) -> list[Complaint]:
    found: list[Complaint] = []
    if not authenticator.issuer:
        found.append(
            (
                logging.ERROR,
                "gateway_url is missing, so nobody can log in: set c.HubgateAuthenticator.gateway_url to the gateway's "
                "public_url, as in https://jupyter.example.org",
            )
        )
    else:
        url = _split(authenticator.issuer)
        if url is None or url.scheme not in ("http", "https") or not url.hostname:
            found.append((logging.ERROR, f"gateway_url {authenticator.issuer!r} is not a URL like https://host"))
        elif url.path or url.query or url.fragment or url.username is not None:
            found.append(
                (
                    logging.ERROR,
                    f"gateway_url {authenticator.issuer!r} must be scheme and host alone, as the gateway's public_url "
                    "is: no assertion will name it as its issuer",
                )
            )
        elif url.scheme == "http" and not _is_loopback(url.hostname):
            found.append(
                (
                    logging.ERROR,
                    f"gateway_url {authenticator.issuer!r} is http: cookies and assertions can be read on the way; "
                    "use https",
                )
            )
    if not authenticator.hub_name:
        found.append(
            (
                logging.ERROR,
                "hub_name is missing, so nobody can log in: set c.HubgateAuthenticator.hub_name to the name that the "
                "gateway's configuration has for this hub",
            )
        )
    if authenticator.username_map:  # it works with trust_header_alone
        found.append(
            (logging.ERROR, "username_map has no effect: names are mapped at the gateway, [identity] map, for all hubs")
        )
    return found


def _about_jwks(authenticator: HubgateAuthenticator) -> list[Complaint]:
    location = authenticator.jwks
    if not location:
        return []
    try:
        fetcher(location)
    except ValueError as error:
        return [(logging.ERROR, f"jwks: {error}, so nobody can log in")]
    url = _split(location)
    if url is not None and url.scheme == "http" and not _is_loopback(url.hostname or ""):
        return [
            (
                logging.ERROR,
                f"jwks {location!r} is http: who can change what comes from there can log in as anybody; use https or "
                "a file",
            )
        ]
    if (url is None or url.scheme not in ("http", "https")) and not file_of(location).is_file():
        return [(logging.ERROR, f"jwks: there is no file {str(file_of(location))!r}")]
    return []


def _about_people(authenticator: HubgateAuthenticator) -> list[Complaint]:
    found: list[Complaint] = []
    if not authenticator.any_allow_config:
        found.append(
            (
                logging.ERROR,
                "nobody is allowed in: set allow_all = True (the gateway decides who may use this hub's pool), or "
                "allowed_groups, or allowed_users",
            )
        )
    if authenticator.identity_header.lower() in ("", HEADER.lower()):
        found.append((logging.ERROR, f"identity_header {authenticator.identity_header!r} can't name the user"))
    return found


def _about_app(app: Any) -> list[Complaint]:
    found: list[Complaint] = []
    if app.cookie_host_prefix_enabled:
        found.append(
            (
                logging.ERROR,
                "cookie_host_prefix_enabled puts all cookies on path /, where those of other pools overwrite them: "
                "set it to False",
            )
        )
    if app.proxy.should_start and _is_public(_split(app.bind_url)):
        found.append(
            (
                logging.WARNING,
                f"bind_url {app.bind_url!r} listens on public addresses: nobody but the gateways needs to reach it; "
                "bind the address that faces them, or use a firewall",
            )
        )
    if not app.trusted_downstream_ips:
        found.append(
            (
                logging.WARNING,
                "trusted_downstream_ips is empty, so the gateway's address counts as everybody's: set "
                "c.JupyterHub.trusted_downstream_ips to the addresses of the gateways",
            )
        )
    if jupyterhub.version_info[:3] < SAFE_JUPYTERHUB:
        found.append(
            (
                logging.WARNING,
                f"JupyterHub {jupyterhub.__version__} has known weaknesses in sharing and in filtered admin roles: "
                f"upgrade to {'.'.join(map(str, SAFE_JUPYTERHUB))} or later",
            )
        )
    return found


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed when asked for
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_public(url: SplitResult | None) -> bool:
    if url is None or url.scheme not in ("http", "https"):
        return False
    try:
        # No host: every address of the machine.
        address = ip_address(url.hostname or "0.0.0.0")  # noqa: S104 - this is what it is compared with
    except ValueError:
        return False
    return address.is_unspecified or address.is_global
