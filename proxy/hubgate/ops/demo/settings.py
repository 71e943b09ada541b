"""The gateway's configuration for a stand, as a value and as TOML text.

The keys are those of `config.example.toml`; what a caller leaves out keeps hubgate's default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

Settings = dict[str, Any]


def gateway(
    *,
    public_url: str,
    listen: Sequence[str],
    ops_listen: str,
    secret_keys: Sequence[str],
    store_url: str,
    issuer: str,
    client: tuple[str, str],
    pools: Sequence[Settings],
    mfa: Mapping[str, Any] = MappingProxyType({"mode": "keycloak", "acr": "mfa"}),
) -> Settings:
    """The least that a gateway needs to know."""
    client_id, client_secret = client
    return {
        "gateway": {
            "public_url": public_url,
            "listen": list(listen),
            "secret_keys": list(secret_keys),
            "admin_groups": ["portal-admins"],
            "ops_listen": ops_listen,
        },
        "store": {"url": store_url},
        "oidc": {"issuer": issuer, "client_id": client_id, "client_secret": client_secret},
        "mfa": dict(mfa),
        "pools": list(pools),
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """`base` with `changes` laid over it, table by table; a value of None takes the key away."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def to_toml(settings: Mapping[str, Any], heading: str = "") -> str:
    """TOML 1.0 text of a value made of tables, lists of tables, lists, strings, numbers and booleans."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    _table(settings, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {k: v for k, v in table.items() if not _is_table(v, path) and not _is_tables(v, path)}
    lines.extend(f"{_key(key)} = {_value(value)}" for key, value in plain.items())
    for key, value in table.items():
        if key in plain:
            continue
        below = (*path, _key(key))
        for each in [value] if isinstance(value, Mapping) else value:
            name = ".".join(below)
            lines.extend(("", f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"))
            _table(each, below, lines)


def _is_table(value: object, path: tuple[str, ...]) -> bool:
    # Two levels down a mapping is a value such as { env = "NAME" }.
    return isinstance(value, Mapping) and len(path) < 1


def _is_tables(value: object, path: tuple[str, ...]) -> bool:
    listed = isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
    return listed and (not path or path[0] == "pools")


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) else json.dumps(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # A TOML basic string escapes as JSON does, but for DEL.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case datetime():
            return value.isoformat()
        case Mapping():
            return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(_value(each) for each in value) + "]"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")
