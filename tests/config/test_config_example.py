"""config.example.toml and docs/configuration.md say what the code says: all of it, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from hubgate.config import Config, load
from hubgate.config.reading import inner_table, written
from hubgate.config.tables import Table
from hubgate.ops.cli import main
from hubgate.ops.reference import example, with_reference
from hubgate.ops.reference import main as write
from tests.config.sample import KEY
from tests.config.test_config_checks import pair

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.toml").read_text()
ENV = {"HUBGATE_CLIENT_SECRET": "x", "HTC01_TOKEN": "y", "HUBGATE_MAIL_PASSWORD": "z"}


def uncommented(text: str) -> str:
    """The example with everything in it switched on."""
    return re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", text)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with the files that the example names."""
    (tmp_path / "hubgate-key").write_text(KEY)
    pair(tmp_path, "tls")
    pair(tmp_path, "hub-client")
    pair(tmp_path, "hub-ca")
    return tmp_path


def at_home(text: str, site: Path) -> str:
    """The example with its absolute paths in a directory of ours."""
    return text.replace("/run/secrets", str(site)).replace("/etc/hubgate", str(site))


def test_the_files_are_what_the_command_writes(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    document = ROOT / "docs" / "configuration.md"
    (tmp_path / "docs" / "configuration.md").write_text(document.read_text())
    assert write([str(tmp_path)]) == 0
    hint = "run `python -m hubgate.ops.reference`"
    assert (tmp_path / "config.example.toml").read_text() == example() == EXAMPLE, hint
    assert (tmp_path / "docs" / "configuration.md").read_text() == document.read_text(), hint


def test_a_document_without_the_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="marks"):
        with_reference("# Configuration\n")


def test_the_example_passes_check_config(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "hubgate.toml").write_text(at_home(EXAMPLE, site))
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    assert main(["check-config", "-c", str(site / "hubgate.toml")]) == 0
    assert capsys.readouterr().out.startswith("ok\n")


def test_the_example_passes_with_everything_in_it_switched_on(site: Path) -> None:
    # `ca` and the like need https; nothing else is changed.
    text = uncommented(at_home(EXAMPLE, site)).replace("http://10.0.0.11", "https://10.0.0.11")
    (site / "hubgate.toml").write_text(text)
    config = load(site / "hubgate.toml", ENV)
    assert config.tls is not None
    assert config.keycloak is not None
    assert config.pools[0].host == "htc.example.org"
    assert config.pools[0].hubs[0].api_token is not None


def tables(raw: dict[str, Any]) -> list[tuple[type[Table], dict[str, Any]]]:
    found: list[tuple[type[Table], dict[str, Any]]] = []
    waiting: list[tuple[type[Table], dict[str, Any]]] = [(Config, raw)]
    while waiting:
        table, values = waiting.pop()
        found.append((table, values))
        for name, field in table.model_fields.items():
            inner = inner_table(field)
            if inner is not None:
                below = values.get(name, {})
                waiting.append((inner, below[0] if isinstance(below, list) else below))
    return found


SWITCHED_ON = tables(tomllib.loads(uncommented(EXAMPLE)))
SHOWN = tables(tomllib.loads(EXAMPLE))


@pytest.mark.parametrize(("table", "values"), SWITCHED_ON, ids=[table.__name__ for table, _ in SWITCHED_ON])
def test_every_key_is_shown_and_no_other(table: type[Table], values: dict[str, Any]) -> None:
    assert values.keys() == {written(name, field) for name, field in table.model_fields.items()}


def said_default(name: str, text: str) -> object:
    """What the comment behind a key says about its default."""
    said = re.search(rf"(?m)(?:^# (.*):\n{name} = .*|^{name} = .*  # (.*))$", text)
    assert said is not None, name
    found = re.search(r"\(default: (.+)\)$", said[1] or said[2])
    return tomllib.loads(f"x = {found[1]}")["x"] if found else None


def fields() -> list[tuple[str, FieldInfo, dict[str, Any]]]:
    return [
        (f"{table.__name__}.{written(name, field)}", field, values or switched_on)
        for (table, values), (_, switched_on) in zip(SHOWN, SWITCHED_ON, strict=True)
        for name, field in table.model_fields.items()
        if inner_table(field) is None
    ]


@pytest.mark.parametrize(("name", "field", "values"), fields(), ids=[name for name, _, _ in fields()])
def test_the_default_that_is_shown_is_the_codes(name: str, field: FieldInfo, values: dict[str, Any]) -> None:
    section, key = name.split(".")
    section = section.lower()
    many = {"pool": "[[pools]]", "hub": "[[pools.hubs]]", "announcement": "[[announcements]]"}
    heading = many.get(section, f"[{section}]")
    optional = f"\n# {heading}  #" in EXAMPLE
    text = uncommented(EXAMPLE) if optional or field.default is None or key not in values else EXAMPLE
    text = text.partition(f"\n{heading}  #")[2].partition("\n\n")[0]
    if field.is_required():
        assert re.search(rf"(?m)^{key} = .*\(required\)$|\(required\):\n{key} = ", text)
    elif field.default is None:
        # Commented out: there is no default to show.
        assert optional or key not in values
    elif values[key] != field.default:
        assert said_default(key, text) == field.default
    else:
        assert "(default:" not in re.search(rf"(?m)^{key} = .*$", text)[0]  # type: ignore[index]
