"""What is wrong with a configuration, in the words of the person who wrote it?

Three things make up a fault: the key as it stands in the file, what was found there, and what is expected. A value is
shown only where it can't be a secret: not where a secret belongs, not below a key that nobody knows (it may be a
misspelt secret), and never the password of a URL. Which values are wrong is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hubgate.errors import OperatorFault

Location = tuple[str | int, ...]

_LONGEST_SHOWN = 80
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_USERINFO = re.compile(r"(?<=//)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to change. `key`: its place, such as `pools[1].hubs[0].url`."""

    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key}\n    found:    {self.found}\n    expected: {self.expected}"


class ConfigFaults(OperatorFault):
    """A configuration that can't be used, with everything that is wrong with it. `source`: where it was read from."""

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        many = f"{len(self.faults)} faults" if len(self.faults) != 1 else "1 fault"
        super().__init__("config_invalid", "\n".join((f"{source}: {many}", *map(str, self.faults))))

    def __str__(self) -> str:
        return self.message


class Refusal(ValueError):
    """Raised by a check of one value. `found` None: the value may be shown as it is."""

    def __init__(self, expected: str, *, found: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found


def place(location: Sequence[str | int]) -> str:
    """A location in the notation of this module: `("pools", 1, "path")` is `pools[1].path`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else _quoted(part)
            text += f".{name}" if text else name
    return text


def shown(value: object) -> str:
    """A value from a TOML file as it may be written into a message: short, on one line, without a URL's password."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            text = _quoted(without_password(value))
            return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(value)} characters)"
        case float():
            return str(value)
        case int():
            # An integer of thousands of digits can't even be turned into text (CPython's limit on conversions).
            return str(value) if abs(value) < 10**30 else "a number out of all bounds"
        case _:
            return kind(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def kind(value: object) -> str:
    """What sort of thing a value is, without showing it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case str():
            return "a text" if value else "an empty text"
        case int() | float():
            return "a number"
        case dict():
            return "a table"
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return "a date or time"


def without_password(text: str) -> str:
    """The text with user and password of every URL in it cut out."""
    return _USERINFO.sub("…@", text)
