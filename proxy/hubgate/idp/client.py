"""How does a person log in at the provider, and out?

Signatures; the bodies follow at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hubgate.core.identity import Proof
from hubgate.core.oidc import LoginAttempt

if TYPE_CHECKING:
    from hubgate import config


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What the token endpoint gave out. `expires_at`: of the access token, seconds since the epoch."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: int
    scope: str


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was checked in every respect. `provider_sid`: the provider's name for its session, or ""."""

    claims: Mapping[str, object] = field(repr=False)
    proof: Proof
    tokens: TokenSet
    provider_sid: str


class OIDCClient:
    def __init__(self, oidc: config.Oidc, mfa: config.Mfa, *, clock: Callable[[], float] = time.time) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    @property
    def available(self) -> bool:
        raise NotImplementedError

    async def begin(
        self, *, redirect_uri: str, next: str, browser: str, tries: int = 0, prompt: str | None = None
    ) -> tuple[str, LoginAttempt]:
        raise NotImplementedError

    async def finish(self, attempt: LoginAttempt, params: Mapping[str, str]) -> Login:
        raise NotImplementedError

    async def refresh(self, refresh_token: str) -> TokenSet:
        raise NotImplementedError

    async def end_session(self, refresh_token: str) -> bool:
        raise NotImplementedError

    async def end_session_url(self, *, id_token: str, post_logout_redirect_uri: str) -> str | None:
        raise NotImplementedError
