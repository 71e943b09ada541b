"""Whose fault is it?

Every failure that hubgate foresees is one of these. A fault says whose it is by its class, what it is by a stable
`code` (the key of the page or the problem document that a person gets to see), and carries a hint of the HTTP status
(RFC 9110) that tells it. Sentences for users live in `templates/`; `message` is for the people who operate the site and
may appear in a log, so neither it nor `evidence` ever holds a token, a cookie, a one-time code or a secret.

Foreign exceptions are translated at the border where they come in, with `raise … from error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})


class HubgateFault(Exception):
    """A failure that was foreseen.

    `code`: slug, stable over versions. `status`: HTTP status that tells it. `retry_after`: seconds after which trying
    again makes sense, or None. `evidence`: facts for log and audit, safe to write down.
    """

    default_status = 500

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int | None = None,
        retry_after: int | None = None,
        evidence: Mapping[str, str] = _NOTHING,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = self.default_status if status is None else status
        self.retry_after = retry_after
        self.evidence = evidence

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r}, status={self.status})"


class ClientFault(HubgateFault):
    """The request can't be served as it stands; the one who sent it can change that."""

    default_status = 400


class UpstreamFault(HubgateFault):
    """A hub, or what runs behind it, did not answer as HTTP asks for.

    `repeatable`: nothing that can't be sent again has been sent, so another attempt is allowed (RFC 9110, 9.2.2).
    """

    default_status = 502

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int | None = None,
        retry_after: int | None = None,
        evidence: Mapping[str, str] = _NOTHING,
        repeatable: bool = False,
    ) -> None:
        super().__init__(code, message, status=status, retry_after=retry_after, evidence=evidence)
        self.repeatable = repeatable


class ProviderFault(HubgateFault):
    """The identity provider is silent, or says what it must not say."""

    default_status = 502


class StoreFault(HubgateFault):
    """The session store is out of reach, or holds what can't be read. Nobody is logged out because of it."""

    default_status = 503


class OperatorFault(HubgateFault):
    """The site is set up in a way that can't work; only an operator can change that."""

    default_status = 500
