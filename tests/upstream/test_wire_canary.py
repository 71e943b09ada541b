"""The seams of aiohttp that web/wire.py and web/listener.py lean on. When an update of aiohttp fails here, read the
message, look at aiohttp's changes, and adapt those two modules: nothing else knows these names."""

from __future__ import annotations

import asyncio
import inspect
from unittest import mock

import aiohttp
import pytest
from aiohttp import http_parser, web

from hubgate.errors import OperatorFault
from hubgate.upstream.message import Answer
from hubgate.web.listener import BrowserConnection
from hubgate.web.wire import ClientConnection, raw_target, require_c_parser
from tests.kit.gate import gate
from tests.kit.raw import Peer, RawUpstream, always, get, handshake, ok, post, switched

MOVED = f"aiohttp {aiohttp.__version__} moved a seam that hubgate leans on: "


@pytest.mark.parametrize(
    "name",
    ["_waiter", "_messages", "_request_count", "_current_request", "_loop", "_parser", "_payload_parser", "transport"],
)
async def test_the_connection_still_has(name: str) -> None:
    connection = BrowserConnection(
        web.Server(mock.AsyncMock()),  # type: ignore[arg-type]
        header_timeout=1.0,
        shortcut=None,
        loop=asyncio.get_running_loop(),
    )
    assert hasattr(connection, name), MOVED + f"RequestHandler.{name}"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (web.RequestHandler, "set_parser", ["self", "parser"]),
        (web.RequestHandler, "connection_made", ["self", "transport"]),
        (web.RequestHandler, "connection_lost", ["self", "exc"]),
        (web.RequestHandler, "data_received", ["self", "data"]),
        (web.RequestHandler, "handle_error", ["self", "request", "status", "exc", "message"]),
        (web.RequestHandler, "close", ["self"]),
        (web.RequestHandler, "force_close", ["self"]),
        (web.Server, "__call__", ["self"]),
        (web.Server, "pre_shutdown", ["self"]),
        (web.Server, "shutdown", ["self", "timeout"]),
        (web.AppRunner, "_make_server", ["self"]),
        (web.SockSite, "start", ["self"]),
        (web.StreamResponse, "prepare", ["self", "request"]),
        (web.StreamResponse, "write_eof", ["self", "data"]),
    ],
)
def test_what_is_overridden_or_called_still_looks_the_same(owner: type, name: str, parameters: list[str]) -> None:
    method = getattr(owner, name, None)
    assert method is not None, MOVED + f"{owner.__name__}.{name} is gone"
    found = list(inspect.signature(method).parameters)[: len(parameters)]
    assert found == parameters, MOVED + f"{owner.__name__}.{name}{inspect.signature(method)}"


@pytest.mark.parametrize("name", ["_runner", "_sock", "_ssl_context", "_backlog", "_server"])
def test_the_site_still_has(name: str) -> None:
    slots = {slot for kind in web.SockSite.__mro__ for slot in getattr(kind, "__slots__", ())}
    assert name in slots, MOVED + f"SockSite.{name}"


async def seen(request: bytes) -> web.Request:
    """The request as a handler gets it."""
    requests: list[web.Request] = []

    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        forward = door._forward

        async def spy(request: web.Request, client: ClientConnection) -> web.StreamResponse:
            requests.append(request)
            return await forward(request, client)

        door._forward = spy  # type: ignore[method-assign]
        client = await door.client()
        await client.send(request)
        await client.reply()
    return requests[0]


async def test_the_target_is_what_was_sent() -> None:
    target = "/a/./b/../c%2Fd%40;x//e?q=%20+%zz&r"
    request = await seen(get(target))
    assert raw_target(request) == target, MOVED + "BaseRequest.raw_path is no longer the raw target"
    assert request.path != target  # which is why


async def test_the_fields_are_what_was_sent() -> None:
    request = await seen(get("/", b"x-Odd_name.1:  va lue  ", b"X-odd_name.1: \xff"))
    assert request.raw_headers == ((b"Host", b"h"), (b"x-Odd_name.1", b"va lue"), (b"X-odd_name.1", b"\xff"))


async def test_the_message_still_says() -> None:
    request = await seen(post(b"x"))
    message = request._message
    assert (message.method, message.version.minor, message.should_close, message.upgrade, message.chunked) == (
        "POST",
        1,
        False,
        False,
        False,
    ), MOVED + "RawRequestMessage"
    assert message._replace(should_close=True).should_close, MOVED + "RawRequestMessage._replace"
    assert isinstance(request._protocol, BrowserConnection), MOVED + "BaseRequest._protocol"


async def test_a_whole_body_is_known_to_be_whole() -> None:
    request = await seen(post(b"hello"))
    assert request.content.is_eof(), MOVED + "StreamReader.is_eof"
    assert request.content.total_bytes == 5


async def test_an_answer_past_aiohttp_leaves_its_connection_in_order() -> None:
    async with RawUpstream(always(ok())) as hub, gate(hub) as door:
        client = await door.client()
        for _ in range(3):
            await client.send(get())
            reply = await client.reply()
            assert reply.head.count(b"HTTP/1.1") == 1, MOVED + "a response that is written already is written again"
        assert client.unread == b""
        (browser,) = door.runner.server.connections if door.runner.server else ()
        while browser._waiter is None:
            await asyncio.sleep(0)
        assert isinstance(browser, BrowserConnection)
        assert browser.idle, MOVED + "an idle connection doesn't wait on RequestHandler._waiter"


async def test_a_detached_connection_is_none_of_aiohttps_business() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(switched())
        await peer.exactly(10)
        await peer.send(b"ten")
        await peer.gone()

    async with RawUpstream(script) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(handshake() + b"early")
        assert (await client.reply()).status == 101
        assert door.runner.server is not None
        while door.runner.server.connections:
            await asyncio.sleep(0)
        await client.send(b"later")
        assert await client.exactly(3) == b"ten", MOVED + "set_parser doesn't hand out what came early, or set_protocol"


async def test_aiohttp_notes_broken_bodies_as_a_message_behind_them() -> None:
    """What `BrowserConnection._end_broken_bodies` takes for granted."""
    async with RawUpstream(Peer.gone) as hub, gate(hub) as door:
        client = await door.client()
        await client.send(post(framing=b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        await (await hub.peer()).saw(b"abc")
        await client.send(b"no chunk\r\n")
        reply = await client.reply()
        assert reply.status == 400, MOVED + "broken chunks"
        assert await client.rest() == b"", MOVED + "a second answer behind the one that told of the broken body"
        assert getattr(await door.outcome(), "code", "") == "body_malformed"


def test_the_c_parser_runs() -> None:
    require_c_parser()


def test_the_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(OperatorFault, match="C extension"):
        require_c_parser()


def test_requests_of_other_servers_are_refused() -> None:
    request = mock.Mock(spec=web.Request)
    request._protocol = mock.Mock(spec=web.RequestHandler)
    with pytest.raises(TypeError, match="front_runner"):
        ClientConnection(request)


def test_what_is_given_back_serves_all_requests() -> None:
    connection = ClientConnection.__new__(ClientConnection)
    assert connection.finished(Answer(200, keep_alive=True)) is connection.finished(Answer(404, keep_alive=True))
    assert connection.finished(Answer(200, keep_alive=True)).keep_alive is True
    assert connection.finished(Answer(200)).keep_alive is False
