"""Browsers by the names that people know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.browsers import browser_and_system

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_CHROME = f"{_WEBKIT} Chrome/142.0.0.0 Safari/537.36"


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", ("Firefox", "Linux")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME}", ("Chrome", "Windows")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Edg/142.0.0.0", ("Edge", "Windows")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} OPR/120.0.0.0", ("Opera", "Windows")),
        (f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME.replace('Safari', 'Mobile Safari')}", ("Chrome", "Android")),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_CHROME}", ("Chrome", "ChromeOS")),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 "
            "Safari/605.1.15",
            ("Safari", "macOS"),
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 CriOS/142.0 Mobile Safari/604",
            ("Chrome", "iPhone"),
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 FxiOS/145.0 Mobile Safari/605",
            ("Firefox", "iPad"),
        ),
        ("curl/8.5.0", ("curl", "")),
        ("Python/3.12 aiohttp/3.14", ("Python", "")),
        ("<script>", ("", "")),
        ("", ("", "")),
    ],
)
def test_names(said: str, known: tuple[str, str]) -> None:
    assert browser_and_system(said) == known


@given(st.text())
def test_what_it_says_is_never_repeated(said: str) -> None:
    for name in browser_and_system(said):
        assert name == "" or (name.isascii() and len(name) < 20)
