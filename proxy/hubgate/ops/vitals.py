"""Is this process alive, can it take people on, and what has it done so far?

The pages of the ops listener, for service managers, balancers and Prometheus. They say nothing about people, and are
never on the public port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from hubgate.metrics import CONTENT_TYPE, Metrics

Missing = Callable[[], Mapping[str, str]]


def vitals(missing: Missing, metrics: Metrics) -> web.Application:
    """`/healthz`: 200 while the process runs. `/readyz`: 200, or 503 with what is missing. `/metrics`: of all workers.

    `missing` is asked for each `/readyz`.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        lacking = dict(missing())
        return web.json_response({"ready": not lacking, "missing": lacking}, status=503 if lacking else 200)

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=await metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", measured)
    return app
