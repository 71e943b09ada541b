"""Runs an installer (uv, pip, npm, mvn, kc.sh build) to its end, and says kindly what happened when it fails.

Its output goes to a log in the cache, so that a terminal stays readable and nothing is lost. Installers run in threads,
which nothing can interrupt: whoever wants to leave calls `abandon`, and they end.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache
from hubgate.ops.demo.child import clean_environment, descendants, end

_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()
_abandoned = threading.Event()

_HINT = (
    "If there is no way to the network from here, or only to a mirror, the installers' own settings say so:\n"
    "HTTPS_PROXY, PIP_INDEX_URL, UV_DEFAULT_INDEX, npm_config_registry. What was fetched is kept for the next time."
)


def run(what: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 1200) -> None:
    """OperatorFault("install_failed") with the end of its output when it fails, or takes longer than `timeout` s."""
    log = cache.root() / "logs" / f"{what.replace(' ', '-').replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    passing = cache.root() / "tmp"
    passing.mkdir(exist_ok=True)
    environment = clean_environment(keep_proxies=True) | {"TMPDIR": str(passing)} | dict(env or {})
    with log.open("wb") as out:
        try:
            process = _launched(argv, environment, out.fileno())
            try:
                status = process.wait(timeout)
            finally:
                _end(process)
        except (subprocess.TimeoutExpired, OSError) as error:
            why = f"not finished after {timeout:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
            raise OperatorFault("install_failed", _message(what, why, log)) from error
    if status:
        raise OperatorFault("install_failed", _message(what, f"exit status {status}", log))


def abandon() -> None:
    """Ends what runs, with all that it started, and what would come next. There is no way back."""
    with _lock:
        _abandoned.set()
        left = [*_running]
    for process in left:
        _end(process)
    shutil.rmtree(cache.root() / "tmp", ignore_errors=True)  # what they had no time to remove


def _launched(argv: Sequence[str], env: Mapping[str, str], out: int) -> subprocess.Popen[bytes]:
    with _lock:
        if _abandoned.is_set():
            raise OperatorFault("abandoned", f"{Path(argv[0]).name} is not started any more")
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        _running.add(process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    with _lock:
        _running.discard(process)
    if process.poll() is None:
        family = descendants(process.pid)
        process.kill()
        process.wait()
        end(family)


def _message(what: str, why: str, log: Path) -> str:
    last = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-8:])
    free = shutil.disk_usage(log.parent).free >> 20
    full = f"\nThe disk is full: {free} MB are left at {log.parent}." if free < 50 else ""
    return f"{what} could not be installed ({why}). Its last words:\n{last}\nAll of it: {log}{full}\n{_HINT}"
