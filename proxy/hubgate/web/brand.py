"""What does a site put on our pages so that people know where they are?

A picture and a colour, from `[portal]`: they become two or three static files of their own, beside ours and below a
site's own `site.css`. Whether a colour can be read was asked when the configuration was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubgate.config import Portal
from hubgate.core.colour import GROUNDS, Scheme, mixed, readable, text_on
from hubgate.errors import OperatorFault
from hubgate.web.files import StaticFile, load_file

STYLE = "brand.css"

_STRONG = {"light": ("#000000", 0.78), "dark": ("#ffffff", 0.55)}
_TINTED = {"light": 0.1, "dark": 0.16}
_EASY = 7.0
"""Contrast of the shade that is made for dark pages: WCAG 2.2, 1.4.6."""


@dataclass(frozen=True, slots=True)
class Brand:
    """`files`: what is served for it; `logo`, `logo_dark`: names among them, empty where there is no picture."""

    files: Mapping[str, StaticFile]
    logo: str = ""
    logo_dark: str = ""


def brand_of(portal: Portal) -> Brand:
    """Read and make a site's files. OperatorFault `templates_malformed`: a picture is gone since it was checked."""
    files = {STYLE: load_file(STYLE, _style(portal).encode())}
    names = {}
    for key, source in (("logo", portal.logo), ("logo_dark", portal.logo_dark)):
        names[key] = ""
        if source:
            names[key] = f"{key.replace('_', '-')}{Path(source).suffix}"
            try:
                files[names[key]] = load_file(names[key], Path(source).read_bytes())
            except OSError as error:
                raise OperatorFault("templates_malformed", f"portal.{key}: {error}") from error
    return Brand(files, **names)


def _style(portal: Portal) -> str:
    """Our custom properties with the site's colour; empty without one."""
    if not portal.accent and not portal.accent_dark:
        return ""
    rules = f":root {{ {_properties(portal.accent, 'light')} }}\n" if portal.accent else ""
    dark = portal.accent_dark or readable(portal.accent, "dark", _EASY)
    return f"{rules}@media (prefers-color-scheme: dark) {{ :root {{ {_properties(dark, 'dark')} }} }}\n"


def _properties(accent: str, scheme: Scheme) -> str:
    pole, share = _STRONG[scheme]
    strong = mixed(accent, pole, share)
    colours = {
        "accent": accent,
        "accent-strong": strong,
        "on-accent": text_on(accent),
        "tint": mixed(accent, GROUNDS[scheme][1], _TINTED[scheme]),
        "focus": accent,
    }
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
