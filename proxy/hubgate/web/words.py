"""What do we say to people?

Every sentence that a person reads is in `templates/messages/<language>.toml`, under a dotted key; templates say
`words("waiting.heading", hub=…)`. A site's own directory can replace single sentences by a file of the same name, and a
translation is another file, which may leave out what it can't say. Nothing in here knows a page.

A sentence is plain text with `{places}`. In HTML each place is escaped and isolated (`<bdi>`), so that a name can
neither carry markup nor turn the direction of the sentence around it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter

from markupsafe import Markup, escape

from hubgate.errors import OperatorFault


class Words:
    """The sentences of one language. `language`: a BCP 47 tag; `direction`: `ltr` or `rtl`."""

    def __init__(self, sentences: Mapping[str, str], *, language: str) -> None:
        self._sentences = dict(sentences)
        self._html = {key: escape(sentence) for key, sentence in self._sentences.items()}
        self.language = language
        self.direction = self._sentences.get("language.direction", "ltr")

    def __call__(self, key: str, **places: object) -> Markup:
        """The sentence as HTML. KeyError: there is no such sentence, or a place of it was not given."""
        sentence = self._html[key]
        if not places:
            return sentence
        return sentence.format(**{name: _isolated(value) for name, value in places.items()})

    def plain(self, key: str, **places: object) -> str:
        """The sentence as text, for titles and problem documents."""
        sentence = self._sentences[key]
        return sentence.format(**places) if places else sentence

    def __contains__(self, key: object) -> bool:
        return key in self._sentences

    def __iter__(self) -> Iterator[str]:
        return iter(self._sentences)

    def counted(self, key: str, count: int) -> str:
        """The sentence for a number of things: `<key>.one` or `<key>.other`."""
        return self.plain(f"{key}.{'one' if count == 1 else 'other'}", count=count)

    def span(self, seconds: float) -> str:
        """A length of time, as coarse as a person would tell it: `90 seconds`, `4 minutes`, `3 hours`."""
        for unit, size, least in _UNITS:
            if seconds >= least * size:
                return self.counted(f"time.{unit}", int(seconds // size))
        return self.plain("time.moments")


_UNITS: tuple[tuple[str, int, int], ...] = (
    ("days", 86400, 2),
    ("hours", 3600, 2),
    ("minutes", 60, 2),
    ("seconds", 1, 5),
)
"""Unit, its seconds, and how many of it there must be to be told in it."""


def _isolated(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup("<bdi>{}</bdi>").format(value)


def load_words(folders: Sequence[Path], *, language: str) -> Words:
    """Read English, and over it `language`, from each folder; a later folder wins, sentence by sentence.

    The first folder's English is what must be said; all else can only say it differently.
    OperatorFault `messages_malformed`: a file can't be read, has a sentence that nobody says, or one with a place that
    nothing fills. `messages_missing`: no folder has the language.
    """
    sentences: dict[str, str] = {}
    found = set()
    for name in dict.fromkeys((_BASE, language)):
        for path in (folder / "messages" / f"{name}.toml" for folder in folders):
            if not path.is_file():
                continue
            try:
                said = dict(_flat(tomllib.loads(path.read_text(encoding="utf-8"))))
                if sentences:
                    _check(said, sentences)
            except (OSError, ValueError) as error:
                raise OperatorFault("messages_malformed", f"{path}: {error}") from error
            sentences |= said
            found.add(name)
    if language not in found:
        raise OperatorFault("messages_missing", f"there are no messages in {language!r}")
    return Words(sentences, language=language)


_BASE = "en"


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        match value:
            case str():
                yield prefix + key, value
            case dict():
                yield from _flat(value, f"{prefix}{key}.")
            case _:
                raise ValueError(f"{prefix}{key}: a sentence is expected, in quotes")


def _check(said: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for key, sentence in said.items():
        if key not in expected:
            raise ValueError(f"{key}: nobody says this sentence")
        foreign = _places(sentence) - _places(expected[key])
        if foreign:
            raise ValueError(f"{key}: nothing fills the place {{{min(foreign)}}}")


def _places(sentence: str) -> set[str]:
    return {place for _, place, _, _ in Formatter().parse(sentence) if place is not None}
