"""The tests play the gateway: its keys over HTTP, its headers on the paths where it sends them, and a browser.

Requests are written by hand over `http.client`: the same header twice, or none at all, is what much of this is about.
"""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.hub.signing import Gateway

PATIENCE = 60
"""Seconds until a hub that doesn't answer fails the test."""

Fields = Iterable[tuple[str, str]]


@dataclass
class Answer:
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: str

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def location(self) -> str:
        return (self.all("Location") or [""])[0]

    @property
    def set_cookies(self) -> dict[str, tuple[str, str]]:
        """Name to (value, path); an expired cookie's value is empty."""
        found = {}
        for line in self.all("Set-Cookie"):
            [(name, morsel)] = SimpleCookie(line).items()
            over = morsel["expires"] and parsedate_to_datetime(morsel["expires"]).year < 2025
            found[name] = ("" if over else morsel.value, morsel["path"])
        return found


def send(base: str, path: str, fields: Fields = (), *, method: str = "GET", body: bytes | None = None) -> Answer:
    """One request with exactly these header fields; a Host, if they have none."""
    where, fields = urlsplit(base), list(fields)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
    try:
        own_host = any(name.lower() == "host" for name, _ in fields)
        connection.putrequest(method, path, skip_host=own_host, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value.encode())
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.reason, response.getheaders(), response.read().decode(errors="replace"))
    finally:
        connection.close()


def ready(hub: Any, gateway: Gateway) -> None:
    """Until the hub answers, and takes what is signed now: not in the very second in which it started."""
    hub.ready()
    deadline = time.monotonic() + PATIENCE
    while True:
        fields = [("REMOTE_USER", "first"), ("X-Hubgate-Assertion", gateway.assertion("first"))]
        if "Reason: before_start" not in send(hub.url, f"{hub.path}hub/login", fields).body:
            return
        assert time.monotonic() < deadline, hub.tail()
        time.sleep(0.1)  # for the next second to begin


class Browser:
    """A browser behind the gateway: cookies by path, and the headers that the gateway sends to a hub for `username`.

    `assertions`: claims that are to be different. Nothing is sent to notebooks, as the gateway does.
    """

    def __init__(self, gateway: Gateway, base: str, prefix: str, username: str, **claims: Any) -> None:
        self.gateway = gateway
        self.base = base
        self.prefix = prefix
        self.username = username
        self.claims = claims
        self.cookies: dict[tuple[str, str], str] = {}

    def now_is(self, username: str, **claims: Any) -> None:
        """Somebody else sits down; the cookies stay where they are."""
        self.username, self.claims = username, claims

    def identity(self, path: str) -> list[tuple[str, str]]:
        if not path.startswith(f"{self.prefix}hub/"):
            return []
        use = "login" if path.partition("?")[0] == f"{self.prefix}hub/login" else "page"
        token = self.gateway.assertion(self.username, **{"use": use, **self.claims})
        return [("REMOTE_USER", self.username), ("X-Hubgate-Assertion", token)]

    def get(self, path: str, fields: Fields = ()) -> Answer:
        cookies = "; ".join(f"{name}={value}" for (name, at), value in self.cookies.items() if path.startswith(at))
        host = urlsplit(self.gateway.issuer).netloc
        sent = [("Host", host), *fields, *self.identity(path), ("Sec-Fetch-Mode", "navigate")]
        answer = send(self.base, path, [*sent, ("Cookie", cookies)] if cookies else sent)
        for name, (value, at) in answer.set_cookies.items():
            self.cookies.pop((name, at), None)
            if value:
                self.cookies[name, at] = value
        return answer

    def visit(self, path: str) -> tuple[str, Answer]:
        """Follow redirects on this hub; the last path and its answer."""
        for _ in range(12):
            answer = self.get(path)
            target = urljoin(path, answer.location.removeprefix(self.gateway.issuer)) if answer.location else ""
            if not target.startswith(self.prefix):
                return path, answer
            path = target
        raise AssertionError(f"redirected for ever, last to {path}")

    def cookie(self, name: str) -> str | None:
        return next((value for (found, _), value in self.cookies.items() if found == name), None)


@contextmanager
def published(gateway: Gateway) -> Iterator[str]:
    """The gateway's keys at `/_hubgate/jwks.json` of the URL that is yielded, which becomes its issuer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/_hubgate/jwks.json"
            document = gateway.jwks() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gateway.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        yield gateway.issuer
        server.shutdown()
