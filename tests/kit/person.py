"""A person at a browser without JavaScript: follows links and redirects, keeps cookies, fills in login forms.

Plain HTTP, so that a test sees each step (`Page.trail`). The forms are Keycloak's and those of hubgate's embedded
provider, which have the same field names. Cookies that Keycloak marks `Secure` are kept for plain http on loopback, as
browsers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from hubgate.ops.demo import codes
from hubgate.ops.demo.realm import DemoUser

HOPS = 25
_ON_ITS_WAY = 10.0  # seconds that a busy machine may take to bring a code to where it is checked
NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
}
FETCH = {
    "Accept": "application/json",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Site": "same-origin",
}


@dataclass(frozen=True)
class Form:
    """A form of a page; `fields` are the names and values that a browser would send if nobody touched it."""

    action: str
    method: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """One request that was made on the way to a page."""

    method: str
    url: str
    status: int
    headers: CIMultiDictProxy[str]


@dataclass(frozen=True)
class Page:
    """Where somebody arrived. `url` is as the address bar would show it, fragment included."""

    url: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    trail: Sequence[Step]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def forms(self) -> list[Form]:
        return _Reader(self.text).forms

    def form_with(self, *names: str) -> Form | None:
        """The first form that has all of these fields."""
        return next((form for form in self.forms if set(names) <= set(form.fields)), None)

    def __repr__(self) -> str:
        steps = "\n".join(f"  {step.method} {step.url} -> {step.status}" for step in self.trail)
        return f"<Page {self.status} {self.url}\n{steps}\n{self.text[:600]}>"


class _Reader(HTMLParser):
    """Collects forms, and where a `<meta http-equiv=refresh content="0;…">` leads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.refresh = ""
        self._fields: dict[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "form":
                self._fields = {}
                self.forms.append(Form(given.get("action", ""), given.get("method", "get").upper(), self._fields))
            case "input" | "button" if self._fields is not None and given.get("name"):
                kind = given.get("type", "text").lower()
                if kind in {"checkbox", "radio"} and "checked" not in given:
                    return
                if tag == "button" or kind == "submit":
                    return
                self._fields[given["name"]] = given.get("value", "")
            case "meta" if given.get("http-equiv", "").lower() == "refresh":
                delay, _, target = given.get("content", "").partition(";")
                if delay.strip() == "0":
                    self.refresh = target.strip().removeprefix("url=").strip("'\"")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._fields = None


@dataclass
class CodeBook:
    """One-time codes of one key that were not used yet: a provider takes each once, one step early or late."""

    key: str
    used: set[str] = field(default_factory=set)

    async def next(self) -> str:
        """A fresh code; waits for the next period when all that would be taken now are used up."""
        while True:
            now = time.time()
            late = () if codes.seconds_left(now) < _ON_ITS_WAY else (now - codes.PERIOD,)
            for at in (now, now + codes.PERIOD, *late):
                code = codes.code(self.key, at)
                if code not in self.used:
                    self.used.add(code)
                    return code
            await asyncio.sleep(codes.seconds_left(now) + 0.2)


_CODE_BOOKS: dict[str, CodeBook] = {}


def code_book(key: str) -> CodeBook:
    """The one book of this key in this run."""
    return _CODE_BOOKS.setdefault(key, CodeBook(key))


class Person:
    """One browser with its own cookies. `secure_origins`: http origins whose `Secure` cookies are kept all the same."""

    def __init__(self, *secure_origins: str, ssl: Any = True) -> None:
        jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=[URL(origin) for origin in secure_origins])
        self._ssl = ssl
        connector = aiohttp.TCPConnector(ssl=ssl)
        self.session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=True)
        self.totp_key = ""
        """Of an enrolment that this person went through."""

    async def __aenter__(self) -> Person:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    def cookies(self, url: str) -> dict[str, str]:
        """What would be sent to this address."""
        return {name: morsel.value for name, morsel in self.session.cookie_jar.filter_cookies(URL(url)).items()}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        follow: bool = True,
        navigate: bool = True,
    ) -> Page:
        """A request as a browser's navigation (or, with `navigate=False`, a script's fetch), with its redirects."""
        trail: list[Step] = []
        url, fragment = urldefrag(url)
        for _ in range(HOPS):
            sent = {**(NAVIGATION if navigate else FETCH), **(headers or {})}
            if navigate and trail and urlsplit(trail[-1].url).netloc != urlsplit(url).netloc:
                sent["Sec-Fetch-Site"] = "same-site"
            async with self.session.request(
                method, URL(url, encoded=True), headers=sent, data=data, allow_redirects=False, ssl=self._ssl
            ) as response:
                body = await response.read()
                trail.append(Step(method, url, response.status, response.headers))
            target = response.headers.get("Location", "") if response.status in {301, 302, 303, 307, 308} else ""
            if not target and navigate and response.content_type == "text/html":
                target = _Reader(body.decode("utf-8", "replace")).refresh
            if not follow or not target:
                shown = f"{url}#{fragment}" if fragment else url
                return Page(shown, response.status, response.headers, body, trail)
            url, new_fragment = urldefrag(urljoin(url, target))
            fragment = new_fragment or fragment
            if response.status not in {307, 308}:
                method, data = "GET", None
        raise AssertionError("redirected without end:\n" + "\n".join(f"{step.status} {step.url}" for step in trail))

    async def get(self, url: str, **options: Any) -> Page:
        return await self.request("GET", url, **options)

    async def log_out(self, origin: str) -> Page:
        """What follows on JupyterHub's own Log Out, in a pool at `/htc/`."""
        return await self.get(f"{origin}/_hubgate/logout", headers={"Referer": f"{origin}/htc/hub/home"})

    async def fetch(self, url: str, method: str = "GET", **options: Any) -> Page:
        """As a page's script would ask, redirects not followed."""
        return await self.request(method, url, navigate=False, follow=False, **options)

    async def submit(self, page: Page, form: Form, **values: str) -> Page:
        """Send a form with some of its fields filled in."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
        return await self.request(
            form.method,
            urljoin(page.url, form.action or page.url),
            data={**form.fields, **values},
            headers={"Origin": origin, "Referer": page.url},
        )

    async def login(self, url: str, user: DemoUser, *, password: str = "", code: str = "") -> Page:
        """Go to `url`, and through whatever login forms stand before it, enrolment of a code included.

        Gives the page where that ends: the one that was asked for, or one that says why not.
        """
        return await self.through(await self.get(url), user, password=password, code=code)

    async def through(self, page: Page, user: DemoUser, *, password: str = "", code: str = "") -> Page:
        """The same from a page on the way."""
        for _ in range(6):
            filled = await self._fill(page, user, password=password, code=code)
            if filled is None:
                break
            page = filled
        return page

    async def _fill(self, page: Page, user: DemoUser, *, password: str, code: str) -> Page | None:
        if form := page.form_with("password"):
            return await self.submit(page, form, username=user.username, password=password or user.password)
        if form := page.form_with("totpSecret", "totp"):
            self.totp_key = self._enrolment_key(form)
            return await self.submit(page, form, totp=await code_book(self.totp_key).next(), userLabel="phone")
        if form := page.form_with("otp"):
            key = user.totp_key or self.totp_key
            return await self.submit(page, form, otp=code or await code_book(key).next())
        return None

    @staticmethod
    def _enrolment_key(form: Form) -> str:
        # Keycloak's hidden field holds the key's characters, not its base32 form.
        from hubgate.ops.demo.realm import base32_key

        return base32_key(form.fields["totpSecret"])
