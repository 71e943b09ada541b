"""What the development identity provider shows: three small forms, with the field names of Keycloak's.

The texts are for one developer, so they live here and not in `templates/`, which a site may replace. Which form is due,
and what a field means, is `devidp.py`'s.
"""

from __future__ import annotations

import html
from base64 import b32decode, b64encode
from hashlib import sha256

from aiohttp import web

from hubgate.web.qr import qr_code

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-content: center; }
main { width: min(22rem, 100vw - 3rem); padding: 1.5rem 0; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
label { display: block; margin-top: 1rem; }
input { display: block; box-sizing: border-box; width: 100%; margin-top: .25rem; padding: .6rem; font: inherit;
  border: 1px solid #8886; border-radius: .4rem; }
button { width: 100%; margin-top: 1.5rem; padding: .7rem; font: inherit; font-weight: 600; border: 0;
  border-radius: .4rem; background: #1d5fbf; color: #fff; cursor: pointer; }
:focus-visible { outline: 3px solid #69f; outline-offset: 2px; }
.problem { color: #c22; font-weight: 600; } .note { font-size: .85rem; opacity: .75; margin-top: 2rem; }
svg { display: block; margin: 1rem auto; width: 12rem; height: auto; background: #fff; padding: .75rem; }
code { overflow-wrap: anywhere; }
"""

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # No form-action: browsers apply it to the redirect after the form as well, and that leads to the gateway.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode()).digest()).decode()
    + "'",
}


def page(title: str, body: str, *, status: int = 200) -> web.Response:
    """A page of this provider. `body` is HTML."""
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}"
        '<p class="note">Development identity provider of hubgate. Never for a site.</p></main></body></html>'
    )
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def notice(title: str, sentence: str, *, status: int = 200) -> web.Response:
    """A page that only says something."""
    return page(title, f"<p>{html.escape(sentence)}</p>", status=status)


def password_form(action: str, problem: str) -> web.Response:
    """Asks for `username` and `password`."""
    fields = (
        '<label>Username <input id="username" name="username" autocomplete="username" autocapitalize="none" '
        'required autofocus></label><label>Password <input id="password" name="password" type="password" '
        'autocomplete="current-password" required></label>'
    )
    return page("Log in", _form("kc-form-login", action, problem, fields, "Log in"))


def code_form(action: str, problem: str) -> web.Response:
    """Asks for `otp`."""
    return page("One-time code", _form("kc-otp-login-form", action, problem, _code_field("otp"), "Log in"))


def enrolment_form(action: str, problem: str, *, key: str, uri: str) -> web.Response:
    """Shows a new key (base32) as picture and text, and asks for its first code as `totp`."""
    # Keycloak's hidden field holds the raw key, which is printable; what comes back in it is not looked at.
    raw = html.escape(b32decode(key).decode())
    fields = (
        f"<p>Scan this with an authenticator app:</p>{_picture(uri)}<p>Or type the key into it: "
        f'<code id="kc-totp-secret-key">{key}</code></p><input type="hidden" name="totpSecret" value="{raw}">'
        + _code_field("totp")
        + '<input type="hidden" name="userLabel" value="">'
    )
    return page("Set up one-time codes", _form("kc-totp-settings-form", action, problem, fields, "Go on"))


def _form(name: str, action: str, problem: str, fields: str, button: str) -> str:
    said = f'<p class="problem" id="input-error" role="alert">{html.escape(problem)}</p>' if problem else ""
    return (
        f'{said}<form id="{name}" method="post" action="{html.escape(action)}">{fields}'
        f'<button type="submit">{button}</button></form>'
    )


def _code_field(name: str) -> str:
    return (
        f'<label>One-time code <input id="{name}" name="{name}" inputmode="numeric" autocomplete="one-time-code" '
        "required autofocus></label>"
    )


def _picture(uri: str) -> str:
    """The QR code as SVG without a script or a second request."""
    code = qr_code(uri)
    return f'<svg viewBox="0 0 {code.size} {code.size}"><path d="{code.path}"/></svg>'
