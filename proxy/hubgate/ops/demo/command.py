"""Runs an installer (pip, npm, mvn, kc.sh build) to its end, and says kindly what happened when it fails.

Its output goes to a log in the cache, so that a terminal stays readable and nothing is lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache
from hubgate.ops.demo.child import clean_environment


def run(what: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 1200) -> None:
    """OperatorFault("install_failed") with the end of its output when it fails, or takes longer than `timeout` s."""
    log = cache.root() / "logs" / f"{what.replace(' ', '-').replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    environment = clean_environment(keep_proxies=True) | dict(env or {})
    with log.open("wb") as out:
        try:
            subprocess.run(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise OperatorFault("install_failed", f"{what}: {_why(error)}\n{_end(log)}\nAll of it: {log}") from error


def _why(error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"not finished after {error.timeout:.0f} s"
        case subprocess.CalledProcessError():
            return f"exit status {error.returncode}"
        case _:
            return str(error)


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
