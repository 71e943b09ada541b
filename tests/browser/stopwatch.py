"""How long is it from `git clone` to the first cell that ran? By a newcomer's steps, with nothing kept from before.

    make stopwatch              Keycloak does password and code
    make stopwatch MFA=gateway  hubgate asks for the code

Clones this checkout (its last commit) to a temporary folder, where caches of hubgate, uv, pip, npm and Maven are empty,
too; what comes over the network really does. Then `make demo` in a terminal, alice in Chromium, a cell in both pools,
Ctrl-C, and a second start.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from playwright.async_api import async_playwright

from hubgate.ops.demo.child import free_ports
from tests.kit import chromium
from tests.kit.newcomer import Newcomer, Terminal

TOP = Path(__file__).resolve().parents[2]
FIRST, SECOND = 900, 300
"""Seconds after which a start is given up."""


class Watch:
    """Says what was reached, and when."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def lap(self, reached: str) -> None:
        seconds = time.monotonic() - self._begun
        print(f"{int(seconds) // 60}:{seconds % 60:04.1f}  {reached}", flush=True)


def nothing_kept(folder: Path) -> dict[str, str]:
    """An environment in which no cache of before is found."""
    home = folder / "home"
    home.mkdir()
    known = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "UV_", "XDG_"))}
    known.pop("HUBGATE_CACHE", None)
    # Java asks the system where home is.
    places = {"HOME": str(home), "MAVEN_OPTS": f"-Duser.home={home}", "PIP_CACHE_DIR": str(home / "pip")}
    return known | places | {"npm_config_cache": str(home / "npm")}


async def use(url: str, command: list[str], watch: Watch, *, cwd: Path, env: Mapping[str, str]) -> None:
    """What somebody does in the browser."""

    def code() -> str:
        said = subprocess.run(
            [*command, "code", "alice"], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=True
        )
        return said.stdout.strip()

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium.executable(), args=chromium.FLAGS)
        newcomer = Newcomer(await browser.new_page(), url)
        await newcomer.give_password("alice", "alice-demo")
        await newcomer.give_code(await asyncio.to_thread(code))
        await newcomer.page.wait_for_url(f"{url}/")
        watch.lap("the landing page")
        for pool in ("htc", "hpc"):
            await newcomer.open_pool(pool)
            watch.lap(f"{pool}: JupyterLab with the first notebook")
            watch.lap(f"{pool}: the first cell ran: {await newcomer.run_cell(0)}")
        await browser.close()


def main(words: list[str]) -> int:
    """The exit status. `words`: further arguments of make."""
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="hubgate-stopwatch-") as name:
        folder = Path(name)
        env = nothing_kept(folder)
        print(f"{os.cpu_count()} cores, of which {os.getloadavg()[0]:.1f} are busy with something else", flush=True)
        watch = Watch()
        clone = folder / "hubgate"
        subprocess.run(["git", "clone", "--quiet", str(TOP), str(clone)], check=True)
        watch.lap("cloned")
        for start, patience in (("first", FIRST), ("second", SECOND)):
            terminal = Terminal(["make", "demo", f"PORT={port}", *words], cwd=clone, env=env)
            try:
                terminal.wait_for("Ctrl-C ends all of it.", timeout=patience)
                watch.lap(f"the {start} start is up")
                if start == "first":
                    print(terminal.text)
                    demo = [str(clone / ".venv/bin/hubgate"), "demo", "--port", str(port)]
                    asyncio.run(use(f"http://127.0.0.1:{port}", demo, watch, cwd=clone, env=env))
            finally:
                terminal.type("\x03")
                watch.lap("Ctrl-C")
                terminal.ended(timeout=60)
                watch.lap("all ended")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
