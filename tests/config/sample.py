"""A configuration without a fault, and ways to spoil it."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from hubgate.config import Config, ConfigFaults, Fault, Surroundings
from hubgate.config.reading import read

KEY = "0123456789abcdef0123456789abcdef"
HIDDEN = "swordfish-9182"

SOUND = tomllib.loads(f"""
[gateway]
public_url = "https://jupyter.example.org"
trusted_proxies = ["10.0.0.0/8"]
secret_keys = ["{KEY}"]
[oidc]
issuer = "https://id.example.org/realms/site"
client_id = "hubgate"
client_secret = "{HIDDEN}"
[[pools]]
name = "htc"
path = "/htc/"
[[pools.hubs]]
name = "htc01"
url = "http://10.0.0.11:8000"
[[pools]]
name = "hpc"
path = "/hpc/"
[[pools.hubs]]
name = "hpc01"
url = "https://10.0.1.11:8000"
""")


def sound() -> dict[str, Any]:
    return copy.deepcopy(SOUND)


def put(raw: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """Set `pools[0].hubs[0].url` and the like."""
    *above, last = key.replace("[", ".").replace("]", "").split(".")
    place: Any = raw
    for part, after in zip(above, [*above, last][1:], strict=True):
        place = place[int(part)] if part.isdigit() else place.setdefault(part, [] if after.isdigit() else {})
    if last.isdigit():
        place[int(last) :] = [value]
    else:
        place[last] = value
    return raw


def spoilt(**changes: object) -> dict[str, Any]:
    """`spoilt(gateway__workers=0)`."""
    raw = sound()
    for key, value in changes.items():
        put(raw, key.replace("__", "."), value)
    return raw


def read_in(raw: dict[str, Any], directory: Path | None = None, env: dict[str, str] | None = None) -> Config:
    return read(raw, Surroundings(env=env or {}, directory=directory or Path("/nonexistent")))


def faults_of(raw: dict[str, Any], directory: Path | None = None, env: dict[str, str] | None = None) -> list[Fault]:
    """What is wrong; an empty list when nothing is."""
    try:
        read_in(raw, directory, env)
    except ConfigFaults as error:
        return list(error.faults)
    return []
