"""docs/pages.md by its letters: what it shows is taken by check-config, and does what it says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hubgate.core.colour import readable
from hubgate.ops.cli import main
from hubgate.ops.demo.settings import merged, to_toml
from hubgate.web.templates import template_folders
from hubgate.web.words import load_words
from tests.config.sample import sound
from tests.docs.letters import blocks, follow

DOCUMENT = "pages.md"


def checked(raw: dict[str, object], folder: Path) -> int:
    path = folder / "hubgate.toml"
    path.write_text(to_toml(raw), encoding="utf-8")
    return main(["check-config", "-c", str(path)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a configuration is, with the files that the document speaks of."""
    (tmp_path / "logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
    messages = tmp_path / "templates" / "messages"
    messages.mkdir(parents=True)
    (messages / "en.toml").write_text(follow("pages.md", "sentence"), encoding="utf-8")
    (messages / "pl.toml").write_text(follow("pages.md", "language"), encoding="utf-8")
    return tmp_path


def test_all_of_it_at_once_is_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw: dict[str, object] = sound()
    for block in blocks(DOCUMENT):
        if block.language == "toml":
            raw = merged(raw, tomllib.loads(block.text.replace("/etc/hubgate", str(folder))))
    assert checked(raw, folder) == 0, capsys.readouterr().err
    words = load_words(template_folders(folder / "templates"))
    assert words["en"]("landing.heading") == "Where do you want to compute today?"
    assert (words["pl"].span(240), words["pl"]("page.log_out")) == ("4 minuty", "Wyloguj")
    assert words["pl"]("landing.heading") == words["en"]("landing.heading")


def test_the_refusal_is_the_one_that_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(block.text for block in blocks(DOCUMENT) if block.language == "text")
    assert checked(merged(sound(), {"portal": {"accent": "#FFCC00"}}), folder) == 1
    assert shown.strip() in capsys.readouterr().err
    assert readable("#ffcc00", "light") in shown


def test_a_sentence_that_nobody_says_is_a_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "templates" / "messages" / "de.toml").write_text('[landing]\nheadline = "Wohin?"\n')
    raw = merged(sound(), {"gateway": {"templates": str(folder / "templates")}})
    assert checked(raw, folder) == 1
    assert "landing.headline: nobody says this sentence" in capsys.readouterr().err
