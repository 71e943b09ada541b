"""One of those that are compared, and whether it may be.

A target that answers wrongly, or doesn't tell the backend who somebody is, would be measured at doing less than the
others: it is asked before anything is measured, and refused.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection

from tests.bench.backend import BASE, HUB_COOKIES
from tests.bench.load import trusting

IDENTITY = "remote_user"
"""The header field that names somebody to the backend; `-` and `_` are the same to whoever reads CGI variables."""
_PATIENCE = 20.0

FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "*/*",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Sec-Fetch-Dest": "script",
    "Sec-Fetch-Mode": "no-cors",
    "Sec-Fetch-Site": "same-origin",
}
"""What Firefox sends for a script of a page, beside Host, Referer and Cookie."""
SOCKET_FIELDS = {
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "websocket",
    "Accept": "*/*",
    "Cache-Control": "no-cache",
}
"""What it says otherwise for a WebSocket."""


class Unfit(Exception):
    """A target that must not be measured."""


@dataclass(frozen=True)
class Target:
    """`name`: short, as in `bench.field("nginx")`; `what`: for the report, with its version; `root`: the process whose
    tree is its cost; `cookies`: what a browser has that was here; `user`: who the backend must be told, "" where nobody
    has to log in; `ca`: a PEM file where it speaks TLS.
    """

    name: str
    what: str
    port: int
    root: int
    cookies: dict[str, str] = field(default_factory=lambda: dict(HUB_COOKIES), repr=False)
    user: str = ""
    ca: str = ""

    @property
    def host(self) -> str:
        return f"{'localhost' if self.ca else '127.0.0.1'}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def fields(self, *, socket: bool = False, cookies: dict[str, str] | None = None) -> dict[str, str]:
        """The header fields of a request; `cookies` instead of all of them."""
        given = self.cookies if cookies is None else cookies
        fields = {"Host": self.host, **FIELDS}
        if socket:
            fields |= SOCKET_FIELDS | {"Origin": self.url}
        else:
            fields["Referer"] = f"{self.url}{BASE}hub/home"
        if given:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in given.items())
        return fields

    def head(
        self, path: str, method: str = "GET", *, socket: bool = False, cookies: dict[str, str] | None = None
    ) -> str:
        """The head of a request, without its last empty line."""
        fields = self.fields(socket=socket, cookies=cookies)
        return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    def get(self, path: str, *, cookies: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body, redirects not followed."""
        line = (
            HTTPSConnection("localhost", self.port, timeout=_PATIENCE, context=_trust(self.ca))
            if self.ca
            else HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        )
        try:
            line.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.fields(cookies=cookies).items():
                line.putheader(name, value)
            line.endheaders()
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()


def _trust(ca: str) -> ssl.SSLContext:
    context = trusting(ca)
    assert context is not None
    return context


def check(target: Target) -> None:
    """Raises `Unfit` unless it answers rightly, tells the backend who somebody is, and turns strangers away."""
    try:
        _check(target)
    except OSError as error:
        raise Unfit(f"{target.name} does not answer: {error}") from error


def _check(target: Target) -> None:
    for path, size in (("200", 200), ("10k", 10240)):
        status, body = target.get(f"{BASE}hub/{path}")
        if (status, body) != (200, b"x" * size):
            raise Unfit(f"{target.name} answers {path} with {status}, {len(body)} bytes: {body[:300]!r}")
    status, head = target.get(f"{BASE}hub/head")
    if status != 200:
        raise Unfit(f"{target.name} answers with {status}: {head[:300]!r}")
    told = identities(head)
    if told != ([target.user] if target.user else []):
        raise Unfit(f"{target.name} tells the backend {told}, expected {target.user or 'nobody'}:\n{head.decode()}")
    if target.user:
        strangers = {name: value for name, value in HUB_COOKIES.items() if name in target.cookies}
        status, body = target.get(f"{BASE}hub/200", cookies=strangers)
        if status == 200:
            raise Unfit(f"{target.name} lets strangers in")


def identities(head: bytes) -> list[str]:
    """What the head of a request says about who somebody is, in all spellings of the field's name."""
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return [value.strip() for name, _, value in lines if name.lower().replace("-", "_") == IDENTITY]
