"""Where our own pages are: every address below `/_hubgate/`.

Nothing else of the site is there, on any of its hosts; the landing page alone is at `/`.
"""

from __future__ import annotations

from urllib.parse import quote

from hubgate.core.site import OWN_PREFIX

LOGIN_PATH = OWN_PREFIX + "login"
CALLBACK_PATH = OWN_PREFIX + "callback"
HANDOVER_PATH = OWN_PREFIX + "handover"
RENEWED_PATH = OWN_PREFIX + "renewed"

MFA_PATH = OWN_PREFIX + "mfa"
ACCOUNT_PATH = OWN_PREFIX + "account"
SESSION_PATH = OWN_PREFIX + "session"
MOVE_PATH = OWN_PREFIX + "move"

LOGOUT_PATH = OWN_PREFIX + "logout"
FAREWELL_PATH = OWN_PREFIX + "farewell"
RECEIPT_PATH = OWN_PREFIX + "logged-out"
BACKCHANNEL_PATH = OWN_PREFIX + "backchannel-logout"

JWKS_PATH = OWN_PREFIX + "jwks.json"
STATIC_PATH = OWN_PREFIX + "static/"

UNATTENDED = "?unattended"
"""How the address ends of a page of ours that loads itself anew: nobody has to be there for that."""


def login_url(after: str, *, max_age: str = "") -> str:
    """Where somebody logs in, to be sent to `after` (path, query, fragment) then.

    `max_age`: seconds that their proof may be old, in digits; "": a session is enough.
    """
    wish = f"&max_age={quote(max_age, safe='')}" if max_age else ""
    return f"{LOGIN_PATH}?next={quote(after, safe='')}{wish}"
