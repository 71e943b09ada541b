"""Whatever stands in the file: a configuration, or ConfigFaults; never another exception, nor a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubgate.config import Config, ConfigFaults, Surroundings, parse
from hubgate.config.reading import literal, read
from hubgate.config.tables import Table
from tests.config.sample import HIDDEN, KEY, sound

SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        ["", "/", "-", "0s", "30m", "https://", "http://[", "//", "a@b", "/htc/", "memory://", "*", "\0", "127.0.0.1:0"]
    ),
    st.dates(),
    st.datetimes(),
    st.times(),
)
TABLES: list[type[Table]] = [Config, *Table.__subclasses__()]
NAMES = st.sampled_from(sorted({name for table in TABLES for name in table.model_fields} | {"env", "file", "zebra"}))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(NAMES, st.text(max_size=8)), inner, max_size=6)
    ),
    max_leaves=12,
)


def outcome(reading: Callable[[], Config]) -> Config | ConfigFaults:
    """What reading comes to; any other exception fails the test."""
    try:
        return reading()
    except ConfigFaults as faults:
        return faults


def is_well_told(result: Config | ConfigFaults) -> bool:
    if isinstance(result, Config):
        return bool(result.site().pools)
    complete = all(fault.key and fault.found and fault.expected for fault in result.faults)
    return bool(result.faults) and complete and HIDDEN not in str(result)


def read_tree(raw: dict[str, Any]) -> Config | ConfigFaults:
    return outcome(lambda: read(raw, Surroundings(env={"X": "y"})))


@settings(max_examples=100)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_tree_at_all(raw: dict[str, Any]) -> None:
    assert is_well_told(read_tree(raw))


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, inner in below for found in paths(inner, (*path, key))]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(paths(sound())), VALUES), min_size=1, max_size=4))
def test_a_sound_tree_with_some_places_spoilt(changes: list[tuple[tuple[str | int, ...], object]]) -> None:
    raw = sound()
    for path, value in changes:
        place: Any = raw
        try:
            for part in path[:-1]:
                place = place[part]
            place[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    assert is_well_told(read_tree(raw))


@settings(max_examples=100)
@given(st.text(max_size=200))
@example("x = " + "[" * 2000)
@example("x = " + "{a=" * 2000)
@example("a" + ".a" * 3000 + " = 1")
@example("x = 0x" + "f" * 5000)
@example("[gateway]\nworkers = 0x" + "f" * 5000)
@example('[gateway]\n"\\u0000" = 1')
def test_any_text_at_all(text: str) -> None:
    assert is_well_told(outcome(lambda: parse(text)))


TEXT = f"""\
[gateway]
public_url = "https://jupyter.example.org"
secret_keys = ["{KEY}"]
[oidc]
client_secret = "{HIDDEN}"
"""


@settings(max_examples=100)
@given(st.integers(0, len(TEXT)), st.integers(0, 20), st.text(max_size=10))
def test_a_text_with_a_piece_of_it_replaced(begin: int, length: int, piece: str) -> None:
    assert is_well_told(outcome(lambda: parse(TEXT[:begin] + piece + TEXT[begin + length :])))


@given(
    SCALARS.filter(lambda value: isinstance(value, bool | int | str)).filter(
        lambda v: not isinstance(v, str) or v.isprintable()
    )
)
def test_a_literal_is_read_as_what_it_was(value: object) -> None:
    import tomllib

    if not isinstance(value, str) or "'" not in value:
        assert tomllib.loads(f"x = {literal(value)}") == {"x": value}
