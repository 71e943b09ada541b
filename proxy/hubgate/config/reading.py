"""How does a file become a configuration, or a list of everything that is wrong with it?

All faults at once: first each value by itself, then what values are for each other, also where some of them could not
be read: then the checks look at a configuration with holes (`_partial`). Messages of pydantic are put into words of an
operator here. Nothing but ConfigFaults ever leaves, and its messages show no secret.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hubgate.config import checks
from hubgate.config.checks import Check
from hubgate.config.faults import ConfigFaults, Fault, Location, Refusal, kind, place, shown
from hubgate.config.secret import Secret, Surroundings
from hubgate.config.tables import Config, Table

TableT = TypeVar("TableT", bound=Table)


def load(path: str | Path, env: Mapping[str, str] = os.environ, *, further: Iterable[Check] = ()) -> Config:
    """The configuration in a TOML file. Relative paths in it start at its directory.

    `further`: checks that ask those who can't be known here. Raises ConfigFaults, with every fault that can be found.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().decode()
    except OSError as error:
        what = (error.strerror or type(error).__name__).lower()
        raise ConfigFaults(str(path), [Fault("(file)", what, "a TOML file that hubgate can read")]) from None
    except ValueError:
        # Not UTF-8, or a name with a NUL in it.
        raise ConfigFaults(str(path), [Fault("(file)", "something else", "a TOML file in UTF-8")]) from None
    around = Surroundings(env=env, directory=path.absolute().parent)
    config = parse(text, around, source=str(path), further=further)
    if around.literal_secrets and mode & stat.S_IROTH:
        caution = f"{path} holds secrets and can be read by everyone on this machine: chmod o-r"
        config._cautions = (*config._cautions, caution)
    return config


def parse(
    text: str, around: Surroundings | None = None, *, source: str = "(text)", further: Iterable[Check] = ()
) -> Config:
    """The configuration in a TOML text. Raises ConfigFaults."""
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigFaults(source, [Fault("(file)", "nesting without end", "TOML of a few levels")]) from None
    except ValueError as error:
        # tomllib names line and column, and no more of the text than a character.
        raise ConfigFaults(source, [Fault("(file)", f"{error}", "TOML, see https://toml.io")]) from None
    return read(raw, around or Surroundings(), source=source, further=further)


def read(
    raw: Mapping[str, Any], around: Surroundings, *, source: str = "(text)", further: Iterable[Check] = ()
) -> Config:
    """The configuration in parsed TOML. Raises ConfigFaults."""
    faults: list[Fault] = []
    try:
        config = Config.model_validate(raw, context=around)
    except ValidationError as error:
        faults = [_in_words(detail) for detail in error.errors(include_url=False) if not _echo(detail)]
        config = _partial(Config, raw, around)
    faults += checks.faults(config, further)
    if faults:
        raise ConfigFaults(source, dict.fromkeys(faults))
    config._cautions = (*checks.cautions(config), *around.cautions)
    return config


# -- a configuration with holes


def _partial(table: type[TableT], raw: object, around: Surroundings) -> TableT:
    """The table with all values that can be read; asking for another raises Unknown."""
    values: dict[str, Any] = {}
    # Of what is no table at all nothing is known, not even that a key was left out.
    fields = table.model_fields.items() if isinstance(raw, Mapping) else ()
    given: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    for name, field in fields:
        inner = inner_table(field)
        key = written(name, field)
        value = given.get(key)
        if key not in given:
            if not field.is_required():
                values[name] = _default(table, name, around)
        elif inner is None:
            try:
                values[name] = _adapter(table, name).validate_python(value, context=around)
            except ValidationError:
                continue
        elif not holds_many(field):
            values[name] = _partial(inner, value, around)
        elif isinstance(value, list) and value:
            values[name] = tuple(_partial(inner, item, around) for item in value)
    made = table.model_construct(**values)
    for name in table.model_fields.keys() - values.keys():
        # model_construct() puts the default where nothing is given; here it would speak for a faulty value.
        made.__dict__.pop(name, None)
    return made


def _default(table: type[Table], name: str, around: Surroundings) -> Any:
    return _adapter(table, name).validate_python(
        table.model_fields[name].get_default(call_default_factory=True), context=around
    )


@cache
def _adapter(table: type[Table], name: str) -> TypeAdapter[Any]:
    field = table.model_fields[name]
    # pydantic takes the bounds of a field out of its type; this puts them back.
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation)


def written(name: str, field: FieldInfo) -> str:
    """The key of a field as it stands in the file: its name, but for a word that Python keeps to itself."""
    return field.alias or name


def inner_table(field: FieldInfo) -> type[Table] | None:
    """The class of the table or tables that a key holds, None for values."""
    return next((t for t in (field.annotation, *get_args(field.annotation)) if _is_table(t)), None)


def _is_table(annotation: object) -> TypeGuard[type[Table]]:
    return isinstance(annotation, type) and issubclass(annotation, Table)


def holds_many(field: FieldInfo) -> bool:
    """Whether a key of tables may have several of them."""
    return get_origin(field.annotation) is tuple


# -- words


def _echo(detail: ErrorDetails) -> bool:
    """Whether a list counts as too short only because its entries have faults of their own."""
    return detail["type"] == "too_short" and bool(detail["input"])


_EXPECTED: Mapping[str, str] = {
    "string_type": "a text in quotes",
    "string_too_short": "a text that is not empty",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list in [ ]",
    "too_short": "at least one entry",
    "dict_type": "a table",
    "model_type": "a table",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} at most",
}


def _in_words(detail: ErrorDetails) -> Fault:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    value, context = detail["input"], detail.get("ctx", {})
    table, field = _at(location)
    key = place(location)
    match detail["type"]:
        case "extra_forbidden":
            return Fault(key, "an unknown key", _suggestion(str(location[-1]), table))
        case "missing":
            return Fault(key, "nothing", _wanted(str(location[-1]), field))
        case "value_error" if isinstance(refusal := context.get("error"), Refusal):
            hidden = refusal.found if refusal.found is not None else shown(value)
            return Fault(key, hidden, refusal.expected)
        case "literal_error":
            return Fault(key, shown(value), f"one of {context['expected']}".replace("'", '"'))
        case code:
            found = kind(value) if field is not None and _is_secret(field.annotation) else shown(value)
            return Fault(key, found, _EXPECTED.get(code, "another value").format_map(context))


def _at(location: Location) -> tuple[type[Table], FieldInfo | None]:
    """The table that a location is in, and the field that it is, or is a part of, if it is one."""
    table: type[Table] = Config
    field: FieldInfo | None = None
    for index, part in enumerate(location):
        if isinstance(part, int):
            continue
        field = _keys(table).get(part)
        inner = None if field is None else inner_table(field)
        if inner is None:
            break
        if any(isinstance(later, str) for later in location[index + 1 :]):
            table = inner
    return table, field


def _wanted(name: str, field: FieldInfo | None) -> str:
    if field is None or inner_table(field) is not None:
        return f"at least one [[{name}]]" if name in ("pools", "hubs") else f"the table [{name}]"
    examples = "".join(f", such as {literal(example)}" for example in field.examples or ())
    return f"{field.description}{examples}"


def _suggestion(name: str, table: type[Table]) -> str:
    near = get_close_matches(name.lower(), _keys(table), 1)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [where for where, other in _tables() if name in other.model_fields and other is not table]
    if elsewhere:
        return f"did you mean the {name} of {' or '.join(elsewhere)}?"
    return f"one of {', '.join(_keys(table))}"


def _keys(table: type[Table]) -> Mapping[str, FieldInfo]:
    return {written(name, field): field for name, field in table.model_fields.items()}


def _tables() -> Iterator[tuple[str, type[Table]]]:
    """Every table, with its name in the file."""
    waiting: list[tuple[str, type[Table]]] = [("", Config)]
    while waiting:
        prefix, table = waiting.pop(0)
        for name, field in table.model_fields.items():
            if inner := inner_table(field):
                path = f"{prefix}{name}"
                yield (f"[[{path}]]" if holds_many(field) else f"[{path}]"), inner
                waiting.append((f"{path}.", inner))


def _is_secret(annotation: object) -> bool:
    return annotation is Secret or any(_is_secret(part) for part in get_args(annotation))


def literal(value: object) -> str:
    """A default or example as it is written in TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}'" if "\\" in value or '"' in value else f'"{value}"'
        case dict():
            inside = ", ".join(f"{key} = {literal(item)}" for key, item in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case datetime():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(literal, value))}]"
        case _:
            return f"{value}"
