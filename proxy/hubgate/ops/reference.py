"""Which keys can be configured, for people: `config.example.toml` and the tables of docs/configuration.md.

Both are made from `config.tables`, and a test holds the files to what is made here. `python -m hubgate.ops.reference`,
in a checkout, writes them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from hubgate.config.reading import holds_many, inner_table, literal, written
from hubgate.config.tables import Config, Table

BEGIN = "<!-- made by `python -m hubgate.ops.reference`: begin -->"
END = "<!-- made by `python -m hubgate.ops.reference`: end -->"

_WIDEST = 120
_COLUMN = 44

_HEAD = """\
# hubgate: every key there is, with its default, or with an example where a site must say it itself.
# Only what is marked "required" must be given. Lines that are commented out have no default.
#
# A secret is a text, { env = "NAME" } or { file = "PATH" }; a duration is "90s", "30m", "12h" or "7d".
# Relative paths start at the directory of this file. `hubgate check-config -c FILE` tells every fault at once.
"""

_TAIL = """
# More pools as they come; a pool may have a host of its own, and then needs no path.
[[pools]]
name = "hpc"
title = "High-performance computing"
path = "/hpc/"
section = "HPC"
groups = ["hpc-users"]
help = "Ask the HPC desk for an account."
[[pools.hubs]]
name = "hpc01"
url = "http://10.0.1.11:8000"
"""


def example() -> str:
    """The text of `config.example.toml`."""
    lines = [_HEAD]
    for path, table, optional, many in _tables():
        title = f"[[{path}]]" if many else f"[{path}]"
        said = f"{title}  # {inspect.cleandoc(table.__doc__ or '').splitlines()[0]}"
        lines.append(f"# {said}" if optional else said)
        lines += [f"# {line}" if optional and not line.startswith("#") else line for line in _keys(table)]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n" + _TAIL


def reference() -> str:
    """The generated part of docs/configuration.md."""
    parts = []
    for path, table, optional, many in _tables():
        meaning = inspect.cleandoc(table.__doc__ or "")
        parts.append(
            f"### `{f'[[{path}]]' if many else f'[{path}]'}`{' (optional)' if optional else ''}\n\n{meaning}\n"
        )
        parts.append("| key | default | meaning |\n|---|---|---|")
        for name, field in _values(table):
            parts.append(f"| `{name}` | {_default(field)} | {(field.description or '').replace('|', '&#124;')} |")
        parts.append("")
    return "\n".join(parts)


def with_reference(document: str) -> str:
    """A document with the generated part put anew between its two marks. ValueError: it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the marks of the generated part are missing")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write both files below a directory: the first argument, else this one."""
    root = Path(arguments[0] if arguments else ".")
    document = root / "docs" / "configuration.md"
    document.write_text(with_reference(document.read_text()))
    (root / "config.example.toml").write_text(example())
    return 0


def _tables() -> Iterator[tuple[str, type[Table], bool, bool]]:
    """Every table: its path, its class, whether it may be left out with no defaults, whether there may be several."""
    yield from _below("", Config)


def _below(prefix: str, table: type[Table]) -> Iterator[tuple[str, type[Table], bool, bool]]:
    for name, field in table.model_fields.items():
        inner = inner_table(field)
        if inner is not None:
            optional = not field.is_required() and field.default_factory is None
            yield f"{prefix}{name}", inner, optional, holds_many(field)
            yield from _below(f"{prefix}{name}.", inner)


def _values(table: type[Table]) -> Iterator[tuple[str, FieldInfo]]:
    fields = table.model_fields.items()
    return ((written(name, field), field) for name, field in fields if inner_table(field) is None)


def _keys(table: type[Table]) -> Iterator[str]:
    for name, field in _values(table):
        shown = field.examples[0] if field.examples else field.default
        meaning = field.description or ""
        if field.is_required():
            meaning += " (required)"
        elif field.examples and field.default is not None:
            meaning += f" (default: {literal(field.default)})"
        line = f"{name} = {literal(shown)}"
        if field.default is None:
            line = f"# {line}"
        aligned = f"{line:{_COLUMN}}  # {meaning}"
        if len(aligned) <= _WIDEST:
            yield aligned
        else:
            yield f"# {meaning}:"
            yield line


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return f"required, such as `{literal(field.examples[0])}`" if field.examples else "required"
    return "none" if field.default is None else f"`{literal(field.default)}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
