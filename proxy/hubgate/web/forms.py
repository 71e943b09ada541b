"""Was this form sent by our own page, and by the person who is logged in?

A token that only our pages carry, compared in constant time, and what the browser itself says about where the request
comes from (Origin, RFC 6454; Sec-Fetch-Site and Sec-Fetch-Mode, Fetch Metadata). Both must hold. A form is sent by a
navigation, never by a script: on a host that is shared with notebooks these would be of our origin.

Forms are read by hand: ours have a few short fields, and aiohttp's reader takes any charset and multipart as well, and
answers what it can't read with exceptions of many kinds.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.web.render import CSRF_FIELD

_OURS = frozenset({"same-origin", "none"})
_MOST_FIELDS = 16
_PATIENCE = 10.0  # seconds for a body that fits into one packet


async def own_form(request: web.Request, csrf: str, site: Site, host: str) -> Mapping[str, str]:
    """The fields of a form that our page sent, with the token that it was given.

    Raises ClientFault: `csrf_failed`, 403, for any other; `body_malformed`, `body_timeout` for what can't be read.
    """
    if request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
        raise _refused("script")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OURS:
        raise _refused("cross_site")
    origin = site.origin(host)
    if any(given != origin for given in request.headers.getall("Origin", ())):
        raise _refused("foreign_origin")
    fields = await form_fields(request)
    if not hmac.compare_digest(fields.get(CSRF_FIELD, "").encode(), csrf.encode()):
        raise _refused("token")
    return fields


async def form_fields(request: web.Request) -> Mapping[str, str]:
    """The fields of any form, whoever sent it. Raises ClientFault as `own_form` does for what can't be read."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise _refused("content_type")
    try:
        async with asyncio.timeout(_PATIENCE):
            body = await request.read()
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        )
    except TimeoutError as error:
        raise ClientFault("body_timeout", "a form that does not come to its end", status=408) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise ClientFault("body_malformed", "a form longer than any of ours", status=413) from error
    except (ValueError, ConnectionError, web.RequestPayloadError) as error:
        raise ClientFault("body_malformed", "a form that can't be read") from error


def _refused(why: str) -> ClientFault:
    return ClientFault("csrf_failed", status=403, evidence={"why": why})
