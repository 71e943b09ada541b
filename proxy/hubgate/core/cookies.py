"""Whose cookie is this?

Three kinds come in one header field: ours, which never leave the gateway; the hubs', which say who somebody is there
and must not outlive a change of user at the gateway; and everybody else's. Ours are taken out. The hubs' carry a tag
on their way through browsers, a MAC over user, name and value: a hub cookie that was not issued to this very user is
not sent on, so it is the gateway that binds hub cookies to an identity (the hub's own check is throttled per user). And
the browser is told to drop it: whoever sat there before may have left without a word.

JupyterHub 6.1 sets `jupyterhub-hub-login` at `<base>hub/`, `jupyterhub-session-id` at `<base>`,
`jupyterhub-user-NAME[-SERVER]` (name percent-encoded) and the same with `-oauth-state[-random]` at the server's path,
`service-NAME` likewise at a service's path, once `jupyterhub-services`; `_xsrf` at `<base>hub/` and each server's path.
The last one is read by scripts and says nothing about a user, so it stays as it is.

Parsed by hand: `http.cookies` takes 16 us for three cookies, and reads quotes that RFC 6265 doesn't know.
Knows nothing about sessions, nor about what the values mean.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

from hubgate.errors import ClientFault

_OWN_NAMES = (b"hubgate", b"__Host-hubgate")
_OWN_FAMILIES = (b"hubgate-", b"__Host-hubgate-")
# `__Host-` is what `cookie_host_prefix_enabled` puts in front; not recommended behind hubgate, but possible.
_OF_HUBS = (b"jupyterhub-", b"service-", b"__Host-jupyterhub-", b"__Host-service-")
_OF_THE_HUB_ALONE = frozenset({b"jupyterhub-hub-login", b"jupyterhub-session-id"})
_PRINTABLE = re.compile(rb"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OCTETS = re.compile(r"[!#-+\--:<-\[\]-~]*")
_TAG_BYTES: Final = 16
# 16 bytes as base64url without padding. Looked at before decoding, since Python's decoder skips what it doesn't know.
_TAGGED = re.compile(rb"([A-Za-z0-9_-]{22})\.(.+)", re.DOTALL)
_MEMO: Final = 8192
_LARGEST: Final = 32 * 1024
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NONE: frozenset[bytes] = frozenset()
_MOST_EXPIRED: Final = 8  # names in one answer: the next one has the next
_DEEPEST: Final = 3  # folders below a pool's path: user/NAME/SERVER/


def is_own_cookie(name: bytes) -> bool:
    """Whether a cookie name is one of ours, with or without the prefix that https gives it."""
    return name in _OWN_NAMES or name.startswith(_OWN_FAMILIES)


def may_set(set_cookie: bytes) -> bool:
    """Whether anybody but us may set this cookie (the value of a Set-Cookie field).

    Not if it is ours. Nor without a name: browsers send its value as it is, so that `=hubgate=…` comes back as ours.
    """
    name, equals, _ = set_cookie.partition(b";")[0].partition(b"=")
    name = name.strip()
    return bool(equals and name) and not is_own_cookie(name)


class RequestCookies(NamedTuple):
    """A Cookie field, sorted by owner.

    `session`: each value of the session cookie; several mean that somebody else has set one of them. `own`: our other
    cookies by full name, without those that came with different values. `rest`: name and value of all others in their
    order, duplicates included.
    """

    session: tuple[str, ...]
    own: Mapping[str, str]
    rest: tuple[tuple[bytes, bytes], ...]

    def __repr__(self) -> str:
        return f"RequestCookies({len(self.session)} session, {len(self.own)} own, {len(self.rest)} others)"


_NO_COOKIES = RequestCookies((), _NOTHING, ())


def parse_cookies(header: bytes | str | None, session_cookie: str) -> RequestCookies:
    """Sort a Cookie field (RFC 6265bis, 5.8.3; several of them joined by `; `) by owner.

    `session_cookie`: `Site.cookie`. Cookies without a name, and names with anything but printable ASCII, are dropped:
    Tornado strips more kinds of blanks than browsers do, so that such a name could turn into another one behind us.

    Raises ClientFault `headers_too_large`, 431, above 32 KiB: twice what Node.js takes of a whole head, and what is
    looked at here is looked at before anybody is known.
    """
    if not header:
        return _NO_COOKIES
    if len(header) > _LARGEST:
        raise ClientFault("headers_too_large", "more cookies than any hub takes", status=431)
    if isinstance(header, str):
        header = header.encode("utf-8", "surrogateescape")
    session: list[str] = []
    own: dict[str, set[str]] | None = None
    rest: list[tuple[bytes, bytes]] = []
    for part in header.split(b";"):
        name, equals, value = part.partition(b"=")
        name = name.strip(b" \t")
        if not equals or _PRINTABLE.fullmatch(name) is None:
            continue
        value = value.strip(b" \t")
        if not name.startswith(_OWN_NAMES) or not is_own_cookie(name):
            rest.append((name, value))
        elif (full := name.decode("ascii")) == session_cookie:
            session.append(value.decode("latin-1"))
        else:
            own = {} if own is None else own
            own.setdefault(full, set()).add(value.decode("latin-1"))
    if own is None:
        return RequestCookies(tuple(session), _NOTHING, tuple(rest))
    undisputed = {full: values.pop() for full, values in own.items() if len(values) == 1}
    return RequestCookies(tuple(session), undisputed, tuple(rest))


class Passed(NamedTuple):
    """What became of somebody's cookies. `field`: the Cookie field for a hub, empty if nothing is left. `foreign`: the
    hub cookies, by name, that came with nothing but what isn't this user's."""

    field: bytes
    foreign: frozenset[bytes]


class HubCookieTags:
    """Tags for hub cookies.

    `mac`: message to 16 or more bytes. `matches`: message and the first 16 of these bytes to whether a key that is
    still in force made them, in constant time.
    """

    def __init__(self, mac: Callable[[bytes], bytes], matches: Callable[[bytes, bytes], bool]) -> None:
        self._mac = mac
        self._matches = matches
        # Tagged cookies that were found good, so that a MAC (4 us) is checked once and not for each request. Emptied
        # when full. Bad ones aren't kept: trying tags must not push out what others need.
        self._good: dict[tuple[str, bytes, bytes], bytes] = {}

    def __repr__(self) -> str:
        return f"HubCookieTags({len(self._good)} remembered)"

    def outgoing(self, set_cookie: bytes, *, user_key: str, from_hub: bool) -> bytes | None:
        """A hub's Set-Cookie value as it goes to the browser of `user_key`; None if it must not go.

        `user_key`: what stays the same for one identity (issuer and subject). `from_hub`: whether the hub itself
        answered; a notebook server has no business with the hub's own cookies, it could log its visitors in as its
        owner.
        """
        pair, semicolon, attributes = set_cookie.partition(b";")
        name, _, value = pair.partition(b"=")
        name = name.strip()
        if not name.startswith(_OF_HUBS):
            return set_cookie
        if not from_hub and name in _OF_THE_HUB_ALONE:
            return None
        quoted, inner = _unquoted(value.strip())
        if not inner:  # a deletion
            return set_cookie
        tag = urlsafe_b64encode(self._mac(_message(user_key, name, inner))[:_TAG_BYTES]).rstrip(b"=")
        return b"%b=%b%b%b" % (name, _quoted(b"%b.%b" % (tag, inner), like=quoted), semicolon, attributes)

    def incoming(self, rest: Sequence[tuple[bytes, bytes]], *, user_key: str) -> Passed:
        """What a hub gets out of `RequestCookies.rest`.

        Tags are checked and taken off; hub cookies without a tag, or with one that isn't for this user, stay here.
        """
        good = self._good
        parts: list[bytes] = []
        foreign: set[bytes] | None = None
        for pair in rest:
            if not pair[0].startswith(_OF_HUBS):
                parts.append(b"=".join(pair))
                continue
            part = good.get((user_key, *pair)) or self._checked(user_key, *pair)
            if part is not None:
                parts.append(part)
            else:
                foreign = (foreign or set()) | {pair[0]}
        if foreign is None:
            return Passed(b"; ".join(parts), _NONE)
        # Somebody else's beside one that is good was planted; to expire the one would be to expire the other.
        return Passed(b"; ".join(parts), frozenset(foreign.difference(part.partition(b"=")[0] for part in parts)))

    def _checked(self, user_key: str, name: bytes, value: bytes) -> bytes | None:
        quoted, inside = _unquoted(value)
        tagged = _TAGGED.fullmatch(inside)
        if tagged is None:
            return None
        tag, inner = tagged.groups()
        if not self._matches(_message(user_key, name, inner), urlsafe_b64decode(tag + b"==")):
            return None
        if len(self._good) >= _MEMO:
            self._good.clear()
        part = self._good[user_key, name, value] = b"%b=%b" % (name, _quoted(inner, like=quoted))
        return part


_SESSION_ID = re.compile(rb"(?:^|; )jupyterhub-session-id=\"?([0-9A-Za-z_-]{1,128})\"?(?:;|$)")


def hub_session(field: bytes) -> str:
    """What JupyterHub calls this browser's session, out of a Cookie field as it goes to the hub; "" if it isn't there.
    Tokens at the hub that hang on this session are marked with it."""
    found = _SESSION_ID.search(field)
    return "" if found is None else found[1].decode("ascii")


def _message(user_key: str, name: bytes, inner: bytes) -> bytes:
    # Length first: a user key may hold any character, a separator too.
    key = user_key.encode("utf-8", "surrogatepass")
    return b"%d:%b;%b=%b" % (len(key), key, name, inner)


def _unquoted(value: bytes) -> tuple[bool, bytes]:
    """Tornado's signed values come in quotes; some clients send them back without. So the MAC is over what's inside."""
    if len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"'):
        return True, value[1:-1]
    return False, value


def _quoted(value: bytes, *, like: bool) -> bytes:
    return b'"%b"' % value if like else value


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

    Raises ValueError for a name, value or path that a cookie can't hold as it is (RFC 6265, 4.1.1).
    """
    if not _TOKEN.fullmatch(name) or not _OCTETS.fullmatch(value) or not _OCTETS.fullmatch(path):
        raise ValueError(f"the cookie {name!r} can't be written")
    return "; ".join(
        (
            f"{name}={value}",
            f"Path={path}",
            *(() if max_age is None else (f"Max-Age={max_age}",)),
            *(("Secure",) if secure else ()),
            *(("HttpOnly",) if http_only else ()),
            f"SameSite={same_site}",
        )
    )


def expire_cookie(name: str, *, secure: bool, path: str = "/") -> str:
    """The value of a Set-Cookie field that removes a cookie."""
    # Expires as well, for what is older than Max-Age or has been told not to look at it.
    return set_cookie(name, "", secure=secure, max_age=0, path=path) + "; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def hub_cookie_expiries(pool_path: str, username: str, *, secure: bool) -> list[str]:
    """Set-Cookie values that remove what JupyterHub below `pool_path` has set for `username` (see the module).

    Cookies of named servers and services can't be known here; but for the identity they are tagged with, they are
    worth nothing.
    """
    # JupyterHub 6.1: user.py (client_id), utils.url_escape_path.
    home = f"{pool_path}user/{quote(username, safe='@~')}/"
    login = f"jupyterhub-user-{quote(username)}"
    places = (
        ("jupyterhub-hub-login", f"{pool_path}hub/"),
        ("jupyterhub-session-id", pool_path),
        ("jupyterhub-services", f"{pool_path}services"),
        (login, home),
        (f"{login}-oauth-state", home),
        ("_xsrf", f"{pool_path}hub/"),
        ("_xsrf", home),
    )
    return [expire_cookie(name, secure=secure, path=path) for name, path in places]


def foreign_cookie_expiries(names: Iterable[bytes], path: str, pool_path: str, *, secure: bool) -> list[str]:
    """Set-Cookie values that remove cookies of these names which came with a request for `path`, as the browser has it.

    Browsers don't say where a cookie lives; it must be in one of the folders that lead to what was asked for. Where
    JupyterHub has put it, in one of the first.
    """
    folders, at = [pool_path], len(pool_path)
    while len(folders) <= _DEEPEST and (at := path.find("/", at) + 1):
        folders.append(path[:at])
    return [
        expire_cookie(name, secure=secure, path=folder)
        for name in sorted(each.decode("ascii") for each in names)[:_MOST_EXPIRED]
        for folder in folders
        if _TOKEN.fullmatch(name) and _OCTETS.fullmatch(folder)
    ]
