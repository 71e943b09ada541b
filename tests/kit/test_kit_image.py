"""What can be told of the image without building it; system/test_image.py builds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
NO_WHERE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Instructions by stage; the first list is what stands before the first FROM."""
    text = re.sub(r"\\\n", " ", (TOP / "Dockerfile").read_text())
    found: list[list[tuple[str, str]]] = [[]]
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def test_the_bases_are_arguments_and_of_one_python(stages: list[list[tuple[str, str]]]) -> None:
    arguments = dict(rest.split("=") for word, rest in stages[0] if word == "ARG")
    assert [stage[0] for stage in stages[1:]] == [("FROM", "${BUILD_IMAGE} AS build"), ("FROM", "${PYTHON_IMAGE}")]
    assert arguments["PYTHON_IMAGE"] == f"{arguments['BUILD_IMAGE']}-slim"


def test_what_is_copied_in_is_there_and_not_ignored(stages: list[list[tuple[str, str]]]) -> None:
    allowed = {line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [source for word, rest in stages[1] if word == "COPY" for source in rest.split()[:-1]]
    assert set(sources) == allowed
    for source in sources:
        assert (TOP / source).exists(), source


def test_the_last_stage_installs_nothing_and_runs_as_nobody(stages: list[list[tuple[str, str]]]) -> None:
    last = dict(stages[2])
    assert last["RUN"].startswith("python3 -m compileall ")
    assert last["COPY"] == "--from=build /opt/hubgate /opt/hubgate"
    user, _, group = last["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["ENTRYPOINT"]) == ["hubgate"]
    # What is checked is what is served, and there is such a command (what it does: ops/test_health.py).
    serve, health = json.loads(last["CMD"]), json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    assert serve == ["serve", "-c", "/etc/hubgate/config.toml"]
    assert health == ["hubgate", "health", *serve[1:]]


@pytest.mark.pypi
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """As the first stage does it; then from another folder, with nothing of the checkout on the path."""

    def run(*argv: str | Path) -> str:
        done = subprocess.run(argv, cwd=tmp_path, env=NO_WHERE | PIP, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    wheels = tmp_path / "wheel"
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, TOP)
    (wheel,) = wheels.glob("hubgate-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python, hubgate = tmp_path / "venv/bin/python", tmp_path / "venv/bin/hubgate"
    run(python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel)
    assert "hubgate" in run(hubgate, "--version")

    config = tmp_path / "hubgate.toml"
    config.write_text((TOP / "config.example.toml").read_text().replace("/run/secrets/hubgate-key", "key"))
    (tmp_path / "key").write_text("0123456789abcdef" * 3)
    checked = subprocess.run(
        [hubgate, "check-config", "-c", config],
        cwd=tmp_path,
        env=NO_WHERE | {"HUBGATE_CLIENT_SECRET": "secret", "HTC01_TOKEN": "token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    where = run(
        python,
        "-c",
        "import hubgate, pathlib; p = pathlib.Path(hubgate.__file__).parent; print(p)\n"
        "assert (p / 'templates' / 'landing.html').is_file() and list((p / 'templates' / 'static').glob('*.css'))\n"
        "assert (p / 'ops' / 'demo' / 'realm.json').is_file()",
    )
    assert str(tmp_path) in where


PIP = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("PIP_", "SSL_", "REQUESTS_", "CURL_")) or name.lower().endswith("_proxy")
}
"""How pip reaches its index here."""
