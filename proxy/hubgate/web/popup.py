"""Logging in again in a small window, while the page that somebody works in stays where it is.

JupyterLab keeps what was typed for as long as nobody sends its page elsewhere. So its session is renewed beside it:
`/_hubgate/login?popup=1` is a login like any other, second factor included, but it ends at a page of ours, whatever
`next` says. That page lets the browser pass through the hub's login and the person's server in a frame that shows
nothing, so that their cookies are good again (those of the same person are kept), tells the other pages of this origin,
and closes its window. `next` only names the server that is meant: nobody is ever sent there.

Who opened the page that waits is `was`: if it is somebody else who came back, they are told, and nothing goes on.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from aiohttp import web

from hubgate.core.oidc import safe_next
from hubgate.core.session import Session
from hubgate.core.site import Site
from hubgate.errors import ClientFault
from hubgate.web.paths import RENEWED_PATH, login_url
from hubgate.web.render import Pages
from hubgate.web.visit import visit_of

# Below a pool's path. Whether `user/ada/gpu` is a server of that name or a place in ada's only one can't be seen: an
# address that ends there means the server.
_SERVER = re.compile(r"user/[^/?#]+/(?:[^/?#]+/$)?")
_NAME = 255


def destination(request: web.Request, host: str) -> str:
    """Where the address of a login on `host` leads to: `next`, or with `popup=1` the page that ends the popup."""
    after = safe_next(request.query.get("next"), own_hosts=(host,))
    if not is_popup(request):
        return after
    was = request.query.get("was", "")[:_NAME]
    return f"{RENEWED_PATH}?{urlencode({'at': after, **({'was': was} if was else {})})}"


def is_popup(request: web.Request) -> bool:
    """Whether somebody logs in beside the page that they work in."""
    return request.query.get("popup") == "1"


class PopupPages:
    """`/_hubgate/renewed` on every host: each has pools, and its own pages that wait."""

    def __init__(self, site: Site, *, pages: Pages) -> None:
        self._site = site
        self._pages = pages

    async def renewed(self, request: web.Request) -> web.StreamResponse:
        """GET `at`, `was`: the end of a popup."""
        visit = visit_of(request)
        if visit.session is None:
            return self._pages.redirect(login_url(visit.raw), status=302)
        if visit.scripted:
            raise ClientFault("csrf_failed", "the page that ends a popup is not for scripts", status=403)
        at = safe_next(request.query.get("at"), own_hosts=(visit.host,))
        another = request.query.get("was", "") not in {"", visit.session.identity.username}
        return self._pages.to(visit.accept_language).renewed(
            visit.session,
            through="" if another else self._through(visit.session, visit.host, at),
            another=another,
            request_id=visit.id,
        )

    def _through(self, session: Session, host: str, at: str) -> str:
        """The address that leads past the hub's login to the server which `at` is on; "" if it is on none."""
        pools = [pool for pool in self._site.pools_on(host) if at.startswith(pool.path)]
        pool = max(pools, key=lambda pool: len(pool.path), default=None)
        if pool is None or not pool.admits(session.identity.groups):
            return ""
        server = _SERVER.match(at.removeprefix(pool.path))
        # A page of a server that asks who is there and sends those whom it doesn't know to the hub, which its API
        # doesn't do; what it then says about no file is nothing that anybody sees.
        onward = f"{server[0]}files/" if server else "hub/home"
        return f"{pool.path}hub/login?next={quote(pool.path + onward, safe='')}"
