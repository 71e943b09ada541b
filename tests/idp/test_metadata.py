"""The provider's doors and keys: whose they are, which address leads to them, and how often they are asked for."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hubgate import config
from hubgate.errors import OperatorFault, ProviderFault
from hubgate.idp.backchannel import Backchannel
from hubgate.idp.client import OIDCClient
from hubgate.idp.metadata import Discovery, read_metadata
from tests.idp import hostile
from tests.idp.conftest import CALLBACK, Clock, oidc
from tests.idp.hostile import Provider

ISSUER = "https://id.example.org/realms/site"
DISCOVERY = "/.well-known/openid-configuration"
DOCUMENT: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": ISSUER + "/auth",
    "token_endpoint": ISSUER + "/token",
    "jwks_uri": ISSUER + "/certs",
}


def test_what_is_not_offered_is_empty() -> None:
    found = read_metadata(DOCUMENT, issuer=ISSUER)
    assert (found.end_session, found.end_session_internal, found.iss_in_callback) == ("", "", False)
    assert (found.authorization, found.token, found.jwks) == (ISSUER + "/auth", ISSUER + "/token", ISSUER + "/certs")


@pytest.mark.parametrize("promise", [False, "true", 1, None])
def test_a_promise_is_a_true(promise: object) -> None:
    assert not read_metadata(
        DOCUMENT | {"authorization_response_iss_parameter_supported": promise}, issuer=ISSUER
    ).iss_in_callback


@pytest.mark.parametrize(
    "issuer", [ISSUER + "/", ISSUER.upper(), "http" + ISSUER[5:], "", None, [ISSUER], "https://evil/"]
)
def test_another_issuers_metadata_are_refused_with_both_names(issuer: object) -> None:
    with pytest.raises(ProviderFault) as caught:
        read_metadata(DOCUMENT | {"issuer": issuer}, issuer=ISSUER)
    assert (caught.value.code, caught.value.evidence["reason"]) == ("provider_error", "issuer_mismatch")
    assert ISSUER in caught.value.message


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"])
@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/auth",
            "javascript:alert(1)",
            "http://id.example.org/x",
            "https://",
            "https:///x",
            "ftp://id.example.org/",
        ),
        *("https://user@id.example.org/", "https://id.example.org/#x", "https://[/", 7, ["https://id.example.org/"]),
    ],
)
def test_endpoints_that_lead_nowhere_good_are_refused(name: str, url: object) -> None:
    with pytest.raises(ProviderFault) as caught:
        read_metadata(DOCUMENT | {name: url}, issuer=ISSUER)
    assert dict(caught.value.evidence) == {"reason": "metadata_malformed", "name": name}


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_no_login_works_without_these(name: str) -> None:
    with pytest.raises(ProviderFault, match="provider_error"):
        read_metadata({key: value for key, value in DOCUMENT.items() if key != name}, issuer=ISSUER)


@pytest.mark.parametrize("inside", ["http://keycloak:8080/realms/site", "http://keycloak:8080/realms/site/"])
def test_what_hubgate_asks_goes_inside_and_what_the_browser_sees_stays_public(inside: str) -> None:
    said = DOCUMENT | {
        "end_session_endpoint": ISSUER + "/logout",
        "jwks_uri": "https://id.example.org/realms/site2/certs",
    }
    found = read_metadata(said, issuer=ISSUER, internal_url=inside)
    assert (found.authorization, found.end_session) == (ISSUER + "/auth", ISSUER + "/logout")
    assert found.token == "http://keycloak:8080/realms/site/token"
    assert found.end_session_internal == "http://keycloak:8080/realms/site/logout"
    assert found.jwks == "https://id.example.org/realms/site2/certs", "another realm's address isn't ours to move"


def test_a_provider_that_names_endpoints_as_it_was_asked_is_understood() -> None:
    inside = "http://keycloak:8080/realms/site"
    said = DOCUMENT | {"token_endpoint": inside + "/token", "authorization_endpoint": inside + "/auth"}
    found = read_metadata(said, issuer=ISSUER, internal_url=inside)
    assert (found.authorization, found.token) == (ISSUER + "/auth", inside + "/token")


async def test_a_login_by_way_of_the_internal_address(clock: Clock) -> None:
    async with hostile.serving(Provider(clock, issuer=ISSUER)) as provider:
        settings = oidc(ISSUER, internal_url=provider.base)
        async with OIDCClient(settings, config.Mfa(), clock=clock) as client:
            url, attempt = await client.begin(redirect_uri=CALLBACK, next="/", browser="b")
            assert url.startswith(ISSUER + "/auth?")
            provider.nonce = attempt.nonce
            login = await client.finish(attempt, {"code": "c", "iss": ISSUER})
            assert login.claims["iss"] == ISSUER
            assert await client.end_session("the-refresh-token")
        assert [asked.path for asked in provider.asked] == [DISCOVERY, "/token", "/certs", "/logout"]


# --- How often


@asynccontextmanager
async def discovery_at(provider: Provider, clock: Clock) -> AsyncIterator[Discovery]:
    async with Backchannel(timeout=5) as backchannel:
        discovery = Discovery(backchannel, issuer=provider.issuer, clock=clock)
        try:
            yield discovery
        finally:
            await discovery.close()


class Gate:
    """Answers when it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: web.Request) -> web.StreamResponse:
        self.reached.set()
        await self.opened.wait()
        return web.Response(status=503)


async def test_all_who_wait_are_told_by_one_fetch_and_one_who_leaves_takes_nothing_along(clock: Clock) -> None:
    async with hostile.serving(Provider(clock)) as provider, discovery_at(provider, clock) as discovery:
        gate = provider.answers[DISCOVERY] = Gate()
        waiting = [asyncio.create_task(discovery.metadata()) for _ in range(10)]
        await gate.reached.wait()
        waiting[0].cancel()
        gate.opened.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(told[0], asyncio.CancelledError)
        assert [getattr(fault, "code", None) for fault in told[1:]] == ["provider_unavailable"] * 9
        assert provider.times(DISCOVERY) == 1


async def test_after_a_failure_it_is_asked_again_a_second_later(clock: Clock) -> None:
    async with hostile.serving(Provider(clock)) as provider, discovery_at(provider, clock) as discovery:
        honest = provider.answers
        provider.answers = {DISCOVERY: Gate()}
        provider.answers[DISCOVERY].opened.set()  # type: ignore[attr-defined]  # it is the gate of the line above
        for pause, asked in ((0, 1), (0.5, 1), (0.4, 1), (0.2, 2)):
            clock.pass_by(pause)
            with pytest.raises(ProviderFault) as caught:
                await discovery.metadata()
            assert (caught.value.code, caught.value.retry_after) == ("provider_unavailable", 5)
            assert (provider.times(DISCOVERY), discovery.known) == (asked, False)
        provider.answers = honest
        clock.pass_by(1)
        assert (await discovery.metadata()).token == provider.issuer + "/token"
        assert discovery.known


async def test_metadata_are_as_fresh_as_demanded_and_survive_an_outage(clock: Clock) -> None:
    async with hostile.serving(Provider(clock)) as provider, discovery_at(provider, clock) as discovery:
        before = await discovery.metadata()
        provider.metadata = {"token_endpoint": "http://127.0.0.1:1/token"}
        clock.pass_by(9)
        assert await discovery.metadata(max_age=10) == before
        clock.pass_by(1)
        assert (await discovery.metadata(max_age=10)).token == "http://127.0.0.1:1/token"
        clock.pass_by(1e6)
        provider.answers[DISCOVERY] = gate = Gate()
        gate.opened.set()
        assert (await discovery.metadata()).token == "http://127.0.0.1:1/token"
        with pytest.raises(ProviderFault, match="provider_unavailable"):
            await discovery.metadata(max_age=10)
        assert discovery.known


async def test_what_is_under_way_ends_with_the_client(clock: Clock) -> None:
    async with hostile.serving(Provider(clock)) as provider:
        gate = provider.answers[DISCOVERY] = Gate()
        async with OIDCClient(oidc(provider.issuer), config.Mfa(), clock=clock):
            await gate.reached.wait()
        assert not [task for task in asyncio.all_tasks() if "provider" in task.get_name()]
        gate.opened.set()


async def test_a_back_channel_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Backchannel().get("http://127.0.0.1:1/")


# --- An authority of the site's own


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def authority_and_server(folder: Path, address: str) -> tuple[Path, ssl.SSLContext]:
    """A CA's file, and a server that shows a certificate of it for an address."""
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().issuer_name(_named("Lab CA")).not_valid_before(start).not_valid_after(end)
    ca = (
        builder.subject_name(_named("Lab CA"))
        .public_key(ca_key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        builder.subject_name(_named("id"))
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", server


@pytest.mark.parametrize(
    ("address", "with_ca", "reached"),
    [("127.0.0.1", True, True), ("127.0.0.1", False, False), ("127.0.0.2", True, False)],
)
async def test_the_providers_certificate_must_be_its_own_and_of_the_authority(
    tmp_path: Path, clock: Clock, address: str, with_ca: bool, reached: bool
) -> None:
    ca, context = authority_and_server(tmp_path, address)
    async with hostile.serving(Provider(clock), ssl_context=context) as provider:
        settings = oidc(provider.issuer).model_copy(update={"ca": str(ca) if with_ca else ""})
        async with OIDCClient(settings, config.Mfa(), clock=clock) as client:
            if reached:
                assert (await client.begin(redirect_uri=CALLBACK, next="/", browser="b"))[0].startswith(provider.issuer)
            else:
                with pytest.raises(ProviderFault, match="provider_unavailable"):
                    await client.begin(redirect_uri=CALLBACK, next="/", browser="b")


async def test_an_authority_that_is_none_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(OperatorFault) as caught:
            async with Backchannel(ca=str(tmp_path / name)):
                pass
        assert (caught.value.code, name in caught.value.message) == ("ca_unusable", True)
