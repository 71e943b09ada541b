"""The site as it was configured: what never changes while a configuration is in force.

Configured (`Upstream`), observed (`balancer.Candidate`) and stored (affinity) are three types on purpose: this module
knows nothing about who is up, who is bound where, or who is logged in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from hubgate.core.freshness import Demand

OWN_PREFIX = "/_hubgate/"
"""The one path prefix that is hubgate's own on every host it serves."""

ASSERTION_HEADER = "X-Hubgate-Assertion"
"""Carries the signed identity assertion, see docs/identity-assertion.md."""


class Disclose(Enum):
    """Which paths of a pool learn who the user is."""

    LOGIN = "login"
    HUB = "hub"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One hub behind the gateway. `name` is unique over the site and is the audience of its assertions."""

    name: str
    url: str
    pool: str
    weight: float = 1.0
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


def admitted(wanted: tuple[str, ...], groups: tuple[str, ...]) -> bool:
    """Whether somebody in `groups` may use a pool that is for those in one of `wanted`; no such group: for all."""
    return not wanted or not set(wanted).isdisjoint(groups)


@dataclass(frozen=True, slots=True)
class Pool:
    """Hubs that are alike: the same `path` (their `base_url`) on each, and any of them serves any user.

    `host` is None for pools below the portal's own address, else `name` or `name:port` in lower case.
    `groups`: who may use it; empty means everyone who logged in. `step_up`: where its second factor must be fresh.
    `api_tokens`: programs get to its API with the hubs' own tokens.
    """

    name: str
    path: str
    upstreams: tuple[Upstream, ...]
    title: str = ""
    description: str = ""
    section: str = ""
    help: str = ""
    host: str | None = None
    groups: tuple[str, ...] = ()
    disclose: Disclose = Disclose.HUB
    step_up: Demand | None = None
    api_tokens: bool = False

    def admits(self, groups: tuple[str, ...]) -> bool:
        """Whether somebody in these groups may use the pool."""
        return admitted(self.groups, groups)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that is served under one configuration.

    `public_url`: scheme, host and port that people type, without a path or a trailing slash; the assertions' issuer.
    """

    public_url: str
    pools: tuple[Pool, ...]
    admin_groups: tuple[str, ...] = ()
    secure: bool = field(init=False)
    host: str = field(init=False)
    cookie: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.public_url)
        secure = parts.scheme == "https"
        object.__setattr__(self, "secure", secure)
        object.__setattr__(self, "host", parts.netloc.lower())
        # Over plain http (loopback only) a browser refuses the prefix, RFC 6265bis 4.1.3.2.
        object.__setattr__(self, "cookie", "__Host-hubgate" if secure else "hubgate")

    def origin(self, host: str) -> str:
        """The origin (RFC 6454) of one of the hosts that this site serves."""
        return f"{'https' if self.secure else 'http'}://{host}"

    def pool_host(self, pool: Pool) -> str:
        """The host below which a pool is reached."""
        return pool.host or self.host

    def pools_on(self, host: str) -> tuple[Pool, ...]:
        """The pools that are reached below one host."""
        return tuple(pool for pool in self.pools if self.pool_host(pool) == host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that is served, the portal's first."""
        return tuple(dict.fromkeys((self.host, *(pool.host for pool in self.pools if pool.host))))

    def cookie_named(self, purpose: str) -> str:
        """The full name of one of our other cookies, e.g. `login`, `at-htc`."""
        return f"{self.cookie}-{purpose}"

    def sticky_cookie(self, pool: Pool) -> str:
        """The full name of the cookie that binds a browser to one of the pool's hubs."""
        return self.cookie_named(f"at-{pool.name}")
