"""Somebody who has just cloned hubgate: `make demo` in a terminal, and a window of Chromium.

What they do is what README.md tells them. The tests, the stopwatch and README's screenshots all go this way.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from struct import pack

from playwright.async_api import Locator, Page

PATIENCE = 200_000.0
"""Milliseconds after which a step that hangs is given up; nothing is judged by it."""
ROWS, COLUMNS = 24, 80
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """A real terminal of 80 by 24, in which one command runs as the shell's foreground job."""

    def __init__(self, argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.raw = ""
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=dict(os.environ) | {"TERM": "xterm"} | dict(env or {}),
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        """What was written so far, as lines that stayed: without what was overwritten."""
        lines = self.raw.replace("\r\n", "\n").split("\n")
        return "\n".join(_ESCAPES.sub("", line.rpartition("\r")[2]) for line in lines)

    def wait_for(self, words: str, *, timeout: float) -> None:
        """Returns when these words are there. AssertionError when the command ends before, or it takes too long."""
        deadline = time.monotonic() + timeout
        while words not in self.text:
            assert time.monotonic() < deadline, f"no {words!r} after {timeout:.0f} s:\n{self.text}"
            assert self._read(1.0) or self.process.poll() is None, f"ended without {words!r}:\n{self.text}"

    def type(self, keys: str) -> None:
        """As a person would; Ctrl-C is `\\x03`."""
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        """Closes the window, as the terminal program does: whatever runs in it gets a SIGHUP."""
        os.close(self._ours)

    def ended(self, *, timeout: float) -> int:
        """The command's exit status, once it has ended."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still there after {timeout:.0f} s:\n{self.text}"
            self._read(0.2)
        while self._read(0.2):
            pass
        return self.process.wait()

    def _read(self, patience: float) -> bool:
        try:
            if not select.select([self._ours], [], [], patience)[0]:
                return False
            more = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the other end open any more; EBADF: closed by us
            time.sleep(min(patience, 0.1))
            return False
        self.raw += more.decode(errors="replace")
        return bool(more)


class Newcomer:
    """Somebody at a window of Chromium. `url`: what the terminal told them to open."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        page.set_default_timeout(PATIENCE)

    async def give_password(self, username: str, password: str) -> None:
        """From the address through the provider's form, to whatever asks for the code."""
        await self.page.goto(self.url)
        await self.page.locator("#username").fill(username)
        await self.page.locator("#password").fill(password)
        await self.page.locator("#password").press("Enter")
        await self.asked().wait_for()

    def asked(self) -> Locator:
        """Where the code is typed: at Keycloak's form, at its page for a new phone, or at hubgate's."""
        return self.page.locator("#otp, #totp, form.ask #code").first

    async def give_code(self, code: str) -> None:
        """The code, and on to the page after it."""
        await self.asked().fill(code)
        await self.asked().press("Enter")

    async def open_pool(self, name: str) -> None:
        """From the landing page to JupyterLab with its first notebook, whose kernel is ready."""
        await self.page.goto(self.url)
        await self.page.locator(f'a[href$="/{name}/"]').first.click()
        await self.page.wait_for_url(re.compile(rf"/{name}/user/.*/lab"), timeout=PATIENCE)
        # A cell that is run before the kernel is connected is not run at all.
        await self.page.get_by_role("button", name="Python 3 (ipykernel) | Idle").wait_for()

    async def run_cell(self, number: int) -> str:
        """Runs a code cell of the open notebook; what it printed."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)
        await cell.scroll_into_view_if_needed()
        await cell.locator(".cm-content").click()
        await self.page.keyboard.press("Shift+Enter")
        output = cell.locator(".jp-OutputArea-output")
        await output.first.wait_for()
        await self.page.get_by_role("button", name="Python 3 (ipykernel) | Idle").wait_for()
        return await output.first.inner_text()

    async def typed_key(self) -> str:
        """On the page for a new phone: the key that is shown to those who can't scan."""
        manual = self.page.locator("#mode-manual")  # Keycloak shows one or the other
        if await manual.count():
            await manual.click()
        return str(await self.page.locator("#kc-totp-secret-key, code.key").first.text_content()).strip()
