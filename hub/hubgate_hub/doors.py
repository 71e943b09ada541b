"""What does a person meet on the way in, on the way out, and when turned away?

JupyterHub's own login page comes back early for anybody with an old hub cookie, so whoever sat there before would stay
logged in as themselves for the next one. The page here asks first who is there now, and then looks at cookies.

Who may come in isn't decided here: `authenticator` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LogoutHandler as StockLogoutHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import new_token
from tornado import web

from .assertion import Refused

if TYPE_CHECKING:
    from .authenticator import HubgateAuthenticator


@dataclass(frozen=True)
class Advice:
    """What a kind of refusal means for the person who met it. `{user}` in `text` is their name."""

    title: str
    text: str
    status: int = 403
    retry_after: int | None = None
    goes_on: bool = False
    """The page tries again by itself after `retry_after` seconds."""


_PAST_THE_GATEWAY = Advice(
    "Please come through the front door",
    "You have reached this hub without passing the login, so it can't know who you are.",
)
_AGAIN = Advice(
    "Please log in again",
    "This login had been used already, or it took too long. Going there once more is usually enough; if it isn't, "
    "the clocks of the gateway and of this hub differ, and an administrator has to set them right.",
)
_JUST_STARTED = Advice(
    "This hub has just started",
    "This hub started a moment ago, and takes only logins that are newer. This page goes on by itself in a moment.",
    retry_after=2,
    goes_on=True,
)
_CLOCKS = Advice(
    "The clocks differ",
    "By this hub's clock your login lies in the future. It is nothing that you did: please tell the administrators "
    "that the clocks of the gateway and of this hub differ.",
)
_NOT_NOW = Advice(
    "Logins can't be checked right now",
    "This hub can't get what it needs from the gateway to check your login. Servers that are running go on running. "
    "Please try again in a moment.",
    status=503,
    retry_after=10,
)
_NOT_SET_UP = Advice(
    "This hub is not set up yet",
    "The administrators of this hub have to say which gateway it belongs to; its log says what is missing.",
    status=503,
)
_NOT_ADMITTED = Advice(
    "You are not on this hub's list",
    "You are logged in as {user}, but this hub doesn't let you in. If you should have access, please ask its "
    "administrators for it.",
)
_NO_ACCOUNT = Advice(
    "You have no account on this system",
    "You are logged in as {user}, but this system has no account of that name. Please ask its administrators for one.",
)
_BAD_NAME = Advice(
    "This hub can't use your name",
    "You are logged in under a name that can't be used here. Please ask the administrators of the gateway for another.",
)
_DISAGREE = Advice(
    "This hub can't believe the gateway",
    "The gateway and this hub don't agree about your login. It is nothing that you did: please tell the administrators "
    "the reason below; the hub's log has the details.",
)

# Whatever isn't here is a disagreement between two machines, which only their administrators can settle.
ADVICE = {
    "assertion_missing": _PAST_THE_GATEWAY,
    "before_start": _JUST_STARTED,
    "expired": _AGAIN,
    "future": _CLOCKS,
    "keys_unavailable": _NOT_NOW,
    "name_refused": _BAD_NAME,
    "no_account": _NO_ACCOUNT,
    "not_admitted": _NOT_ADMITTED,
    "not_set_up": _NOT_SET_UP,
    "replayed": _AGAIN,
    "too_many_logins": _NOT_NOW,
}


class TurnedAway(web.HTTPError):
    """A refusal as a page: what happened, what to do, and a slug for the administrators.

    `details` is HTML for the handler's `extra_error_html`, which every JupyterHub shows below the title (an exception's
    own message only since 5.3). No log message: the one line in the log was written where the refusal was understood.
    """

    def __init__(self, refusal: Refused, *, gateway_url: str = "", user: str = "", hub: str = "") -> None:
        advice = ADVICE.get(refusal.reason, _DISAGREE)
        super().__init__(advice.status, reason=advice.title)
        where = f"Reason: {refusal.reason}" + (f", hub: {hub}" if hub else "")
        start = ""
        if gateway_url:
            start = f'</p><p><a href="{escape(gateway_url)}/">Start at {escape(gateway_url)}</a>'
        # The page puts it between <p> and </p>.
        self.details = f"{escape(advice.text.format(user=user))}{start}</p><p><small>{escape(where)}</small>"
        self.headers = {"Cache-Control": "no-store"}
        if advice.retry_after is not None:
            self.headers["Retry-After"] = str(advice.retry_after)
        if advice.goes_on:
            self.headers["Refresh"] = str(advice.retry_after)


def end_hub_session(handler: Any) -> None:
    """End what this browser has at the hub: cookies of hub and servers, and the tokens that hang on them."""
    user = handler.get_current_user_cookie()
    handler.clear_login_cookie()
    if user is None:
        return
    # JupyterHub leaves these: a server believes its cookie for minutes after the token behind it is gone.
    for server_name, spawner in user.spawners.items():
        handler.clear_cookie(spawner.oauth_client_id, path=urlsplit(user.server_url(server_name)).path)


class LoginHandler(BaseHandler):  # type: ignore[misc] # JupyterHub has no types
    """`/hub/login`: who does the gateway say is there? No form, and nothing to POST."""

    async def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        authenticator: HubgateAuthenticator = self.authenticator
        proven = await authenticator.prove(self)
        name = authenticator.normalize_username(proven.name)
        # Not current_user: that one is None where refresh_user has just found out about the switch.
        before = self.get_current_user_cookie()
        if before is not None and before.name != name:
            self.log.info("hubgate: this browser was %s's and is %s's now", before.name, name)
            end_hub_session(self)
            # login_user() keeps the session id that the browser sent, which is what tokens of the one before hang on.
            self.set_session_cookie()
        user = await self.login_user()
        if user is None:
            raise authenticator.turned_away(self, Refused("not_admitted", name), user=name)
        self.redirect(self.get_next_url(user))


class LogoutHandler(StockLogoutHandler):  # type: ignore[misc] # JupyterHub has no types
    """`/hub/logout`: out of the hub, and on to the gateway. Staying here, the next click would log in again.

    Whom a page of another site has sent here loses nothing: the gateway asks them whether they want to log out.
    """

    async def get(self) -> None:
        """Log out, unless somebody else wants it (Fetch Metadata; without it, as JupyterHub does)."""
        foreign = self.request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}
        if foreign and self.authenticator.issuer:
            await self.render_logout_page()
        else:
            await super().get()

    async def handle_logout(self) -> None:
        end_hub_session(self)

    async def render_logout_page(self) -> None:
        gateway_url = self.authenticator.issuer
        if gateway_url:
            self.redirect(f"{gateway_url}/_hubgate/logout", permanent=False)
        else:
            await super().render_logout_page()


class SessionHandler(APIHandler):  # type: ignore[misc] # JupyterHub has no types
    """`DELETE /hub/api/hubgate/users/NAME/sessions/ID`: the tokens that hang on one session of one browser.

    `DELETE /hub/api/hubgate/users/NAME/sessions`: those of all browsers, and the hub's own login cookies as well: a
    cookie's value is signed, good for two weeks, and the same in every browser, so it can end only everywhere at once.

    For the gateway's service, when that browser's person has logged out there. The hub's own API knows tokens, and ends
    with one of them all of that person's at that server, in every browser.
    """

    @needs_scope("tokens")  # type: ignore[untyped-decorator] # see above
    def delete(self, user_name: str, session_id: str | None = None) -> None:
        user = self.find_user(user_name)
        if not user:
            raise web.HTTPError(404, f"No such user: {user_name}")
        tokens = self.db.query(orm.APIToken).filter_by(user_id=user.id)
        if session_id is None:
            # The others are for programs: what somebody made by themselves is theirs.
            ended = tokens.filter(orm.APIToken.session_id.isnot(None), orm.APIToken.session_id != "").all()
            user.orm_user.cookie_id = new_token()
        else:
            ended = tokens.filter_by(session_id=session_id).all()
        for token in ended:
            self.db.delete(token)
        self.db.commit()
        self.log.info("hubgate: %d tokens of %s's browsers ended", len(ended), user.name)
        self.write({"ended": len(ended)})
