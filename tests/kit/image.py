"""The image, built and run as an operator does it: by podman, for which Debian's packages are enough.

Where no registry can be reached the bases are made of Debian's packages (deploy/image/debian-bases). A machine without
systemd may have both kinds of cgroups, which podman's runtime refuses: then it gets a view of the machine with one of
them. All else is as `podman run --read-only --cap-drop=ALL …` does it anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hubgate.ops.demo.child import Child, answers

TOP = Path(__file__).parents[2]
BASES = {"BUILD_IMAGE": "localhost/python-build:trixie", "PYTHON_IMAGE": "localhost/python:trixie"}
USER = 10001
_ONE_KIND = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$@"', "sh")


def podman(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command of podman."""
    argv = [*_view(), "podman", *map(str, arguments)]
    done = subprocess.run(argv, env=_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"podman {arguments}: {done.stdout}{done.stderr}"
    return done


def build(tag: str, log: Path) -> None:
    """The image of this checkout, with `make image`'s own script. What it says goes to `log`."""
    for tool in ("podman", "crun", "mmdebstrap", "unshare"):
        if shutil.which(tool) is None:
            pytest.fail(f"no {tool}: apt-get install podman crun mmdebstrap", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("the bases are made by root alone", pytrace=False)
    made = all(podman("image", "exists", base, check=False).returncode == 0 for base in BASES.values())
    settings = BASES if made else {"BASE": "debian"}
    env = _environment() | settings | {"ENGINE": "podman", "TAG": tag, "BUILDAH_LAYERS": "false"}
    with log.open("wb") as out:
        done = subprocess.run(
            [TOP / "deploy" / "image" / "build"], env=env, stdout=out, stderr=out, timeout=900, check=False
        )
    assert done.returncode == 0, log.read_text(errors="replace")[-4000:]


def inspected(tag: str) -> dict[str, Any]:
    """What the image says of itself."""
    found: list[dict[str, Any]] = json.loads(podman("image", "inspect", tag).stdout)
    return found[0]


class Container(Child):
    """`podman run` of the image, with everything taken away that can be. `url` and `ops_url` are on this machine.

    `etc` and `secrets` are the folders that are seen as /etc/hubgate and /run/secrets.
    """

    def __init__(self, tag: str, *, etc: Path, secrets: Path, url: str, ops_url: str, name: str) -> None:
        super().__init__(name, log=etc.parent / f"{name}.log")
        self.tag = tag
        self.etc = etc
        self.secrets = secrets
        self.url = url
        self.ops_url = ops_url

    def start(self, options: Sequence[str] = ()) -> None:
        """As deploy/README.md says it; `options` are podman's. The host's network, as all its parts are on loopback."""
        argv = ["podman", "run", "--rm", "--name", self.name, "--network=host"]
        argv += ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        argv += ["--pids-limit=256", "--memory=1g", *options]
        argv += [f"--volume={self.etc}:/etc/hubgate:ro", f"--volume={self.secrets}:/run/secrets:ro"]
        self.launch([*_view(), *argv, self.tag], env=_environment())

    def listening(self) -> None:
        """Returns when it runs, whether or not what it needs is there."""
        self.wait_until(lambda: answers(f"{self.ops_url}/healthz"), timeout=60)

    def ready(self) -> None:
        """Returns when it takes people on."""
        self.wait_until(lambda: answers(f"{self.ops_url}/readyz"), timeout=60)

    def ended(self) -> int:
        """Waits until it has ended by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(60)

    def execute(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program beside the gateway, as `podman exec` does."""
        return podman("exec", self.name, *argv, check=False)


def _view() -> tuple[str, ...]:
    return _ONE_KIND if Path("/sys/fs/cgroup/unified").is_mount() else ()


def _environment() -> Mapping[str, str]:
    # podman raises limits to values of its own, which not every root may.
    return dict(os.environ) | {"CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf"))}
