"""Which file is served?

All are read once, at the start: what is served is a look-up in a table of plain names, so no request ever reaches the
file system. A page links to `name?v=<version>`, which may be kept for ever; without the version a browser asks again.
Which page needs which file is not known here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from hubgate.web.paths import STATIC_PATH
from hubgate.web.policy import Policy

_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that is served as it is. `version`: hex digits that change with the content."""

    body: bytes
    content_type: str
    version: str

    @property
    def etag(self) -> str:
        """The strong validator of RFC 9110, 8.8.3."""
        return f'"{self.version}"'

    def headers(self, *, linked_as: str) -> Mapping[str, str]:
        """`linked_as`: the version in the request's address; the true one makes the answer immutable (RFC 8246)."""
        for_ever = linked_as == self.version
        return {
            "Content-Type": self.content_type,
            "Cache-Control": "public, max-age=31536000, immutable" if for_ever else "public, no-cache",
            "ETag": self.etag,
        }

    def matches(self, if_none_match: str) -> bool:
        """Whether the client has it already: weak comparison, RFC 9110, 13.1.2."""
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return self.etag in tags or "*" in tags


class StaticFiles:
    """Files by name, and how they go out. `policy`: what their headers say."""

    def __init__(self, files: Mapping[str, StaticFile], policy: Policy) -> None:
        self._files = files
        self._policy = policy

    def url(self, name: str) -> str:
        """The address to link a file by, which changes with its content. KeyError: there is no such file."""
        return f"{STATIC_PATH}{name}?v={self._files[name].version}"

    def text(self, name: str) -> str:
        """What is in a file of text. KeyError: there is no such file."""
        return self._files[name].body.decode()

    async def serve(self, request: web.Request) -> web.Response:
        """aiohttp handler of `STATIC_PATH + "{name}"`, for GET and HEAD."""
        return self.answer(
            request.match_info["name"],
            if_none_match=request.headers.get("If-None-Match", ""),
            version=request.query.get("v", ""),
        ) or web.Response(status=404, text="There is no such file.\n", headers=self._policy.document)

    def answer(self, name: str, *, if_none_match: str = "", version: str = "") -> web.Response | None:
        """One file, e.g. `favicon.svg` for `/favicon.ico`, or `robots.txt`; None if there is none."""
        file = self._files.get(name)
        if file is None:
            return None
        headers = {**self._policy.file, **file.headers(linked_as=version)}
        if file.matches(if_none_match):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers=headers)


def load_file(name: str, body: bytes) -> StaticFile:
    """A file that is served as `name`. KeyError: its kind is not one that we serve."""
    return StaticFile(body, _TYPES[Path(name).suffix], hashlib.sha256(body).hexdigest()[:16])


def load_files(folders: Iterable[Path]) -> dict[str, StaticFile]:
    """The files of known types with plain names, a later folder's instead of an earlier one's."""
    files: dict[str, StaticFile] = {}
    for folder in folders:
        for path in sorted(folder.glob("*")):
            if path.suffix in _TYPES and _PLAIN_NAME.fullmatch(path.name) and path.is_file():
                files[path.name] = load_file(path.name, path.read_bytes())
    return files
