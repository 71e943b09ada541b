"""The extension for JupyterLab is where JupyterLab looks for it, and speaks the languages of the gateway's pages."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

from hubgate.ops.demo.hubs import HubEnvironment
from hubgate.web.templates import packaged_templates
from tests.docs.letters import TOP

EXTENSION = TOP / "hub" / "labextension"
SCRIPT = (EXTENSION / "static" / "session.js").read_text()


def test_it_has_the_packages_version_and_loads_what_is_there() -> None:
    described = json.loads((EXTENSION / "package.json").read_text())
    init = (TOP / "hub" / "hubgate_hub" / "__init__.py").read_text()
    assert f'__version__ = "{described["version"]}"' in init
    assert (EXTENSION / described["jupyterlab"]["_build"]["load"]).is_file()
    assert f'_JUPYTERLAB["{described["name"]}"]' in SCRIPT


def test_it_says_everything_in_every_language() -> None:
    table = SCRIPT.partition("const WORDS = {\n")[2].partition("\n  };\n")[0]
    said = {
        language: re.findall(r"^      (\w+):", words, re.MULTILINE)
        for language, words in re.findall(r"^    (\w\w): \{\n(.*?)^    \},", table, re.MULTILINE | re.DOTALL)
    }
    assert set(said) == {path.stem for path in (packaged_templates() / "messages").glob("*.toml")}
    assert len(said["en"]) > 5
    assert all(keys == said["en"] for keys in said.values()), said


def test_jupyterlab_finds_it_where_the_package_is_installed(
    hub_environment: Callable[[str], HubEnvironment],
) -> None:
    made = hub_environment("6.1")
    command = [str(made.bin / "jupyter"), "labextension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={"PATH": made.path()})
    listed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert re.search(r"hubgate-hub v\S+ enabled +OK", listed), listed
