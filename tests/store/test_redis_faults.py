"""What a Redis can do to a gateway: fall silent, die, refuse, and answer nonsense. Never is an answer mixed up."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hubgate.errors import OperatorFault, StoreFault
from hubgate.store import open_store
from hubgate.store.base import Change, Restored, Store
from hubgate.store.redis import CONNECTIONS, DEADLINE
from tests.store.redis_server import NEWEST, RedisServer, running

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

PATIENCE = 60.0
"""Bounds hangs; redis-py by itself would wait for sixty seconds."""


@asynccontextmanager
async def before(server: RedisServer, *, tls: ssl.SSLContext | None = None, delay: float = 0.0) -> AsyncIterator[int]:
    """A port in front of a Redis: with TLS, since not every redis-server is built with it, or far away (seconds)."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(delay)
                writer.write(data)
        finally:
            writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, inner_writer, 0.0), pump(inner_reader, writer, delay), return_exceptions=True)

    front = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=tls)
    async with front:
        yield front.sockets[0].getsockname()[1]


def calls(store: Store) -> list[Awaitable[object]]:
    return [
        store.get("k"),
        store.get_many(["k", "l"]),
        store.put("k", b"1", ttl=60),
        store.add("k", b"1", ttl=60),
        store.replace("k", b"1", b"2", ttl=60),
        store.replace_many([Change("k", b"1", b"2", 60)]),
        store.take("k"),
        store.delete("k"),
        store.touch("k", ttl=60),
        store.join("s", "m", ttl=60),
        store.put_listed("k", b"1", ttl=60, sets=["s"], member="m", sets_ttl=60),
        store.leave("s", "m"),
        store.members("s"),
        store.publish("t", b"1"),
        store.ping(),
        store.warnings(),
    ]


async def patient_get(store: Store, key: str) -> bytes | None:
    """On a machine that is busy with other things, a deadline may pass; an answer must be right, whenever it comes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.get(key)
            except StoreFault as fault:
                if fault.code != "store_unreachable":
                    raise
                await asyncio.sleep(0.01)


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(StoreFault) as caught:
        await call
    assert caught.value.status == 503
    return caught.value.code


def answers(store: Store) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        try:
            await store.ping()
        except StoreFault:
            return False
        return True

    return ask


@pytest.mark.redis
async def test_a_silent_redis_is_a_fault_soon_and_well_again_when_it_speaks(
    redis_server: RedisServer, redis_store: Store, until: Until
) -> None:
    await redis_store.put("kept", b"1", ttl=600)
    redis_server.pause()
    async with asyncio.timeout(PATIENCE):
        codes = await asyncio.gather(*(code_of(call) for call in calls(redis_store)))
        assert set(codes) == {"store_unreachable"}
        # Most of these are turned away at once: waiting for each would take minutes.
        for _ in range(300):
            assert await code_of(redis_store.get("kept")) == "store_unreachable"
    redis_server.resume()
    await until(answers(redis_store))
    assert await redis_store.get("kept") == b"1"


@pytest.mark.redis
async def test_more_callers_than_connections_all_get_their_fault_in_time(
    redis_server: RedisServer, redis_store: Store, until: Until
) -> None:
    redis_server.pause()
    async with asyncio.timeout(PATIENCE):
        codes = await asyncio.gather(*(code_of(redis_store.get("k")) for _ in range(20 * CONNECTIONS)))
    assert set(codes) == {"store_unreachable"}
    redis_server.resume()
    await until(answers(redis_store))


@pytest.mark.redis
async def test_a_dead_redis_is_a_fault_and_well_again_when_it_is_back(
    redis_server: RedisServer, redis_store: Store, until: Until
) -> None:
    await asyncio.gather(*(patient_get(redis_store, f"k{n}") for n in range(100)))  # fills the pool
    redis_server.admin("MSET", *(word for n in range(100) for word in (f"hubgate:k{n}", n)))
    redis_server.kill()
    assert {await code_of(call) for call in calls(redis_store)} == {"store_unreachable"}
    redis_server.start()
    await until(answers(redis_store))
    # Every connection of the pool was broken; none of that may show any more.
    values = await asyncio.gather(*(patient_get(redis_store, f"k{n}") for n in range(100)))
    assert values == [b"%d" % n for n in range(100)]


@pytest.mark.redis
@pytest.mark.parametrize("connected", [False, True])
async def test_a_process_that_stood_still_itself_finds_its_answer(
    redis_server: RedisServer, *, connected: bool
) -> None:
    redis_server.admin("SET", "hubgate:k", "1")
    for turns in range(6):  # wherever the call is at that moment
        store = open_store(redis_server.url)
        if connected:
            assert await store.get("k") == b"1"
        asked = asyncio.create_task(store.get("k"))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(1.1 * DEADLINE)  # noqa: ASYNC251 - blocking the loop, for longer than a call may take, is the test
        assert await asked == b"1"
        await store.close()


@pytest.mark.redis
async def test_connections_that_were_cut_while_idle_are_not_noticed(
    redis_server: RedisServer, redis_store: Store
) -> None:
    await redis_store.put("k", b"1", ttl=60)
    for _ in range(5):
        redis_server.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.01)  # until the kernel has told this process
        assert await redis_store.get("k") == b"1"


@pytest.mark.redis
async def test_a_fault_can_be_told_before_the_store_ever_answered(until: Until) -> None:
    with running(NEWEST) as server:
        server.kill()
        store = open_store(server.url)
        assert await code_of(store.get("k")) == "store_unreachable"
        async with store.subscribe("t") as events:
            first = asyncio.ensure_future(anext(events))
            server.start()
            await until(answers(store))
            async with asyncio.timeout(PATIENCE):
                assert await first == Restored()
        await store.close()


@pytest.mark.redis
@pytest.mark.parametrize("cancelled_after", [0.001, 0.004, 0.008])
async def test_a_cancelled_command_leaves_no_answer_for_the_next_caller(
    redis_server: RedisServer, cancelled_after: float
) -> None:
    """CVE-2023-28858: an answer that nobody waited for was handed to the next caller, who was somebody else.

    Answers are on their way for a while, so that they arrive when the line would already be somebody else's.
    """
    count = 800
    async with before(redis_server, delay=0.003) as port:
        store = open_store(f"redis://127.0.0.1:{port}/0")

        async def own(n: int) -> bool:
            return await patient_get(store, f"k{n}") == b"value of %d" % n

        redis_server.admin("MSET", *(word for n in range(count) for word in (f"hubgate:k{n}", f"value of {n}")))
        for start in range(0, count, 100):
            tasks = [asyncio.create_task(own(n)) for n in range(start, start + 100)]
            await asyncio.sleep(cancelled_after)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result is True for result in results[1::2])
            assert all(result is True or isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert all(await asyncio.gather(*(own(n) for n in range(start, start + 100))))
        # Connections: the pool's, and the one that asks.
        assert redis_server.clients() <= CONNECTIONS + 1
        await store.close()


@pytest.mark.redis
async def test_commands_cut_off_by_the_deadline_leave_no_answer_either(
    redis_server: RedisServer, redis_store: Store, until: Until
) -> None:
    """The server answers all of them as soon as it goes on: into connections that nobody may use any more."""
    redis_server.admin("MSET", *(word for n in range(100) for word in (f"hubgate:k{n}", f"value of {n}")))
    for _ in range(2):
        await asyncio.gather(*(patient_get(redis_store, f"k{n}") for n in range(100)))  # fills the pool
        redis_server.pause()
        codes = await asyncio.gather(*(code_of(redis_store.get(f"k{n}")) for n in range(100)))
        assert set(codes) == {"store_unreachable"}
        redis_server.resume()
        await until(answers(redis_store))
        values = await asyncio.gather(*(patient_get(redis_store, f"k{n}") for n in range(100)))
        assert values == [b"value of %d" % n for n in range(100)]


@pytest.mark.redis
async def test_a_full_redis_takes_nothing_new_and_gives_what_it_has(
    redis_server: RedisServer, redis_store: Store
) -> None:
    await redis_store.put("k", b"1", ttl=600)
    await redis_store.join("s", "m", ttl=600)
    redis_server.admin("CONFIG", "SET", "maxmemory", "1")
    assert await code_of(redis_store.put("l", b"2", ttl=600)) == "store_full"
    assert await code_of(redis_store.add("l", b"2", ttl=600)) == "store_full"
    assert await redis_store.get("k") == b"1"
    assert await redis_store.members("s") == {"m"}
    assert await redis_store.touch("k", ttl=600) is True
    assert await redis_store.take("k") == b"1"
    assert await redis_store.delete("s") == 1
    redis_server.admin("CONFIG", "SET", "maxmemory", "0")
    await redis_store.put("l", b"2", ttl=600)


@pytest.mark.redis
async def test_a_replica_refuses_writes_and_says_so(redis_server: RedisServer, redis_store: Store) -> None:
    await redis_store.put("k", b"1", ttl=600)
    redis_server.admin("REPLICAOF", "127.0.0.1", "1")
    assert await code_of(redis_store.put("k", b"2", ttl=600)) == "store_read_only"
    assert await code_of(redis_store.take("k")) == "store_read_only"
    assert await redis_store.get("k") == b"1"
    assert "replica that refuses writes" in (await redis_store.warnings())[0]
    redis_server.admin("REPLICAOF", "NO", "ONE")
    assert await redis_store.take("k") == b"1"


@pytest.mark.redis
async def test_login_and_rights(redis_server: RedisServer) -> None:
    port = redis_server.port
    redis_server.admin("ACL", "SETUSER", "gate", "on", ">p@ss/word", "~hubgate:*", "&hubgate:*", "+@all", "-@admin")
    redis_server.admin("ACL", "SETUSER", "reader", "on", ">pw", "~hubgate:*", "+@read", "+ping", "+select")
    redis_server.admin("ACL", "SETUSER", "default", "off")
    gate = open_store(f"redis://gate:p%40ss%2Fword@127.0.0.1:{port}/3")
    reader = open_store(f"redis://reader:pw@127.0.0.1:{port}/3")
    stranger = open_store(f"redis://gate:secretly-wrong@127.0.0.1:{port}/3")
    nobody = open_store(f"redis://127.0.0.1:{port}/3")
    await gate.put("k", b"1", ttl=60)
    await gate.join("s", "m", ttl=60)
    assert await gate.replace("k", b"1", b"2", ttl=60)
    async with gate.subscribe("t") as events, asyncio.timeout(PATIENCE):
        assert await anext(events) == Restored()
    assert await gate.warnings() == []  # CONFIG is forbidden to it; INFO tells that there is an append-only file
    assert await reader.get("k") == b"2"
    assert await code_of(reader.put("k", b"3", ttl=60)) == "store_forbidden"
    assert "neither INFO nor CONFIG" in " ".join(await reader.warnings())
    for store in (stranger, nobody):
        with pytest.raises(StoreFault) as caught:
            await store.get("k")
        assert caught.value.code == "store_login_refused"
        assert "secretly" not in f"{caught.value!r} {caught.value.evidence} {store!r}"
    for store in (gate, reader, stranger, nobody):
        await store.close()


@pytest.mark.redis
async def test_foreign_bytes_in_a_set_are_a_fault(redis_server: RedisServer, redis_store: Store) -> None:
    redis_server.admin("SADD", "hubgate:s", b"\xff\xfe")
    assert await code_of(redis_store.members("s")) == "store_refused"


@pytest.mark.redis
async def test_the_evidence_names_the_code_and_quotes_nothing(redis_server: RedisServer, redis_store: Store) -> None:
    await redis_store.join("s", "m", ttl=60)
    with pytest.raises(StoreFault) as caught:
        await redis_store.get("s")
    assert caught.value.evidence == {"error": "ResponseError", "redis": "WRONGTYPE"}


@pytest.mark.redis
async def test_closing_amid_calls_ends_each_of_them(redis_server: RedisServer) -> None:
    store = open_store(redis_server.url)
    await store.put("k", b"1", ttl=60)
    before = asyncio.all_tasks()
    running_calls = [asyncio.create_task(store.get("k")) for _ in range(200)]
    await asyncio.sleep(0.002)
    async with asyncio.timeout(PATIENCE):
        await store.close()
        results = await asyncio.gather(*running_calls, return_exceptions=True)
    assert all(result == b"1" or isinstance(result, StoreFault) for result in results)
    assert asyncio.all_tasks() == before

    async with asyncio.timeout(PATIENCE):
        while redis_server.clients() > 1:
            await asyncio.sleep(0.01)


@pytest.mark.redis
async def test_closing_when_redis_is_silent(redis_server: RedisServer) -> None:
    store = open_store(redis_server.url)
    async with asyncio.timeout(PATIENCE), store.subscribe("t") as events:
        assert await anext(events) == Restored()
        redis_server.pause()
        await store.close()
    redis_server.resume()


@asynccontextmanager
async def scripted(reply: bytes) -> AsyncIterator[int]:
    """Something that listens on a port, answers everything with this, and closes when it is nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while reply and await reader.read(65536):
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"", "store_unreachable"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "store_loading"),
        (b"-MISCONF Errors writing to the AOF file\r\n", "store_refused"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "store_refused"),
        (b"-ERR max number of clients reached\r\n", "store_unreachable"),
        (b"-NOAUTH Authentication required.\r\n", "store_login_refused"),
        (b"-ERR unknown command 'GET', with args beginning with: 'hubgate:session-id' \r\n", "store_refused"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "store_refused"),
        (b"$x\r\n", "store_refused"),
        (b":12:\r\n", "store_refused"),
        (b"$-5\r\n", "store_refused"),
    ],
)
async def test_every_answer_that_is_none_is_a_store_fault(reply: bytes, code: str) -> None:
    async with scripted(reply) as port:
        store = open_store(f"redis://127.0.0.1:{port}")
        with pytest.raises(StoreFault) as caught:
            await store.get("k")
        assert caught.value.code == code
        assert "session-id" not in f"{caught.value!r} {caught.value.evidence}"
        await store.close()


async def test_a_host_that_does_not_exist_is_named_as_the_cause() -> None:
    store = open_store("redis://no-such-host.invalid")
    with pytest.raises(StoreFault) as caught:
        await store.get("k")
    assert caught.value.code == "store_unreachable"
    await store.close()


class Authority:
    """A certificate authority of its own, with one certificate for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        key, self._name = ec.generate_private_key(ec.SECP256R1()), _name("test authority")
        own = self._certificate(self._name, key, key, ca=True)
        self.file = directory / "ca.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        server_key = ec.generate_private_key(ec.SECP256R1())
        chain = directory / "server.pem"
        chain.write_bytes(
            self._certificate(_name("redis"), server_key, key, ca=False).public_bytes(serialization.Encoding.PEM)
            + server_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(chain)

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(signer, hashes.SHA256())
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@pytest.mark.redis
async def test_tls_is_checked_against_the_sites_own_authority(
    redis_newest: RedisServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority, another = Authority(tmp_path), Authority(tmp_path_factory.mktemp("another"))
    async with before(redis_newest, tls=authority.context) as port:
        store = open_store(f"rediss://127.0.0.1:{port}/0", ca=str(authority.file))
        assert await asyncio.gather(*(patient_get(store, "nothing") for n in range(100))) == [None] * 100
        async with store.subscribe("t") as events, asyncio.timeout(PATIENCE):
            assert await anext(events) == Restored()
        await store.close()
        for ca in (str(another.file), None):
            store = open_store(f"rediss://127.0.0.1:{port}/0", ca=ca)
            with pytest.raises(StoreFault) as caught:
                await store.get("k")
            assert caught.value.code == "store_unreachable"
            assert caught.value.evidence == {"error": "SSLCertVerificationError"}
            await store.close()


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_an_authority_that_cannot_be_read_is_the_operators_fault(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OperatorFault) as caught:
        open_store("rediss://127.0.0.1", ca=str(file))
    assert caught.value.code == "store_ca"
    assert str(file) in caught.value.message
