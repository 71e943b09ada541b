"""Who may use which pool, in the words of those who have taken over?

Workers that are leaving heed it for what is still open in them. They don't read it from the configuration's file, which
may have been changed since, and be refused. The process that starts writes it down, a line for each crew that took
over, into memory that all workers inherit; no line is ever changed, so what is there can be read at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from hubgate.core.site import Site


class Rulings:
    """What the process that starts writes (`add`), and each of its workers can read (`latest`)."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("hubgate-rulings")

    def add(self, site: Site) -> None:
        """Those who serve `site` have taken over."""
        os.write(self._memory, json.dumps({pool.name: pool.groups for pool in site.pools}).encode() + b"\n")

    def latest(self) -> Mapping[str, tuple[str, ...]]:
        """The `groups` of each pool that there is now; nothing if nobody has taken over yet."""
        lines = os.pread(self._memory, os.fstat(self._memory).st_size, 0).splitlines()
        return {name: tuple(groups) for name, groups in json.loads(lines[-1]).items()} if lines else {}
