"""tests/hub/unit, once in each environment of the hubs: that is where the code runs, with its versions of all else."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.jupyterhub

HERE = Path(__file__).parent


def test_the_units_pass_in_the_hubs_own_environment(environment):
    command = ["-c", HERE / "unit" / "pytest.ini", "--confcutdir", HERE, HERE / "unit", "-v"]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        [environment.python, "-m", "pytest", *command],
        cwd=HERE.parents[1],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    # Here, unlike in our own environment, nothing may be passed over.
    for file in (HERE / "unit").glob("test_*.py"):
        assert f"{file.name}::" in ended.stdout
    assert "SKIPPED" not in ended.stdout
