"""Probes of real servers on loopback: what they see, and that they begin and end with their owner."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hubgate.core.health import Condition, Health
from hubgate.core.site import Pool, Site, Upstream
from hubgate.upstream.prober import Prober
from hubgate.upstream.registry import Registry, UpstreamState

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""(path, writer): what a probed server does; the connection is closed afterwards."""


class Hub:
    """A server whose manners can be changed while it runs."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A probe that has given up is what some tests are about.
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            await self.answer(head.split(b" ")[1].decode(), writer)


def status(code: int, *fields: str) -> Answer:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join((f"HTTP/1.1 {code} X", "Content-Length: 2", *fields, "", "ok")).encode())
        await writer.drain()

    return answer


async def silence(_: str, writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


async def hung_hub(path: str, writer: asyncio.StreamWriter) -> None:
    """configurable-http-proxy before a hub that doesn't answer any more."""
    await (status(200) if path == "/_chp_healthz" else silence)(path, writer)


async def garbage(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def unrouted(path: str, writer: asyncio.StreamWriter) -> None:
    """configurable-http-proxy that was just started, and has no route yet."""
    await status(200 if path == "/_chp_healthz" else 404)(path, writer)


async def nothing(_: str, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def endless_line(_: str, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        writer.write(b"HTTP/1.1 200 " + bytes(1 << 20))
        await writer.drain()


@asynccontextmanager
async def running(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Hub]:
    hub = Hub(answer)
    server = await asyncio.start_server(hub.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    hub.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield hub
    finally:
        server.close()


class Watched:
    """A registry over one hub whose changes can be awaited."""

    def __init__(self, url: str, *, rise: int = 1, fall: int = 1) -> None:
        self.changes: asyncio.Queue[tuple[Condition, str]] = asyncio.Queue()
        site = Site("https://a", (Pool("htc", "/htc/", (Upstream("htc01", url, "htc"),)),))
        self.registry: Registry[None] = Registry(
            site, rise=rise, fall=fall, connections=lambda _: None, on_change=self._changed, now=0.0
        )

    def _changed(self, state: UpstreamState[None], _: Health) -> None:
        self.changes.put_nowait((state.health.condition, state.reason))

    async def change(self) -> tuple[Condition, str]:
        return await asyncio.wait_for(self.changes.get(), 60)

    def prober(
        self, *, tls: Callable[[Upstream], ssl.SSLContext | None] = lambda _: None, timeout: float = 5
    ) -> Prober:
        return Prober(self.registry, interval=0.01, timeout=timeout, tls=tls, clock=lambda: 77.0)


async def unused_port() -> int:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize(
    ("answer", "condition", "reason"),
    [
        (status(500), Condition.HUB_DOWN, "hub/health answered 500"),
        (status(503), Condition.HUB_DOWN, "hub/health answered 503"),
        (hung_hub, Condition.HUB_DOWN, "hub/health did not answer within 1.5 s, the proxy does"),
        (unrouted, Condition.HUB_DOWN, "the proxy knows no way to the hub, which has not started yet"),
        (silence, Condition.DOWN, "hub/health did not answer within 1.5 s, nor did the proxy"),
        (garbage, Condition.DOWN, None),
        (endless_line, Condition.DOWN, None),
        (nothing, Condition.DOWN, None),
    ],
)
async def test_what_a_probe_sees(answer: Answer, condition: Condition, reason: str | None) -> None:
    async with running(answer) as hub:
        watched = Watched(hub.url)
        async with watched.prober(timeout=1.5):
            seen, why = await watched.change()
        assert seen is condition
        assert why == reason if reason else why
        assert watched.registry.state("htc01").health.since == 77.0


async def test_nobody_listens() -> None:
    watched = Watched(f"http://127.0.0.1:{await unused_port()}")
    async with watched.prober():
        condition, reason = await watched.change()
    assert condition is Condition.DOWN
    assert "onnect" in reason


@pytest.mark.parametrize("answer", [status(200), status(302, "Location: /elsewhere"), status(401), status(404)])
async def test_any_answer_of_the_hub_is_a_good_one(answer: Answer) -> None:
    async with running(status(503)) as hub:
        watched = Watched(hub.url + "/")
        async with watched.prober():
            assert (await watched.change())[0] is Condition.HUB_DOWN
            hub.heads.clear()
            hub.answer = answer
            assert (await watched.change())[0] is Condition.UP
        # On a new connection each time, without anything of ours, and no redirect is followed.
        for head in hub.heads:
            assert head.startswith((b"GET /htc/hub/health HTTP/1.1\r\n", b"GET /_chp_healthz HTTP/1.1\r\n"))
            assert b"\r\nUser-Agent: hubgate-probe\r\n" in head
            assert b"\r\nCookie:" not in head
            assert b"\r\nAuthorization:" not in head


async def test_outage_and_recovery_need_their_number_of_probes() -> None:
    async with running(status(200)) as hub:
        watched = Watched(hub.url, rise=2, fall=3)
        first_probe = asyncio.Event()
        answers = 0

        async def counting(path: str, writer: asyncio.StreamWriter) -> None:
            nonlocal answers
            answers += 1
            first_probe.set()
            await status(200 if answers == 1 else 503 if answers < 5 else 200)(path, writer)

        hub.answer = counting
        async with watched.prober():
            await asyncio.wait_for(first_probe.wait(), 60)
            assert (await watched.change())[0] is Condition.HUB_DOWN
            assert answers >= 4
            assert (await watched.change())[0] is Condition.UP
            assert answers >= 6


async def test_probes_end_with_their_owner() -> None:
    async with running(silence) as hub:
        watched = Watched(hub.url)
        async with watched.prober(timeout=60):
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "probe of htc01" in names
        assert not any(task.get_name().startswith("probe of") for task in asyncio.all_tasks())


async def test_a_prober_that_was_never_entered_can_be_left() -> None:
    await Watched("http://127.0.0.1:1").prober().__aexit__(None, None, None)


async def test_a_fault_of_our_own_is_told_and_does_not_end_the_probing() -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    calls: asyncio.Queue[None] = asyncio.Queue()

    def clock() -> float:
        calls.put_nowait(None)
        raise LookupError("broken clock")

    async with running(status(200)) as hub:
        watched = Watched(hub.url)
        async with Prober(watched.registry, interval=0.01, timeout=5, tls=lambda _: None, clock=clock):
            for _ in range(3):
                await asyncio.wait_for(calls.get(), 60)
    assert len(told) >= 2
    assert told[0]["message"] == "the probe of htc01 failed in itself"
    assert isinstance(told[0]["exception"], LookupError)


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
async def test_pauses_vary_around_the_interval(chance: float, pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await asyncio.Event().wait()

    async with running(status(200)) as hub:
        watched = Watched(hub.url)
        monkeypatch.setattr("hubgate.upstream.prober.asyncio.sleep", sleep)
        async with Prober(watched.registry, interval=10, timeout=5, tls=lambda _: None, chance=lambda: chance):
            assert await asyncio.wait_for(pauses.get(), 60) == pytest.approx(pause)


def certificates(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "hub.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "hub.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "hub.pem", directory / "hub.key"


async def test_https_hubs_are_verified(tmp_path: Path) -> None:
    certificate, key = certificates(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # refused handshakes, on the server
    async with running(status(503), served) as hub:
        stranger = Watched(hub.url)
        async with stranger.prober():
            condition, reason = await stranger.change()
        assert condition is Condition.DOWN
        assert "certificate" in reason.lower()
        assert hub.heads == []

        trusting = Watched(hub.url)
        context = ssl.create_default_context(cafile=str(certificate))
        async with trusting.prober(tls=lambda upstream: context if upstream.name == "htc01" else None):
            assert await trusting.change() == (Condition.HUB_DOWN, "hub/health answered 503")
