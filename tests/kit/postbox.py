"""A mail server that keeps what it is given, and refuses when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Postbox:
    """`letters`: with their envelope recipients, in the order of their coming; `encrypted`: whether each came so.

    `answers`: what is said instead of taking the next ones, such as `451 later`. `logins`: user and password.
    """

    port: int = 0
    letters: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.letters.append((envelope.rcpt_tos, message))
        self.encrypted.append(session.ssl is not None)
        self._came.set()
        return "250 taken"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"swordfish")

    async def come(self, number: int) -> list[tuple[list[str], EmailMessage]]:
        """Wait until so many letters are there."""
        async with asyncio.timeout(60):
            while len(self.letters) < number:
                self._came.clear()
                await self._came.wait()
        return self.letters


@contextlib.asynccontextmanager
async def postbox(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Postbox]:
    """Serving on loopback while entered; logins are taken over encrypted connections alone."""
    box = Postbox()

    def connected() -> SMTP:
        return SMTP(
            box,
            hostname="mail.example.org",
            tls_context=starttls,
            authenticator=box.authenticate,
            auth_require_tls=tls is None,
            enable_SMTPUTF8=False,
        )

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0, ssl=tls)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
