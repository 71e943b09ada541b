"""Whoever can write to the store can delete, and nothing more: no swap, no forgery, nobody becomes somebody else.

Every kind of record that there is after a day's work is exchanged with every other, cut, bent, replaced by garbage and
by values of other types. What counts is what the hubs hear: of nobody, or of the one whose cookie it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re

import pytest

from hubgate.store.memory import MemoryStore
from tests.attacks.door import HANDSHAKE, Door, door

NAVIGATES = (b"Accept: text/html", b"Sec-Fetch-Mode: navigate")


def two_hosts(document) -> None:
    port = document["gateway"]["public_url"].rpartition(":")[2]
    document["pools"][1]["host"] = f"localhost:{port}"


class Vault:
    """The store as its operator sees it, and a gateway that has to read everything anew."""

    def __init__(self, at: Door) -> None:
        self.at = at
        self.live = at.site.served.live
        store = self.live._store
        assert isinstance(store, MemoryStore)
        self.entries = store._entries
        self.honest = {key: entry.value for key, entry in self.entries.items()}

    def keys(self, kind: str) -> list[str]:
        return sorted(key for key in self.honest if key.startswith(kind + ":") and key in self.entries)

    def restore(self) -> None:
        for key, value in self.honest.items():
            if key in self.entries:
                self.entries[key].value = value

    def forget(self) -> None:
        """As another worker, or after a restart."""
        for entry in list(self.live._by_cookie.values()):
            self.live.forget(entry.key)


@pytest.fixture
async def vault():
    async with door(two_hosts, login=("alice", "bob")) as at:
        host = f"localhost:{at.port}".encode()
        for user in ("alice", "bob"):
            await at.ask(b"/htc/hub/home", user=user)
        # Alice's browser on the other host, a login and a handover under way.
        state = hashlib.sha256(b"s" * 43).hexdigest().encode()
        query = b"?host=" + host + b"&state=" + state + b"&next=/hpc/hub/home"
        given = await at.ask(b"/_hubgate/handover" + query, *NAVIGATES, user="alice")
        take = (given.field("Location") or b"").partition(host)[2]
        taken = await at.ask(take, *NAVIGATES, b"Cookie: hubgate-handover=" + b"s" * 43, host=host)
        (alias,) = [v.partition(b";")[0] for v in taken.fields("Set-Cookie") if v.startswith(b"hubgate=")]
        at.cookies["alice there"] = alias
        await at.ask(b"/hpc/hub/home", user="alice there", host=host)
        await at.ask(b"/_hubgate/handover" + query, *NAVIGATES, user="alice")
        await at.ask(b"/_hubgate/login?next=/", *NAVIGATES)
        at.received()
        yield Vault(at)


async def visits(vault: Vault, *ways: tuple[bytes, ...]) -> dict[str, int]:
    """Everybody asks for everything; whoever the hubs hear of is the one whose cookie it is. `ways`: how they ask."""
    ways = ways or ((),)
    at = vault.at
    host = f"localhost:{at.port}".encode()
    statuses = {}
    for user, path, place in (
        *(("alice", b"/htc/hub/home", None), ("bob", b"/htc/hub/home", None), ("alice there", b"/hpc/hub/home", host)),
        ("alice", b"/", None),
    ):
        vault.forget()
        for fields in ways if path != b"/" else ((),):
            (reply,) = await at.told(at.request(path, *fields, user=user, host=place) + b"\n" * (fields is HANDSHAKE))
            assert reply.status in {101, 200, 302, 401, 503}, (user, path, reply)
            expected = user.partition(" ")[0]
            if path == b"/" and reply.status == 200:
                assert expected.title().encode() in reply.body
            for got in at.received():
                assert got.values(b"REMOTE_USER") == [expected.encode()], (user, got)
            statuses[f"{user} {path.decode()}"] = reply.status
    return statuses


KINDS = ("session", "alias", "login", "handover", "binding", "sticky", "username", "sessions-of")


async def test_records_that_are_swapped_open_nothing(vault) -> None:
    honest = await visits(vault, (), NAVIGATES, HANDSHAKE)
    assert set(honest.values()) <= {101, 200}
    honest = await visits(vault)
    assert {kind for kind in KINDS if vault.keys(kind)} == set(KINDS), sorted(vault.entries)
    everything = [vault.keys(kind) for kind in KINDS]
    opened = 0
    for keys in everything[:2] + everything[4:]:
        for key in keys:
            for others in everything:
                for other in others[:2]:
                    if other == key or vault.honest[other] == vault.honest[key]:
                        continue
                    vault.entries[key].value = vault.honest[other]
                    statuses = await visits(vault)
                    if key.startswith(("session:", "alias:")):
                        assert [status for status in statuses.values() if status not in {101, 200}], (key, other)
                    opened += list(statuses.values()).count(200)
                    vault.restore()
    assert opened, "those whose records were left alone are served"
    assert await visits(vault) == honest


def spoiled(value: bytes) -> dict[str, bytes | set[str]]:
    return {
        "empty": b"",
        "one byte": value[:1],
        "cut": value[:-1],
        "cut in half": value[: len(value) // 2],
        "head only": value[:17],
        "lengthened": value + b"\0",
        "first byte": b"\x02" + value[1:],
        "key id": value[:1] + bytes(byte ^ 1 for byte in value[1:5]) + value[5:],
        "nonce": value[:5] + bytes([value[5] ^ 1]) + value[6:],
        "content": value[:20] + bytes([value[20] ^ 1]) + value[21:],
        "tag": value[:-1] + bytes([value[-1] ^ 1]),
        "zeros": bytes(len(value)),
        "ones": b"\xff" * len(value),
        "JSON": b'{"identity": {"username": "admin", "groups": []}, "handle": "x"}',
        "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.",
        "a text": b"alice" * 20,
        "a megabyte": value + b"x" * 1_000_000,
        "of another type": {"alice", "bob"},
    }


async def test_records_that_are_bent_open_nothing_and_the_others_go_on(vault) -> None:
    for kind in ("session", "alias", "binding", "sticky"):
        for key in vault.keys(kind)[:1]:
            honest = vault.honest[key]
            for what, value in spoiled(honest if isinstance(honest, bytes) else b"\x01" + b"x" * 60).items():
                vault.entries[key].value = value
                statuses = await visits(vault, NAVIGATES, HANDSHAKE)
                if kind in {"session", "alias"}:
                    assert set(statuses.values()) & {302, 401, 503}, (key, what)
                assert set(statuses.values()) & {101, 200}, (key, what)
                vault.restore()


async def test_a_login_whose_record_was_bent_or_swapped_makes_no_session(vault) -> None:
    at = vault.at
    async with await at.site.logged_in() as alice, await at.site.logged_in("bob") as bob:
        for _ in range(2):
            ways = []
            for person in (alice, bob):
                person.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
                page = await person.get(f"{at.site.url}/_hubgate/login?next=/htc/hub/home&on=1", follow=False)
                page = await person.get(page.headers["Location"], follow=False)
                url = page.headers["Location"].removeprefix(at.site.url).encode()
                (state,) = re.findall(rb"[?&]state=([\w-]+)", url)
                ways.append(
                    (url, f"login:{hashlib.sha256(state).hexdigest()}", person.cookies(at.site.url)["hubgate-login"])
                )
            (one, first, cookie), (two, second, _) = ways
            vault.entries[first].value, vault.entries[second].value = (
                vault.entries[second].value,
                vault.entries[first].value,
            )
            for url in (one, two):
                reply = await at.ask(url, *NAVIGATES, b"Cookie: hubgate-login=" + cookie.encode())
                assert reply.status in {400, 503}
                assert not reply.fields("Set-Cookie")
        page = await alice.get(f"{at.site.url}/_hubgate/login?next=/htc/hub/home&on=1", follow=False)
        page = await alice.get(page.headers["Location"], follow=False)
        url = page.headers["Location"].removeprefix(at.site.url).encode()
        (state,) = re.findall(rb"[?&]state=([\w-]+)", url)
        key = f"login:{hashlib.sha256(state).hexdigest()}"
        honest = vault.entries[key]
        cookie = b"Cookie: hubgate-login=" + alice.cookies(at.site.url)["hubgate-login"].encode()
        for what, value in spoiled(honest.value).items():
            vault.entries[key] = honest
            honest.value = value
            reply = await at.ask(url, *NAVIGATES, cookie)
            assert reply.status in {400, 503}, (what, reply)
            assert not reply.fields("Set-Cookie")
    assert at.received() == []


async def test_a_handover_whose_record_was_bent_or_swapped_makes_no_alias(vault) -> None:
    at = vault.at
    host = f"localhost:{at.port}".encode()
    state = hashlib.sha256(b"s" * 43).hexdigest().encode()
    query = b"?host=" + host + b"&state=" + state + b"&next=/"
    takes = {}
    for user in ("alice", "bob"):
        given = await at.ask(b"/_hubgate/handover" + query, *NAVIGATES, user=user)
        take = (given.field("Location") or b"").partition(host)[2]
        takes[user] = (take, f"handover:{hashlib.sha256(take.partition(b'code=')[2]).hexdigest()}")
    (alices, hers), (bobs, his) = takes["alice"], takes["bob"]
    first, second = vault.entries[hers], vault.entries[his]
    swapped = {hers: second.value, his: first.value}
    cookie = b"Cookie: hubgate-handover=" + b"s" * 43
    for take, key, entry in ((alices, hers, first), (bobs, his, second)):
        honest = entry.value
        for value in (swapped[key], *spoiled(honest).values(), vault.honest[vault.keys("session")[0]]):
            entry.value = value
            vault.entries[key] = entry
            reply = await at.ask(take, *NAVIGATES, cookie, host=host)
            assert reply.status in {400, 503}, reply
            assert not reply.fields("Set-Cookie")
        entry.value = honest
        vault.entries[key] = entry
        reply = await at.ask(take, *NAVIGATES, cookie, host=host)
        assert (reply.status, reply.field("Location")) == (303, b"/"), "and the honest record is good"


async def test_a_name_whose_owner_was_bent_makes_nobody_somebody_else() -> None:
    """Whoever can write to the store can free a name, as by deleting it; what they can't is give it to somebody."""
    async with door(login=("alice", "bob")) as at:
        vault = Vault(at)
        key = "username:alice"
        honest = vault.honest[key]
        assert isinstance(honest, bytes)
        bobs = vault.honest["username:bob"]
        async with await at.site.logged_in() as alice:
            refused = 0
            for what, value in {**spoiled(honest), "bob's": bobs}.items():
                vault.entries[key].value = value
                alice.session.cookie_jar.clear(lambda cookie: cookie.key == "hubgate")
                page = await alice.get(at.site.url + "/")
                assert page.status in {200, 403, 503}, (what, page)
                if page.status == 200:
                    assert ">alice<" in page.text
                    assert vault.entries[key].value not in {value, bobs}, "it is hers again, and sealed anew"
                else:
                    assert "hubgate" not in alice.cookies(at.site.url)
                    refused += 1
            assert refused >= 2, "an unknown key, and a value of another type"


async def test_garbage_on_the_topic_harms_nobody(vault) -> None:
    store = vault.live._store
    honest = await visits(vault)
    for payload in (
        *(
            b"",
            b" ",
            b"session",
            b"session ",
            b"session  x",
            b"user",
            b"user ",
            b"\xff\xfe",
            b"\0" * 1000,
            b"x" * 100_000,
        ),
        *(b"session *", b"session ../../x", b"SESSION x", b'{"verb": "session"}', b"session x\nsession y", b"user *"),
        *(b"session " + b"0" * 64, b"session x " + b"0" * 64, b"session x  ", b"user " + b"0" * 32),
    ):
        await store.publish("sessions", payload)
    await asyncio.sleep(0)
    assert vault.live.subscribed
    assert await visits(vault) == honest
    # And a message that names a session has it read again, on whoever's word: it is there, so it goes on.
    for entry in list(vault.live._by_cookie.values()):
        await store.publish("sessions", f"session x {entry.key}".encode())
    assert await visits(vault) == honest


async def test_one_record_that_cant_be_read_keeps_no_other_session_from_ending(vault) -> None:
    """Found here: a record with an unknown key (an attacker's, or one more key of a neighbour's) ended the reading of
    all others, so that sessions that had ended went on for the time of grace, and all sockets were closed after it."""
    at, live = vault.at, vault.live
    vault.forget()
    for user in ("alice", "bob"):
        assert (await at.ask(b"/htc/hub/home", user=user)).status == 200
    entries = {entry.session.identity.username: (place, entry) for place, entry in live._by_cookie.items()}
    bob = entries["bob"][1]
    for unreadable in (b"\x02" + b"x" * 80, b"\x01XXXX" + b"x" * 80):
        vault.entries[f"session:{bob.key}"].value = unreadable
        confirmed = entries["alice"][1].confirmed = 1.0
        await live._confirm([entries["bob"], entries["alice"]])
        assert entries["alice"][1].confirmed > confirmed
        assert bob.confirmed > 0.0, "what can't be read may still be good: nobody is logged out for it"
        assert live._by_cookie.get(entries["bob"][0]) is bob
    # Alice's session ends, and this worker missed the message.
    del vault.entries[f"session:{entries['alice'][1].key}"]
    await live._confirm([entries["bob"], entries["alice"]])
    assert entries["alice"][0] not in live._by_cookie
    reply = await at.ask(b"/htc/hub/home", user="alice")
    assert reply.status == 401
    assert json.loads(reply.body)["code"] == "session_required"


async def test_a_store_that_was_emptied_lets_nobody_in_and_everybody_log_in_again(vault) -> None:
    at = vault.at
    vault.entries.clear()
    assert set((await visits(vault)).values()) <= {302, 401}
    async with await at.site.logged_in("bob") as bob:
        assert (await bob.get(at.site.url + "/htc/hub/home")).status == 200
