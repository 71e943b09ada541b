"""Can it be read?

Colours of the sRGB space as `#rrggbb`, and what WCAG 2.2 has to say about two of them (success criterion 1.4.3; the
definitions of relative luminance and contrast ratio). The colours that the pages of hubgate are painted on stand here,
so that a site's own colour can be judged before anybody sees it; `static/hubgate.css` has the same, and a test says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Scheme = Literal["light", "dark"]

GROUNDS: Mapping[Scheme, tuple[str, ...]] = {"light": ("#f3f5f6", "#ffffff"), "dark": ("#0e151a", "#172127")}
"""What text stands on: the page, and the surface of a card."""

TEXT_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3, level AA, for text of any size."""

_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_STEPS = 200


def is_colour(text: str) -> bool:
    """Whether this is `#rrggbb`."""
    return _HEX.fullmatch(text) is not None


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def least_contrast(colour: str, scheme: Scheme) -> float:
    """The contrast of a colour with whichever ground of a scheme it is harder to read on."""
    return min(contrast(colour, ground) for ground in GROUNDS[scheme])


def mixed(colour: str, into: str, share: float) -> str:
    """`share` (0 to 1) of `colour`, the rest `into`."""
    pairs = zip(_channels(colour), _channels(into), strict=True)
    return "#" + "".join(f"{round(share * one + (1 - share) * other):02x}" for one, other in pairs)


def readable(colour: str, scheme: Scheme, least: float = TEXT_CONTRAST) -> str:
    """The nearest colour of this hue that has `least` contrast: itself, or darker in light and lighter in dark.

    Black and white always have more than any `least` below 15.
    """
    pole = "#000000" if scheme == "light" else "#ffffff"
    shades = (mixed(colour, pole, 1 - step / _STEPS) for step in range(_STEPS + 1))
    return next((shade for shade in shades if least_contrast(shade, scheme) >= least), pole)


def text_on(colour: str) -> str:
    """White or black, whichever is read better on a surface of this colour; always 4.5 or more."""
    return max("#ffffff", "#000000", key=lambda text: contrast(text, colour))


def _channels(colour: str) -> tuple[int, ...]:
    match = _HEX.fullmatch(colour)
    if match is None:
        raise ValueError(f"not a colour: {colour!r}")
    return tuple(int(channel, 16) for channel in match.groups())


def _luminance(colour: str) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
