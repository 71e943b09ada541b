"""No block of the documents is passed over: a test follows it, a rule here holds it, or it says why it can't be."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hubgate.config import load
from hubgate.ops.cli import _parser
from hubgate.ops.demo.settings import merged, to_toml
from hubgate.web.problems import PROBLEMS
from tests.config.test_config_checks import pair
from tests.docs.letters import DOCS, TOP, Block, blocks, documents

READ = {"text", "json", "mermaid"}
"""Languages of what is shown and does nothing."""

ALL = [block for document in documents() for block in blocks(document)]


def followed() -> set[tuple[str, str]]:
    """What tests ask for: document and name of each block, as `follow(…)` or `FOLLOWED = …` is written in them."""
    found: set[tuple[str, str]] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "follow":
                document, *names = (
                    constants[each.id] if isinstance(each, ast.Name) else ast.literal_eval(each) for each in node.args
                )
                found |= {(document, name) for name in names}
    return found


def reasons() -> set[str]:
    """The reasons that docs/README.md lists."""
    told = (DOCS / "README.md").read_text().partition("| reason |")[2]
    return set(re.findall(r"(?m)^\| `([a-z-]+)` \|", told))


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in ALL if not block.language] == []


def test_every_block_that_does_something_is_followed_or_says_why_not() -> None:
    asked = followed()
    alone = [
        str(block)
        for block in ALL
        if block.language not in READ | {"toml", "console"}
        and not block.site
        and (block.document, block.name) not in asked
    ]
    assert alone == [], "no test follows these"


def test_what_is_left_out_is_listed_and_what_is_listed_is_left_out() -> None:
    assert {block.site for block in ALL if block.site} == reasons()


def hubgate_commands() -> set[tuple[str, str]]:
    """Every `hubgate …` that is typed in a block or named in running text, with its document."""
    found = set()
    for document in documents():
        shells = [block.text for block in blocks(document) if block.language in {"sh", "console"}]
        lines = re.sub(r"\\\n|(?:^|\s)#[^\n]*", " ", "\n".join(shells))
        prose = re.sub(r"(?ms)^```.*?^```$", "", (DOCS / document).read_text())
        typed = re.findall(r"(?m)(?:^|[ (])(hubgate [a-z][^)>|&#\n]*)", lines)
        named = re.findall(r"`(hubgate [a-z][a-z-]*(?: [^`…:]*)?)`", prose)
        found |= {(document, " ".join(command.split())) for command in (*typed, *named)}
    return found


@pytest.mark.parametrize(("document", "command"), sorted(hubgate_commands()))
def test_every_hubgate_command_is_one(document: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    # Running text leaves out whom a command is about, and the configuration.
    for more in ([], ["-c", "FILE"], ["NAME", "-c", "FILE"], ["--all", "-c", "FILE"]):
        with contextlib.suppress(SystemExit):
            _parser().parse_args([*words, *more])
            return
    pytest.fail(f"{document}: {command}: {capsys.readouterr().err}")


# -- configurations


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which the files are that configurations name."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    pair(tmp_path, "tls")
    (tmp_path / "tls-key.pem").rename(secrets / "tls-key.pem")
    for name in ("hubgate-key", "hubgate-key-next", "oidc-client-secret"):
        (secrets / name).write_text(name * 5)
    (tmp_path / "logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
    (tmp_path / "templates").mkdir()
    (secrets / "store-url").write_text("redis://:secret@127.0.0.1:6379/0")
    return tmp_path


WHOLE = next(block for block in blocks("install.md") if block.language == "toml" and "[gateway]" in block.text)
TOMLS = [block for block in ALL if block.language == "toml" and not block.site]


@pytest.mark.parametrize("block", TOMLS, ids=str)
def test_check_config_takes_every_configuration(block: Block, site: Path) -> None:
    """As it is, or where it shows some tables, laid over the one that the installation ends with."""
    written: dict[str, Any] = tomllib.loads(block.text.replace("/etc/hubgate", str(site)))
    if "gateway" not in written or "oidc" not in written:
        whole = tomllib.loads(WHOLE.text)
        written["pools"] = [{**whole["pools"][0], **pool} for pool in written.get("pools", ())] or whole["pools"]
        written = merged(whole, written)
    config = site / "config.toml"
    config.write_text(to_toml(written))
    load(config, {})


# -- what documents say of each other and of the code


def test_links_lead_somewhere() -> None:
    lost = []
    for document in documents():
        text = re.sub(r"(?ms)^```.*?^```$", "", (DOCS / document).read_text())
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if path.startswith(("http:", "https:", "mailto:")):
                continue
            there = DOCS / path if path else DOCS / document
            if not there.exists() or (anchor and anchor not in anchors(there)):
                lost.append(f"{document}: {target}")
    assert lost == []


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_has_every_document() -> None:
    index = (DOCS / "README.md").read_text()
    assert [name for name in documents() if name != "README.md" and f"({name})" not in index] == []


def test_every_code_of_an_error_page_is_in_troubleshooting() -> None:
    told = set(re.findall(r"`([a-z_]+)`", (DOCS / "troubleshooting.md").read_text()))
    assert PROBLEMS.keys() - told == set()


def test_what_people_are_told_to_look_for_stands_on_the_pages() -> None:
    of_others = {"add account", "Stop My Server", "and", "While you still have the old one."}
    told = (
        set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", (DOCS / "users.md").read_text().replace("\n", " "))) - of_others
    )
    said = (TOP / "templates" / "messages" / "en.toml", TOP / "hub" / "labextension" / "static" / "session.js")
    texts = "".join(path.read_text() for path in said)
    assert len(told) > 4
    assert [phrase for phrase in told if f'"{phrase}"' not in texts] == []
