"""The same over TLS on the public side, where nginx and the gateway have the same certificate."""

from __future__ import annotations

from tests.bench.figures import Figure, scene
from tests.bench.scenes_requests import gets
from tests.bench.scenes_sockets import messages
from tests.bench.scenes_transfers import compared
from tests.bench.workbench import Bench

_NAMES = ("nginx-tls", "gateway-tls")


@scene("tls")
async def tls(bench: Bench) -> list[Figure]:
    """Requests, messages, transfers; connections are open before the account is looked at: no handshakes in it."""
    targets = await bench.field(*_NAMES)
    got = await bench.measured("TLS, GET 200 B, CPU µs per request", gets(), targets)
    said = await bench.measured("TLS, WebSocket 100 B, CPU µs per message there and back", messages(), targets)
    down = await compared(bench, "down", _NAMES, "tls-down", "gateway-tls", "nginx-tls")
    up = await compared(bench, "up", _NAMES, "tls-up", "gateway-tls", "nginx-tls")
    return [
        bench.compared("tls-get", got, "gateway-tls", "nginx-tls", lambda cost: cost.each),
        bench.compared("tls-ws", said, "gateway-tls", "nginx-tls", lambda cost: cost.each),
        *down,
        *up,
    ]
