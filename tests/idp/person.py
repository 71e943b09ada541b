"""A person with a browser and an authenticator app, over plain HTTP, at Keycloak or at the development provider.

They follow the provider's own redirects and forms, and stop where the browser would leave it: at the callback.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
import pyotp
from yarl import URL


@dataclass
class Form:
    """The first form of a page that is to be sent: where to, and what is in it already."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Form()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.found.action:
            self.found.action = html.unescape(said.get("action", ""))
        if tag == "input" and "name" in said:
            self.found.fields.setdefault(said["name"], said.get("value", ""))


@dataclass(frozen=True)
class Seen:
    """Where the browser ended: on a page of the provider, or at an address that is not the provider's."""

    url: str
    status: int
    text: str = ""

    @property
    def form(self) -> Form:
        parser = _Forms()
        parser.feed(self.text)
        return parser.found

    @property
    def answer(self) -> dict[str, str]:
        """The parameters of a callback."""
        assert self.status == 0, f"still at the provider: {self.status} {self.text[:2000]}"
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))


class App:
    """An authenticator app. It waits for the next code instead of showing one that it has shown."""

    def __init__(self, key: str, clock: Callable[[], float] = time.time) -> None:
        self._totp = pyotp.TOTP(key)
        self._clock = clock
        self._next = 0

    def code(self) -> str:
        """A code that was not used: of now, or ahead of time, which a provider that allows one step accepts."""
        self._next = max(self._next, int(self._clock()) // 30)
        code = self._totp.generate_otp(self._next)
        self._next += 1
        return code


class Person:
    """One browser at one provider, while entered."""

    def __init__(self, provider: str) -> None:
        self._provider = urlsplit(provider).netloc
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(provider))

    async def __aenter__(self) -> Self:
        # Keycloak's cookies are Secure over http as well, which browsers allow on loopback.
        jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=[URL(self._origin)])
        self.http = aiohttp.ClientSession(cookie_jar=jar)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def visit(self, url: str, form: Mapping[str, str] | None = None) -> Seen:
        """Open an address or send a form, and follow wherever the provider leads."""
        for _ in range(10):
            method = "GET" if form is None else "POST"
            async with self.http.request(method, URL(url, encoded=True), data=form, allow_redirects=False) as response:
                if response.status not in {301, 302, 303, 307, 308}:
                    return Seen(url, response.status, await response.text())
                url, form = urljoin(url, response.headers["Location"]), None
            if urlsplit(url).netloc != self._provider:
                return Seen(url, 0)
        raise AssertionError(f"led in circles to {url}")

    async def send(self, seen: Seen, **fields: str) -> Seen:
        """Send the form on a page with these fields filled in."""
        form = seen.form
        assert form.action, f"no form on {seen.url}: {seen.text[:2000]}"
        return await self.visit(urljoin(seen.url, form.action), form.fields | fields)

    async def log_in(self, url: str, username: str, password: str, app: App | None = None) -> Seen:
        """Give what is asked for, one form after the other: password, one-time code, enrolment."""
        seen = await self.send(await self.visit(url), username=username, password=password)
        if seen.status == 0:
            return seen
        if "totpSecret" in seen.form.fields:
            app = App(base64.b32encode(seen.form.fields["totpSecret"].encode()).decode())
            self.enrolled = app
            return await self.send(seen, totp=app.code(), userLabel="phone")
        assert app is not None, f"an unexpected page: {seen.text[:2000]}"
        return await self.send(seen, otp=app.code())
