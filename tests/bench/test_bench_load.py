"""The client believes nobody, and the backend's WebSocket sends back what it got, however it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.backend import BIG, Connection, Echo, answer, frame
from tests.bench.driving import Driver
from tests.bench.load import Fault, Plan

HEAD = "GET /bench/200 HTTP/1.1\r\nHost: x\r\n"
GOOD = answer(b"x" * 200)


@asynccontextmanager
async def serving(make: Callable[[], asyncio.Protocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Says(asyncio.Protocol):
    """Answers each thing that it hears with the next of these; b"" closes. The last one stays."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        said = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if said:
            self._transport.write(said)
        else:
            self._transport.close()


@pytest.mark.parametrize(("path", "size"), [("200", 200), ("10k", 10_240)])
async def test_as_many_requests_as_were_planned_are_answered_and_timed(path: str, size: int) -> None:
    async with serving(Connection) as port, Driver() as driver:
        head = f"GET /bench/{path} HTTP/1.1\r\nHost: x\r\n"
        for connections in (1, 7):
            done = await driver.outcome(Plan("get", port, head, connections, 100, size))
            assert done.count == 100
            assert 0 < done.p50 <= done.p99 <= done.seconds


async def test_messages_of_every_length_come_back() -> None:
    async with serving(Connection) as port, Driver() as driver:
        head = "GET /bench/channels HTTP/1.1\r\nHost: x\r\n"
        for size in (0, 100, 126, 70_000, 1 << 20):
            assert (await driver.outcome(Plan("socket", port, head, 3, 20, size))).count == 20


async def test_large_transfers_are_counted() -> None:
    async with serving(Connection) as port, Driver() as driver:
        down = await driver.outcome(Plan("down", port, "GET /bench/big HTTP/1.1\r\nHost: x\r\n"))
        up = await driver.outcome(Plan("up", port, "PUT /bench/upload HTTP/1.1\r\nHost: x\r\n"))
        assert down.count == up.count == BIG


BAD = {
    "status": GOOD.replace(b"200 OK", b"302 Found"),
    "too short": answer(b"x" * 199),
    "too long": answer(b"x" * 201),
    "more bytes than it has": GOOD + b"x",
    "no length": GOOD.replace(b"Content-Length: 200\r\n", b"Transfer-Encoding: chunked\r\n"),
    "closed": b"",
}


@pytest.mark.parametrize("good_before", [0, 5])
async def test_a_wrong_answer_ends_it(good_before: int) -> None:
    async with Driver() as driver, serving(lambda: Says(GOOD)) as good:
        for what, answered in BAD.items():
            async with serving(partial(Says, *[GOOD] * good_before, answered)) as port:
                with pytest.raises(Fault):
                    pytest.fail(f"{what}: {await driver.outcome(Plan('get', port, HEAD, 1, 100, 200))}")
            # And the next plan finds a client that works.
            assert (await driver.outcome(Plan("get", good, HEAD, 1, 10, 200))).count == 10


async def test_an_answer_that_never_comes_ends_with_the_plans_time() -> None:
    async with serving(asyncio.Protocol) as port, Driver() as driver:
        with pytest.raises(Fault, match="TimeoutError"):
            await driver.outcome(Plan("get", port, HEAD, 1, 1, 200, seconds=0.2))


@pytest.mark.parametrize("kind", ["down", "up"])
async def test_a_transfer_that_is_refused_is_no_transfer(kind: str) -> None:
    async with serving(lambda: Says(answer(b"no"))) as port, Driver() as driver:
        with pytest.raises(Fault):
            await driver.outcome(Plan(kind, port, HEAD, seconds=10))  # type: ignore[arg-type] # one of the two


async def test_sockets_that_are_held_are_there_to_the_end() -> None:
    plan = Plan("socket", 0, "GET /x/channels HTTP/1.1\r\nHost: x\r\n", 20, 0, 100)
    async with Driver() as driver:
        async with serving(Connection) as port, driver.holding(replace(plan, port=port)):
            await asyncio.sleep(0.2)
        made: list[Connection] = []

        def connection() -> Connection:
            made.append(Connection())
            return made[-1]

        async def held_and_ended(port: int) -> None:
            async with driver.holding(replace(plan, port=port)):
                for each in made:
                    each._abort()
                await asyncio.sleep(0.2)

        async with serving(connection) as port:
            with pytest.raises(Fault, match="20 of 20"):
                await held_and_ended(port)


class Liar(Connection):
    """Turns a payload's bytes around."""

    def _write(self, data: bytes) -> None:
        super()._write(data.replace(b"m", b"w"))


async def test_a_message_that_came_back_otherwise_is_seen() -> None:
    async with serving(Liar) as port, Driver() as driver:
        with pytest.raises(Fault):
            await driver.outcome(Plan("socket", port, "GET /x/channels HTTP/1.1\r\nHost: x\r\n", 1, 1, 100))


@given(
    st.lists(st.binary(max_size=300) | st.just(bytes(70_000)), min_size=1, max_size=5),
    st.lists(st.integers(1, 400), min_size=1),
)
def test_frames_go_back_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(frame(payload, masked=True) for payload in payloads)
    echo, came, at, turn = Echo(), b"", 0, 0
    while at < len(sent):
        step = cuts[turn % len(cuts)] * (100 if len(sent) > 10_000 else 1)
        came += echo.back(sent[at : at + step])
        at, turn = at + step, turn + 1
    assert came == b"".join(frame(payload, masked=False) for payload in payloads)


def test_a_frame_that_would_have_to_be_unmasked_is_refused() -> None:
    with pytest.raises(ValueError, match="masked"):
        Echo().back(b"\x82\x81\x01\x02\x03\x04x")
