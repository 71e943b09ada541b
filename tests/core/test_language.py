"""RFC 9110, 12.5.4, and RFC 4647, 3.4: which language is spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.language import in_language, preferred

SPOKEN = ("en", "de", "fr", "pt-BR")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("", "en"),
        ("de", "de"),
        ("DE", "de"),
        ("de-CH-1996", "de"),  # lookup: ever shorter
        ("pt", "pt-BR"),  # nobody who reads Portuguese is better served in English
        ("pt-PT, de;q=0.5", "de"),
        ("pt-br", "pt-BR"),
        ("fr;q=0.3, de;q=0.7, en;q=0.1", "de"),
        ("fr, de", "fr"),  # equal: as they come
        ("tlh, x-klingon;q=0.9, fr;q=0.001", "fr"),
        ("tlh", "en"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("en;q=0", "en"),  # a page in English is better than none
        ("de-AT, de;q=0", "en"),
        ("pt, pt-BR;q=0, fr;q=0.1", "fr"),
        ("*", "en"),
        ("en;q=0.1, *;q=0.5", "de"),
        ("en;q=0.5, *;q=0", "en"),
        ("*, en, de, fr, pt-BR;q=0.2", "en"),
        ("de ; q=0.4 ,\tfr; Q=0.5", "fr"),
        ("de;q=1.5, fr;q=0.2", "fr"),  # what can't be read is passed over
        ("de;level=1, fr", "fr"),
        (",,;q=1,-de,de-,\x00, fr", "fr"),
        ("tlh," * 31 + "de", "de"),
        ("tlh," * 32 + "de", "en"),
    ],
)
def test_what_is_asked_for(field: str, told: str) -> None:
    assert preferred(field, SPOKEN) == told


@given(st.text(max_size=200), st.lists(st.sampled_from(["en", "de", "fr", "de-CH"]), min_size=1, unique=True))
def test_something_is_always_spoken(field: str, spoken: list[str]) -> None:
    assert preferred(field, tuple(spoken)) in spoken


@given(st.sampled_from(SPOKEN))
def test_whoever_asks_for_one_gets_it(language: str) -> None:
    assert preferred(f"tlh, {language};q=0.5, *;q=0.1", SPOKEN) == language


def test_a_sites_own_text() -> None:
    assert in_language("Hello", "de") == "Hello"
    assert in_language({"en": "Hello", "de": "Hallo"}, "de") == "Hallo"
    assert in_language({"en": "Hello", "de": "Hallo"}, "fr") == "Hello"
    assert in_language({"pt-BR": "Olá"}, "de") == "Olá"
    assert in_language({}, "de") == ""
