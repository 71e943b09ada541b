"""Upgrades that are none: whoever gets a tunnel without a WebSocket handshake on both sides gets the hub unfiltered."""

from __future__ import annotations

import pytest

from hubgate.errors import UpstreamFault
from tests.kit.gate import gate
from tests.kit.raw import WEBSOCKET_KEY, Peer, RawUpstream, Script, get, handshake, ok, switched
from tests.kit.strict import requests_in

BOTH_LOOPS = True

SMUGGLED = get("/smuggled", b"X-Hubgate-Assertion: forged")


def saying(answer: bytes) -> Script:
    """A hub that says this to whatever it is asked first, and answers the rest in good order."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        while True:
            await peer.request()
            await peer.send(ok(b"next"))

    return script


NOT_ASKED = {
    "to a GET": get("/"),
    "to a GET that names no connection": get("/", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + WEBSOCKET_KEY),
    "to an upgrade to h2c": get("/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"),
    "to an upgrade to two": handshake().replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
}


@pytest.mark.parametrize("request_", NOT_ASKED.values(), ids=NOT_ASKED.keys())
async def test_a_switch_that_was_not_asked_for_is_refused(request_: bytes) -> None:
    async with RawUpstream(saying(switched())) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(request_)
        reply = await client.reply()
        assert reply.status == 502
        await (await hub.peer()).gone()
        assert not door.tunnels
        (one,) = requests_in(hub.received)
        assert not one.values(b"Upgrade")
        assert not one.values(b"Connection")


FALSE_CONSENT = {
    "a wrong proof": switched(accept=b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "no proof": switched(accept=b""),
    "two proofs": switched(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "another protocol": switched().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "two protocols": switched(b"Upgrade: h2c"),
    "no protocol": switched().replace(b"Upgrade: websocket\r\n", b""),
    "no Connection": switched().replace(b"Connection: Upgrade\r\n", b""),
    "Connection: close": switched().replace(b"Connection: Upgrade", b"Connection: close"),
    "a length": switched(b"Content-Length: 5"),
    "chunks": switched(b"Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("answer", FALSE_CONSENT.values(), ids=FALSE_CONSENT.keys())
async def test_a_false_consent_is_refused(answer: bytes) -> None:
    async with RawUpstream(saying(answer)) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake())
        assert (await client.reply()).status == 502
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamFault)
        assert outcome.code == "upstream_malformed"
        assert not door.tunnels
        await (await hub.peer()).gone()


MALFORMED = {
    "by POST": handshake().replace(b"GET", b"POST"),
    "over HTTP/1.0": handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "with a body": handshake(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
    "with chunks": handshake(b"Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    "without a key": handshake().replace(b"Sec-WebSocket-Key: " + WEBSOCKET_KEY + b"\r\n", b""),
    "with two keys": handshake(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    "with two protocols": handshake(b"Upgrade: h2c"),
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_handshake_reaches_no_hub_as_one(request_: bytes) -> None:
    async with RawUpstream(saying(switched())) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(request_ + get("/next"))
        reply = await client.reply()
        assert reply.status in {400, 502}
        assert await client.rest() == b""  # where it ends is in doubt: nothing is read behind it
        assert not door.tunnels
        assert b"websocket" not in hub.received
        assert not [one for one in requests_in(hub.received) if b"smuggled" in one.line]


@pytest.mark.parametrize("answer", [ok(b"no"), b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"])
async def test_bytes_behind_a_handshake_that_was_not_granted_are_a_request_like_any_other(answer: bytes) -> None:
    """A hub that answers 200 must not have what follows passed on as if it had switched. Nor is its connection used
    again: Node (configurable-http-proxy) lets go of one on which an upgrade was offered, even if it refuses it."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(answer if b"websocket" in request else ok(b"next"))
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake() + get("/next"))
        assert (await client.reply()).body == b"no"
        assert (await client.reply()).body == b"next"
        await hub.peers[0].gone()
        # It went through the front: with its own rules, and framed by us.
        assert [one.line for one in requests_in(hub.received)] == [b"GET /ws HTTP/1.1", b"GET /next HTTP/1.1"]
        assert len(door.outcomes) == 2


async def test_frames_behind_a_handshake_that_was_not_granted_are_refused() -> None:
    async with RawUpstream(saying(ok(b"no"))) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake() + b"\x81\x85\0\0\0\0hello")
        assert (await client.reply()).body == b"no"
        assert (await client.rest()).startswith(b"HTTP/1.0 400")
        assert b"hello" not in hub.received


async def test_an_answer_that_speaks_of_upgrades_is_only_an_answer() -> None:
    answer = ok(b"plain", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Accept: x")
    async with RawUpstream(saying(answer)) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get("/"))
        reply = await client.reply()
        assert (reply.status, reply.body, reply.field("Upgrade"), reply.field("Connection")) == (
            200,
            b"plain",
            None,
            None,
        )
        await client.send(get("/"))
        assert (await client.reply()).body == b"next"
