"""Whose cookie is this?

Three kinds come in one header field: ours, which never leave the gateway; the hubs', which say who somebody is there
and must not outlive a change of user at the gateway; and everybody else's. Ours are taken out. The hubs' carry a tag on
their way through browsers, a MAC over user, name and value: a hub cookie that was not issued to this very user is not
sent on, so it is the gateway that binds hub cookies to an identity (JupyterHub's own check is throttled, so it is none).

JupyterHub 6.1 sets `jupyterhub-hub-login` at `<base>hub/`, `jupyterhub-session-id` at `<base>`,
`jupyterhub-user-NAME[-SERVER]` (name percent-encoded) and the same with `-oauth-state[-random]` at the server's path,
`service-NAME` likewise at a service's path, once `jupyterhub-services`; `_xsrf` at `<base>hub/` and each server's path.
The last one is read by scripts and says nothing about a user, so it stays as it is.

Parsed by hand: `http.cookies` takes 16 µs for three cookies, drops whole headers, and reads quotes that RFC 6265 has not.
Knows nothing about sessions, nor about what the values mean.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

_OWN_NAMES = ("hubgate", "__Host-hubgate")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_OWN = re.compile(rb"(?:__(?:host|secure)-)?hubgate(?:-.*)?", re.IGNORECASE | re.DOTALL)
_HUB_PREFIXES = (b"jupyterhub-", b"service-", b"__Host-jupyterhub-", b"__Host-service-")
_PRINTABLE = re.compile(rb"[!-~]+")
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")
_TAG_BYTES = 16
_TAG = 22
"""Length of a tag in a cookie: 16 bytes in base64url, no padding."""
_MEMO = 16_384


def is_own_cookie(name: bytes) -> bool:
    """Whether a cookie name is ours, with any prefix that browsers treat in a special way (RFC 6265bis, 4.1.3)."""
    return _OWN.fullmatch(name) is not None


class RequestCookies(NamedTuple):
    """A Cookie field, sorted by owner.

    `session`: each value of the session cookie; more than one means that somebody else set one of them. `own`: our
    other cookies by full name; a name that came with several values isn't in here. `rest`: name and value of all others
    in their order, duplicates included.
    """

    session: tuple[str, ...]
    own: Mapping[str, str]
    rest: tuple[tuple[bytes, bytes], ...]


_NO_COOKIES = RequestCookies((), _NOTHING, ())


def parse_cookies(header: bytes | None, session_cookie: str) -> RequestCookies:
    """Sort a Cookie field (RFC 6265bis, 5.7.3) by owner. `session_cookie`: Site.cookie.

    Cookies without a name and names with anything but printable ASCII are dropped: Tornado strips more kinds of blanks
    than a browser does, so that such a name could turn into another one behind us.
    """
    raise NotImplementedError


class HubCookieTags:
    """Tags for hub cookies. `mac`: message to MAC; `matches`: message and truncated MAC to whether any key made it."""

    def __init__(self, mac: Callable[[bytes], bytes], matches: Callable[[bytes, bytes], bool]) -> None:
        self._mac = mac
        self._matches = matches

    def outgoing(self, set_cookie_value: bytes, *, user_key: str) -> bytes:
        """The value of a Set-Cookie field with the tag in it, if it is a hub's; else as it was."""
        raise NotImplementedError

    def incoming(self, rest: Sequence[tuple[bytes, bytes]], *, user_key: str) -> bytes:
        """A Cookie field value for the hub, empty if nothing is left: tags checked and taken off, and hub cookies
        without one, or with that of another user, left out."""
        raise NotImplementedError


def set_cookie(
    name: str,
    value: str,
    *,
    secure: bool,
    max_age: int | None = None,
    http_only: bool = True,
    same_site: str = "Lax",
    path: str = "/",
) -> str:
    """The value of a Set-Cookie field. `max_age`: seconds, None for as long as the browser runs.

    Raises ValueError for a value that a cookie can't hold as it is (RFC 6265, cookie-octet).
    """
    raise NotImplementedError


def expire_cookie(name: str, *, secure: bool, path: str = "/") -> str:
    """The value of a Set-Cookie field that removes a cookie."""
    raise NotImplementedError


def hub_cookie_expiries(pool_path: str, username: str, *, secure: bool) -> list[str]:
    """Set-Cookie values that remove what JupyterHub below `pool_path` has set for `username` (module docstring).

    Cookies of named servers and services can't be known here; without their tag's user they are worth nothing.
    """
    raise NotImplementedError
