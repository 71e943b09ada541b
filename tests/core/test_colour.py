"""WCAG 2.2: contrast, and what is done about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.colour import (
    GROUNDS,
    TEXT_CONTRAST,
    Scheme,
    contrast,
    is_colour,
    least_contrast,
    mixed,
    readable,
    text_on,
)

COLOURS = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")
SCHEMES: list[Scheme] = ["light", "dark"]


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#ffffff", "#ffffff", 1.0),
        ("#777777", "#ffffff", 4.48),  # the best known near miss
        ("#767676", "#ffffff", 4.54),
        ("#ff0000", "#ffffff", 4.0),
        ("#FF0000", "#00ff00", 2.91),
    ],
)
def test_known_ratios(one: str, other: str, ratio: float) -> None:
    assert round(contrast(one, other), 2) == ratio
    assert contrast(one, other) == contrast(other, one)


@pytest.mark.parametrize("text", ["", "#fff", "red", "#0b637", "#0b63744", "#0b637g", "rgb(0,0,0)", "#0b6374;"])
def test_what_is_no_colour(text: str) -> None:
    assert not is_colour(text)
    with pytest.raises(ValueError, match="not a colour"):
        contrast(text, "#ffffff")


@given(COLOURS, st.sampled_from(SCHEMES), st.floats(1, 14))
def test_a_readable_shade_can_always_be_found(colour: str, scheme: Scheme, least: float) -> None:
    shade = readable(colour, scheme, least)
    assert is_colour(shade)
    assert least_contrast(shade, scheme) >= least
    if least_contrast(colour, scheme) >= least:
        assert shade == colour


@given(COLOURS)
def test_text_on_a_button_can_be_read(colour: str) -> None:
    assert contrast(text_on(colour), colour) >= TEXT_CONTRAST


def test_a_mixture() -> None:
    assert mixed("#ffffff", "#000000", 0.0) == "#000000"
    assert mixed("#ffffff", "#000000", 0.5) == "#808080"
    assert mixed("#204060", "#000000", 1.0) == "#204060"


def test_the_worse_ground_counts() -> None:
    for scheme in SCHEMES:
        assert least_contrast("#888888", scheme) == min(contrast("#888888", each) for each in GROUNDS[scheme])
