"""Every way in which a hub or a client can fail in the middle: what the client got, what the gateway was told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from hubgate.errors import HubgateFault, UpstreamFault
from hubgate.upstream.connection import Connection
from hubgate.upstream.framing import MAX_HEAD
from hubgate.upstream.http import Answer, ClientAborted, Timeouts, UpstreamAborted
from tests.kit.gate import Outcome, gate
from tests.kit.raw import Peer, RawUpstream, Script, always, answering, get, ok, post

BOTH_LOOPS = True
BOTH_WAYS = True


def fault(outcome: Outcome) -> tuple[str, int, bool]:
    """What the gateway is told."""
    assert isinstance(outcome, UpstreamFault), outcome
    assert outcome.evidence["upstream"] == "hub"
    return outcome.code, outcome.status, outcome.repeatable


@pytest.mark.parametrize("request_", [get(), post(b"x")], ids=["get", "post"])
async def test_refused_connections_can_be_tried_elsewhere(request_: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with gate(f"http://127.0.0.1:{port}") as door:
        assert (await door.ask(request_)).status == 502
        assert fault(await door.outcome()) == ("upstream_unreachable", 502, True)


async def test_a_name_that_does_not_resolve() -> None:
    async with gate("http://hub.invalid:8000") as door:
        assert (await door.ask(get())).status == 502
        assert fault(await door.outcome()) == ("upstream_unreachable", 502, True)


async def test_a_connection_that_takes_too_long() -> None:
    # A full backlog: the kernel drops further handshakes.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            async with gate(f"http://127.0.0.1:{port}", limits=Timeouts(connect=0.1)) as door:
                assert (await door.ask(get())).status == 504
                assert fault(await door.outcome()) == ("upstream_unreachable", 504, True)
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize(("request_", "repeatable"), [(get(), True), (post(b""), False), (post(b"x"), False)])
async def test_a_hub_that_never_answers(request_: bytes, *, repeatable: bool) -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub, limits=Timeouts(head=0.1)) as door:
        assert (await door.ask(request_)).status == 504
        assert fault(await door.outcome()) == ("upstream_timeout", 504, repeatable)
        await (await hub.peer()).gone()


async def test_a_hub_that_stops_in_its_head() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(head=0.1)) as door:
        assert (await door.ask(get())).status == 504


async def test_a_hub_that_stops_in_its_body() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(idle=0.5)) as door:
        client = await door.client()
        await client.send(get())
        received = await client.rest()
        assert received.endswith(b"\r\n\r\nabc")
        assert received.count(b"HTTP/1.1") == 1
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamAborted)
        assert outcome.code == "upstream_timeout"


async def test_the_time_limit_of_a_head_is_none_for_its_body() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await peer.cued()
        await peer.send(b"cd")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, limits=Timeouts(head=0.5)) as door:
        client = await door.client()
        await client.send(get())
        await client.until(b"ab")
        for _ in range(8):  # several ticks of the pool's clock
            await asyncio.sleep(door.pool.limits.tick)
        hub.peers[0].cue()
        assert await client.until(b"cd") == b"cd"


CUT = {
    "at once": b"",
    "in the status line": b"HTTP/1.1 20",
    "in the head": b"HTTP/1.1 200 OK\r\nServer: x\r\n",
    "after a 100": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT.keys())
async def test_a_hub_that_closes_before_its_head_is_complete(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    async with RawUpstream(script) as hub, gate(hub) as door:
        assert (await door.ask(get())).status == 502
        assert fault(await door.outcome()) == ("upstream_closed", 502, True)
        assert len(hub.peers) == 1  # a new connection is not asked again: nothing says that the hub didn't see it


SHORT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "before the last empty line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("answer", SHORT.values(), ids=SHORT.keys())
async def test_a_truncated_answer_looks_truncated(answer: bytes, *, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.cued()
        if reset:
            peer.reset()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get() + get("/next"))
        await client.until(b"abc")
        hub.peers[0].cue()
        await client.rest()
        assert client.received.count(b"HTTP/1.1") == 1
        assert not client.received.endswith(b"0\r\n\r\n")
        outcome = await door.outcome()
        assert isinstance(outcome, UpstreamAborted)
        assert outcome.code == "upstream_closed"


async def test_an_unframed_answer_that_is_reset_has_no_last_chunk() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await peer.cued()
        peer.reset()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.until(b"abc\r\n")
        hub.peers[0].cue()
        assert await client.rest() == b""
        assert isinstance(await door.outcome(), UpstreamAborted)


async def test_a_stale_connection_is_replaced_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()
        # and close, as if keep-alive had run out in that very moment

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(4):
            await client.send(get())
            assert (await client.reply()).body == b"first"
            await door.at_rest()
        assert len(hub.peers) == 4


async def test_a_stale_connection_is_replaced_only_once() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        if len(seen) == 1:
            await peer.send(ok())
            seen.append(await peer.request())

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.reply()
        await client.send(get())
        assert (await client.reply()).status == 502
        assert (len(seen), len(hub.peers)) == (3, 2)


async def test_connections_that_the_hub_closed_are_not_used() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.cued()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.reply()
        assert len(door.pool) == 1
        hub.peers[0].cue()
        while len(door.pool):
            await asyncio.sleep(0.001)
        await client.send(post(b"x"))  # which would not be repeated
        assert (await client.reply()).status == 200


async def test_connections_age() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, limits=Timeouts(keep_alive=0.05)) as door:
        await door.ask(get())
        peer = await hub.peer()
        await peer.gone()
        assert (len(door.pool), door.pool.waiting) == (0, 0)


async def test_no_keep_alive_at_all() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, limits=Timeouts(keep_alive=0.0)) as door:
        await door.ask(get())
        await door.ask(get())
        assert len(hub.peers) == 2


async def test_not_more_wait_than_may() -> None:
    arrived = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        await peer.request()
        arrived.release()
        await peer.cued()
        await peer.send(ok())
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub, max_idle=2) as door:
        clients = [await door.client() for _ in range(5)]
        for client in clients:
            await client.send(get())
            await arrived.acquire()
        for peer in hub.peers:
            peer.cue()
        for client in clients:
            assert (await client.reply()).status == 200
        assert door.pool.waiting == 2


async def test_a_closed_pool_keeps_nothing() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        await door.ask(get())
        door.pool.close()
        await (await hub.peer()).gone()
        assert (await door.ask(get())).status == 200  # what was on its way is still served
        assert door.pool.waiting == 0


async def abandoned(script: Script, *, after: bytes) -> tuple[Outcome, int]:
    """A client that leaves when it has seen this; how that ended, and how many hub connections are left."""
    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        peer = await hub.peer()
        await peer.saw(b"\r\n\r\n")
        if after:
            await client.until(after)
        client.reset()
        await peer.gone()
        return await door.outcome(), len(door.pool)


async def test_a_client_that_leaves_before_the_answer_ends_the_hubs_work_at_once() -> None:
    outcome, left = await abandoned(Peer.gone, after=b"")
    assert isinstance(outcome, ClientAborted)
    assert left == 0


async def test_a_client_that_leaves_in_the_middle_ends_the_hubs_work_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
        await peer.gone()

    outcome, left = await abandoned(script, after=b"data: 1\n\n")
    assert isinstance(outcome, ClientAborted)
    assert left == 0


async def test_a_client_that_half_closes_has_left() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await hub.peer()
        client.finish()
        await hub.peers[0].gone()
        assert isinstance(await door.outcome(), ClientAborted)


@pytest.mark.parametrize("leaving", [Peer.reset, Peer.finish])
async def test_a_client_that_leaves_before_its_request_is_sent_on_keeps_no_hub_at_work(
    leaving: Callable[[Peer], None],
) -> None:
    """It left while the gateway asked its store: nobody would tell the hub's connection any more."""
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        assert (await door.ask(get())).status == 200
        await door.at_rest()
        assert door.runner.server is not None
        while door.runner.server.connections:
            await asyncio.sleep(0.001)
        door.due = asyncio.Event()
        client = await door.client()
        await client.send(get("/", b"Connection: keep-alive"))  # which the short way leaves to the long one
        while not (there := door.runner.server.connections) or there[0].idle:
            await asyncio.sleep(0.001)
        (browser,) = there
        leaving(client)
        while browser.transport is not None:
            await asyncio.sleep(0.001)
        door.due.set()
        assert isinstance(await door.outcome(1), ClientAborted)
        await door.at_rest()
        door.due = None
        assert (await door.ask(get())).status == 200
        assert (len(hub.peers), hub.received.count(b"GET ")) == (1, 2)


async def test_a_client_that_leaves_while_the_hub_is_being_reached() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub, limits=Timeouts(keep_alive=0.05)) as door:
        connect = door.pool.connect
        assert door.runner.server is not None
        reached, go = asyncio.Event(), asyncio.Event()

        async def slow() -> Connection:
            connection = await connect()
            reached.set()
            await go.wait()
            return connection

        door.pool.connect = slow  # type: ignore[method-assign]
        client = await door.client()
        await client.send(get())
        await reached.wait()
        assert door.runner.server is not None
        (browser,) = door.runner.server.connections
        client.reset()
        while browser.transport is not None:
            await asyncio.sleep(0.001)
        go.set()
        assert isinstance(await door.outcome(), ClientAborted)
        await (await hub.peer()).gone()
        assert hub.received == b""


async def test_a_hub_that_fails_does_not_cost_the_client_its_connection() -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).startswith(b"GET /bad"):
            return
        await peer.send(ok(b"good"))
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get("/bad") + get("/good"))
        assert (await client.reply()).status == 502
        assert (await client.reply()).body == b"good"


async def test_a_rewrite_that_fails_leaves_nothing_behind() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:

        def broken(_status: int, _lines: list[bytes]) -> list[bytes]:
            raise LookupError("a defect")

        door.rewrite = broken  # type: ignore[method-assign]
        assert (await door.ask(get())).status == 500
        outcome = await door.outcome()
        assert isinstance(outcome, LookupError) or (isinstance(outcome, HubgateFault) and outcome.code == "internal")
        await (await hub.peer()).gone()


async def test_a_head_of_the_largest_size_passes() -> None:
    filler = b"X: " + b"x" * (MAX_HEAD - len(b"HTTP/1.1 200 OK\r\nX: \r\nContent-Length: 2\r\n\r\n"))
    async with RawUpstream(answering(ok(b"ok", filler))) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        assert len(await client.until(b"\r\n\r\n")) > MAX_HEAD


async def test_cancelling_a_request_leaves_nothing_behind() -> None:
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        peer = await hub.peer()
        await peer.request()
        await door.runner.cleanup()  # after its time limit, handlers are cancelled
        await peer.gone()
        assert isinstance(await door.outcome(), asyncio.CancelledError | ClientAborted)
        assert len(door.pool) == 0


def test_an_answer_is_a_value() -> None:
    assert Answer(200) == Answer(200, 0, 0, keep_alive=False, upgraded=False, tunnel=None)


async def test_a_client_that_leaves_while_a_stale_connection_is_replaced_leaves_nothing() -> None:
    """Nobody would tell the new connection that there is nobody to read for: an endless answer would never end."""
    here = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if len(hub.peers) == 1:
            await peer.send(ok())
            await peer.request()
            return  # closes without a word
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(get())
        await client.reply()
        await door.at_rest()
        connect = door.pool.connect
        assert door.runner.server is not None

        async def slow() -> Connection:
            connection = await connect()
            client.reset()
            while any(browser.transport is not None for browser in door.runner.server.connections):
                await asyncio.sleep(0.001)
            here.set()
            return connection

        door.pool.connect = slow  # type: ignore[method-assign]
        await client.send(get())
        async with asyncio.timeout(60):
            await here.wait()
        assert isinstance(await door.outcome(1), ClientAborted)
        async with asyncio.timeout(60):
            while len(door.pool):
                await asyncio.sleep(0.001)


async def test_a_client_of_http10_sees_that_its_answer_is_incomplete() -> None:
    """Its answer ends where the connection does: an orderly end would look like a complete one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await peer.cued()
        peer.reset()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        await client.until(b"hello")
        hub.peers[0].cue()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
