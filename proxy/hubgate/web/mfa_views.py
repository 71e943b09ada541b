"""What the pages of the second factor show: one type for each, with exactly its facts.

`Pages.mfa` renders them; the template of each finds it as `view`. Nothing in here is decided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import quote

from hubgate.core.identity import Identity
from hubgate.core.session import Session
from hubgate.web.qr import QrCode

Slug = Literal[
    "wrong_code",
    "used_code",
    "clock_ahead",
    "clock_behind",
    "malformed_code",
    "too_many",
    "wrong_recovery_code",
    "wrong_ticket",
]


@dataclass(frozen=True, slots=True)
class FactorState:
    """Somebody's second factor, for pages about more. `since`: seconds since the epoch; `left`: recovery codes."""

    since: float
    left: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why it did not work: `mfa.trouble.<slug>`. `seconds`: how far a clock is off, or how long to wait."""

    slug: Slug
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """`csrf`: of the page's forms; `session`: None while there is none."""

    has_form: ClassVar[bool] = True

    csrf: str = field(repr=False)
    who: Identity
    session: Session | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCode(_View):
    """A code, or a recovery code, at the login. `onward`: a code alone, in a session, on the way there."""

    template: ClassVar[str] = "mfa_code.html"

    onward: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTicket(_View):
    """The enrolment ticket, before the first enrolment."""

    template: ClassVar[str] = "mfa_ticket.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrol(_View):
    """A key to take over into an app, and the code that confirms it.

    `reason`: why it is asked for; `key`: in groups, to be typed; `uri`: for an app on this very device.
    """

    template: ClassVar[str] = "mfa_enrol.html"

    reason: Literal["first", "recovered", "change"]
    qr: QrCode = field(repr=False)
    key: str = field(repr=False)
    uri: str = field(repr=False)
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes(_View):
    """New recovery codes, for the only time. `onward`: where to go then; `text`: what is saved as a file."""

    template: ClassVar[str] = "mfa_codes.html"
    has_form: ClassVar[bool] = False

    codes: tuple[str, ...] = field(repr=False)
    onward: str
    enrolled: bool
    text: str = field(repr=False)

    @property
    def file(self) -> str:
        """`text` as an address that needs no server, so that the codes lie nowhere else."""
        return f"data:text/plain;charset=utf-8,{quote(self.text)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manage(_View):
    """What somebody who is logged in can do about their second factor. `since`: seconds since the epoch, None: there
    is none any more; `left`: recovery codes.
    """

    template: ClassVar[str] = "mfa_manage.html"

    since: float | None
    left: int


View: TypeAlias = AskCode | AskTicket | Enrol | Codes | Manage


def examples(session: Session) -> tuple[View, ...]:
    """One of each, to try templates with."""
    csrf, who, trouble = session.csrf, session.identity, Trouble("clock_ahead", 120.0)
    return (
        AskCode(csrf=csrf, who=who, trouble=trouble),
        AskCode(csrf=csrf, who=who, session=session, onward="/"),
        AskTicket(csrf=csrf, who=who),
        Enrol(csrf=csrf, who=who, reason="first", qr=QrCode("M0 0h1v1h-1z", 1), key="ABCD", uri="otpauth:", label="-"),
        Codes(csrf=csrf, who=who, codes=("-",), onward="/", enrolled=True, text="-"),
        Manage(csrf=csrf, who=who, session=session, since=0.0, left=1),
        Manage(csrf=csrf, who=who, session=session, since=None, left=0),
    )
