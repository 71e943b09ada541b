"""docs/architecture.md and docs/decisions.md name what is there: modules, and what is kept in the store."""

from __future__ import annotations

import re

from tests.docs.letters import DOCS, TOP

PAGE = (DOCS / "architecture.md").read_text()
PACKAGE = TOP / "proxy" / "hubgate"


def test_modules_that_are_named_exist() -> None:
    both = PAGE + (DOCS / "decisions.md").read_text()
    named = set(re.findall(r"`((?:core|web|idp|store|upstream|ops)/[a-z_]+\.py)`", both))
    assert named
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_the_picture_shows_all_of_core_and_nothing_that_is_gone() -> None:
    picture = PAGE.partition("```text\n")[2].partition("```")[0]
    words = set(re.findall(r"[a-z_]+", picture))
    core = {path.stem for path in (PACKAGE / "core").glob("[a-z]*.py")}
    assert core - words == set()
    assert len(core) > 20


def test_the_table_has_every_kind_of_record_and_no_other() -> None:
    told = set(re.findall(r"`([a-z-]+):<", PAGE.partition("| key | what | lives |")[2].partition("\n\n")[0]))
    sources = "\n".join(path.read_text() for path in (PACKAGE / "web").glob("*.py"))
    kept = set(re.findall(r'(?:return |= |\()f"([a-z-]+):\{', sources))
    assert told == kept
