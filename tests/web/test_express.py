"""The short way leaves the same traces as the long one, and ends as orderly, whatever happens on it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from hubgate.metrics import RequestCount
from hubgate.upstream.connection import Connection, ConnectionPool
from hubgate.web import express
from hubgate.web.clearance import Clearance
from hubgate.web.listener import READ_AHEAD, BrowserConnection
from tests.attacks.lane import Lane, lane
from tests.kit import gate as kit_gate
from tests.kit.gate import Gate, gate
from tests.kit.raw import PATIENCE, Peer, RawUpstream, always, get, ok

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    """`rides`: how many requests went the short way. `browsers`: all connections there ever were."""

    rides: int = 0
    browsers: list[BrowserConnection] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen()
    start, connected = express._Ride.start, BrowserConnection.connection_made

    def counting(ride: express._Ride) -> None:
        made.rides += 1
        start(ride)

    def noticing(browser: BrowserConnection, transport: asyncio.BaseTransport) -> None:
        made.browsers.append(browser)
        connected(browser, transport)

    monkeypatch.setattr(express._Ride, "start", counting)
    monkeypatch.setattr(BrowserConnection, "connection_made", noticing)
    return made


@pytest.fixture
async def at(seen: Seen) -> AsyncIterator[Lane]:
    async with lane(4) as made:
        yield made


async def waiting(peer: Peer, head: bytes) -> None:
    """A hub that answers nothing until it is told to close."""
    await peer.cued()
    raise EOFError


def slow(at: Lane) -> None:
    """The next answer comes when its end is told to."""

    async def act(peer: Peer, head: bytes) -> None:
        await peer.cued()
        await peer.send(at.good(head))

    at.acts.append(act)


async def asked(at: Lane, client: Peer, data: bytes) -> Peer:
    """Send it, and wait until a hub has it: its end."""
    number = len(at.requests)
    client.writer.write(data)
    await at.last_request(number + 1)
    return next(peer for peer in reversed(at.hub.peers) if peer.received.endswith(at.requests[number]))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


# -- traces


async def test_people_are_seen_on_the_short_way_and_scripts_are_not(at: Lane, seen: Seen) -> None:
    place, client = at.place(), await at.client()
    ahead = 0.0
    at.site.served.shortcut._clock = lambda: asyncio.get_running_loop().time() + 2e9 + ahead
    fetch = at.get(place)
    navigation = fetch.replace(b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Mode: navigate")
    for data in (fetch, fetch, navigation, navigation):
        client.writer.write(data)
        await at.is_good(client)
    (live,) = [each for each in at.site.served.live._by_cookie.values() if each.session.identity.username == "alice"]
    for key, clearance in live.cleared.items():
        live.cleared[key] = _for_ever(clearance)
    rides = seen.rides
    for data, moves in [(fetch, False), (navigation, True), (fetch, False), (navigation, True)]:
        ahead += 10
        before = live.session.last_seen
        client.writer.write(data)
        await at.is_good(client)
        assert (live.session.last_seen > before) is moves
        assert live.used == pytest.approx(at.site.served.shortcut._clock(), abs=5)
    assert seen.rides == rides + 4


def _for_ever(clearance: Clearance) -> Clearance:
    return replace(clearance, until=float("inf"))


def counts(at: Lane) -> dict[tuple[str, str], tuple[list[int], int]]:
    return {
        key: (list(count.statuses), sum(count.buckets)) for key, count in at.site.served.front.metrics._counts.items()
    }


async def test_metrics_and_access_log_are_the_same(at: Lane, seen: Seen) -> None:
    """Of an answer in one piece, one in many, one without a body, one that failed and one whose client left."""

    async def pieces(peer: Peer, _: bytes) -> None:
        for piece in (b"HTTP/1.1 201 C\r\nContent-Length: 6\r\n\r\nfo", b"ob", b"ar"):
            await peer.send(piece)
            await asyncio.sleep(0.005)

    async def chunks(peer: Peer, _: bytes) -> None:
        await peer.send(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")

    async def nothing(peer: Peer, _: bytes) -> None:
        await peer.send(b"HTTP/1.1 304 N\r\nETag: x\r\n\r\n")

    async def malformed(peer: Peer, _: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
        raise EOFError

    async def cut(peer: Peer, _: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
        raise EOFError

    place = at.place()
    client = await at.client()
    await at.goes_well(client, place, 3)
    name = place.split(b"/")[1].decode()
    for act in (None, pieces, chunks, nothing, malformed, cut, "gone"):
        lines = []
        # A field that is never plain keeps the first of the two on the long way.
        for number, fields in enumerate([(b"Authorization: none",), ()]):
            rides, before = seen.rides, counts(at)
            access = len(at.site.access)
            client = await at.client()
            if act == "gone":
                at.acts.append(waiting)
                end = await asked(at, client, at.get(place, *fields))
                client.reset()
                await end.gone()
                end.cue()
            else:
                if act is not None:
                    at.acts.append(act)
                client.writer.write(at.get(place, *fields))
                if act is cut:
                    await client.rest()
                else:
                    await client.reply()
            await until(lambda access=access: len(at.site.access) > access)
            await asyncio.sleep(0.005)
            assert seen.rides == rides + number
            ((caller, line),) = at.site.access[access:]
            assert re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", line["request_id"])
            assert 0 < line["duration"] < 10
            after = counts(at)
            changed = {key: value for key, value in after.items() if value != before.get(key)}
            ((key, (statuses, total)),) = changed.items()
            old, old_total = before.get(key, ([0] * 10, 0))
            assert total == old_total + 1
            hundreds = [new - was for new, was in zip(statuses, old, strict=True)]
            assert hundreds[line["status"] // 100] == sum(hundreds) == 1
            lines.append((caller, {**line, "request_id": "", "duration": 0}, key, hundreds))
        assert lines[0] == lines[1], act
        caller, line, *_ = lines[0]
        assert (caller.user, caller.pool, caller.address, line["method"]) == ("alice", name, "127.0.0.1", "GET")
        assert line["path"].encode() == place


async def test_what_is_counted_is_settled_once(at: Lane, seen: Seen) -> None:
    """Whoever holds a count across a settlement goes on noting where it is seen."""
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 4)
    metrics = at.site.served.front.metrics
    pool = place.split(b"/")[1].decode()

    async def told() -> tuple[float, float]:
        text = (await metrics.render()).decode()
        (requests,) = re.findall(rf'^hubgate_requests_total{{pool="{pool}",status="2xx",.*}} (\S+)$', text, re.M)
        (timed,) = re.findall(rf'^hubgate_request_duration_seconds_count{{pool="{pool}"}} (\S+)$', text, re.M)
        return float(requests), float(timed)

    assert await told() == (4, 4)
    await at.goes_well(client, place, 3)
    assert await told() == (7, 7)
    assert await told() == (7, 7)
    assert seen.rides == 5
    assert isinstance(metrics.requests(pool, "h" + pool[1:]), RequestCount)


async def test_a_browser_that_is_not_bound_yet_is_told_each_time(at: Lane, seen: Seen) -> None:
    """Its first requests leave together, before any answer has brought the cookie."""
    place, client = at.place(), await at.client()
    plain = at.get(place)
    told = []
    for _ in range(3):
        client.writer.write(plain)
        (cookie,) = (await at.is_good(client)).fields("Set-Cookie")
        told.append(cookie)
    assert len(set(told)) == 1
    assert seen.rides == 2
    await at.goes_well(client, place, 1)
    client.writer.write(at.get(place))
    assert (await at.is_good(client)).fields("Set-Cookie") == []


async def test_a_failure_is_told_with_a_request_id_and_in_the_askers_form(at: Lane, seen: Seen) -> None:
    async def malformed(peer: Peer, _: bytes) -> None:
        await peer.send(b"nonsense\r\n\r\n")
        raise EOFError

    place, client = at.place(), await at.client()
    page = at.get(place).replace(b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Mode: navigate")
    await at.goes_well(client, place, 3)
    client.writer.write(at.get(place))
    await at.is_good(client)
    page = at.get(place).replace(b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Mode: navigate")
    rides = seen.rides
    for data, kind in ((at.get(place), b"application/problem+json"), (page, b"text/html")):
        at.acts.append(malformed)
        client.writer.write(data)
        reply = await client.reply()
        assert reply.status == 502
        assert (reply.field("Content-Type") or b"").startswith(kind)
        access_id = at.site.access[-1][1]["request_id"]
        assert access_id.encode() in reply.body
        if kind == b"application/problem+json":
            assert json.loads(reply.body)["status"] == 502
        await at.goes_well(client, place, 1)
    assert seen.rides == rides + 4


# -- ends


async def test_a_connection_that_retires_ends_behind_the_answer_in_flight(at: Lane, seen: Seen) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    slow(at)
    end = await asked(at, client, at.get(place))
    seen.browsers[-1].retire()
    assert client.unread == b""
    client.writer.write(at.get(place))  # too late
    end.cue()
    reply = await client.reply()
    assert (reply.status, reply.field("Connection")) == (200, b"close")
    assert await client.rest() == b""
    assert len(at.requests) == 4


async def test_a_connection_that_retires_within_an_answer_ends_behind_it(at: Lane, seen: Seen) -> None:
    async def act(peer: Peer, _: bytes) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfoo")
        await peer.cued()
        await peer.send(b"bar")

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    at.acts.append(act)
    end = await asked(at, client, at.get(place))
    await client.saw(b"foo")
    browser = seen.browsers[-1]
    browser.retire()
    end.cue()
    assert (await client.reply()).body == b"foobar"
    await until(lambda: browser.idle)
    browser.retire()  # as a server that shuts down does, again and again
    assert await client.rest() == b""


async def test_whoever_leaves_while_the_hub_thinks_takes_its_connection_along(at: Lane, seen: Seen) -> None:
    """The late answer must meet nobody: the connection has ended, and others have their own."""
    place = at.place()
    first = await at.client()
    await at.goes_well(first, place, 3)
    await at.goes_well(first, place, 3, user="bob")
    pool = next(iter(at.site.served.registry)).connections
    for round_ in range(20):
        client = await at.client()
        slow(at)
        end = await asked(at, client, at.get(place))
        (client.reset if round_ % 2 else client.close)()
        await end.gone()
        end.cue()
        await at.goes_well(first, place, 1, user="bob")
    await until(lambda: len(pool) == pool.waiting)
    assert len(at.site.served.registry.state("h0").connections._tasks) == 0
    await at.others_go_on(place, first)


async def test_whoever_leaves_at_any_moment_of_a_stream_ends_it(at: Lane, seen: Seen) -> None:
    """Before the hub has it, before the answer, in its head, within it; nothing is left behind."""
    chance = random.Random(4)

    async def stream(peer: Peer, _: bytes) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.002)))
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"5\r\nevent\r\n")
            await asyncio.sleep(0.001)

    place, first = at.place(), await at.client()
    await at.goes_well(first, place, 3)
    pool = next(iter(at.site.served.registry)).connections
    rides = seen.rides
    for _ in range(60):
        at.acts.append(stream)
        client = await at.client()
        client.writer.write(at.get(place))
        for _ in range(chance.choice((0, 1, 2, 3, 5, 8, 13, 30, 100))):
            await asyncio.sleep(0)
        client.reset()
        await until(lambda: seen.browsers[-1].lost)
        await until(lambda: len(pool) == pool.waiting)
        at.acts.clear()
    await until(lambda: not pool._tasks)
    await at.others_go_on(place, first)
    assert seen.rides > rides + 20


# -- what comes meanwhile


async def test_what_comes_while_an_answer_is_due_waits_and_no_more_of_it_than_fits(at: Lane, seen: Seen) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    slow(at)
    end = await asked(at, client, at.get(place))
    browser = seen.browsers[-1]
    plain = at.get(place, b"X-Pad: " + b"x" * 8000)
    number = 3 * READ_AHEAD // len(plain)
    client.writer.write(plain * number)
    transport = browser.transport
    assert transport is not None
    await until(lambda: not transport.is_reading())
    assert READ_AHEAD < len(browser.junction.held) < 3 * READ_AHEAD
    assert len(at.requests) == 4
    end.cue()
    for _ in range(1 + number):
        await at.is_good(client)
    await until(lambda: browser.idle)
    assert transport.is_reading()
    assert browser.junction.held == b""
    await at.goes_well(client, place, 1)


async def test_a_body_that_waited_is_read_on(at: Lane, seen: Seen) -> None:
    """More than is held, and less than aiohttp itself would stop at."""
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    slow(at)
    end = await asked(at, client, at.get(place))
    size = READ_AHEAD + 50_000
    post = at.get(place, b"Content-Length: %d" % size, line=b"POST %b HTTP/1.1")
    client.writer.write(post + b"x" * size)
    browser = seen.browsers[-1]
    await until(lambda: len(browser.junction.held) == len(post) + size)
    end.cue()
    await at.is_good(client)
    await at.is_good(client)
    await at.goes_well(client, place, 3)


@pytest.mark.parametrize("cut", [1, 3, 5, 9, 20, 60])
async def test_a_head_that_comes_in_two_while_the_clients_socket_fills(at: Lane, seen: Seen, cut: int) -> None:
    """Between its two halves it becomes one for the long way: as a whole."""
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    browser = seen.browsers[-1]
    plain = at.get(place, b"X-Note: GET /p1/forged HTTP/1.1", b"X: y")
    for ends in (cut, plain.index(b"GET /p1"), len(plain) - 1):
        slow(at)
        end = await asked(at, client, at.get(place))
        client.writer.write(plain[:ends])
        await until(partial(getattr, browser.junction, "held"))
        end.cue()
        await at.is_good(client)
        assert not browser.writing_paused
        browser.pause_writing()
        rides = seen.rides
        client.writer.write(plain[ends:])
        while browser.idle:
            await asyncio.sleep(0.001)
        browser.resume_writing()
        await at.is_good(client)
        assert at.requests[-1].startswith(b"GET %b HTTP/1.1\r\n" % place)
        assert seen.rides == rides
        await at.goes_well(client, place, 1)
        client = await at.client()
        await at.goes_well(client, place, 1)
        browser = seen.browsers[-1]


def _browser(at: Gate) -> BrowserConnection:
    assert at.runner.server is not None
    (browser,) = at.runner.server.connections
    assert isinstance(browser, BrowserConnection)
    return browser


async def test_an_answer_may_take_longer_than_a_connection_may_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_gate, "SHORT_WAY", True)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(1.2)
            await peer.send(ok(b"late"))

    async with RawUpstream(script) as hub, gate(hub, keepalive_timeout=0.8) as at:
        client = await at.client()
        await client.send(get("/a"))
        assert (await client.reply()).body == b"late"
        await client.send(get("/b"))
        assert (await client.reply()).body == b"late"
        assert await client.rest() == b""  # and idles no longer than it may


async def test_a_connection_that_has_only_the_short_way_idles_no_longer_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kit_gate, "SHORT_WAY", True)
    async with RawUpstream(always(ok())) as hub, gate(hub, keepalive_timeout=1.0) as at:
        client = await at.client()
        for _ in range(7):
            await client.send(get("/a"))
            assert (await client.reply()).status == 200
            await asyncio.sleep(0.2)
        assert await client.rest() == b""


# -- no connection to the hub


@pytest.mark.parametrize("kind", ["refused", "unforeseen"])
async def test_a_hub_that_is_not_reached_is_explained_on_the_long_way(
    at: Lane, seen: Seen, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    connections = at.site.served.registry.state("h0").connections

    async def connect(pool: ConnectionPool) -> Connection:
        if kind == "unforeseen":
            raise LookupError("nobody thought of this")
        raise pool.fault("upstream_unreachable", "no connection", repeatable=True)

    with monkeypatch.context() as patch:
        patch.setattr(ConnectionPool, "take", lambda *_, **__: None)
        patch.setattr(ConnectionPool, "connect", connect)
        rides, access = seen.rides, len(at.site.access)
        client.writer.write(at.get(place))
        assert (await client.reply()).status == (500 if kind == "unforeseen" else 503)
        assert seen.rides == rides + 1
        assert len(at.site.access) == access + 1
    await at.goes_well(client, place, 2)
    assert not connections._tasks


async def test_nobody_is_told_why_who_has_left_before_the_hub_was_reached(
    at: Lane, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    trying, left = asyncio.Event(), asyncio.Event()

    async def connect(pool: ConnectionPool) -> Connection:
        trying.set()
        await left.wait()
        raise pool.fault("upstream_unreachable", "no connection", repeatable=True)

    with monkeypatch.context() as patch:
        patch.setattr(ConnectionPool, "take", lambda *_, **__: None)
        patch.setattr(ConnectionPool, "connect", connect)
        access = len(at.site.access)
        client.writer.write(at.get(place))
        await trying.wait()
        client.reset()
        await until(lambda: seen.browsers[-1].lost)
        left.set()
        await until(lambda: len(at.site.access) > access)
    assert [line["status"] for _, line in at.site.access[access:]] == [499]
    await at.others_go_on(place)


async def test_an_answer_that_was_given_is_the_only_one(at: Lane, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails behind it: a second one would be taken for the answer to the next request."""
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)

    def fails(*_: object) -> None:
        raise LookupError("a full disk, say")

    with monkeypatch.context() as patch:
        patch.setattr(RequestCount, "note", fails)
        client.writer.write(at.get(place))
        await asyncio.sleep(0.05)
        client.finish()
        rest = await client.rest()
    assert rest.count(b"HTTP/1.1") <= 1
    await at.others_go_on(place)


# -- whose connection it is


async def test_whoever_leaves_after_the_answer_takes_nobodys_connection_along(at: Lane, seen: Seen) -> None:
    """Another one's request is on it by then."""
    place, first, second = at.place(), await at.client(), await at.client()
    await at.goes_well(first, place, 3)
    await at.goes_well(second, place, 3, user="bob")
    await at.goes_well(first, place, 1)
    used = next(peer for peer in at.hub.peers if peer.received.endswith(at.requests[-1]))
    pool = at.site.served.registry.state("h0").connections
    await until(lambda: pool._waiting)
    slow(at)
    end = await asked(at, second, at.get(place, user="bob"))
    assert end is used
    number = len(at.requests)
    first.reset()
    await until(lambda: any(browser.lost for browser in seen.browsers[-2:]))
    await asyncio.sleep(0.01)
    end.cue()
    await at.is_good(second, user="bob")
    assert len(at.requests) == number, "it was asked again on another one"
    assert seen.rides >= 4


async def test_whoever_leaves_before_the_rest_is_looked_after_ends_it(
    at: Lane, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that passes a stream on begins a turn later, or many on a busy day."""

    async def stream(peer: Peer, _: bytes) -> None:
        await peer.send(CHUNKED)
        await peer.gone()

    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    look_after = ConnectionPool.look_after
    begins = asyncio.Event()

    def later(pool: ConnectionPool, waiting: Coroutine[None, None, None]) -> None:
        async def begun() -> None:
            await begins.wait()
            await waiting

        look_after(pool, begun())

    at.acts.append(stream)
    with monkeypatch.context() as patch:
        patch.setattr(ConnectionPool, "look_after", later)
        end = await asked(at, client, at.get(place))
        pool = at.site.served.registry.state("h0").connections
        await until(lambda: pool._tasks)
        client.reset()
        await end.gone()
        begins.set()
        await until(lambda: not pool._tasks)
    assert at.site.access[-1][1]["status"] == 499
    await at.others_go_on(place)


def test_what_comes_right_behind_an_answer_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop finds somebody's request and, behind it, what a hub said too much, in one look at its sockets: the
    request must not be on that connection by then."""
    monkeypatch.setattr(kit_gate, "SHORT_WAY", True)
    with asyncio.Runner() as runner:  # whose loop can be held up
        runner.run(_right_behind(monkeypatch))


def _one_behind_the_other(*said: tuple[socket.socket, bytes]) -> None:
    """While the loop stands still: it finds them in this order, and in the same the next time."""
    for end, data in said:
        end.sendall(data)
        time.sleep(0.05)


async def _right_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(PATIENCE)
    release = ConnectionPool.release
    async with gate(f"http://127.0.0.1:{server.getsockname()[1]}") as at:
        one = socket.create_connection(("127.0.0.1", at.port))
        other = socket.create_connection(("127.0.0.1", at.port))
        other.settimeout(PATIENCE)
        held = []

        def say_more(pool: ConnectionPool, connection: Connection) -> None:
            """While the loop stands still."""
            release(pool, connection)
            if not held:
                held.append(connection)
                _one_behind_the_other((other, get("/other")[20:]), (hub, FORGED))

        await asyncio.sleep(0.05)  # both are accepted
        one.sendall(get("/one"))
        accept = asyncio.to_thread(server.accept)
        hub, _ = await accept
        await asyncio.to_thread(hub.recv, 1000)
        monkeypatch.setattr(ConnectionPool, "release", say_more)
        _one_behind_the_other((other, get("/other")[:20]), (hub, ok(b"for one")))
        second, _ = await asyncio.to_thread(server.accept)
        assert (await asyncio.to_thread(second.recv, 1000)).startswith(b"GET /other")
        second.sendall(ok(b"for other"))
        answer = await asyncio.to_thread(other.recv, 1000)
        assert answer.endswith(b"for other")
        for each in (one, other, hub, second, server):
            each.close()
