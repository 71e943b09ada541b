"""What the documents tell people to type, read out of them, so that tests can do exactly that.

A fenced block begins with its language and then says how it is held to the truth:

    ```sh client            a test follows it: it asks for the block by this name
    ```sh site=systemd      nothing here can run it; docs/README.md lists the reason by this name
    ```toml                 check-config takes it, as a whole configuration or laid over one
    ```text                 only read

Documents speak of `jupyter.example.org` and `/etc/hubgate`; a test says where that is in its run (`placed`), and
changes nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubgate.ops.demo import redis
from hubgate.ops.demo.child import clean_environment

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `name`: how a test asks for it, or ""; `site`: why no test can run it, or ""."""

    document: str
    line: int
    language: str
    name: str
    site: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} ({' '.join(filter(None, (self.language, self.name)))})"


def documents() -> list[str]:
    """The names of all documents."""
    return sorted(path.name for path in DOCS.glob("*.md"))


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = (DOCS / document).read_text()
    found = []
    for match in _FENCE.finditer(text):
        language, _, rest = match[2].strip().partition(" ")
        site = rest.removeprefix("site=") if rest.startswith("site=") else ""
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(f"(?m)^{match[1]}", "", match[3])
        found.append(Block(document, line, language, "" if site else rest, site, body))
    return found


def follow(document: str, *names: str) -> str:
    """The text of these blocks, one after another. A test that asks for a block runs it."""
    by_name: dict[str, str] = {}
    for block in blocks(document):
        assert not block.name or block.name not in by_name, f"two blocks of this name: {block}"
        by_name[block.name] = block.text
    return "\n".join(by_name[name] for name in names)


def placed(text: str, places: Mapping[str, object]) -> str:
    """The text with what a document calls its places (addresses, folders) where they are in this run."""
    for written in sorted(places, key=len, reverse=True):
        text = text.replace(written, str(places[written]))
    return text


def typed(text: str, *, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 240) -> str:
    """What a person's shell prints who types this. The first command that fails ends it, and the test."""
    # redis-cli beside the redis-server that is used here: the virtual environment may hold others.
    programs = os.pathsep.join((str(Path(redis.executable()).parent), str(Path(sys.executable).parent)))
    surroundings = clean_environment() | {"HOME": str(cwd)} | dict(env or {})
    surroundings["PATH"] = os.pathsep.join(filter(None, (dict(env or {}).get("PATH"), programs, os.environ["PATH"])))
    done = subprocess.run(
        ["sh", "-eu", "-c", text],
        cwd=cwd,
        env=surroundings,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n-- ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
