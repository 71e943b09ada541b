"""WebSockets from the handshake on: spliced transports, their ends, and their back-pressure."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from hubgate.upstream import tunnel as tunnel_module
from hubgate.upstream.http import Answer, ClientAborted
from hubgate.upstream.tunnel import Tunnel
from tests.kit.gate import Gate, gate
from tests.kit.raw import Peer, RawUpstream, Script, get, handshake, ok, switched

BOTH_LOOPS = True


async def opened(door: Gate, early: bytes = b"") -> tuple[Peer, Tunnel]:
    """A client whose WebSocket stands."""
    client = await door.client()
    await client.send(handshake() + early)
    assert (await client.reply()).status == 101
    return client, door.tunnels[-1]


def closing(tunnel: Tunnel) -> asyncio.Future[Tunnel]:
    """Done when the tunnel is."""
    done: asyncio.Future[Tunnel] = asyncio.get_running_loop().create_future()
    tunnel.add_done_callback(done.set_result)
    return done


def after_switch(script: Script) -> Script:
    """The hub's side of an open tunnel."""

    async def hub(peer: Peer) -> None:
        await peer.request()
        await peer.send(switched(b"Sec-WebSocket-Protocol: v1"))
        await script(peer)

    return hub


async def echo(peer: Peer) -> None:
    while True:
        await peer.send((await peer.exactly(3)).upper())


async def test_the_handshake_passes_both_ways() -> None:
    async with RawUpstream(after_switch(Peer.gone)) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake(b"Sec-WebSocket-Protocol: v1", b"Origin: http://h", b"X-A: b"))
        reply = await client.reply()
        assert reply.status == 101
        assert reply.fields("Upgrade") == [b"websocket"]
        assert reply.fields("Connection") == [b"Upgrade"]
        assert reply.field("Sec-WebSocket-Protocol") == b"v1"
        assert reply.field("X-Rewritten") == b"101"
        assert len(reply.fields("Sec-WebSocket-Accept")) == 1
        sent = (await hub.peer()).received
        assert sent.startswith(b"GET /ws HTTP/1.1\r\n")
        assert sent.endswith(b"X-A: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert sent.count(b"pgrade:") == 1
        outcome = await door.outcome()
        assert isinstance(outcome, Answer)
        assert (outcome.upgraded, outcome.tunnel) == (True, door.tunnels[0])


async def test_bytes_pass_both_ways() -> None:
    async with RawUpstream(after_switch(echo)) as hub, gate(hub) as door:
        client, _ = await opened(door)
        for word in (b"abc", b"def", b"ghi"):
            await client.send(word)
            assert await client.exactly(3) == word.upper()


async def test_what_the_client_says_is_overheard_until_enough_is_heard() -> None:
    """And what the hub says is not."""
    heard: list[bytes] = []

    def ear(piece: bytes) -> bool:
        heard.append(piece)
        return len(heard) == 2

    async with RawUpstream(after_switch(echo)) as hub, gate(hub) as door:
        client, _ = await opened(door)
        (tunnel,) = door.tunnels

        async def said(word: bytes) -> None:
            await client.send(word)
            assert await client.exactly(3) == word.upper()

        await said(b"abc")
        passed_by = tunnel._client_side.data_received
        tunnel.overhear(ear)
        await said(b"def")
        await said(b"ghi")
        await said(b"jkl")
        assert heard == [b"def", b"ghi"]
        assert tunnel._client_side.data_received == passed_by, "without a line of Python between"
        tunnel.overhear(ear)
        await said(b"mno")
        assert heard[2:] == [b"mno"]
        ended = asyncio.Event()
        tunnel.add_done_callback(lambda _: ended.set())
        tunnel.close()
        await ended.wait()
        tunnel.overhear(ear)  # by whoever doesn't know yet


async def test_what_came_with_either_handshake_is_not_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(switched() + b"first")
        await echo(peer)

    async with RawUpstream(script) as hub, gate(hub) as door:
        client, _ = await opened(door, early=b"abcde")
        await client.send(b"f")
        assert await client.exactly(11) == b"firstABCDEF"


async def test_much_that_came_too_early_waits_and_arrives() -> None:
    early = bytes(range(256)) * 8192  # 2 MiB: more than aiohttp reads ahead

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()
        await peer.send(switched())
        assert await peer.exactly(len(early)) == early
        await peer.send(b"all")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        sending = asyncio.create_task(client.send(handshake() + early))
        await (await hub.peer()).saw(b"\r\n\r\n")
        hub.peers[0].cue()
        assert (await client.reply()).status == 101
        assert await client.exactly(3) == b"all"
        await sending


async def test_nothing_is_sent_to_the_hub_before_it_has_switched() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.cued()
        assert peer.unread == b""
        await peer.send(switched())
        await peer.exactly(5)
        await peer.send(b"seen")

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake() + b"early")
        peer = await hub.peer()
        await peer.saw(b"\r\n\r\n")
        peer.cue()
        await client.reply()
        assert await client.exactly(4) == b"seen"


@pytest.mark.parametrize("status", [b"403 Forbidden", b"404 Not Found", b"503 Service Unavailable", b"200 OK"])
async def test_refused_handshakes_are_relayed(status: bytes) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            refusal = b"HTTP/1.1 " + status + b"\r\nX-Why: z\r\nContent-Length: 2\r\n\r\nno"
            await peer.send(refusal if b"websocket" in request else ok(b"next"))

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        # What the client took for the beginning of a WebSocket is a request like any other.
        await client.send(handshake() + get("/next"))
        reply = await client.reply()
        assert (reply.status, reply.body, reply.field("X-Why")) == (int(status[:3]), b"no", b"z")
        assert reply.field("Upgrade") is None
        assert (await client.reply()).body == b"next"
        assert not door.tunnels


async def test_a_handshake_has_a_connection_of_its_own() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(switched() if b"websocket" in request else ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        await door.ask(get())
        await opened(door)
        assert len(hub.peers) == 2
        assert (door.pool.waiting, len(door.pool)) == (1, 1)


async def test_close_ends_both_sides_at_once() -> None:
    async with RawUpstream(after_switch(Peer.gone)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        done = closing(tunnel)
        tunnel.close()
        tunnel.close()
        assert await done is tunnel
        assert tunnel.closed
        await client.gone()
        await (await hub.peer()).gone()
        assert await closing(tunnel) is tunnel  # who comes late is told at once


async def test_a_tunnel_closed_before_its_first_byte_passes_none() -> None:
    async with RawUpstream(after_switch(Peer.gone)) as hub, gate(hub) as door:

        class Closing(list[Tunnel]):
            def append(self, tunnel: Tunnel) -> None:
                super().append(tunnel)
                tunnel.close()

        door.tunnels = Closing()
        client = await door.client()
        await client.send(handshake() + b"early")
        assert await client.rest() == b""
        await (await hub.peer()).gone()
        assert hub.received.endswith(b"\r\n\r\n")


async def test_a_client_that_resets_ends_the_hubs_side() -> None:
    async with RawUpstream(after_switch(Peer.gone)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        done = closing(tunnel)
        client.reset()
        await (await hub.peer()).gone()
        await done


async def test_a_hub_that_resets_ends_the_clients_side() -> None:
    async def script(peer: Peer) -> None:
        peer.reset()

    async with RawUpstream(after_switch(script)) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake())
        await client.gone()
        for tunnel in door.tunnels:
            await closing(tunnel)


async def test_the_last_words_of_a_hub_arrive() -> None:
    words = b"w" * (4 << 20)

    async def script(peer: Peer) -> None:
        await peer.send(words)
        peer.close()

    async with RawUpstream(after_switch(script)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        done = closing(tunnel)
        assert await client.rest() == words
        client.close()
        await done


async def test_one_direction_may_end_before_the_other() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.rest() == b"bye"
        await peer.send(b"farewell")

    async with RawUpstream(after_switch(script)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        done = closing(tunnel)
        await client.send(b"bye")
        client.finish()
        assert await client.rest() == b"farewell"
        await done


async def test_a_side_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_module, "LINGER", 0.05)

    async def script(peer: Peer) -> None:
        await peer.rest()
        await peer.cued()  # never: it has seen the end and stays

    async with RawUpstream(after_switch(script)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        client.finish()
        await closing(tunnel)
        await client.gone()


async def flood(peer: Peer, counts: list[int]) -> None:
    """Send without end, counting what the socket took."""
    block = b"f" * 65536
    while True:
        await peer.send(block)
        counts[0] += len(block)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_side_that_does_not_read_stops_the_other(direction: str) -> None:
    counts = [0]

    async def hub_side(peer: Peer) -> None:
        if direction == "down":
            await flood(peer, counts)
        await peer.cued()
        while True:
            await peer.exactly(65536)
            peer._taken = 0
            peer.received = b""

    async with RawUpstream(after_switch(hub_side)) as hub, gate(hub) as door:
        client, tunnel = await opened(door)
        sender = asyncio.create_task(flood(client, counts)) if direction == "up" else None
        moved = -1
        while moved != counts[0]:  # until nothing moves any more
            moved = counts[0]
            await asyncio.sleep(0.1)
        buffers = [transport.get_write_buffer_size() for transport in (tunnel._client, tunnel._hub)]
        assert max(buffers) <= 1 << 20  # one read above the transport's mark, not more
        # The kernel's own buffers hold some MiB on each of two ways; what was taken must not go on growing.
        assert moved < 64 << 20
        if direction == "up":
            hub.peers[0].cue()
        else:
            await client.exactly(1 << 20)
        async with asyncio.timeout(60):
            while counts[0] == moved:  # and goes on when somebody reads
                await client.exactly(65536) if direction == "down" else await asyncio.sleep(0.01)
        if sender is not None:
            sender.cancel()


async def test_nothing_of_the_request_outlives_its_handshake() -> None:
    async with RawUpstream(after_switch(Peer.gone)) as hub, gate(hub) as door:
        assert door.runner.server is not None
        client = await door.client()
        await client.send(get("/pages/none"))
        await client.reply()
        (browser,) = door.runner.server.connections
        seen = weakref.ref(browser._task_handler) if browser._task_handler else None
        del browser
        await client.send(handshake())
        assert (await client.reply()).status == 101
        await client.send(b"abc")
        await (await hub.peer()).saw(b"abc")
        gc.collect()
        assert door.runner.server.connections == []
        assert seen is None or seen() is None


async def test_a_client_that_leaves_before_the_switch() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake())
        peer = await hub.peer()
        await peer.saw(b"\r\n\r\n")
        client.reset()
        await peer.gone()
        assert isinstance(await door.outcome(), ClientAborted)
        assert not door.tunnels


async def test_many_tunnels_stand_beside_each_other() -> None:
    async with RawUpstream(after_switch(echo)) as hub, gate(hub) as door:
        clients = [(await opened(door))[0] for _ in range(100)]
        for number, client in enumerate(clients):
            await client.send(b"%03d" % number)
        for number, client in enumerate(clients):
            assert await client.exactly(3) == b"%03d" % number
        assert len(door.pool) == 0
        for tunnel in door.tunnels:
            tunnel.close()
        for client in clients:
            await client.gone()
        assert all(tunnel.closed for tunnel in door.tunnels)
