"""Where the keys come from: one request for many, the last good ones kept, and nobody can make us ask more."""

import asyncio
import contextlib

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from hubgate_hub.assertion import Refused
from hubgate_hub.keys import COOL_DOWN, LARGEST, MAX_AGE, KeySource
from tests.hub.signing import Gateway

URL = "https://jupyter.example.org/_hubgate/jwks.json"


class World:
    """A clock, and a gateway that answers when it is let."""

    def __init__(self):
        self.now = 1000.0
        self.asked = 0
        self.answer = b""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.source = KeySource(URL, fetch=self.fetch, clock=lambda: self.now)

    async def fetch(self, location):
        assert location == URL
        self.asked += 1
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def reason(self, kid):
        with pytest.raises(Refused) as refused:
            await self.source.key(kid)
        return refused.value.reason

    async def settled(self):
        """Until the request that nobody waits for has its answer."""
        while self.source._asking is not None:
            await self.source._asking


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_asked_when_first_needed_and_kept():
    async def scenario():
        world = World()
        world.answer = Gateway().jwks()
        assert world.asked == 0
        for _ in range(3):
            assert (await world.source.key("k1")).algorithm == "EdDSA"
        world.now += MAX_AGE
        assert (await world.source.key("k1")).kid == "k1"
        assert world.asked == 1

    run(scenario())


def test_many_at_once_ask_once_and_one_may_go_away():
    async def scenario():
        world = World()
        world.answer = Gateway().jwks()
        world.may_answer.clear()
        waiting = [asyncio.ensure_future(world.source.key("k1")) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        world.may_answer.set()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting[0]
        assert waiting[0].cancelled()
        assert {key.kid for key in await asyncio.gather(*waiting[1:])} == {"k1"}
        assert world.asked == 1

    run(scenario())


def test_a_flood_of_unknown_kids_asks_once_in_a_cool_down():
    async def scenario():
        world = World()
        old = Gateway(kid="old")
        world.answer = old.jwks()
        await world.source.key("old")
        for round_ in range(1, 4):
            world.now += COOL_DOWN
            for number in range(200):
                assert await world.reason(f"made-up-{number}") == "unknown_key"
            assert world.asked == 1 + round_
            assert (await world.source.key("old")).kid == "old"

    run(scenario())


def test_rotation_is_noticed_by_the_first_token_of_the_new_key():
    async def scenario():
        world = World()
        old, new = Gateway(kid="old"), Gateway(kid="new")
        world.answer = old.jwks()
        await world.source.key("old")
        world.answer = old.jwks(new.jwk)
        world.now += COOL_DOWN
        assert (await world.source.key("new")).kid == "new"
        assert (await world.source.key("old")).kid == "old"
        assert world.asked == 2

    run(scenario())


def test_a_key_that_was_taken_back_is_believed_no_longer():
    async def scenario():
        world = World()
        old, new = Gateway(kid="old"), Gateway(kid="new")
        world.answer = old.jwks(new.jwk)
        await world.source.key("old")
        world.answer = new.jwks()
        world.now += MAX_AGE + 1
        await world.source.key("old")  # asks, and doesn't wait
        await world.settled()
        assert await world.reason("old") == "unknown_key"
        assert (await world.source.key("new")).kid == "new"

    run(scenario())


@pytest.mark.parametrize(
    "silence", [OSError("refused"), b"<html>502</html>", b'{"keys": []}', TimeoutError()], ids=ascii
)
def test_the_last_good_keys_stay_while_the_gateway_is_silent(silence):
    async def scenario():
        world = World()
        world.answer = Gateway().jwks()
        await world.source.key("k1")
        world.answer = silence
        for _ in range(3):
            world.now += MAX_AGE + 1
            assert (await world.source.key("k1")).kid == "k1"
            await world.settled()
        assert world.source.fault
        # Not "unknown": the gateway could not be asked.
        assert await world.reason("k2") == "keys_unavailable"
        world.answer = Gateway().jwks(Gateway(kid="k2").jwk)
        world.now += COOL_DOWN
        assert (await world.source.key("k2")).kid == "k2"
        assert world.source.fault == ""

    run(scenario())


def test_no_keys_at_all_and_a_gateway_that_comes_back():
    async def scenario():
        world = World()
        world.answer = OSError("refused")
        for _ in range(5):
            assert await world.reason("k1") == "keys_unavailable"
        assert world.asked == 1
        world.answer = Gateway().jwks()
        world.now += COOL_DOWN
        assert (await world.source.key("k1")).kid == "k1"

    run(scenario())


@pytest.mark.parametrize("spelled", [str, lambda path: path.as_uri()], ids=["path", "url"])
def test_a_file(tmp_path, spelled):
    path = tmp_path / "with blank" / "jwks.json"
    path.parent.mkdir()
    path.write_bytes(Gateway().jwks())

    async def scenario():
        source = KeySource(spelled(path))
        assert (await source.key("k1")).kid == "k1"
        path.write_bytes(b" " * LARGEST + Gateway().jwks())
        assert "larger than" in await fault_of(spelled(path))
        assert "FileNotFoundError" in await fault_of(spelled(path) + ".old")

    run(scenario())


async def fault_of(location):
    source = KeySource(location)
    await source.refresh()
    return source.fault


@pytest.mark.parametrize("location", ["", "ftp://jupyter.example.org/jwks.json", "redis://x"])
def test_a_place_that_is_none(location):
    with pytest.raises(ValueError, match="neither"):
        KeySource(location)


def test_over_http():
    class Jwks(web.RequestHandler):
        def get(self, what):
            if what == "moved":
                self.redirect("/jwks")
            elif what == "large":
                self.write(b" " * (LARGEST + 1) + Gateway().jwks())
            elif what == "missing":
                raise web.HTTPError(404)
            else:
                self.write(Gateway().jwks())

    async def scenario():
        server = HTTPServer(web.Application([(r"/(.*)", Jwks)], log_function=lambda handler: None))
        socket, port = bind_unused_port()
        server.add_socket(socket)
        base = f"http://127.0.0.1:{port}"
        assert (await KeySource(f"{base}/jwks").key("k1")).kid == "k1"
        assert "302" in await fault_of(f"{base}/moved")
        assert "404" in await fault_of(f"{base}/missing")
        assert await fault_of(f"{base}/large")
        server.stop()
        await server.close_all_connections()
        assert await fault_of(f"{base}/jwks")

    run(scenario())
