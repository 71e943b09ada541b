"""Nobody comes in on the short way who would not come in on the long one: who asks, in whose name, and until when.

Each request is one that the short way knew a moment ago, to the last byte; the third is the first that repeats the one
before it word by word, since the first answer brings a cookie."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from hubgate.core.balancer import Selection
from hubgate.core.health import Observation
from hubgate.core.identity import Identity
from hubgate.web.live import LiveSession
from hubgate.web.sessions import _at, _record
from tests.attacks import lane as lanes
from tests.attacks.door import Door, door, letters
from tests.attacks.lane import Lane, lane
from tests.attacks.rides import Rides
from tests.kit.raw import Peer, Reply


@pytest.fixture
async def at() -> AsyncIterator[Lane]:
    async with lane(4) as made:
        yield made


def session_of(at: Lane | Door, user: str) -> LiveSession:
    """What this worker holds of somebody."""
    (live,) = [each for each in at.site.served.live._by_cookie.values() if each.session.identity.username == user]
    return live


class Clock:
    """The time of everybody who judges or remembers."""

    def __init__(self, at: Lane | Door) -> None:
        self.ahead = 0.0
        served = at.site.served
        object.__setattr__(served.front, "clock", self)
        object.__setattr__(served.front.clearing.disclosure, "_clock", self)
        served.shortcut._clock = self
        served.live._clock = self

    def __call__(self) -> float:
        return time.time() + self.ahead


# -- who asks

NAMES = (
    *(b"REMOTE_USER", b"Remote-User", b"remote.user", b"HTTP_REMOTE_USER", b"http-http-Remote-User", b"X-Remote-User"),
    *(
        b"X-Hubgate-Assertion",
        b"x_hubgate_assertion",
        b"HTTP_X_HUBGATE_ASSERTION",
        b"X-Hubgate-Anything",
        b"RemoteUser",
    ),
    *(b"X-Forwarded-For", b"X_Forwarded_For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"Forwarded", b"X-Real-IP"),
    *(
        b"X-Auth-Request-User",
        b"OIDC_CLAIM_sub",
        b"X-Original-URL",
        b"X-HTTP-Method-Override",
        b"X-Scheme",
        b"Remote_User",
    ),
)


@pytest.mark.parametrize("name", NAMES)
async def test_nobody_speaks_in_our_name_at_any_repetition(at: Lane, rides: Rides, name: bytes) -> None:
    place, client = at.place(), await at.client()
    spoofed = name + b": 203.0.113.9 mallory"
    for number in range(4):
        await client.send(at.get(place, spoofed))
        await at.is_good(client)
        request = await at.last_request(number + 1)
        assert request.values(b"REMOTE_USER") == [b"alice"]
        for key, value in request.fields:
            assert b"mallory" not in value, key
            assert b"203.0.113.9" not in value, key
            if letters(key) in {b"remoteuser", b"xhubgateassertion"}:
                assert key in {b"REMOTE_USER", b"X-Hubgate-Assertion"}
    assert rides.number == 3


async def test_two_people_on_one_connection_are_themselves(at: Lane, rides: Rides) -> None:
    """A proxy in front may send anybody's request on any of its connections."""
    place, client, other = at.place(), await at.client(), await at.client()
    for user in ("alice", "bob"):
        await at.goes_well(client, place, 2, user=user)
    before = rides.number
    for user in ("alice", "bob", "bob", "alice", "alice", "bob") * 3:
        await at.goes_well(client, place, 1, user=user)
        await at.goes_well(other, place, 1, user="bob" if user == "alice" else "alice")
    assert rides.number == before + 36


async def test_an_answer_in_flight_is_one_persons(at: Lane, rides: Rides) -> None:
    place, client, other = at.place(), await at.client(), await at.client()
    for user in ("alice", "bob"):
        await at.goes_well(client, place, 3, user=user)

    async def slow(peer: Peer, head: bytes) -> None:
        await peer.cued()
        await peer.send(at.good(head))

    before = rides.number
    at.acts.append(slow)
    await client.send(at.get(place, user="alice"))
    await at.last_request(7)
    await client.send(at.get(place, user="bob"))
    await at.goes_well(other, place, 3, user="bob")
    next(peer for peer in at.hub.peers if peer.received.endswith(at.requests[6])).cue()
    for user in ("alice", "bob"):
        reply = await client.reply()
        assert reply.body.endswith(b"for " + user.encode())
    assert rides.number == before + 5


@pytest.mark.parametrize(
    "fields",
    [
        *("{alice}; {bob}", "{bob}; {alice}", "{alice}; {alice}", "{alice}; hubgate=x", "hubgate=; {alice}"),
        *("{alice}x", "{alice}; hubgate", "x{alice}", "{alice},{bob}", "{alice}; {bob}; theme=dark"),
    ],
)
async def test_cookies_of_our_name_that_leave_a_doubt_open_nothing(at: Lane, rides: Rides, fields: str) -> None:
    """`hubgate` twice, whatever the values: one was planted."""
    place, client = at.place(), await at.client()
    for user in ("alice", "bob"):
        await at.goes_well(client, place, 3, user=user)
    before, seen = rides.number, len(at.requests)
    cookies = {user: at.cookies[user].decode() for user in ("alice", "bob")}
    doubtful = fields.format(**cookies).encode()
    plain = at.get(place)
    sent = re.sub(rb"Cookie: [^\r]*", b"Cookie: " + doubtful, plain)
    split = re.sub(rb"Cookie: [^\r]*", b"Cookie: " + doubtful.replace(b"; ", b"\r\nCookie: "), plain)
    for _ in range(3):
        for data in (sent, split):
            await client.send(data)
            reply = await client.reply()
            if fields == "{alice}; hubgate":
                assert reply.status == 200  # a cookie without a name is none
                assert reply.body.endswith(b"for alice")
            else:
                assert reply.status == 401, reply
    assert len(at.requests) == seen + (6 if fields == "{alice}; hubgate" else 0)
    assert rides.number == before + (2 if fields == "{alice}; hubgate" else 0)


async def test_whose_address_it_is_is_told_by_trusted_proxies_alone(rides: Rides) -> None:
    """One session from two addresses, two sessions from one: each request has lines of its own."""

    def trusting(document) -> None:
        document["gateway"]["trusted_proxies"] = ["127.0.0.1/32"]

    async with door(trusting, login=("alice", "bob")) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        peer = Peer(reader, writer)
        for user, address in [("alice", b"192.0.2.1"), ("alice", b"2001:db8::2"), ("bob", b"192.0.2.1")] * 4:
            forged = b"198.51.100.7, " + address
            await peer.send(at.request(b"/htc/hub/x", b"X-Forwarded-For: " + forged, user=user, close=False))
            assert (await peer.reply()).status == 200
            (request,) = at.received()
            assert request.values(b"REMOTE_USER") == [user.encode()]
            assert request.values(b"X-Forwarded-For") == [address]
            assert request.values(b"X-Real-IP") == [address]
            (said,) = request.values(b"Forwarded")
            assert said.startswith(b"for=" + (b'"[%b]"' % address if b":" in address else address))
        assert rides.number == 9
        assert {caller.address for caller, _ in at.site.access if caller.pool} == {"192.0.2.1", "2001:db8::2"}
        writer.close()


async def test_without_trusted_proxies_nobody_is_asked_for_an_address(at: Lane, rides: Rides) -> None:
    place, client = at.place(), await at.client()
    for number, address in enumerate((b"192.0.2.1", b"192.0.2.2", b"192.0.2.1")):
        await client.send(at.get(place, b"X-Forwarded-For: " + address))
        await at.is_good(client)
        assert (await at.last_request(number + 1)).values(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert rides.number == 2


# -- in whose name


async def test_an_assertion_is_renewed_in_time(rides: Rides) -> None:
    async with door() as at:
        clock = Clock(at)
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        peer = Peer(reader, writer)

        async def assertions(target: bytes) -> list[bytes]:
            await peer.send(at.request(target, user="alice", close=False))
            assert (await peer.reply()).status == 200
            (request,) = at.received()
            assert request.values(b"REMOTE_USER") == ([b"alice"] if request.values(b"X-Hubgate-Assertion") else [])
            return request.values(b"X-Hubgate-Assertion")

        seen = []
        for turn in range(4):
            (first,) = await assertions(b"/htc/hub/home")
            before = rides.number
            assert await assertions(b"/htc/hub/home") == [first]
            assert await assertions(b"/htc/hub/other") == [first]
            assert rides.number == before + 2
            seen.append(first)
            clock.ahead += 30.5  # half of its life; a hub takes none that is older than 60 s
            assert len(set(seen)) == turn + 1
        before = rides.number
        for _ in range(3):
            assert await assertions(b"/htc/user/alice/lab") == []
            assert await assertions(b"/htc/user/bob/hub/login") == []
            assert await assertions(b"/htc/hub") != []
        assert rides.number >= before + 6
        before = rides.number
        logins = [tuple(await assertions(b"/htc/hub/login?next=x")) for _ in range(4)]
        assert len(set(logins)) == 4, "for each attempt its own"
        assert rides.number == before
        writer.close()


# -- until when


async def log_out(at: Lane) -> None:
    """As a person does."""
    cookie = b"Cookie: " + at.cookies["alice"]
    client = await at.client()
    host = b"Host: " + at.netloc
    await client.send(b"\r\n".join((b"GET / HTTP/1.1", host, cookie, b"", b"")))
    landing = await client.reply()
    (token,) = set(re.findall(rb'name="csrf" value="([^"]+)"', landing.body))
    form = b"Content-Type: application/x-www-form-urlencoded"
    body = b"csrf=" + token
    head = (b"POST /_hubgate/logout HTTP/1.1", host, cookie, form, b"Content-Length: %d" % len(body), b"", body)
    await client.send(b"\r\n".join(head))
    assert (await client.reply()).status == 303


async def ended_elsewhere(at: Lane) -> None:
    """An administrator, or the provider, by way of another worker."""
    live = session_of(at, "alice")
    await at.site.served.live._sessions.end([live.key])
    async with asyncio.timeout(60):
        while live in at.site.served.live._by_cookie.values():
            await asyncio.sleep(0)


async def idle_for_long(at: Lane) -> None:
    Clock(at).ahead = at.site.served.front.limits.idle + 1


async def old(at: Lane) -> None:
    live = session_of(at, "alice")
    clock = Clock(at)
    clock.ahead = at.site.served.front.limits.max + 1
    live.person_seen(clock())


async def rewritten(at: Lane, identity: Identity) -> None:
    """The record says something else from now on, and the worker reads it again."""
    live = session_of(at, "alice")
    sessions = at.site.served.live._sessions
    session = replace(live.session, identity=identity)
    sealed = sessions._records.seal(live.key, _record(session))
    await sessions._store.put(_at(live.key), sealed, ttl=1000)
    await at.site.served.live._confirm(list(at.site.served.live._by_cookie.items()))


async def out_of_the_group(at: Lane) -> None:
    await rewritten(at, replace(session_of(at, "alice").session.identity, groups=()))


async def unconfirmed(at: Lane) -> None:
    """The store has been away for longer than anybody is believed."""
    served = at.site.served

    async def away(*_: object) -> None:
        return None

    served.live._sessions.find = away  # type: ignore[method-assign]
    Clock(at).ahead = served.live._grace + 1


ENDS: dict[str, tuple[Callable[[Lane], Awaitable[None]], int]] = {
    "log out": (log_out, 401),
    "elsewhere": (ended_elsewhere, 401),
    "idle": (idle_for_long, 401),
    "old": (old, 401),
    "group": (out_of_the_group, 403),
    "unconfirmed": (unconfirmed, 401),
}


@pytest.fixture
async def grouped(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lane]:
    """A lane whose pools are for htc-users."""

    stand = lanes.stand

    def with_groups(adapt, **more):
        def adapted(document) -> None:
            adapt(document)
            for pool in document["pools"]:
                pool["groups"] = ["htc-users"]

        return stand(adapted, **more)

    monkeypatch.setattr(lanes, "stand", with_groups)
    async with lane(4) as made:
        yield made


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("in_flight", [False, True], ids=["at rest", "in flight"])
async def test_what_has_ended_is_over_for_the_very_next_request(
    grouped: Lane, rides: Rides, end: tuple[Callable[[Lane], Awaitable[None]], int], *, in_flight: bool
) -> None:
    at, (act, status) = grouped, end
    place, notebook = at.place(), b"/p0/user/alice/lab"
    clients = [await at.client() for _ in range(3)]
    for client in clients:
        await at.goes_well(client, place, 3)
    await clients[0].send(at.get(notebook))
    assert (await clients[0].reply()).status == 200
    assert rides.number >= 6
    late: Peer | None = None
    if in_flight:

        async def slow(peer: Peer, head: bytes) -> None:
            await peer.cued()
            await peer.send(at.good(head))

        at.acts.append(slow)
        await clients[2].send(at.get(place))
        await at.last_request(len(at.requests) + (1 if at.acts else 0))
        late = next(peer for peer in reversed(at.hub.peers) if peer.received.endswith(at.requests[-1]))
        await clients[2].send(at.get(place))  # waits behind it
    seen, before = len(at.requests), rides.number
    await act(at)
    # The first of them is what ends the session for all others where time alone has ended it.
    order = (place, notebook, place) if in_flight else (notebook, place, notebook)
    for client in (*clients[:2], await at.client()):
        for target in order:
            await client.send(at.get(target))
            assert (await client.reply()).status == status
    if late is not None:
        late.cue()
        assert await clients[2].rest() == b""  # what waits, and what waits behind it, ends with the permission
    assert len(at.requests) == seen
    assert rides.number == before
    if status == 403 or act in {log_out, ended_elsewhere}:
        await at.goes_well(clients[0], place, 3, user="bob")


async def test_another_name_in_the_record_is_the_name_at_once(at: Lane, rides: Rides) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    identity = session_of(at, "alice").session.identity
    await rewritten(at, Identity(identity.issuer, identity.subject, "carol", groups=identity.groups))
    for _ in range(3):
        await client.send(at.get(place))
        assert (await client.reply()).body.endswith(b"for carol")
    assert rides.number == 3


async def test_a_session_that_is_forgotten_and_read_again_is_judged_again(at: Lane, rides: Rides) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    at.site.served.live._drop(next(iter(at.site.served.live._by_cookie)))
    for live in list(at.site.served.live._by_cookie):
        at.site.served.live._drop(live)
    assert not at.site.served.live._by_field
    before = rides.number
    await at.goes_well(client, place, 1)
    assert rides.number == before
    await at.goes_well(client, place, 1)
    assert rides.number == before + 1


# -- at which hub


async def _asked(at: Door, peer: Peer, target: bytes = b"/htc/hub/x") -> Reply:
    await peer.send(at.request(target, user="alice", close=False))
    return await peer.reply()


async def test_a_hub_that_goes_down_and_comes_back(rides: Rides) -> None:
    async with door() as at:
        peers = [Peer(*await asyncio.open_connection("127.0.0.1", at.port)) for _ in range(2)]
        for peer in peers:
            for _ in range(3):
                assert (await _asked(at, peer)).status == 200
        assert rides.number == 5
        (hub,) = {request.line and hub.name for hub in at.hubs.values() for request in hub.requests}
        at.received()
        registry = at.site.served.registry
        now = time.time()
        while registry.state(hub).health.condition.value == "up":
            registry.report(hub, Observation.UNREACHABLE, now)
        for peer in peers:
            assert (await _asked(at, peer)).status == 503
        assert not at.received()
        while registry.state(hub).health.condition.value != "up":
            registry.report(hub, Observation.OK, now)
        before = rides.number
        for peer in peers:
            assert (await _asked(at, peer)).status == 200
            assert (await _asked(at, peer)).status == 200
        assert rides.number == before + 3
        for peer in peers:
            peer.drop()


async def test_who_is_moved_is_moved_at_once(rides: Rides) -> None:
    async with door() as at:
        peers = [Peer(*await asyncio.open_connection("127.0.0.1", at.port)) for _ in range(2)]
        for peer in peers:
            for target in (b"/htc/hub/x", b"/htc/user/alice/x"):
                for _ in range(2):
                    assert (await _asked(at, peer, target)).status == 200
        (before,) = [name for name, hub in at.hubs.items() if hub.raw]
        at.received()
        front = at.site.served.front
        live = session_of(at, "alice")
        pool = next(pool for pool in front.site.pools if pool.name == "htc")
        moved = await front.bindings.move(live, pool)
        assert isinstance(moved, Selection)
        assert moved.upstream != before
        for peer in peers:
            for target in (b"/htc/user/alice/x", b"/htc/hub/x"):
                assert (await _asked(at, peer, target)).status == 200
        assert {name for name, hub in at.hubs.items() if hub.raw} == {moved.upstream}
        for peer in peers:
            peer.drop()


# -- how much is remembered


async def test_many_cookie_fields_and_places_of_one_session_push_each_other_out_alone(at: Lane, rides: Rides) -> None:
    place, client = at.place(), await at.client()
    await at.goes_well(client, place, 3)
    await at.goes_well(client, place, 3, user="bob")
    live = at.site.served.live
    for number in range(40):
        plain = at.get(place)
        await client.send(plain.replace(b"Cookie: ", b"Cookie: n=%d; " % number))
        assert (await client.reply()).body.endswith(b"for alice")
    alice, bob = session_of(at, "alice"), session_of(at, "bob")
    assert len(alice.cookie_lines) <= 8
    assert len(alice.cleared) <= 32
    fields = {(field, each.host) for each in (alice, bob) for field in each.cookie_lines}
    assert set(live._by_field) == fields
    before = rides.number
    await at.goes_well(client, place, 2, user="bob")
    assert rides.number == before + 2
