"""What a gateway's process holds, seen from outside: descriptors, sockets, memory, and what it says of itself."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hubgate.ops.demo.child import text_at

_ESTABLISHED_OR_HALF = {"01", "02", "03", "04", "05", "08", "09", "0B"}


@dataclass(frozen=True)
class Held:
    """`descriptors`: open ones, `elsewhere` not counted; `clients`, `hubs`, `elsewhere`: TCP connections of browsers,
    to hubs, to store and provider, as the kernel counts them;
    `rss`: bytes; `tunnels`: as the gateway counts them itself; `sessions`: the same of sessions in memory."""

    descriptors: int
    clients: int
    hubs: int
    elsewhere: int
    rss: int
    tunnels: int

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.clients} clients, {self.hubs} to hubs, {self.elsewhere} elsewhere, "
            f"{self.tunnels} tunnels, {self.rss / 2**20:.1f} MiB"
        )


class Watch:
    """One gateway process. `port`: its public one; `hub_ports`: where its hubs are; `elsewhere`: store and provider."""

    def __init__(
        self, pid: int, *, port: int, hub_ports: frozenset[int], elsewhere: frozenset[int], ops_url: str
    ) -> None:
        self._pid = pid
        self._port = port
        self._hub_ports = hub_ports
        self._elsewhere = elsewhere
        self._ops_url = ops_url

    def held(self) -> Held:
        """Now."""
        inodes = set()
        descriptors = 0
        for entry in Path(f"/proc/{self._pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except FileNotFoundError:
                continue  # closed just now
            descriptors += 1
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        clients = hubs = elsewhere = 0
        for line in Path(f"/proc/{self._pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] not in inodes or fields[3] not in _ESTABLISHED_OR_HALF:
                continue
            clients += int(fields[1].rpartition(":")[2], 16) == self._port
            peer = int(fields[2].rpartition(":")[2], 16)
            hubs += peer in self._hub_ports
            elsewhere += peer in self._elsewhere
        tunnels = round(sum(self.metric("hubgate_tunnels_open").values()))
        return Held(descriptors - elsewhere, clients, hubs, elsewhere, self.rss(), tunnels)

    def rss(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def metric(self, name: str) -> Counter[str]:
        """A metric's values by their labels."""
        text = text_at(f"{self._ops_url}/metrics", timeout=20) or ""
        found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        if not found and "hubgate_" not in text:
            raise AssertionError(f"{self._ops_url} tells no metrics: {text[:200]!r}")
        values: Counter[str] = Counter()
        for labels, value in found:
            values[labels] += float(value)  # type: ignore[assignment]  # whole numbers, as it happens
        return values
