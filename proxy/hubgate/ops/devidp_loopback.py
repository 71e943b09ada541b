"""The development identity provider stays on this machine.

It has passwords that everybody knows, so three doors are shut: an issuer that isn't on loopback, an address to listen
on that isn't, and, for whoever starts the application by hand on another one, every request that comes in there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from hubgate.config.values import is_loopback
from hubgate.errors import OperatorFault


def demand_loopback(host: str) -> None:
    """Raises OperatorFault `devidp_not_loopback`."""
    if not is_loopback(host):
        message = f"{host or 'no host'} isn't loopback: the development identity provider is no place to log in"
        raise OperatorFault("devidp_not_loopback", message)


@web.middleware
async def loopback_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers nobody who came to another address than loopback's."""
    own = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(own, tuple) or not is_loopback(str(own[0])):
        raise web.HTTPForbidden(text="This identity provider is for development, and answers on loopback alone.")
    return await handler(request)
