"""Where a Redis is, read from `store.url`.

redis-py reads redis:// and rediss:// itself and knows no address for sentinels; both are read here, so that every
mistake gives the same kind of sentence, and none repeats the password that the address may hold. Nothing is resolved
or connected in here.

    redis://[user[:password]@]host[:port][/db]          rediss:// for TLS
    redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/service[/db]          rediss+sentinel:// for TLS

User and password are Redis' own; sentinels that ask for theirs get them from the query: `?sentinel_password=…` and, if
they have users, `&sentinel_username=…`. Parts are percent-encoded where they hold `@ : / ? # ,` (RFC 3986).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from hubgate.errors import OperatorFault

_TLS = {"redis": False, "rediss": True, "redis+sentinel": False, "rediss+sentinel": True}
SCHEMES = tuple(_TLS)

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_SENTINEL_LOGIN = {"sentinel_username", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Login:
    """Who we say that we are; both parts may be empty."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """`nodes` are sentinels when there is a `service`, else the one Redis."""

    nodes: tuple[tuple[str, int], ...]
    tls: bool
    db: int
    login: Login
    service: str = ""
    sentinel_login: Login = Login()

    def __str__(self) -> str:
        nodes = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.service} by {nodes}, db {self.db}" if self.service else f"{nodes}, db {self.db}"


def parse_address(url: str) -> Address:
    """The address; OperatorFault("store_url") with what is wrong about it."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _wrong("it can't be read as an address") from None
    if parts.scheme not in _TLS:
        raise _wrong("it must begin with memory://, redis://, rediss:// or redis+sentinel://")
    if parts.fragment:
        raise _wrong("a # must be written %23")
    by_sentinel = parts.scheme.endswith("+sentinel")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(part, _SENTINEL_PORT if by_sentinel else _REDIS_PORT) for part in hosts.split(","))
    if len(nodes) > 1 and not by_sentinel:
        raise _wrong("several hosts are for redis+sentinel:// only")
    options = dict(query)
    if len(options) != len(query) or not options.keys() <= (_SENTINEL_LOGIN if by_sentinel else set()):
        allowed = "only sentinel_username and sentinel_password may follow" if by_sentinel else "nothing may follow"
        raise _wrong(f"{allowed} after a ?, once each")
    steps = [unquote(step) for step in parts.path.removeprefix("/").split("/")] if parts.path not in {"", "/"} else []
    service = ""
    if by_sentinel:
        if not steps or not steps[0]:
            raise _wrong(
                "the name of the service that the sentinels watch is missing, as in redis+sentinel://host/main"
            )
        service = steps.pop(0)
    if len(steps) > 1:
        raise _wrong("there is too much behind the database number")
    username, _, password = userinfo.partition(":")
    return Address(
        nodes=nodes,
        tls=_TLS[parts.scheme],
        db=_number(steps[0], "the database") if steps and steps[0] else 0,
        login=Login(unquote(username), unquote(password)),
        service=service,
        sentinel_login=Login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
    )


def _node(part: str, default_port: int) -> tuple[str, int]:
    if part.startswith("["):  # an IPv6 address, RFC 3986 section 3.2.2
        host, bracket, rest = part[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _wrong("an IPv6 address needs both of its brackets")
        port = rest.removeprefix(":")
    else:
        host, _, port = part.partition(":")
    if not host:
        raise _wrong("a host is missing")
    number = _number(port, "a port") if port else default_port
    if not 0 < number < 1 << 16:
        raise _wrong("a port must be between 1 and 65535")
    return host, number


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise _wrong(f"{what} must be a number")
    return int(text)


def _wrong(why: str) -> OperatorFault:
    return OperatorFault("store_url", f"store.url is wrong: {why}.")
