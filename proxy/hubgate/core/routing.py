"""Where does this request belong?

A request target (RFC 9112, 3.2) is read once, decided on, and sent on byte for byte: there is no second, "cleaned"
form that could differ from what the hub sees. What a hub, or the proxy in front of its notebooks, may read in another
way than we do, is refused instead of repaired: configurable-http-proxy removes dot segments and then decodes the whole
path, Tornado decodes each segment, others collapse slashes or cut `;parameters`. So the literal path and all of these
readings must lead to the same place, or nobody gets the request.

Knows nothing about sessions, methods or which hub of a pool will answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from hubgate.core.api_tokens import is_api
from hubgate.core.freshness import Demand
from hubgate.core.site import Pool, Site
from hubgate.errors import ClientFault


class Target(NamedTuple):
    """A request target that was understood.

    `raw`: origin form, exactly as it is sent on. `path`: `raw` without the query. `host`: lower case, `name[:port]`,
    without the scheme's default port. `plain`: the path has one reading only.

    A named tuple and not a frozen dataclass like its neighbours: one is made for each request, in half the time.
    """

    raw: str
    path: str
    host: str
    plain: bool = False


class Zone(Enum):
    """Who answers below a pool's path."""

    LOGIN = "login"
    """The hub's login page, `<base>hub/login`."""
    HUB = "hub"
    """The hub itself: `<base>hub/…`."""
    NOTEBOOK = "notebook"
    """Everything else: somebody's own process, so whatever is sent there is disclosed to that person."""


@dataclass(frozen=True, slots=True)
class PoolRoute:
    """Belongs to a hub of `pool`. `fresh`: and is a place of the pool's `step_up`. `name`: of this place, unique over
    the site.
    """

    pool: Pool
    zone: Zone
    fresh: bool = False
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.pool.name} {self.zone.value}{' fresh' if self.fresh else ''}")

    @property
    def demand(self) -> Demand | None:
        """What is demanded of a proof here."""
        return self.pool.step_up if self.fresh else None


@dataclass(frozen=True, slots=True)
class PortalRoute:
    """Belongs to hubgate itself: `path` is the landing page, an icon, or begins with the own prefix."""

    path: str
    host: str


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Belongs to nobody here."""

    why: Literal["unknown_host", "unknown_path"]


Route = PoolRoute | PortalRoute | NoRoute

_UNKNOWN_HOST = NoRoute("unknown_host")
_UNKNOWN_PATH = NoRoute("unknown_path")
_PORTAL_PAGES = frozenset({"/", "/favicon.ico", "/robots.txt"})

# What a browser can send in a path without any percent sign, `;` or backslash. One greedy character class costs a
# nanosecond a character, alternations cost twenty.
PLAIN_PATH: Final = r"/[A-Za-z0-9/_.~@!$&'()*+,=:|\[\]-]*"
PLAIN_QUERY: Final = r"\?[!-\"$-~]*"
_PLAIN = re.compile(rf"({PLAIN_PATH})(?:{PLAIN_QUERY})?")
_LEGAL = re.compile(r"(/[!-\"$->@-\[\]-~]*)(?:\?[!-\"$-~]*)?")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"([a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_TAME = re.compile(r"[^\x00-\x1f\x7f%;\\]*")
_ODD = re.compile(r"//|/\.\.?(?:/|$)")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_SLASHES = re.compile(r"/{2,}")
_PARAMETERS = re.compile(r";[^/]*")


@lru_cache(maxsize=1024)
def normal_host(host: str, secure: bool) -> str | None:
    """`host` as `Target.host` writes it, or None if it isn't `name[:port]` (RFC 9112, 3.2): no list, no user, no path.

    `secure`: whether 443 or 80 is the default port; not keyword-only, since that doubles what a cached call costs.
    Cached since the same few values come with each request; strangers' inventions fall out at the end.
    """
    # Outside of ASCII there are characters whose lower case is within it: the sign for kelvin.
    match = _HOST.fullmatch(host.lower()) if host.isascii() else None
    if match is None:
        return None
    name, port = match.groups()
    if port is None or int(port) == (443 if secure else 80):
        return name
    return f"{name}:{int(port)}" if 0 < int(port) < 65536 else None


def parse_target(raw: str, hosts: Sequence[str], *, secure: bool) -> Target:
    """Read a request target together with the values of all Host fields.

    `raw`: as it stood on the request line. `secure`: whether people reach this site by https.
    Raises ClientFault: `target_malformed` (not origin form nor absolute form, RFC 9112 3.2; bytes that RFC 3986 has no
    place for), `host_malformed` (none, several, odd, or another one than the absolute form names).
    """
    host = normal_host(hosts[0], secure) if len(hosts) == 1 else None
    if host is None:
        raise ClientFault("host_malformed", "exactly one well-formed Host field is needed")
    match = _PLAIN.fullmatch(raw)
    if match is not None:
        path = match[1]
        return Target(raw, path, host, is_plain(path))
    if not raw.startswith("/"):
        raw = _origin_form(raw, host, secure=secure)
    match = _LEGAL.fullmatch(raw)
    if match is None or _BROKEN_ESCAPE.search(match[1]):
        raise ClientFault("target_malformed", "the request target holds bytes that have no place in it")
    return Target(raw, match[1], host)


def is_plain(path: str) -> bool:
    """Whether a path of `PLAIN_PATH` has one reading only. Without `//` and `/.`, which also opens honest names like
    `.ipynb_checkpoints`: those are read with more care."""
    return "//" not in path and "/." not in path


def _origin_form(raw: str, host: str, *, secure: bool) -> str:
    match = _ABSOLUTE.fullmatch(raw)
    if match is None:
        raise ClientFault("target_malformed", "the request target is neither a path nor a URL")
    if normal_host(match[1], secure) != host:
        raise ClientFault("host_malformed", "the request target and the Host field name different hosts")
    rest = match[2]
    return rest if rest.startswith("/") else "/" + rest


class Router:
    """The pools and own pages of one site, by host and path."""

    def __init__(self, site: Site) -> None:
        self._portal = normal_host(site.host, site.secure)
        self._hosts: dict[str, dict[str, list[_Mount]]] = {}
        for name in site.hosts:
            self._hosts[normal_host(name, site.secure) or name] = {}
        for pool in site.pools:
            host = site.pool_host(pool)
            mounts = self._hosts[normal_host(host, site.secure) or host]
            # By first segment, so that a request costs one look-up however many pools there are.
            mounts.setdefault(pool.path.split("/", 2)[1], []).append(_Mount(pool))
        for mounts in self._hosts.values():
            for group in mounts.values():
                group.sort(key=lambda mount: -len(mount.base))

    def match(self, target: Target) -> Route:
        """Where `target` belongs. Raises ClientFault `target_ambiguous` if that depends on who reads it."""
        mounts = self._hosts.get(target.host)
        if mounts is None:
            return _UNKNOWN_HOST
        route = self._literal(mounts, target.path, target.host)
        if not target.plain:
            for reading in _readings(target.path):
                if self._literal(mounts, reading, target.host) != route:
                    raise ClientFault("target_ambiguous", "the path leads to different places in different readings")
        return route

    def is_api(self, target: Target, pool: Pool) -> bool:
        """Whether a target that belongs to `pool` is one of its API, in every reading."""
        readings = (target.path,) if target.plain else (target.path, *_readings(target.path))
        return all(is_api(reading.removeprefix(pool.path)) for reading in readings)

    def match_plain(self, host: str, path: str) -> Route:
        """The same for a path that has one reading only."""
        mounts = self._hosts.get(host)
        return _UNKNOWN_HOST if mounts is None else self._literal(mounts, path, host)

    def _literal(self, mounts: dict[str, list[_Mount]], path: str, host: str) -> Route:
        first = path.split("/", 2)[1]
        if first == "_hubgate":
            return PortalRoute(path, host)
        for mount in mounts.get(first, ()):
            if path.startswith(mount.base):
                return mount.route(path)
            if path == mount.bare:
                return mount.at_bare
        if host == self._portal and path in _PORTAL_PAGES:
            return PortalRoute(path, host)
        for mount in mounts.get("", ()):
            return mount.route(path)
        return _UNKNOWN_PATH


class _Mount:
    """One pool at its path, with its routes made beforehand."""

    __slots__ = (
        *("at_bare", "bare", "base", "demand", "fresh", "hub", "hub_bare", "hub_base", "login", "login_path"),
        "notebook",
    )

    def __init__(self, pool: Pool) -> None:
        self.base = pool.path
        self.bare = pool.path[:-1]
        self.hub_base = pool.path + "hub/"
        self.hub_bare = pool.path + "hub"
        self.login_path = pool.path + "hub/login"
        self.login = PoolRoute(pool, Zone.LOGIN)
        self.hub = PoolRoute(pool, Zone.HUB)
        self.notebook = PoolRoute(pool, Zone.NOTEBOOK)
        self.demand = pool.step_up
        self.fresh = {zone: PoolRoute(pool, zone, fresh=True) for zone in Zone}
        self.at_bare = self.route(self.base)

    def route(self, path: str) -> PoolRoute:
        if path.startswith(self.hub_base):
            found = self.login if path == self.login_path else self.hub
        else:
            found = self.hub if path == self.hub_bare else self.notebook
        # A path with several readings is asked for each, and refused if it leads here in some of them alone.
        if self.demand is None or not self.demand.covers(path[len(self.base) :]):
            return found
        return self.fresh[found.zone]


def _readings(path: str) -> Iterator[str]:
    """What others may take `path` for. Raises ClientFault `target_ambiguous` for what nobody honest sends."""
    if path.startswith("//"):
        # A reference to another host where a URL parser reads it (configurable-http-proxy does).
        raise ClientFault("target_ambiguous", "the path begins like the name of another host")
    once = _decoded(path, errors="strict")
    if _TAME.fullmatch(once) and not _ODD.search(once):
        # All further readings are this one. Encoded blanks and umlauts are everyday: 5 us instead of 50.
        yield once
        return
    for form in (path, once, _decoded(once, errors="replace")):
        if _CONTROLS.search(form):
            raise ClientFault("target_ambiguous", "the path holds encoded control characters")
        slashed = form.replace("\\", "/")
        for reading in (form, slashed, _PARAMETERS.sub("", slashed)):
            if not {".", ".."}.isdisjoint(reading.split("/")):
                raise ClientFault("target_ambiguous", "the path holds dot segments")
            yield reading
            yield _SLASHES.sub("/", reading)


def _decoded(path: str, *, errors: str) -> str:
    try:
        return unquote_to_bytes(path).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        # Overlong forms of "/" and "." among them (RFC 3629, 10); configurable-http-proxy can't route any of these.
        raise ClientFault("target_ambiguous", "the path is not UTF-8 once decoded") from error
