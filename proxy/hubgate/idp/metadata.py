"""Where are the provider's doors, and which keys does it sign with?

OpenID Connect Discovery 1.0, read when first needed and again from time to time: the gateway starts while the provider
is down, and works as soon as it is back. All who wait for the same document wait for one fetch of it.

The issuer's public address and the address under which hubgate reaches it may differ. What the browser is sent to is
public, what hubgate itself asks is rewritten; nothing but this module knows about the second address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from joserfc.jwk import Key

from hubgate.core.oidc import choose_key, signature_keys
from hubgate.errors import ProviderFault
from hubgate.idp.backchannel import Backchannel, Reply

T = TypeVar("T")

_WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The provider's endpoints: `authorization` and `end_session` for the browser, the others for hubgate itself.

    `iss_in_callback`: it promises RFC 9207's parameter, so an answer without it is none. The two last ones are "" when
    the provider has none.
    """

    authorization: str
    token: str
    jwks: str
    iss_in_callback: bool
    end_session: str = ""
    end_session_internal: str = ""


def read_metadata(document: Mapping[str, Any], *, issuer: str, internal_url: str = "") -> Metadata:
    """The metadata in a discovery document. Raises ProviderFault `provider_error` if it is another issuer's (OpenID
    Connect Discovery 1.0, 4.3) or has no usable endpoints.
    """
    if document.get("issuer") != issuer:
        found = str(document.get("issuer"))[:200]
        raise ProviderFault(
            "provider_error",
            f"the provider calls itself {found!r}, but oidc.issuer is {issuer!r}: they must be equal to the letter",
            evidence={"reason": "issuer_mismatch"},
        )
    addresses = _Addresses(issuer, internal_url)

    def endpoint(name: str, *, required: bool = True) -> str:
        found = document.get(name)
        if found is None and not required:
            return ""
        if not isinstance(found, str) or not addresses.usable(found):
            raise ProviderFault(
                "provider_error",
                f"the provider's metadata has no usable {name}",
                evidence={"reason": "metadata_malformed", "name": name},
            )
        return found

    end_session = endpoint("end_session_endpoint", required=False)
    return Metadata(
        authorization=addresses.public(endpoint("authorization_endpoint")),
        token=addresses.internal(endpoint("token_endpoint")),
        jwks=addresses.internal(endpoint("jwks_uri")),
        iss_in_callback=document.get("authorization_response_iss_parameter_supported") is True,
        end_session=addresses.public(end_session),
        end_session_internal=addresses.internal(end_session),
    )


class Discovery:
    """The provider's metadata and keys, as fresh as they need to be.

    `cool_down`: seconds between two fetches of the keys because of a key id that nobody knows; whoever makes up key ids
    must not make us knock at the provider each time. `lifetime`: seconds after which keys are read again anyway.
    """

    def __init__(
        self,
        backchannel: Backchannel,
        *,
        issuer: str,
        internal_url: str = "",
        clock: Callable[[], float],
        cool_down: float = 30.0,
        lifetime: float = 3600.0,
    ) -> None:
        self._backchannel = backchannel
        self._issuer = issuer
        self._internal_url = internal_url
        self._cool_down = cool_down
        self._lifetime = lifetime
        self._metadata = _Fetched(self._fetch_metadata, clock)
        self._keys = _Fetched(self._fetch_keys, clock)

    @property
    def known(self) -> bool:
        """Whether the metadata was ever read."""
        return self._metadata.value is not None

    async def close(self) -> None:
        """End what is still being fetched."""
        await self._metadata.close()
        await self._keys.close()

    async def metadata(self, *, max_age: float | None = None) -> Metadata:
        """The metadata, not older than `max_age` seconds if that is given. Raises ProviderFault."""
        present = self._metadata.value
        if present is not None and (max_age is None or self._metadata.age < max_age):
            return present
        return await self._metadata.fetch()

    async def key(self, header: Mapping[str, Any]) -> Key:
        """The key that signed a token with this header. Raises ProviderFault: `id_token_refused` for a key that the
        provider doesn't have, else whatever keeps us from knowing.
        """
        keys = self._keys.value
        if keys is None or self._keys.age >= self._lifetime:
            keys = await self._keys.fetch()
        found = choose_key(keys, header)
        if found is None and self._keys.age >= self._cool_down:
            found = choose_key(await self._keys.fetch(), header)
        if found is None:
            raise ProviderFault(
                "id_token_refused", "signed with a key that the provider doesn't have", evidence={"reason": "key"}
            )
        return found

    async def _fetch_metadata(self) -> Metadata:
        base = (self._internal_url or self._issuer).rstrip("/")
        document = _expect_document(await self._backchannel.get(base + _WELL_KNOWN), "metadata")
        return read_metadata(document, issuer=self._issuer, internal_url=self._internal_url)

    async def _fetch_keys(self) -> tuple[Key, ...]:
        metadata = await self.metadata()
        return signature_keys(_expect_document(await self._backchannel.get(metadata.jwks), "keys"))


def refusal(reply: Reply, what: str) -> ProviderFault:
    """What an answer means that is not the expected one: come back later, or something is wrong for good."""
    evidence = {"status": str(reply.status), "reason": what}
    if reply.status >= 500 or reply.status == 429:
        message = f"the provider answered {reply.status} when asked for its {what}"
        return ProviderFault("provider_unavailable", message, status=503, retry_after=5, evidence=evidence)
    return ProviderFault("provider_error", f"the provider has no usable {what} ({reply.status})", evidence=evidence)


def _expect_document(reply: Reply, what: str) -> Mapping[str, Any]:
    if reply.status != 200 or reply.document is None:
        raise refusal(reply, what)
    return reply.document


class _Addresses:
    """The issuer's two addresses."""

    def __init__(self, issuer: str, internal_url: str) -> None:
        self._issuer = issuer.rstrip("/")
        self._internal = internal_url.rstrip("/") or self._issuer
        # Behind an https issuer nothing goes over http, unless the internal address was configured so.
        self._insecure = any(url.startswith("http://") for url in (self._issuer, self._internal))

    def usable(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        schemes = {"https", "http"} if self._insecure else {"https"}
        return bool(parts.scheme in schemes and parts.hostname and "@" not in parts.netloc and not parts.fragment)

    def internal(self, url: str) -> str:
        return _moved(url, self._issuer, self._internal)

    def public(self, url: str) -> str:
        # Keycloak with hostname-backchannel-dynamic names some endpoints by the address that it was asked under.
        return _moved(url, self._internal, self._issuer)


def _moved(url: str, old: str, new: str) -> str:
    return new + url.removeprefix(old) if url.startswith(old + "/") else url


class _Fetched(Generic[T]):
    """A document that is fetched by one task for all who wait for it. After a failure the next attempt is made no
    sooner than a second later; whoever comes before is told the same.
    """

    _PAUSE = 1.0

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._task: asyncio.Task[T] | None = None
        self._read = 0.0
        self._failed = -self._PAUSE
        self._fault: ProviderFault | None = None
        self.value: T | None = None

    @property
    def age(self) -> float:
        """Seconds since it was read. A clock that was set back makes it old, not young."""
        age = self._clock() - self._read
        return age if age >= 0 else float("inf")

    async def fetch(self) -> T:
        """Read it now. Raises ProviderFault; the value of before stays then."""
        if self._task is None:
            if self._fault is not None and 0 <= self._clock() - self._failed < self._PAUSE:
                fault = self._fault
                raise ProviderFault(
                    fault.code,
                    fault.message,
                    status=fault.status,
                    retry_after=fault.retry_after,
                    evidence=fault.evidence,
                )
            self._task = asyncio.create_task(self._run(), name="fetch from the provider")
            self._task.add_done_callback(_looked_at)
        # Shielded: one who goes away must not take the answer from the others.
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """Cancel what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> T:
        try:
            self.value = await self._fetch()
        except ProviderFault as fault:
            self._fault, self._failed = fault, self._clock()
            raise
        else:
            self._fault, self._read = None, self._clock()
            return self.value
        finally:
            self._task = None


def _looked_at(task: asyncio.Task[Any]) -> None:
    # Nobody may be left to be told; asyncio would complain about an exception that was never retrieved.
    if not task.cancelled():
        task.exception()
