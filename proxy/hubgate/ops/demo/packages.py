"""Environments of Python, and what PyPI has for them.

With uv, which takes seconds where pip takes a minute; with pip where uv isn't there or can't do it, since a machine's
mirror may be known to pip alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, command

_ENV = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}


def environment(what: str, folder: Path) -> None:
    """A new virtual environment with pip, in the place of what was there. OperatorFault when that fails."""
    base = cache.base_python()
    if not _done(what, ["venv", "--clear", "--seed", "--python", base, str(folder)]):
        command.run(f"{what} venv", [base, "-m", "venv", "--clear", str(folder)])


def install(what: str, python: Path, packages: Sequence[str]) -> None:
    """Into the environment of `python`; `--editable`, a path and the like may be among `packages`."""
    if not _done(what, ["pip", "install", "--python", str(python), *packages]):
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command.run(f"{what} pip", [*pip, *packages])


def unpack(what: str, folder: Path, package: str) -> None:
    """The files of one package, in a folder that is no environment."""
    if not _done(what, ["pip", "install", "--python", sys.executable, "--upgrade", "--target", str(folder), package]):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command.run(f"{what} pip", [*pip, "--upgrade", "--target", str(folder), package])


def _done(what: str, argv: Sequence[str]) -> bool:
    uv = _uv()
    if uv is None:
        return False
    try:
        command.run(f"{what} uv", [uv, *argv], env=_ENV)
    except OperatorFault as fault:
        if fault.code != "install_failed":
            raise
        return False
    return True


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")
