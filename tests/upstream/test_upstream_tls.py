"""Hubs behind TLS: whom we trust, whom we present ourselves to, and that all else is as it is in the clear."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from hubgate.core.site import Upstream
from hubgate.errors import OperatorFault, UpstreamFault
from hubgate.upstream.http import ConnectionPool, Timeouts, UpstreamAborted
from tests.kit.certificates import Authority
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, get, handshake, ok, post, switched

BOTH_LOOPS = True
BOTH_WAYS = True


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_hub_of_our_own_authority(authority: Authority) -> None:
    names: list[str] = []
    serving = authority.serving()
    serving.sni_callback = lambda _socket, name, _context: names.append(name)  # type: ignore[assignment]
    async with (
        RawUpstream(always(ok(b"secret")), tls=serving) as hub,
        gate(hub, ca=authority.file) as door,
    ):
        client = await door.client()
        for _ in range(3):
            await client.send(get())
            assert (await client.reply()).body == b"secret"
            await door.at_rest()
        assert len(hub.peers) == 1
        assert names == ["localhost"]


async def test_a_client_certificate_is_shown(authority: Authority) -> None:
    ours = authority.issue("gateway", client=True)
    async with (
        RawUpstream(always(ok()), tls=authority.serving(clients=True)) as hub,
        gate(hub, ca=authority.file, certificate=ours.certificate, key=ours.key) as door,
    ):
        assert (await door.ask(get())).status == 200
        assert hub.peers[0].writer.get_extra_info("peercert")["subject"] == ((("commonName", "gateway"),),)


async def test_without_the_certificate_that_a_hub_demands(authority: Authority) -> None:
    async with (
        RawUpstream(always(ok()), tls=authority.serving(clients=True)) as hub,
        gate(hub, ca=authority.file) as door,
    ):
        assert (await door.ask(get())).status == 502
        assert isinstance(await door.outcome(), UpstreamFault)
        assert hub.received == b""


async def refused(door_ca: str, serving: ssl.SSLContext) -> None:
    async with RawUpstream(always(ok()), tls=serving) as hub, gate(hub, ca=door_ca) as door:
        assert (await door.ask(post(b"secret"))).status == 502
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamFault)
        assert (outcome.code, outcome.repeatable) == ("upstream_unreachable", True)
        assert hub.received == b""


async def test_a_foreign_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    await refused(authority.file, Authority(tmp_path, "another authority").serving())


async def test_another_name_is_not_trusted(authority: Authority) -> None:
    await refused(authority.file, authority.serving("elsewhere.example.org"))


async def test_a_hub_that_talks_no_tls(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(1)
        await peer.send(ok())

    hub = RawUpstream(script)
    async with hub, gate(f"https://localhost:{hub.port}", ca=authority.file) as door:
        assert (await door.ask(get())).status == 502
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamFault)
        assert outcome.code == "upstream_unreachable"


async def test_a_hub_that_never_ends_its_handshake(authority: Authority) -> None:
    hub = RawUpstream(Peer.gone)
    limits = Timeouts(connect=0.2)
    async with hub, gate(f"https://localhost:{hub.port}", ca=authority.file, limits=limits) as door:
        assert (await door.ask(get())).status == 504
        assert len(door.pool) == 0


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
def test_files_that_cannot_be_read_are_told_before_anything_starts(authority: Authority, missing: str) -> None:
    issued = authority.issue("gateway", client=True)
    files = {"ca": authority.file, "certificate": issued.certificate, "key": issued.key}
    files[missing] = "/nowhere/at.all"
    with pytest.raises(OperatorFault, match="hub"):
        ConnectionPool(Upstream("hub", "https://localhost", "pool", **files))


async def test_a_tunnel_over_tls_on_both_sides(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(switched() + b"first")
        size = 1 << 20
        assert await peer.exactly(size) == b"u" * size
        await peer.send(b"d" * size)
        await peer.gone()

    async with (
        RawUpstream(script, tls=authority.serving()) as hub,
        gate(hub, ca=authority.file, serving=authority.serving(), trusting=authority.trusting()) as door,
    ):
        client = await door.client()
        await client.send(handshake() + b"u" * 1024)
        assert (await client.reply()).status == 101
        await client.send(b"u" * ((1 << 20) - 1024))
        assert await client.exactly(5 + (1 << 20)) == b"first" + b"d" * (1 << 20)
        client.close()
        await (await hub.peer()).gone()


async def test_uploads_and_downloads_over_tls_on_both_sides(authority: Authority) -> None:
    body = bytes(range(256)) * 8192

    async def script(peer: Peer) -> None:
        await peer.request()
        received = await peer.exactly(len(body))
        await peer.send(ok(received[::-1]))
        await peer.gone()

    async with (
        RawUpstream(script, tls=authority.serving()) as hub,
        gate(hub, ca=authority.file, serving=authority.serving(), trusting=authority.trusting()) as door,
    ):
        assert (await door.ask(post(body))).body == body[::-1]


async def test_a_truncated_answer_over_tls(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        peer.writer.transport.abort()

    async with (
        RawUpstream(script, tls=authority.serving()) as hub,
        gate(hub, ca=authority.file, serving=authority.serving(), trusting=authority.trusting()) as door,
    ):
        client = await door.client()
        await client.send(get())
        assert (await client.rest()).count(b"HTTP/1.1") <= 1
        assert isinstance(await door.outcome(), UpstreamAborted | UpstreamFault)
