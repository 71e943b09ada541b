"""Under which rules does a browser show what is ours?

The headers of our own answers: a Content-Security-Policy (CSP Level 3) that starts at `default-src 'none'` and admits
what the one page needs, and the rest that keeps an answer from being stored, sniffed, framed or embedded.

Referrer-Policy: our own addresses may hold a code or a state, so none is ever passed on. `no-referrer` would turn the
Origin of a form into `null` (Fetch, "append a request Origin header"), which the CSRF check refuses; pages with a form
therefore get `strict-origin`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from hubgate.core.site import Site

_BASE: Mapping[str, str] = {
    "Server": "hubgate",  # aiohttp would name itself and Python, with their versions
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Policy:
    """The headers of a site's own answers.

    `form_origins`: addresses at whose origins the answer to a form may end, e.g. the identity provider's.
    """

    def __init__(self, site: Site, *, form_origins: Iterable[str]) -> None:
        # Browsers hold the whole chain of redirects against `form-action`, so our other hosts belong to it.
        targets = dict.fromkeys(["'self'", *map(site.origin, site.hosts), *map(_origin, form_origins)])
        self._form_targets = " ".join(targets)
        base = dict(_BASE)
        if site.secure:
            # One host only: whether the site's other hosts speak https is not ours to promise (RFC 6797, 6.1.2).
            base["Strict-Transport-Security"] = "max-age=31536000"
        self.base: Mapping[str, str] = MappingProxyType(base)
        """What every answer of ours carries, redirects included."""
        self.document: Mapping[str, str] = MappingProxyType({**base, "Content-Security-Policy": _NOTHING})
        """For what is no page, such as JSON."""
        # A file opened by itself: an SVG may carry its own style, and nothing runs.
        file_rules = f"{_NOTHING}; style-src 'unsafe-inline'; sandbox"
        self.file: Mapping[str, str] = MappingProxyType({**base, "Content-Security-Policy": file_rules})
        """For a static file; its own Cache-Control goes over this one."""

    def page(self, *, form: bool, nonce: str, inline_style: str, frame: bool = False) -> dict[str, str]:
        """`form`: the page has one; `nonce`: of its one script, or empty; `inline_style`: its style element's text;
        `frame`: the script lets something of this host pass in one.

        A nonce, since `'self'` would also admit what a notebook on the same host serves as script.
        """
        rules = {
            "default-src": "'none'",
            "style-src": _hash(inline_style) if inline_style else "'self'",
            "img-src": "'self'",
            "font-src": "'self'",
            "form-action": self._form_targets if form else "'none'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
        }
        if nonce:
            rules |= {"script-src": f"'nonce-{nonce}'", "connect-src": "'self'"}
        if frame:
            rules["frame-src"] = "'self'"
        return {
            **self.base,
            "Content-Security-Policy": "; ".join(f"{directive} {sources}" for directive, sources in rules.items()),
            "Referrer-Policy": "strict-origin" if form else "no-referrer",
        }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
