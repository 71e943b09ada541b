"""Where do the gateway's public keys come from, and how often may somebody make us ask?

From its JWKS, asked for when a key is first needed; kept, and asked for again when a token names a key that isn't
there, or when what is kept has become old. Anybody who reaches the hub's port can send tokens that name unknown keys,
so there is one request per cool-down, whoever causes it and however many wait for it. A gateway that doesn't answer
takes nothing away: the last good keys stay.

It doesn't know what a key is good for; that is `assertion`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .assertion import Key, Refused, parse_keys

COOL_DOWN = 10.0
"""Seconds between two requests for the keys."""

MAX_AGE = 600.0
"""Seconds after which keys that are in use are asked for again, so that one taken back is believed no longer."""

LARGEST = 65_536
"""Bytes of a JWKS that are read at most."""


class KeySource:
    """The keys at one place: an http(s) URL, a file: URL or a path. Raises ValueError for anything else.

    `fetch`: gets the document, may raise anything; `clock`: seconds, monotonic.
    """

    def __init__(
        self,
        location: str,
        *,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.location = location
        self.fault = ""
        """What was wrong with the last answer; empty: nothing."""
        self._fetch = fetch or fetcher(location)
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._asked_at: float | None = None
        self._got_at = 0.0
        self._asking: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"KeySource({self.location!r}, kids={sorted(self._keys)}, fault={self.fault!r})"

    async def key(self, kid: str) -> Key:
        """The key of that name.

        Raises Refused: `unknown_key` when the gateway doesn't list it, `keys_unavailable` when it couldn't be asked.
        """
        key = self._keys.get(kid)
        if key is not None:
            if self._clock() - self._got_at > MAX_AGE:
                self._ask()  # nobody waits for it: the key that is there is a good one until it is known to be not
            return key
        await self.refresh()
        key = self._keys.get(kid)
        if key is not None:
            return key
        if self.fault:
            raise Refused("keys_unavailable", f"{self.location}: {self.fault}")
        raise Refused("unknown_key", f"kid {kid[:64]!a} is not at {self.location}")

    async def refresh(self) -> None:
        """Ask for the keys, unless that was done a moment ago; come back when there is an answer, or none."""
        asking = self._ask()
        if asking is not None:
            # Shielded: many wait for it, and one of them may go away.
            await asyncio.shield(asking)

    def _ask(self) -> asyncio.Future[None] | None:
        """The request under way, begun now if it is time; None while cooling down."""
        if self._asking is None:
            now = self._clock()
            if self._asked_at is not None and now - self._asked_at < COOL_DOWN:
                return None
            self._asked_at = now
            self._asking = asyncio.ensure_future(self._get())
        return self._asking

    async def _get(self) -> None:
        try:
            self._keys = parse_keys(await self._fetch(self.location))
        except Exception as error:  # noqa: BLE001 - whatever it was: the last good keys stay, and the fault is told
            self.fault = f"{type(error).__name__}: {error}"
        else:
            self.fault = ""
            self._got_at = self._clock()
        finally:
            self._asking = None


def fetcher(location: str) -> Callable[[str], Awaitable[bytes]]:
    """How to read the document at `location`. Raises ValueError when it is neither http(s) nor a file."""
    scheme, separator, _ = location.partition("://")
    if scheme in ("http", "https") and separator:
        return _from_web
    if location and (scheme == "file" or not separator):
        return _from_file
    raise ValueError(f"{location!r} is neither an http(s) URL nor a file")


def file_of(location: str) -> Path:
    """The path that a file: URL, or a plain path, means."""
    return Path(url2pathname(urlsplit(location).path) if location.startswith("file:") else location)


async def _from_web(location: str) -> bytes:
    # Tornado's own client by name: with pycurl installed JupyterHub configures the other one, which brings other
    # defaults for certificates. No redirects: the keys are where the administrator said, or nowhere.
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=LARGEST)
    try:
        answer = await client.fetch(HTTPRequest(location, connect_timeout=3, request_timeout=5, follow_redirects=False))
        return bytes(answer.body)
    finally:
        client.close()


async def _from_file(location: str) -> bytes:
    def read() -> bytes:
        with file_of(location).open("rb") as file:
            return file.read(LARGEST + 1)

    document = await asyncio.get_running_loop().run_in_executor(None, read)
    if len(document) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    return document
