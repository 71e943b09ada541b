"""Nobody gets what is another's: cookies, connections, answers, sessions. Every answer names its user."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket

import pytest

from hubgate.core.identity import Identity, Proof
from tests.attacks.door import HANDSHAKE, Door, door
from tests.kit.raw import Peer
from tests.kit.strict import Request

PEOPLE = 50
REQUESTS = 24
HUB_COOKIES = (b"jupyterhub-hub-login", b"jupyterhub-session-id", b"jupyterhub-user-alice", b"service-announcement")


@pytest.fixture
async def at():
    async with door(login=("alice", "bob")) as found:
        yield found


def setting(*cookies: bytes):
    """A hub that sets these cookies."""

    def answer(_: Request) -> bytes:
        lines = b"".join(b"Set-Cookie: %b; Path=/htc/; HttpOnly\r\n" % cookie for cookie in cookies)
        return b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok"

    return answer


async def issued(at: Door, user: str, target: bytes = b"/htc/hub/login") -> dict[bytes, bytes]:
    """The cookies that this person's browser keeps of a hub that sets one of each kind."""
    for hub in at.hubs.values():
        hub.answer = setting(*(name + b"=of-" + user.encode() for name in HUB_COOKIES), b"_xsrf=2|x", b"theme=dark")
    reply = await at.ask(target, user=user)
    for hub in at.hubs.values():
        hub.answer = None
    at.received()
    pairs = [value.partition(b";")[0].partition(b"=") for value in reply.fields("Set-Cookie")]
    return {name: value for name, _, value in pairs if not name.startswith(b"hubgate")}


async def passed(at: Door, user: str, *cookies: bytes, target: bytes = b"/htc/hub/home") -> bytes:
    """What a hub gets of these cookies when this person sends them."""
    (reply,) = await at.told(at.request(target, b"Cookie: " + b"; ".join((at.cookies[user], *cookies))))
    assert reply.status == 200
    (got,) = at.received()
    return b"; ".join(got.values(b"Cookie"))


async def test_hub_cookies_open_nothing_for_anybody_else(at) -> None:
    alices, bobs = await issued(at, "alice"), await issued(at, "bob")
    assert set(alices) == {*HUB_COOKIES, b"_xsrf", b"theme"}
    assert (alices[b"_xsrf"], alices[b"theme"]) == (b"2|x", b"dark"), "scripts read these"
    for target in (b"/htc/hub/login", b"/htc/hub/home", b"/htc/user/alice/lab", b"/htc/services/announcement/"):
        for name in HUB_COOKIES:
            own, value = alices[name], b"of-alice"
            tag = own.removesuffix(b"." + value)
            assert own not in {value, b'"' + value + b'"'}
            assert await passed(at, "alice", name + b"=" + own, target=target) == name + b"=" + value
            other = next(each for each in HUB_COOKIES if each != name)
            for stolen in (
                *(name + b"=" + own, name + b"=" + value, name + b'="' + own + b'"', name + b'="' + value + b'"'),
                *(other + b"=" + own, name + b"=" + alices[other], name + b"=" + tag + b".", name + b"=." + value),
                *(name + b"=" + bobs[name].partition(b".")[0] + b"." + value, name + b"=" + tag + b"." + own),
                *(
                    name + b"=" + own + b"x",
                    name + b"=" + own[1:],
                    name + b"=" + own.swapcase(),
                    name + b"=" + b"A" * 22 + b".x",
                ),
                *(
                    name + b"=" + b"A" * 22 + b"." + value,
                    name + b"=" + b"=" * 22 + b"." + value,
                    name + b"=a.b." + own,
                ),
                *(b" " + name + b" = " + own, b"\t" + name + b"=" + own, name + b'="' + own, name + b"=" + own + b'"'),
                *(
                    b'x="; ' + name + b"=" + own + b'; "',
                    b"x=1; ; ;" + name + b"=" + own,
                    b"$Version=1; " + name + b"=" + own,
                ),
                *(name + b"=1; " + name + b"=" + own, b"x=,\x20" + name + b"=" + own + b"; " + name + b"=" + own),
            ):
                heard = await passed(at, "bob", stolen, target=target)
                # As Tornado reads it: split at semicolons.
                names = [pair.partition(b"=")[0].strip() for pair in heard.split(b";")]
                assert not {each for each in names if each.startswith((b"jupyterhub-", b"service-"))}, (stolen, heard)
            assert await passed(at, "bob", name + b"=" + bobs[name], target=target) == name + b"=of-bob"


async def test_a_browser_is_told_to_drop_what_somebody_else_left_in_it(at) -> None:
    """Alice's session ended elsewhere, and bob came next: nothing told her browser which cookies she had."""
    alices, bobs = await issued(at, "alice"), await issued(at, "bob")
    field = b"; ".join(b"=".join(pair) for pair in alices.items())
    for hub in at.hubs.values():
        hub.answer = setting(b"jupyterhub-hub-login=new")
    for target, folder in ((b"/htc/hub/home", b"/htc/hub/"), (b"/htc/user/alice/api/x", b"/htc/user/alice/")):
        # A browser whose cookies don't change gets no short way to what it may see.
        for _ in range(3):
            (reply,) = await at.told(at.request(target, b"Cookie: " + at.cookies["bob"] + b"; " + field))
            at.received()
            lines = reply.fields("Set-Cookie")
            expired = {
                line.partition(b"=")[0] for line in lines if b"Path=%b;" % folder in line and b"Max-Age=0" in line
            }
            assert expired == set(HUB_COOKIES)
            if b"/hub/" in target:
                logins = [line for line in lines if line.startswith(b"jupyterhub-hub-login=")]
                assert b".new;" in logins[-1], "what the hub sets now is what stays"
    field = b"; ".join(b"=".join(pair) for pair in bobs.items())
    (reply,) = await at.told(at.request(b"/htc/hub/home", b"Cookie: " + at.cookies["bob"] + b"; " + field))
    at.received()
    assert not [line for line in reply.fields("Set-Cookie") if b"Max-Age=0" in line]


async def test_a_hub_cookie_is_good_under_its_own_name_alone(at) -> None:
    """A notebook may set some hub cookies; its script could give one of them the name of the hub's own."""
    alices = await issued(at, "alice")
    for name in HUB_COOKIES:
        for other in HUB_COOKIES:
            if other == name:
                continue
            for spelled in (other + b"=" + alices[name], other + b'="' + alices[name] + b'"'):
                assert await passed(at, "alice", spelled) == b"", (name, other)
        longer = name + b"x=" + alices[name]
        assert await passed(at, "alice", longer) == b"", longer


async def test_a_notebook_sets_no_cookie_that_speaks_for_the_hub_or_for_us(at) -> None:
    planted = await issued(at, "alice", b"/htc/user/bob/lab")
    assert not {b"jupyterhub-hub-login", b"jupyterhub-session-id"} & planted.keys()
    spellings = (
        *(b"hubgate=x", b"hubgate =x", b" hubgate=x", b"\thubgate\t=x", b"hubgate-login=x", b"hubgate-at-htc=x"),
        *(b"__Host-hubgate=x", b"__Host-hubgate-handover=x", b"hubgate-handover=x", b"=hubgate=x", b"hubgate"),
        *(b"=", b"", b";hubgate=x", b"==hubgate=x", b'"hubgate"=x'),
    )
    for hub in at.hubs.values():
        hub.answer = setting(*spellings)
    for target in (b"/htc/user/bob/lab", b"/htc/hub/home"):
        reply = await at.ask(target, user="alice")
        at.received()
        names = [value.partition(b";")[0].partition(b"=")[0].strip() for value in reply.fields("Set-Cookie")]
        assert [name for name in names if name != b'"hubgate"'] == [b"hubgate-at-htc"], names
        (ours,) = [value for value in reply.fields("Set-Cookie") if value.startswith(b"hubgate-at-htc=")]
        assert not ours.startswith(b"hubgate-at-htc=x")


async def test_a_sticky_cookie_binds_nobody_else(at) -> None:
    reply = await at.ask(b"/htc/hub/home", user="alice")
    (alices,) = [value.partition(b";")[0] for value in reply.fields("Set-Cookie")]
    home = json.loads(reply.body)["hub"]
    for cookie in (alices, alices + b"x", b"hubgate-at-htc=" + b"A" * 43, b"hubgate-at-htc=", b"hubgate-at-htc=htc02"):
        (reply,) = await at.told(at.request(b"/htc/hub/home", b"Cookie: " + at.cookies["bob"] + b"; " + cookie))
        (set_anew,) = [value.partition(b";")[0] for value in reply.fields("Set-Cookie")]
        assert set_anew not in {cookie, alices}, "bob is given a cookie of his own"
    # And alice's still binds her, to the hub that it bound her to.
    (reply,) = await at.told(at.request(b"/htc/hub/home", b"Cookie: " + at.cookies["alice"] + b"; " + alices))
    assert (json.loads(reply.body)["hub"], reply.fields("Set-Cookie")) == (home, [])


async def test_each_request_of_a_kept_connection_is_judged_by_its_own_cookie(at) -> None:
    """A proxy in front may send several people's requests over one connection; so may an attacker."""
    users = ["alice", "bob", "", "bob", "alice", "", "alice", "bob"] * 6
    target = b"/htc/hub/home"
    requests = [at.request(target, user=user, close=False) for user in users] + [at.request(target, user="bob")]
    at_once = await at.told(b"".join(requests))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    peer, one_by_one = Peer(reader, writer), []
    for request in requests:
        await peer.send(request)
        one_by_one.append(await peer.reply())
    writer.close()
    for replies in (at_once, one_by_one):
        assert len(replies) == len(users) + 1
        for user, reply in zip(users, replies, strict=False):
            if user:
                assert json.loads(reply.body)["users"] == [user]
            else:
                assert reply.status == 401
                assert b"alice" not in reply.body
                assert b"bob" not in reply.body
    told = [value for got in at.received() for value in got.values(b"REMOTE_USER")]
    assert sorted(told) == sorted(2 * [user.encode() for user in [*users, "bob"] if user])


async def test_a_session_that_ends_amid_a_connection_is_over_at_the_next_request(at) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    peer = Peer(reader, writer)
    ask = at.request(b"/htc/hub/home", user="alice", close=False)
    await peer.send(ask)
    assert (await peer.reply()).status == 200
    landing = await at.ask(b"/", user="alice")
    (token,) = set(re.findall(rb'name="csrf" value="([^"]+)"', landing.body))
    form = b"Content-Type: application/x-www-form-urlencoded"
    out = await at.ask(b"/_hubgate/logout", form, method=b"POST", user="alice", body=b"csrf=" + token)
    assert out.status == 303
    at.received()
    for target in (b"/htc/hub/home", b"/htc/user/alice/lab", b"/htc/hub/api/user"):
        await peer.send(at.request(target, user="alice", close=False))
        assert (await peer.reply()).status == 401
    await peer.send(at.request(b"/htc/hub/home", *HANDSHAKE, user="alice", close=False))
    assert (await peer.reply()).status == 401
    assert at.received() == []
    writer.close()


async def test_a_tunnel_is_its_own_users_and_ends_with_the_session(at) -> None:
    """Neither the next request on a hub's connection nor another user's socket hears what passes."""
    tunnels = {}
    for user in ("alice", "bob"):
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        tunnels[user] = Peer(reader, writer)
        await tunnels[user].send(at.request(b"/htc/user/alice/ws", *HANDSHAKE, user=user, close=False))
        assert (await tunnels[user].reply()).status == 101
    await tunnels["bob"].send(b"of bob\n")
    assert await tunnels["bob"].rest() == b"of bob\n"
    assert tunnels["alice"].unread == b""
    live = at.site.served.live
    for place in [place for place in live._by_cookie if place[0].encode() in at.cookies["alice"]]:
        live.forget(live._by_cookie[place].key)
    await tunnels["alice"].gone()
    assert tunnels["alice"].unread == b""


async def _people(at: Door) -> dict[str, bytes]:
    """Sessions of many people, begun without the provider: their cookies by name."""
    # The login itself is attacked elsewhere; fifty of them would only take time.
    sessions = at.site.served.live._sessions
    cookies = {}
    for number in range(PEOPLE):
        name = f"user{number:02}"
        cookie, _ = await sessions.create(
            Identity("https://id.example.org", f"subject-{number}", name),
            Proof("mfa", ("pwd", "otp"), 1),
            provider_sid="",
            id_token="",
            refresh_token="",
            address="",
            user_agent="",
        )
        cookies[name] = b"hubgate=" + cookie.encode()
    return cookies


def _slow_and_long(request: Request) -> bytes:
    """An answer of some size that says who it is for, framed in one way or the other."""
    (user,) = request.values(b"REMOTE_USER")
    body = b"|".join([user + b" " + request.line.split()[1]] * (1 + len(request.line) * 37 % 1500))
    if len(body) % 2:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def test_every_answer_names_its_user_whatever_the_others_do() -> None:
    """Fifty people over shared connections to the hubs, who leave, reset, half-close and pipeline at random."""
    async with door(login=()) as at:
        cookies = await _people(at)
        for hub in at.hubs.values():
            hub.answer = _slow_and_long

        async def visits(name: str) -> int:
            chance = random.Random(name)
            judged, number = 0, 0
            while number < REQUESTS:
                reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 22)
                peer = Peer(reader, writer)
                with contextlib.suppress(ConnectionError, EOFError):
                    while number < REQUESTS:
                        number += 1
                        targets = [
                            b"/htc/hub/%b/%d/%d" % (name.encode(), number, i)
                            for i in range(chance.choice((1, 1, 1, 3)))
                        ]
                        data = b"".join(
                            at.request(
                                target,
                                b"Cookie: " + cookies[name],
                                b"X-Pad: " + b"x" * chance.randrange(99),
                                close=False,
                            )
                            for target in targets
                        )
                        match chance.randrange(8):
                            case 0:  # leaves in the middle of the head
                                await peer.send(data[: chance.randrange(len(data))])
                                break
                            case 1:  # leaves before the answer
                                await peer.send(data)
                                break
                            case 2:  # leaves in the middle of the answer
                                await peer.send(data)
                                await peer.exactly(chance.randrange(1, 400))
                                break
                            case 3:  # reset
                                await peer.send(data)
                                peer.reset()
                                break
                            case 4:  # a body that is never sent whole
                                await peer.send(data.replace(b"\r\n\r\n", b"\r\nContent-Length: 99\r\n\r\nfew", 1))
                                break
                            case _:
                                await peer.send(data)
                                for target in targets:
                                    reply = await peer.reply()
                                    assert reply.status == 200, reply
                                    assert set(reply.body.split(b"|")) == {name.encode() + b" " + target}
                                    judged += 1
                writer.transport.abort()
            return judged

        answered = sum(await asyncio.gather(*map(visits, cookies)))
        assert answered > PEOPLE * REQUESTS / 2
        for hub in at.hubs.values():
            for got in hub.requests:
                (user,) = got.values(b"REMOTE_USER")
                assert got.line.split()[1].split(b"/")[3] == user


async def test_what_a_hub_says_unasked_reaches_nobody() -> None:
    """A hub's connection on which more came than was asked for must not meet the next user's request."""
    async with door(login=("alice", "bob")) as at:
        extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        for hub in at.hubs.values():
            hub.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra
        for user in ("alice", "bob") * 10:
            reply = await at.ask(b"/htc/hub/home", user=user)
            assert (reply.status, reply.body) == (200, b"ok")
        at.received()


async def test_half_closed_clients_take_nobodys_answer(at) -> None:
    """A client that has said all that it will may be gone: nothing of its answer waits for somebody else."""
    for user in ("alice", "bob") * 10:
        sock = socket.create_connection(("127.0.0.1", at.port))
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        peer = Peer(reader, writer)
        await peer.send(at.request(b"/htc/hub/home", user=user, close=False))
        peer.finish()
        heard = await peer.rest()
        assert {name for name in (b"alice", b"bob") if name in heard} <= {user.encode()}
        writer.close()
    at.received()
