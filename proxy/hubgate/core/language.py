"""In which of the languages that we speak should somebody be told something?

Matching is "lookup" of RFC 4647, 3.4, on an Accept-Language field (RFC 9110, 12.5.4). Nobody is ever refused for their
language (12.5.4 leaves that to us): where nothing matches, the site's first language is spoken. What is said in a
language is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

_MEMBER = re.compile(
    r"""(?P<range>[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)
        (?:[ \t]*;[ \t]*[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?""",
    re.VERBOSE,
)
_MOST_MEMBERS = 32
"""People have a handful; who sends more is not read to the end."""


@lru_cache(maxsize=256)
def preferred(field: str, spoken: tuple[str, ...]) -> str:
    """One of `spoken` (BCP 47 tags, the site's first language in front, at least one).

    `field`: the value of Accept-Language, or empty. Members that can't be read are passed over.
    """
    by_name = {tag.lower(): tag for tag in spoken}
    wishes = dict(_wishes(field))
    unwanted = {name for name, weight in wishes.items() if not weight}
    ranked = sorted((name for name, weight in wishes.items() if weight), key=lambda name: -wishes[name])
    for name in ranked:
        if name == "*":
            found = next((tag for low, tag in by_name.items() if low not in wishes), None)
        else:
            found = _lookup(name, by_name, unwanted)
        if found is not None:
            return found
    return spoken[0]


def _wishes(field: str) -> Iterator[tuple[str, float]]:
    for member in field.split(",")[:_MOST_MEMBERS]:
        if match := _MEMBER.fullmatch(member.strip(" \t")):
            yield match["range"].lower(), float(match["weight"] or 1)


def _lookup(name: str, by_name: Mapping[str, str], unwanted: set[str]) -> str | None:
    """The tag that is meant by a range: itself, a shorter one, or a longer one that begins with it."""
    parts = name.split("-")
    while parts:
        shorter = "-".join(parts)
        if shorter in by_name and shorter not in unwanted:
            return by_name[shorter]
        parts.pop()
    return next((tag for low, tag in by_name.items() if low.startswith(f"{name}-") and low not in unwanted), None)


def in_language(text: str | Mapping[str, str], language: str) -> str:
    """A text of the site's own, which it may have written in several languages; else the first that it wrote.

    `text`: by BCP 47 tag, in the order of preference; a text by itself is for everybody.
    """
    if isinstance(text, str):
        return text
    return text[preferred(language, tuple(text))] if text else ""
