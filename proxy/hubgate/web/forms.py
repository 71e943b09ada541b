"""Was this form sent by our own page, and by the person who is logged in?

A token that only our pages carry, compared in constant time, and what the browser itself says about where the request
comes from (Origin, RFC 6454; Sec-Fetch-Site, Fetch Metadata). Both must hold.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from aiohttp import web

from hubgate.core.session import Session
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.web.render import CSRF_FIELD

_OURS = frozenset({"same-origin", "none"})


async def own_form(request: web.Request, session: Session, site: Site, host: str) -> Mapping[str, str]:
    """The fields of a form that our page sent. ClientFault `csrf_failed`, 403, for any other."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OURS:
        raise _refused("cross_site")
    origin = site.origin(host)
    if any(given != origin for given in request.headers.getall("Origin", ())):
        raise _refused("foreign_origin")
    fields = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    if not hmac.compare_digest(fields.get(CSRF_FIELD, "").encode(), session.csrf.encode()):
        raise _refused("token")
    return fields


def _refused(why: str) -> ClientFault:
    return ClientFault("csrf_failed", status=403, evidence={"why": why})
