"""Which files do our pages need beside them?

All are read once, at the start: what is served is a look-up in a table of plain names, so no request ever reaches the
file system. A page links to `name?v=<version>`, which may be kept for ever; without the version a browser asks again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

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


def load_files(folders: Iterable[Path]) -> dict[str, StaticFile]:
    """The files of known types with plain names, a later folder's instead of an earlier one's."""
    files: dict[str, StaticFile] = {}
    for folder in folders:
        for path in sorted(folder.glob("*")):
            content_type = _TYPES.get(path.suffix)
            if content_type is None or not _PLAIN_NAME.fullmatch(path.name) or not path.is_file():
                continue
            body = path.read_bytes()
            files[path.name] = StaticFile(body, content_type, hashlib.sha256(body).hexdigest()[:16])
    return files
