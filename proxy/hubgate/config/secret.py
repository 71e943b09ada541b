"""How does a value reach into the environment or a file without ever being shown?

A secret is written as a text, as `{ env = "NAME" }` or as `{ file = "PATH" }`; read, it is a `Secret`, whose repr and
str tell nothing, and which can't be pickled. What a secret is for, and whether it is good enough for that, is asked
elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Never

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from hubgate.config.faults import Refusal, kind, shown

_LONGEST = 64 * 1024


@dataclass(slots=True)
class Surroundings:
    """What a value may refer to: the environment, and files relative to the directory of the configuration.

    `cautions` collects what is legal but deserves a word; `literal_secrets` says whether the file itself holds any.
    """

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    directory: Path = field(default_factory=Path.cwd)
    cautions: dict[str, None] = field(default_factory=dict)
    literal_secrets: bool = False


def surroundings(info: ValidationInfo[Any]) -> Surroundings:
    """What a value that is being validated may refer to; without a context, this process and its directory."""
    return info.context if isinstance(info.context, Surroundings) else Surroundings()


class Secret:
    """A value that no log, repr or message ever shows. Written as a text, `{ env = "NAME" }` or `{ file = "PATH" }`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not written anywhere")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(lambda value, info: _secret(value, surroundings(info)))


_FORMS = '"text", { env = "NAME" } or { file = "PATH" }'


def _secret(value: object, around: Surroundings) -> Secret:
    match value:
        case Secret():
            return value
        case str():
            # An address without a password in it (store.url) is no secret.
            around.literal_secrets |= not re.fullmatch(r"[a-z0-9+]+://[^@]*", value)
            text = value
        case {"env": str() as name, **others} if not others:
            if name not in around.env:
                raise Refusal(
                    f"the environment variable {name} to be set where hubgate runs",
                    found=f"a reference to {shown(name)}, which is not set",
                )
            text = around.env[name]
            if not text:
                raise Refusal("a value that is not empty", found=f"the environment variable {name}, which is empty")
        case {"file": str() as name, **others} if not others:
            text = _secret_from_file(name, around)
        case dict():
            raise Refusal(f"a secret: {_FORMS}", found=_odd_reference(value))
        case _:
            raise Refusal(f"a secret: {_FORMS}", found=kind(value))
    if not text:
        raise Refusal("a secret that is not empty", found="an empty text")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Refusal("a secret on one line, without control characters", found="a secret (not shown) that has some")
    return Secret(text)


def _odd_reference(value: Mapping[str, object]) -> str:
    if set(value) == {"env", "file"}:
        return "a table with both env and file"
    for key in value:
        near = get_close_matches(key, ("env", "file"), 1)
        if near and key not in near:
            return f"a table with the key {shown(key)}; did you mean {near[0]}?"
    return "a table that is no reference"


def _secret_from_file(name: str, around: Surroundings) -> str:
    path = resolved(name, around)
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            # Bounded: /dev/zero is a file too.
            text = file.read(_LONGEST + 1).decode()
    except OSError as error:
        raise Refusal("a file that hubgate can read", found=why_not(path, error)) from None
    except UnicodeDecodeError:
        raise Refusal("a secret in UTF-8 text (base64 or hex for random bytes)", found=f"{path}: not text") from None
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        around.cautions[
            f"the secret file {path} can be read by everyone on this machine (mode {stat.S_IMODE(mode):04o}): chmod o-r"
        ] = None
    if len(text) > _LONGEST:
        raise Refusal("a file that holds one secret", found=f"{path}: more than {_LONGEST} bytes")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Refusal("a file that holds the secret", found=f"{path}: empty")
    return text


def resolved(name: str, around: Surroundings) -> Path:
    """A path of the configuration, relative to the directory of its file."""
    if not name or not name.isprintable():
        raise Refusal("the path of a file", found=shown(name))
    return around.directory / name


def why_not(path: Path, error: OSError) -> str:
    """What the system said about a file that it did not give."""
    return f"{path}: {(error.strerror or type(error).__name__).lower()}"
