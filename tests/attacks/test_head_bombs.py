"""Heads that are small to send and were dear to read: refused, at once, without a session, and nobody else waits.

Nothing is asserted about seconds. What is, is that each bomb is refused with its own status, that the work behind it
stays in proportion to its size (counted, not timed), and that no hub hears of it.
"""

from __future__ import annotations

import sys

from hubgate.core.cookies import parse_cookies
from hubgate.core.headers import HeaderRules
from hubgate.errors import ClientFault
from tests.attacks.door import HANDSHAKE, door

FIELD = 16_000  # the largest field that the parser lets pass, nearly
MOST = 120  # and how many of them


def filled(name: bytes, unit: bytes) -> bytes:
    return name + b": " + unit * (FIELD // len(unit))


def numbered(name: bytes, separator: bytes) -> list[bytes]:
    """Fields full of words that are all different."""
    words = [b"%x" % number for number in range(MOST * FIELD // 8)]
    size = len(words) // MOST
    return [name + b": " + separator.join(words[i * size : (i + 1) * size]) for i in range(MOST)]


BOMBS = {
    "cookies of our name": [filled(b"Cookie", b"hubgate=a;")] * MOST,
    "cookies of our names": [filled(b"Cookie", b"hubgate-at-htc=a;")] * MOST,
    "cookies of anybody": [filled(b"Cookie", b"a=;")] * MOST,
    "cookies without a name": [filled(b"Cookie", b";")] * MOST,
    "hub cookies with tags": [filled(b"Cookie", b"jupyterhub-session-id=AAAAAAAAAAAAAAAAAAAAAA.x;")] * MOST,
    "one cookie": [b"Cookie: a=" + b"x" * FIELD] * MOST,
    "names in Connection": numbered(b"Connection", b","),
    "commas in Connection": [filled(b"Connection", b",")] * MOST,
    "one name in Connection": [b"Connection: " + b"x" * FIELD] * MOST,
    "fields for the hub": [filled(b"X-Custom", b"x ")] * MOST,
    "languages": [filled(b"Accept-Language", b"x,")] * MOST,
}


async def test_bombs_are_refused_and_nobody_else_waits() -> None:
    async with door() as at:
        for name, fields in BOMBS.items():
            for user, target, more in (
                ("alice", b"/htc/hub/home", ()),
                ("", b"/htc/user/x/ws", HANDSHAKE),
                ("", b"/_hubgate/login?next=/", (b"Accept: text/html",)),
            ):
                (reply,) = await at.told(at.request(target, *fields, *more, user=user))
                if target.startswith(b"/htc") or "cookie" in name:
                    assert reply.status in {400, 431}, (name, target, reply)
                assert reply.status < 500, (name, reply)
            assert at.received() == [], name
        assert (await at.ask(b"/htc/hub/home", user="alice")).status == 200


async def test_addresses_without_end_are_read_from_their_end() -> None:
    def adapt(document) -> None:
        document["gateway"]["trusted_proxies"] = ["127.0.0.1/32", "10.0.0.0/8"]

    async with door(adapt) as at:
        for unit in (b"203.0.113.9, ", b"10.0.0.1, ", b",", b"x,", b"[::1]:1,", b"%s"):
            fields = [filled(b"X-Forwarded-For", unit)] * 30
            (reply,) = await at.told(
                at.request(b"/htc/hub/home", *fields, b"X-Forwarded-For: 203.0.113.7", user="alice")
            )
            assert reply.status == 200
            (got,) = at.received()
            assert got.values(b"X-Forwarded-For") == [b"203.0.113.7"]


def work(callable_, *arguments) -> int:
    """How many lines of our own run: what the collector of garbage does meanwhile is nobody's work here."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_globals["__name__"].startswith("hubgate."):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        callable_(*arguments)
    except ClientFault:
        pass
    finally:
        sys.settrace(before)
    return count


def test_the_largest_head_that_passes_costs_in_proportion() -> None:
    """Twice the cookies, twice the work: nothing in between is built anew for each of them."""
    half, whole = (parse_cookies(b"hubgate=a; " * number, "hubgate").session for number in (1400, 2800))
    assert (len(half), len(whole)) == (1400, 2800)
    few = work(parse_cookies, b"a=b; " * 3000, "hubgate")
    many = work(parse_cookies, b"a=b; " * 6000, "hubgate")
    assert many < 2.2 * few
    assert work(parse_cookies, b"a=b; " * 400_000, "hubgate") < 20, "what is too much is not even looked at"
    rules = HeaderRules(identity_header="REMOTE_USER")
    host = (b"Host", b"h")

    def fields(count: int) -> list[tuple[bytes, bytes]]:
        return [host, *((b"Connection", line[12:]) for line in BOMBS["names in Connection"][:count])]

    assert work(rules.to_upstream, fields(100)) < 11 * work(rules.to_upstream, fields(10))
