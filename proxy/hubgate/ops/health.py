"""Is the gateway well that was started with this file?

For health checks of containers, service managers and balancers, and for people. It asks the listener of
`gateway.ops_listen` as anybody there could. Of the file it reads this one key: a fault that somebody has just typed in
makes no running gateway ill. It is run every few seconds on some sites, so it loads neither the configuration's
reader nor a web server.
"""

from __future__ import annotations

import http.client
import json
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hubgate.errors import OperatorFault

DEFAULT_LISTENER = "127.0.0.1:9090"
"""As in `config.tables`, which takes longer to load than the rest of a check."""

_PATIENCE = 2.5
"""Seconds for the whole answer: health checks are usually given three."""

_OWN_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not listened on


def listener(path: str) -> tuple[str, int]:
    """Host and port at which the gateway of this configuration file can be asked.

    OperatorFault `health_unknown`: the file can't be read, or there is no such listener.
    """
    try:
        gateway = tomllib.loads(Path(path).read_bytes().decode()).get("gateway", {})
        listen = str(gateway.get("ops_listen", DEFAULT_LISTENER))
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except OSError as error:
        raise _unknown(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, AttributeError) as error:
        raise _unknown(f"{path}: gateway.ops_listen can't be read; `hubgate check-config` says why") from error
    if not listen:
        raise _unknown('gateway.ops_listen is "", so the gateway can\'t be asked')
    if not host or not port:
        raise _unknown(f'gateway.ops_listen is "{listen}": without a host and a port of its own it can\'t be asked')
    return _OWN_ADDRESS.get(host, host), port


def look(address: tuple[str, int]) -> tuple[bool, str]:
    """Whether the gateway whose ops listener this is takes people on, and what there is to say about it.

    OperatorFault `health_silent`: it doesn't run, or doesn't answer.
    """
    connection = http.client.HTTPConnection(*address, timeout=_PATIENCE)
    try:
        connection.request("GET", "/readyz")
        missing: dict[str, Any] = json.loads(connection.getresponse().read())["missing"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OperatorFault("health_silent", f"no gateway answers at {address[0]} port {address[1]}: {why}") from error
    finally:
        connection.close()
    lacking = "; ".join(f"{part}: {what}" for part, what in missing.items())
    return not missing, f"not ready: {lacking}" if missing else "ready"


def _unknown(message: str) -> OperatorFault:
    return OperatorFault("health_unknown", message)
