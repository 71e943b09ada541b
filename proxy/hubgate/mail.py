"""A mail server is at the other end of this wire: letters that nobody waits for.

Whoever sends one goes on at once and learns nothing: a person's request neither waits for a mail server nor fails with
it. A letter that can't be handed over is tried again for some minutes, then given up; that is logged and counted. What
is on its way lies in memory and is bounded.

Letters are plain text. Addresses come from people's accounts and are looked at before they become a header or a command
of SMTP: one mailbox, or no letter. What a letter says is somebody else's question.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime, make_msgid, parseaddr
from typing import Literal
from urllib.parse import urlsplit

import aiosmtplib

from hubgate.tasks import Tasks

log = logging.getLogger(__name__)

Outcome = Literal["sent", "failed", "dropped"]

_MOST = 200  # letters on their way in one process
_LINES = 4  # connections at once
_TIMEOUT = 20.0  # seconds for each answer of the server
_PAUSES = (5.0, 30.0, 120.0, 600.0)  # seconds; a server that greylists wants a few minutes
_FAREWELL = 5.0  # seconds for what is on its way when hubgate stops

_MAILBOX = re.compile(r'[^\s@<>()\[\],;:\\"]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*')
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Letter:
    """`to`: a mailbox as an account has it; what is none gets no letter. `subject`: one line, of ours."""

    to: str
    subject: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where letters are handed over, and from whom they come.

    `url`: `smtp://host:port` (STARTTLS where the server offers it, whatever its certificate: RFC 7435), or
    `smtp+starttls://…`, `smtps://…` (encrypted, or no letter; the certificate is checked). `sender`: a mailbox, with a
    name before it or not. `ca`: file with the authority of the certificate, "": the system's.
    """

    url: str
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""


class Post:
    """Hands letters over while `kept` is entered. `on_end` is told how each of them ended.

    `pauses`: seconds before each further try; `farewell`: seconds that the end of `kept` waits for what is on its way.
    """

    def __init__(
        self,
        server: MailServer,
        *,
        on_end: Callable[[Outcome], None] = lambda _: None,
        pauses: Sequence[float] = _PAUSES,
        farewell: float = _FAREWELL,
    ) -> None:
        self._server = server
        self._on_end = on_end
        self._pauses = tuple(pauses)
        self._farewell = farewell
        self._letters = Tasks()
        self._lines = asyncio.Semaphore(_LINES)
        self._tls = _tls(server)
        self._from = parseaddr(server.sender)[1]
        self._domain = self._from.rpartition("@")[2]

    def send(self, letter: Letter) -> None:
        """Take a letter, and go on. Never raises."""
        if not letter.to.isprintable() or not _MAILBOX.fullmatch(letter.to):
            self._ended(letter, "dropped", "no mailbox that a letter can be sent to")
        elif len(self._letters) >= _MOST:
            self._ended(letter, "dropped", "too many letters are on their way")
        else:
            try:
                message = self._message(letter)
            except ValueError as error:
                self._ended(letter, "dropped", str(error))
                return
            self._letters.begin(self._deliver(letter, message), name="letter")

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Post]:
        """While entered, letters are handed over; at the end, what can't be within a moment is given up."""
        try:
            yield self
        finally:
            await self._letters.end(patience=self._farewell)

    async def _deliver(self, letter: Letter, message: EmailMessage) -> None:
        why = ""
        try:
            for pause in (0.0, *self._pauses):
                await asyncio.sleep(pause)
                try:
                    async with self._lines:
                        await self._hand_over(letter.to, message)
                except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                    why = f"{type(error).__name__}: {error}"
                    if _is_final(error):
                        break
                else:
                    self._on_end("sent")
                    return
        except asyncio.CancelledError:
            self._ended(letter, "failed", why or "hubgate stopped")
            raise
        self._ended(letter, "failed", why)

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._server.sender
        message["To"] = Address(username=letter.to.rpartition("@")[0], domain=letter.to.rpartition("@")[2])
        message["Subject"] = letter.subject
        message["Date"] = localtime()
        message["Message-ID"] = make_msgid(domain=self._domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5: no answers from robots
        message.set_content(letter.text)
        return message

    async def _hand_over(self, to: str, message: EmailMessage) -> None:
        server, parts = self._server, urlsplit(self._server.url)
        await aiosmtplib.send(
            message,
            sender=self._from,
            recipients=[to],
            hostname=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            local_hostname=self._domain,  # else a name server is asked, each time
            username=server.user or None,
            password=server.password or None,
            use_tls=parts.scheme == "smtps",
            start_tls={"smtp": None, "smtp+starttls": True, "smtps": False}[parts.scheme],
            tls_context=self._tls,
            timeout=_TIMEOUT,
        )

    def _ended(self, letter: Letter, outcome: Outcome, why: str) -> None:
        log.warning("mail_not_sent", extra={"to": letter.to, "subject": letter.subject, "outcome": outcome, "why": why})
        self._on_end(outcome)


def _tls(server: MailServer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.ca or None)
    if server.url.startswith("smtp://"):
        # Who listens on the way is kept out, who speaks is not: that is what the other two are for.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _is_final(error: Exception) -> bool:
    """Whether trying again is of no use: the server said so (RFC 5321, 4.2.1), or it can't be said in SMTP."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused(recipients=refusals):
            return all(refusal.code >= 500 for refusal in refusals)
        case aiosmtplib.SMTPResponseException(code=code):
            return code >= 500
        case aiosmtplib.SMTPNotSupported():
            return True
        case _:
            return isinstance(error, ValueError)
