"""What do we say to people, in which language?

Every sentence that a person reads is in `templates/messages/<language>.toml`, under a dotted key; templates say
`words("waiting.heading", hub=…)`. A site's own directory can replace single sentences by a file of the same name, and a
translation is another file, which may leave out what it can't say. Nothing in here knows a page.

A sentence is plain text with `{places}`. In HTML each place is escaped and isolated (`<bdi>`), so that a name can
neither carry markup nor turn the direction of the sentence around it. How a language counts and writes a date stands in
its file as well: whoever can write its sentences knows that.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from string import Formatter

import jinja2
from markupsafe import Markup, escape

from hubgate.errors import OperatorFault


class Words:
    """The sentences of one language. `language`: a BCP 47 tag; `direction`: `ltr` or `rtl`.

    ValueError: the language's rule for counting can't be read.
    """

    def __init__(self, sentences: Mapping[str, str], *, language: str) -> None:
        self._sentences = dict(sentences)
        self._html = {key: escape(sentence) for key, sentence in self._sentences.items()}
        self._form = _plural(self._sentences.get("language.plural", _ENGLISH_PLURAL))
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
        """The sentence for a number of things: `<key>.one`, `<key>.other` and what else the language tells apart."""
        form = f"{key}.{self._form(count)}"
        return self.plain(form if form in self else f"{key}.other", count=count)

    def span(self, seconds: float, key: str = "time") -> str:
        """A length of time, as coarse as a person would tell it: `90 seconds`, `4 minutes`, `3 hours`.

        `key`: where its units are; with `ago` it is told as something that lies so far back.
        """
        for unit, size, least in _UNITS:
            if seconds >= least * size:
                return self.counted(f"{key}.{unit}", int(seconds // size))
        return self.plain(f"{key}.moments")

    def clock(self, moment: datetime) -> str:
        """The time of day, in the zone that `moment` carries."""
        return self.plain("date.clock", **self._places(moment))

    def date(self, moment: datetime) -> str:
        """The day, with its name."""
        return self.plain("date.day", **self._places(moment))

    def moment(self, moment: datetime, *, now: datetime) -> str:
        """The time of day, and the day unless it is `now`'s."""
        if moment.date() == now.date():
            return self.clock(moment)
        return self.plain("date.both", day=self.date(moment), clock=self.clock(moment))

    def period(self, begins: datetime, ends: datetime | None) -> str:
        """From when until when; None: until further notice."""
        if ends is None:
            return self.plain("date.since", day=self.date(begins), clock=self.clock(begins))
        if begins.date() == ends.date() and begins.utcoffset() == ends.utcoffset():
            first, last = (self.plain("date.hour", **self._places(each)) for each in (begins, ends))
            return self.plain("date.within_a_day", day=self.date(begins), begins=first, ends=last, zone=f"{begins:%Z}")
        since, until = (self.plain("date.both", day=self.date(each), clock=self.clock(each)) for each in (begins, ends))
        return self.plain("date.over_days", begins=since, ends=until)

    def _places(self, moment: datetime) -> dict[str, object]:
        return {
            "weekday": self._sentences.get(f"date.weekdays.{moment.isoweekday()}", ""),
            "month": self._sentences.get(f"date.months.{moment.month}", ""),
            "year": moment.year,
            "day": moment.day,
            "hour": f"{moment:%H}",
            "minute": f"{moment:%M}",
            "zone": f"{moment:%Z}",
        }


_UNITS: tuple[tuple[str, int, int], ...] = (
    ("days", 86400, 2),
    ("hours", 3600, 2),
    ("minutes", 60, 2),
    ("seconds", 1, 5),
)
"""Unit, its seconds, and how many of it there must be to be told in it."""

_ENGLISH_PLURAL = "'one' if n == 1 else 'other'"
_FORMS = ("zero", "one", "two", "few", "many", "other")
"""What CLDR calls the forms of counted things; no language has more."""


def _plural(rule: str) -> Callable[[int], str]:
    """Which of `_FORMS` a number takes. `rule`: an expression of Jinja, with the number as `n`."""
    try:
        expression = jinja2.Environment(autoescape=True).compile_expression(rule)
        told = {expression(n=number) for number in (*range(101), 1000, 1_000_000)}
    except (jinja2.TemplateError, ArithmeticError, TypeError) as error:
        raise ValueError(f"language.plural: {error}") from error
    if not told <= set(_FORMS):
        raise ValueError(f"language.plural: it must give one of {', '.join(_FORMS)}")
    return lambda number: str(expression(n=number))


def _isolated(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup("<bdi>{}</bdi>").format(value)


def load_words(folders: Sequence[Path], *, wanted: Sequence[str] = ()) -> dict[str, Words]:
    """Every language that somebody wrote, by its tag; the site's own first.

    `folders`: each with `messages/`; a later one wins, sentence by sentence. The first one's English is what must be
    said; all else can only say it differently, and what a language lacks is said in English. `wanted`: these languages
    and no others, in this order.

    OperatorFault `messages_malformed`: a file can't be read, has a sentence that nobody says, or one with a place that
    nothing fills. `messages_missing`: no folder has a wanted language.
    """
    english: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {_BASE: english}
    paths = sorted(path for folder in folders for path in (folder / "messages").glob("*.toml"))
    # English first, in every folder: the others are held against it.
    for path in sorted(paths, key=lambda path: (path.stem != _BASE, folders.index(path.parents[1]))):
        try:
            said = dict(_flat(tomllib.loads(path.read_text(encoding="utf-8"))))
            if english:
                _check(said, english)
        except (OSError, ValueError) as error:
            raise OperatorFault("messages_malformed", f"{path}: {error}") from error
        found.setdefault(path.stem, {}).update(said)
    languages = wanted or sorted(found, key=lambda tag: tag != _BASE)
    by_name = {tag.lower(): tag for tag in found}
    spoken = {}
    for language in languages:
        tag = by_name.get(language.lower())
        if tag is None:
            raise OperatorFault(
                "messages_missing", f"there are no messages in {language!r}; there are {', '.join(sorted(found))}"
            )
        try:
            spoken[tag] = Words(_completed(found[tag], english), language=tag)
        except ValueError as error:
            raise OperatorFault("messages_malformed", f"messages/{tag}.toml: {error}") from error
    return spoken


_BASE = "en"


def _completed(said: Mapping[str, str], english: Mapping[str, str]) -> dict[str, str]:
    """A language, with English for what it lacks: but never an English form of what it counts in its own."""
    lacking = {key: sentence for key, sentence in english.items() if not (_is_form(key) and _other(key) in said)}
    return {**lacking, **said}


def _is_form(key: str) -> bool:
    return key.rpartition(".")[2] in _FORMS


def _other(key: str) -> str:
    return f"{key.rpartition('.')[0]}.other"


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        match value:
            case str():
                yield prefix + key, value
            case dict():
                yield from _flat(value, f"{prefix}{key}.")
            case _:
                raise ValueError(f"{prefix}{key}: a sentence is expected, in quotes")


def _check(said: Mapping[str, str], english: Mapping[str, str]) -> None:
    for key, sentence in said.items():
        likened = _other(key) if _is_form(key) and key not in english else key
        if likened not in english:
            raise ValueError(f"{key}: nobody says this sentence")
        foreign = places(sentence) - places(english[likened])
        if foreign:
            raise ValueError(f"{key}: nothing fills the place {{{min(foreign)}}}")


def places(sentence: str) -> set[str]:
    """What a sentence names in braces. ValueError: braces that are not a pair."""
    return {place for _, place, _, _ in Formatter().parse(sentence) if place is not None}
