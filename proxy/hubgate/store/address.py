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

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from hubgate.errors import OperatorFault

_TLS = {"redis": False, "rediss": True, "redis+sentinel": False, "rediss+sentinel": True}

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_NODE = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+))(?::(?P<port>[0-9]{0,9}))?", re.ASCII
)
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
    # By hand: urllib's idea of an address has one host, and some versions refuse brackets behind a comma.
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _TLS:
        raise _wrong("it must begin with memory://, redis://, rediss:// or redis+sentinel://")
    if "#" in rest:
        raise _wrong("a # must be written %23")
    rest, _, query_text = rest.partition("?")
    authority, _, path = rest.partition("/")
    query = parse_qsl(query_text, keep_blank_values=True)
    by_sentinel = scheme.endswith("+sentinel")
    userinfo, _, hosts = authority.rpartition("@")
    nodes = tuple(_node(part, _SENTINEL_PORT if by_sentinel else _REDIS_PORT) for part in hosts.split(","))
    if len(nodes) > 1 and not by_sentinel:
        raise _wrong("several hosts are for redis+sentinel:// only")
    options = dict(query)
    if len(options) != len(query) or not options.keys() <= (_SENTINEL_LOGIN if by_sentinel else set()):
        allowed = "only sentinel_username and sentinel_password may follow" if by_sentinel else "nothing may follow"
        raise _wrong(f"{allowed} after a ?, once each")
    steps = [unquote(step) for step in path.split("/")]
    service = ""
    if by_sentinel:
        if not steps[0]:
            raise _wrong(
                "the name of the service that the sentinels watch is missing, as in redis+sentinel://host/main"
            )
        service = steps.pop(0)
    db = steps.pop(0) if steps else ""
    if steps:
        raise _wrong("there is too much behind the database number")
    if not re.fullmatch("[0-9]{0,9}", db):
        raise _wrong("the database must be a number")
    username, _, password = userinfo.partition(":")
    return Address(
        nodes=nodes,
        tls=_TLS[scheme],
        db=int(db or 0),
        login=Login(unquote(username), unquote(password)),
        service=service,
        sentinel_login=Login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
    )


def _node(part: str, default_port: int) -> tuple[str, int]:
    if not part or part.startswith(":"):
        raise _wrong("a host is missing")
    found = _NODE.fullmatch(part)
    if found is None:
        raise _wrong(
            "a host is a name or an address (IPv6 in brackets), and a port behind it a number; "
            "@ : / ? # , are percent-encoded in user and password"
        )
    host, port = found["six"] or found["host"], found["port"]
    number = int(port) if port else default_port
    if not 0 < number < 1 << 16:
        raise _wrong("a port must be between 1 and 65535")
    return host, number


def _wrong(why: str) -> OperatorFault:
    return OperatorFault("store_url", f"store.url is wrong: {why}.")
