"""Real processes: where they listen, who answers, how they heal, how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubgate.ops.exits import Exit
from tests.config.test_config_checks import pair
from tests.ops.serving import PATIENCE, Serving, write_config


def ipv6_works() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


LOOPBACKS = ["127.0.0.1:0", "127.0.0.2:0", *(["[::1]:0"] if ipv6_works() else [])]


def begin_slow(address: tuple[str, int]) -> socket.socket:
    """A request whose answer has begun, and that ends after two more bytes of ours."""
    sock = socket.create_connection(address, timeout=PATIENCE)
    sock.sendall(b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
    read_until(sock, b"begun\n")
    return sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        piece = sock.recv(65536)
        if not piece:
            raise AssertionError(f"closed after {got!r}")
        got += piece
    return got


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_address_answers(tmp_path: Path) -> None:
    with Serving(write_config(tmp_path, listen=json.dumps(LOOPBACKS), workers=2)) as serving:
        serving.until_serving(2)
        assert len(serving.ports) == len(LOOPBACKS)
        for address in serving.ports:
            assert serving.get(address=address)[0] == 200


def test_the_only_worker_of_a_store_in_memory_is_the_process_itself(tmp_path: Path) -> None:
    with Serving(write_config(tmp_path)) as serving:
        serving.until_serving()
        assert serving.workers == [serving.process.pid]
        assert serving.get() == (200, f"{serving.process.pid}")


def answered_by(serving: Serving, pid: int) -> bool:
    """Whether this worker answers while the others can't."""
    others = [worker for worker in serving.workers if worker != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        return serving.get() == (200, f"{pid}")
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def test_each_of_several_workers_answers_and_metrics_sum_them_up(tmp_path: Path) -> None:
    with Serving(write_config(tmp_path, workers=2)) as serving:
        serving.until_serving(2)
        assert len(set(serving.workers)) == 2
        assert serving.process.pid not in serving.workers
        assert all(answered_by(serving, pid) for pid in serving.workers)
        both = 'hubgate_requests_total{pool="htc",status="2xx",upstream="htc01"} 2.0'
        until(lambda: both in serving.get("/metrics", address=serving.ops)[1])  # each worker settles once a second
        assert [path for path in tmp_path.iterdir() if path.is_dir()] != []
        serving.process.send_signal(signal.SIGTERM)
        assert serving.ended() == Exit.OK
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


class TestStop:
    @pytest.mark.parametrize(("workers", "stop"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
    def test_a_running_request_finishes_and_new_ones_are_refused(
        self, tmp_path: Path, workers: int, stop: signal.Signals
    ) -> None:
        with Serving(write_config(tmp_path, workers=workers)) as serving:
            serving.until_serving(workers)
            with begin_slow(serving.ports[0]) as sock:
                serving.process.send_signal(stop)
                for _ in range(workers):
                    serving.event("stopping")
                until(lambda: refused(serving.ports[0]))
                status, body = serving.get("/readyz", address=serving.ops) if workers == 1 else (503, "stopping")
                assert status == 503
                assert "stopping" in body
                sock.sendall(b"go")
                read_until(sock, b"done\n")
            assert serving.ended() == Exit.OK
        events = [json.loads(line)["event"] for line in serving.seen]
        assert events.count("tunnels_closed") == workers
        assert events.count("taken_apart") == workers

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_signal_to_the_whole_group_is_one_signal(self, tmp_path: Path, workers: int) -> None:
        # A terminal's Ctrl-C and a service manager's SIGTERM reach every process.
        with Serving(write_config(tmp_path, workers=workers)) as serving:
            serving.until_serving(workers)
            with begin_slow(serving.ports[0]) as sock:
                os.killpg(serving.process.pid, signal.SIGINT if workers == 2 else signal.SIGTERM)
                for _ in range(workers):
                    serving.event("stopping")
                sock.sendall(b"go")
                read_until(sock, b"done\n")
            assert serving.ended() == Exit.OK

    @pytest.mark.parametrize("workers", [1, 2])
    def test_patience_has_an_end(self, tmp_path: Path, workers: int) -> None:
        with Serving(write_config(tmp_path, workers=workers, grace="200ms")) as serving:
            serving.until_serving(workers)
            with begin_slow(serving.ports[0]):
                serving.process.send_signal(signal.SIGTERM)
                assert serving.ended() == Exit.OK

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_second_signal_ends_at_once(self, tmp_path: Path, workers: int) -> None:
        with Serving(write_config(tmp_path, workers=workers, grace="1h")) as serving:
            serving.until_serving(workers)
            with begin_slow(serving.ports[0]):
                serving.process.send_signal(signal.SIGTERM)
                for _ in range(workers):
                    serving.event("stopping")
                serving.process.send_signal(signal.SIGINT)
                assert serving.ended() == 128 + signal.SIGINT

    def test_workers_go_when_their_parent_is_gone(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path, workers=2)) as serving:
            serving.until_serving(2)
            serving.process.kill()
            serving.event("parent_gone")
            # The end of standard error: nobody holds it any more.
            assert serving.ended() == -signal.SIGKILL
            assert refused(serving.ports[0])


def test_a_worker_that_crashes_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    with Serving(write_config(tmp_path, workers=2)) as serving:
        serving.until_serving(2)
        before = set(serving.workers)
        with pytest.raises((ConnectionError, OSError)):
            serving.get("/crash")
        ended = serving.event("worker_ended")
        assert ended["pid"] in before
        assert ended["status"] == "SIGKILL"
        serving.workers.remove(ended["pid"])
        serving.until_serving()
        assert len(set(serving.workers) | before) == 3
        assert all(answered_by(serving, pid) for pid in serving.workers)
        assert ended["restart_in"] > 0
        serving.process.send_signal(signal.SIGTERM)
        assert serving.ended() == Exit.OK


@pytest.fixture(scope="module")
def tls_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    pair(path, "localhost")
    return path


@pytest.fixture(scope="module")
def tls_serving(tls_home: Path) -> Iterator[Serving]:
    more = f'[tls]\ncertificate = "{tls_home}/localhost.pem"\nkey = "{tls_home}/localhost-key.pem"'
    with Serving(write_config(tls_home, workers=2, more=more)) as serving:
        yield serving.until_serving(2)


@pytest.fixture
def context(tls_home: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls_home / "localhost.pem"))
    # The certificate has a common name alone; what is asked here is whether it is this one.
    context.check_hostname = False
    return context


class TestTls:
    def test_is_spoken_on_the_public_port_alone(self, context: ssl.SSLContext, tls_serving: Serving) -> None:
        assert tls_serving.get(tls=context)[0] == 200
        assert tls_serving.get("/healthz", address=tls_serving.ops) == (200, "ok\n")

    def test_is_http_1_1_in_tls_1_2_or_later(self, context: ssl.SSLContext, tls_serving: Serving) -> None:
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(tls_serving.ports[0], timeout=PATIENCE) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            assert wrapped.version() == "TLSv1.3"
            assert wrapped.selected_alpn_protocol() == "http/1.1"

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    def test_is_not_spoken_in_an_old_version(self, context: ssl.SSLContext, tls_serving: Serving) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection(tls_serving.ports[0], timeout=PATIENCE) as plain,
            pytest.raises(ssl.SSLError, match=r"ALERT_PROTOCOL_VERSION|UNEXPECTED_EOF"),
        ):
            context.wrap_socket(plain)


class TestVitals:
    def test_are_on_their_own_listener(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path)) as serving:
            serving.until_serving()
            assert serving.get("/healthz", address=serving.ops) == (200, "ok\n")
            status, body = serving.get("/readyz", address=serving.ops)
            assert (status, json.loads(body)) == (200, {"ready": True, "missing": {}})
            assert "hubgate_tunnels_open" in serving.get("/metrics", address=serving.ops)[1]
            assert serving.get("/", address=serving.ops)[0] == 404
            for path in ("/healthz", "/readyz", "/metrics"):
                assert serving.get(path)[0] == 404

    def test_say_what_is_missing(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path), env={"HUBGATE_TEST_MISSING": "does not answer"}) as serving:
            serving.until_serving()
            status, body = serving.get("/readyz", address=serving.ops)
            assert (status, json.loads(body)) == (503, {"ready": False, "missing": {"store": "does not answer"}})
            assert serving.get("/healthz", address=serving.ops)[0] == 200


class TestLines:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_access_and_audit_share_standard_output(self, tmp_path: Path, workers: int) -> None:
        with Serving(write_config(tmp_path, workers=workers)) as serving:
            serving.until_serving(workers)
            serving.get("/note?code=swordfish")
            audit = serving.line("audit")
            assert (audit["event"], audit["outcome"], audit["user"], audit["pool"]) == ("login", "ok", "alice", "htc")
            access = serving.line("access")
            assert (access["path"], access["status"], access["ms"], access["request_id"]) == ("/note", 200, 3.0, "r1")

    def test_what_was_gathered_is_written_at_the_end(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path, audit=str(tmp_path / "audit.log"))) as serving:
            serving.until_serving()
            serving.get("/note")
            serving.process.send_signal(signal.SIGTERM)
            assert serving.ended() == Exit.OK
            assert serving.line("access")["path"] == "/note"
        assert json.loads((tmp_path / "audit.log").read_text())["user"] == "alice"


class TestFailure:
    def test_an_address_that_is_taken(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            listen = f'["127.0.0.1:{taken.getsockname()[1]}"]'
            with Serving(write_config(tmp_path, listen=listen, workers=2)) as serving:
                reason = serving.event("cannot_start")["reason"]
                assert "already in use" in reason
                assert "gateway.listen" in reason
                assert "ss -ltnp" in reason
                assert serving.ended() == Exit.START

    def test_an_audit_log_that_can_not_be_written(self, tmp_path: Path) -> None:
        # A file that could be made, as far as the check of the configuration can see.
        (tmp_path / "audit.log").symlink_to(tmp_path / "gone" / "audit.log")
        with Serving(write_config(tmp_path, audit=str(tmp_path / "audit.log"))) as serving:
            assert "no such file" in serving.event("cannot_start")["reason"]
            assert serving.ended() == Exit.START

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_site_that_can_not_work(self, tmp_path: Path, workers: int) -> None:
        config = write_config(tmp_path, workers=workers)
        with Serving(config, env={"HUBGATE_TEST_FAILS": "operator"}) as serving:
            assert serving.event("cannot_start")["reason"] == "the store is of another kind"
            if workers > 1:
                assert "no worker can start" in serving.event("gave_up")["reason"]
            assert serving.ended() == Exit.START

    def test_a_bug_of_ours_is_tried_a_few_times(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path, workers=2), env={"HUBGATE_TEST_FAILS": "bug"}) as serving:
            assert serving.event("broken")["fault"] == "ZeroDivisionError"
            serving.event("gave_up")
            assert serving.ended() == Exit.START
            events = [json.loads(line)["event"] for line in serving.seen]
            assert events.count("worker_ended") >= 3

    def test_a_bug_of_ours_in_the_only_process(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path), env={"HUBGATE_TEST_FAILS": "bug"}) as serving:
            assert serving.event("broken")["fault"] == "ZeroDivisionError"
            assert serving.ended() == Exit.BROKEN
