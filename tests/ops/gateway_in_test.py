"""A process that serves a tiny gateway with the real server: `python gateway_in_test.py CONFIG`.

`/slow` begins its answer at once and ends it after the request's body. `/open` counts a tunnel as open. `/crash`: this
process dies. `/note` writes an audit line. `/title` is the portal's. Everything else is answered by the page `/`, which
names the process. HUBGATE_TEST_MISSING: what `/readyz` says; HUBGATE_TEST_FAILS: the gateway can't be put together
(`operator`: because of the site, `bug`: because of us). With the portal's title `fails operator` or `fails bug` the
same; with `lacks store` and `lacks oidc` this is missing, with `waits` the store while the file HUBGATE_TEST_WAITS is
there. HUBGATE_TEST_LAST_CALL: seconds in which those who leave wait
for what is on its way; HUBGATE_TEST_COMPLETE_WITHIN: seconds in which those who come must have what they need.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from hubgate.audit import Audit
from hubgate.config import Config, load
from hubgate.errors import OperatorFault
from hubgate.metrics import Metrics
from hubgate.ops import worker
from hubgate.ops.server import serve
from hubgate.web import listener
from hubgate.web.clearance import Caller

log = logging.getLogger("gateway_in_test")


class Served:
    shortcut = None

    def __init__(self, config: Config, metrics: Metrics, audit: Audit, access_log: Any) -> None:
        self.title = config.portal.title
        self.metrics, self.audit, self.access_log = metrics, audit, access_log
        self.pages = web.Application()
        self.pages.router.add_get("/", self.page)
        self.pages.router.add_get("/title", self.say_title)

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(text=f"{os.getpid()}")

    async def say_title(self, _: web.Request) -> web.Response:
        return web.Response(text=self.title)

    async def front(
        self, request: web.Request, own: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.metrics.requests("htc", "htc01").note(200, 0.01)
        self.access_log(
            Caller("127.0.0.1", "h", "", "htc", ""),
            method=request.method,
            path=request.path,
            status=200,
            sent=1,
            received=2,
            duration=0.003,
            request_id="r1",
        )
        match request.path:
            case "/slow":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"begun\n")
                await request.read()
                await response.write(b"done\n")
                return response
            case "/open":
                self.metrics.tunnel_opened("htc")
            case "/crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "/note":
                self.audit.event("login", "ok", user="alice", pool="htc")
        return await own(request)

    def ready(self) -> dict[str, str]:
        missing = os.environ.get("HUBGATE_TEST_MISSING")
        if self.title == "waits" and Path(os.environ["HUBGATE_TEST_WAITS"]).exists():
            return {"store": "is awaited"}
        if self.title.startswith("lacks "):
            return {self.title.removeprefix("lacks "): "is away"}
        return {"store": missing} if missing else {}

    def obey(self, rules: Mapping[str, tuple[str, ...]]) -> int:
        log.info("obeyed", extra={"groups": rules["htc"]})
        return 0

    def count_tunnels(self) -> int:
        return 0

    def close_tunnels(self) -> None:
        log.info("tunnels_closed")


@asynccontextmanager
async def gateway(config: Config, *, metrics: Metrics, audit: Audit, access_log: Any) -> AsyncIterator[Served]:
    match os.environ.get("HUBGATE_TEST_FAILS", config.portal.title.removeprefix("fails ")):
        case "operator":
            raise OperatorFault("store_unusable", "the store is of another kind")
        case "bug":
            raise ZeroDivisionError("a fault of ours")
    assert config.pools
    yield Served(config, metrics, audit, access_log)
    log.info("taken_apart")


if __name__ == "__main__":
    listener._LAST_CALL = float(os.environ.get("HUBGATE_TEST_LAST_CALL", listener._LAST_CALL))
    worker._COMPLETE_WITHIN = float(os.environ.get("HUBGATE_TEST_COMPLETE_WITHIN", worker._COMPLETE_WITHIN))
    sys.exit(serve(lambda: load(sys.argv[1]), factory=gateway))
