"""Which ways on does a problem offer?

One table from a fault's code to how it is told. The sentences are `problem.<code>` in `templates/messages/`. A new code
that a person can meet gets a row here and sentences there; tests/web/test_pages.py says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Offer = Literal["retry", "login", "home", "help"]
Tone = Literal["lost", "wait", "stop"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a problem is shown: the ways on that help, best first, and its tone.

    `waits`: it ends by itself, and the page can look for that.
    """

    offers: tuple[Offer, ...]
    tone: Tone = "stop"
    waits: bool = False


_ASK = Shape(("home", "help"))
_AGAIN = Shape(("login", "home", "help"))
_LATER = Shape(("retry", "home", "help"), "wait")
_BACK_SOON = Shape(("retry", "home", "help"), "wait", waits=True)
_LOST = Shape(("home",), "lost")

PROBLEMS: Mapping[str, Shape] = {
    "target_malformed": _LOST,
    "target_ambiguous": _LOST,
    "host_malformed": _LOST,
    "unknown_host": _LOST,
    "unknown_path": _LOST,
    "method_not_allowed": _LOST,
    "request_malformed": _LOST,
    "body_timeout": _LATER,
    "headers_too_large": _ASK,
    "group_missing": _ASK,
    "login_expired": _AGAIN,
    "login_unknown": _AGAIN,
    "login_denied": _AGAIN,
    "login_restart": _AGAIN,
    "login_not_allowed": _ASK,
    "callback_malformed": _AGAIN,
    "username_refused": _ASK,
    "username_taken": _ASK,
    "second_factor_missing": _AGAIN,
    "fresh_factor_required": _AGAIN,
    "second_factor_changed": _AGAIN,
    "second_factor_unreadable": _ASK,
    "provider_unavailable": _LATER,
    "provider_error": _AGAIN,
    "id_token_refused": _AGAIN,
    "claims_malformed": _ASK,
    "too_many_logins": _LATER,
    "session_required": _AGAIN,
    "token_unknown": _ASK,
    "token_ended": _ASK,
    "token_owner_away": _AGAIN,
    "token_foreign": _ASK,
    "token_in_query": _LOST,
    "too_many_tokens": _LATER,
    "store_unavailable": _LATER,
    "upstream_unreachable": _LATER,
    "upstream_timeout": _LATER,
    "upstream_malformed": _LATER,
    "upstream_closed": _LATER,
    "hub_down": _BACK_SOON,
    "no_hub_available": _BACK_SOON,
    "origin_refused": _ASK,
    "csrf_failed": _ASK,
    "internal": Shape(("retry", "home", "help")),
}
"""Every code that has sentences of its own."""

_ALIKE: Mapping[str, str] = dict.fromkeys(
    (
        "body_malformed",
        "expectation_refused",
        "framing_malformed",
        "header_malformed",
        "method_refused",
        "upgrade_malformed",
    ),
    "request_malformed",
)
"""Codes that operators want apart, and that are one and the same to a person."""

_UNEXPECTED = Shape(("home", "help"))


def told_as(code: str) -> tuple[str, Shape]:
    """The name of the sentences that tell this code, and how they are shown: also for one that nobody foresaw."""
    key = _ALIKE.get(code, code)
    shape = PROBLEMS.get(key)
    return (key, shape) if shape else ("unexpected", _UNEXPECTED)
