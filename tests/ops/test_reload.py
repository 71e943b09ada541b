"""SIGHUP: others take over with the new configuration, or all goes on as before. Nobody who is there is disturbed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hubgate.ops.exits import Exit
from hubgate.ops.supervisor import _MOST_LEAVING
from tests.config.test_config_checks import pair
from tests.ops.serving import PATIENCE, SCRIPT, Serving, write_config
from tests.ops.test_serving import begin_slow, read_until, refused, until

STORE = '[store]\nurl = "redis://127.0.0.1:6379/0"\n'
"""Nobody asks anything of it here; but with it, one worker has a parent."""


REQUESTS = 'hubgate_requests_total{{pool="htc",status="2xx",upstream="htc01"}} {}.0'
TUNNELS = 'hubgate_tunnels_open{{pool="htc"}} {}.0'


def rewrite(home: Path, title: str, *, store: str = STORE, tables: str = "", **options: Any) -> None:
    """The same configuration, but for the portal's title, and what else is said."""
    write_config(home, more=f'{store}[portal]\ntitle = "{title}"\n{tables}', **options)


def reload(serving: Serving) -> None:
    serving.process.send_signal(signal.SIGHUP)


def reloaded(serving: Serving, workers: int = 1) -> list[int]:
    """Send SIGHUP; the pids of those who have taken over, once the one before takes nobody on."""
    reload(serving)
    pids = serving.event("reloaded", "reload_refused").get("pids")
    assert pids, serving.seen[-3:]
    assert len(pids) == workers
    serving.event("leaving")
    return [int(pid) for pid in pids]


def title(serving: Serving) -> str:
    return serving.get("/title")[1]


def told(serving: Serving) -> str:
    return serving.get("/metrics", address=serving.ops)[1]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def gone(pid: int) -> None:
    until(lambda: not alive(pid))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_config(tmp_path, more=f'{STORE}[portal]\ntitle = "before"\n', audit=str(tmp_path / "audit.log"))
    return tmp_path


class TestTakingOver:
    def test_new_workers_serve_what_the_file_says_now_and_the_old_ones_go(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            assert title(serving) == "before"
            rewrite(site, "after", workers=3)
            new = reloaded(serving, 3)
            assert old not in new
            assert title(serving) == "after"
            gone(old)
            assert serving.get("/readyz", address=serving.ops)[0] == 200
            serving.process.send_signal(signal.SIGTERM)
            assert serving.ended() == Exit.OK
            levels = {json.loads(line)["level"] for line in serving.seen}
            assert not levels & {"error", "critical"}, serving.seen

    def test_a_request_in_flight_ends_where_it_began(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            with begin_slow(serving.ports[0]) as sock:
                rewrite(site, "after", grace="100ms")
                reloaded(serving)
                assert title(serving) == "after"
                time.sleep(2.5)  # longer than the grace, and than anybody waits for heads on their way
                assert alive(old)
                sock.sendall(b"go")
                read_until(sock, b"done\n")
            gone(old)

    def test_a_kept_connection_is_told_to_end_by_its_next_answer(self, site: Path) -> None:
        with Serving(site / "hubgate.toml", env={"HUBGATE_TEST_LAST_CALL": "8"}) as serving:
            (old,) = serving.until_serving().workers
            kept = http.client.HTTPConnection(*serving.ports[0], timeout=PATIENCE)
            kept.request("GET", "/")
            assert kept.getresponse().read() == str(old).encode()
            before = descriptors(old)
            waiting = socket.create_connection(serving.ports[0], timeout=PATIENCE)
            until(lambda: descriptors(old) == before + 1)  # it is accepted, and has said nothing yet
            reloaded(serving)
            kept.request("GET", "/")
            assert kept.getresponse().read() == str(old).encode()
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert read_until(waiting, str(old).encode()).startswith(b"HTTP/1.1 200")
            # That was their last answer there, and they come back to the others.
            assert waiting.recv(1) == b""
            gone(old)

    def test_nobody_is_refused_meanwhile(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            for number in range(3):
                rewrite(site, f"title {number}")
                reload(serving)
                answers = []
                while True:
                    answers.append(serving.get()[0])
                    assert serving.get("/readyz", address=serving.ops)[0] == 200
                    if title(serving) == f"title {number}":
                        break
                assert set(answers) == {200}
                serving.event("reloaded")

    def test_a_stop_does_not_wait_for_those_who_are_leaving(self, site: Path) -> None:
        rewrite(site, "before", grace="100ms")
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            with begin_slow(serving.ports[0]):
                reloaded(serving)
                serving.process.send_signal(signal.SIGTERM)
                assert serving.ended() == Exit.OK
            assert not alive(old)

    def test_leaving_workers_do_not_pile_up(self, site: Path) -> None:
        rewrite(site, "before", grace="100ms")
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            held = []
            for number in range(_MOST_LEAVING + 1):
                held.append(begin_slow(serving.ports[0]))
                rewrite(site, f"{number}", grace="100ms")
                reloaded(serving)
            if not any("leaving_cut_short" in line for line in serving.seen):
                serving.event("leaving_cut_short")
            with pytest.raises((AssertionError, ConnectionError)):
                read_until(held[0], b"never said")
            for sock in held[1:]:
                sock.sendall(b"go")
                read_until(sock, b"done\n")

    def test_a_worker_that_crashes_later_comes_back_with_the_new_configuration(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            rewrite(site, "after")
            (pid,) = reloaded(serving)
            with pytest.raises((ConnectionError, OSError)):
                serving.get("/crash")
            assert serving.event("worker_ended")["pid"] == pid
            serving.event("serving")
            assert title(serving) == "after"

    def test_a_signal_to_the_whole_group_is_one_signal(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            rewrite(site, "after")
            os.killpg(serving.process.pid, signal.SIGHUP)
            (new,) = serving.event("reloaded")["pids"]
            assert new != old
            until(lambda: title(serving) == "after")

    def test_counters_go_on_and_their_files_do_not_pile_up(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (present,) = serving.until_serving().workers
            most = 0
            for _ in range(4):
                serving.get()
                old = present
                (present,) = reloaded(serving)
                gone(old)
                most = max(most, len(list(site.glob("hubgate-metrics-*/counter_*.db"))))
            until(lambda: REQUESTS.format(4) in told(serving))
            assert most == 2

    def test_what_a_worker_counted_before_it_was_killed_stays_and_what_it_said_of_the_present_does_not(
        self, site: Path
    ) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            serving.get("/open")
            until(lambda: REQUESTS.format(1) in told(serving) and TUNNELS.format(1) in told(serving))
            with pytest.raises((ConnectionError, OSError)):
                serving.get("/crash")
            serving.event("serving")
            assert REQUESTS.format(1) in told(serving)
            assert TUNNELS.format(1) not in told(serving)

    def test_a_new_certificate_is_shown(self, site: Path) -> None:
        pair(site, "first")
        pair(site, "second")
        tables = f'[tls]\ncertificate = "{site}/tls.pem"\nkey = "{site}/tls-key.pem"\n'

        def put(name: str) -> bytes:
            (site / "tls.pem").write_bytes((site / f"{name}.pem").read_bytes())
            (site / "tls-key.pem").write_bytes((site / f"{name}-key.pem").read_bytes())
            return ssl.PEM_cert_to_DER_cert((site / f"{name}.pem").read_text())

        first = put("first")
        rewrite(site, "before", tables=tables)
        with Serving(site / "hubgate.toml") as serving:
            host, port = serving.until_serving().ports[0]

            def shown() -> bytes:
                return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=PATIENCE))

            assert shown() == first
            second = put("second")
            reloaded(serving)
            assert shown() == second
            # A key that doesn't fit: the one that did stays.
            (site / "tls-key.pem").write_bytes((site / "first-key.pem").read_bytes())
            reload(serving)
            assert "tls" in json.dumps(serving.event("reload_refused"))
            assert shown() == second

    def test_what_is_named_relative_to_the_file_is_found_again(self, site: Path) -> None:
        pair(site, "tls")
        tables = '[tls]\ncertificate = "tls.pem"\nkey = "tls-key.pem"\n'
        rewrite(site, "before", tables=tables)
        trust = ssl.create_default_context(cafile=str(site / "tls.pem"))
        trust.check_hostname = False
        with Serving(Path(os.path.relpath(site / "hubgate.toml"))) as serving:
            serving.until_serving()
            assert serving.get("/title", tls=trust) == (200, "before")
            rewrite(site, "after", tables=tables)
            reloaded(serving)
            assert serving.get("/title", tls=trust) == (200, "after")


class TestAskedOften:
    @pytest.fixture
    def hold(self, tmp_path: Path) -> Path:
        """While it is there, workers titled `waits` don't come to serve."""
        (tmp_path / "hold").touch()
        return tmp_path / "hold"

    def serving(self, site: Path, hold: Path) -> Serving:
        return Serving(
            site / "hubgate.toml", env={"HUBGATE_TEST_COMPLETE_WITHIN": "600", "HUBGATE_TEST_WAITS": str(hold)}
        )

    def test_however_often_it_is_asked_meanwhile_one_more_crew_comes_afterwards(self, site: Path, hold: Path) -> None:
        with self.serving(site, hold) as serving:
            (old,) = serving.until_serving().workers
            rewrite(site, "waits")
            reload(serving)
            serving.event("reloading")
            rewrite(site, "after")
            for _ in range(20):
                reload(serving)
                assert serving.event("reload_waits", "reload_refused")["event"] == "reload_waits"
                assert serving.get() == (200, str(old))
            hold.unlink()
            serving.event("reloaded")
            serving.event("reloaded", "reload_refused")
            until(lambda: title(serving) == "after")
            serving.process.send_signal(signal.SIGTERM)
            assert serving.ended() == Exit.OK
            assert sum('"reloading"' in line for line in serving.seen) == 2, serving.seen
            assert not any("reload_refused" in line for line in serving.seen), serving.seen

    def test_a_stop_in_the_middle_ends_old_and_new(self, site: Path, hold: Path) -> None:
        with self.serving(site, hold) as serving:
            (old,) = serving.until_serving().workers
            rewrite(site, "waits", workers=3)
            reload(serving)
            serving.event("reloading")
            reload(serving)
            serving.event("reload_waits")
            serving.process.send_signal(signal.SIGTERM)
            assert serving.ended() == Exit.OK
            assert not alive(old)
            with pytest.raises(ProcessLookupError):
                os.killpg(serving.process.pid, 0)
            assert not any("reloaded" in line for line in serving.seen), serving.seen

    def test_who_is_stopping_starts_nobody(self, site: Path) -> None:
        rewrite(site, "before", notice="1h")
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            serving.process.send_signal(signal.SIGTERM)
            serving.event("stopping")
            rewrite(site, "after")
            reload(serving)
            assert serving.event("reload_refused", "reloading").get("reason") == "it is being stopped"
            serving.process.send_signal(signal.SIGTERM)
            assert serving.ended() == 128 + signal.SIGTERM

    def test_the_next_ones_come_when_those_who_were_cut_short_have_gone(self, site: Path) -> None:
        rewrite(site, "before", grace="600s")
        with Serving(site / "hubgate.toml") as serving:
            present = serving.until_serving().workers
            held = []
            for number in range(_MOST_LEAVING + 1):
                held.append((present[0], begin_slow(serving.ports[0])))
                rewrite(site, f"{number}", grace="600s")
                present = reloaded(serving)
            oldest, sock = held[0]
            # The request of the oldest may still end; only then more workers are started than these.
            rewrite(site, "last")
            reload(serving)
            assert oldest in serving.event("reload_waits", "reloading").get("pids", [])
            assert title(serving) == f"{_MOST_LEAVING}"
            assert alive(oldest)
            sock.sendall(b"go")
            read_until(sock, b"done\n")
            gone(oldest)
            until(lambda: title(serving) == "last")
            assert [alive(pid) for pid, _ in held[1:]] == [True] * _MOST_LEAVING


class TestRules:
    def test_those_who_are_leaving_are_told_who_may_use_a_pool_now(self, site: Path) -> None:
        def ruled(*groups: str, **options: Any) -> None:
            rewrite(site, "ruled", **options)
            text, path = (site / "hubgate.toml").read_text(), 'path = "/htc/"\n'
            (site / "hubgate.toml").write_text(text.replace(path, f"{path}groups = {json.dumps(groups)}\n"))

        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            held = []
            for groups in (["staff"], ["staff", "guests"], []):
                held.append(begin_slow(serving.ports[0]))
                # What is refused is no word of anybody's.
                ruled("nobody", listen='["127.0.0.1:0", "127.0.0.2:0"]')
                reload(serving)
                assert serving.event("obeyed", "reload_refused")["event"] == "reload_refused"
                ruled(*groups)
                reload(serving)
                # Each of them is told, in whichever order.
                for _ in held:
                    assert serving.event("obeyed", "reload_refused").get("groups") == groups, serving.seen[-3:]
            for sock in held:
                sock.sendall(b"go")
                read_until(sock, b"done\n")


class TestRefusing:
    def test_a_file_with_faults_is_refused_with_all_of_them(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            rewrite(site, "after", tables='[limit]\n[session]\nidle = "soon"\n')
            reload(serving)
            told = serving.event("reload_refused")["faults"]
            assert [fault.partition(":")[0] for fault in told] == ["session.idle", "limit"]
            assert serving.get() == (200, str(old))
            # And the next one that is right is taken.
            rewrite(site, "after")
            reloaded(serving)
            assert title(serving) == "after"

    def test_a_file_that_is_gone_is_refused(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            (site / "hubgate.toml").unlink()
            reload(serving)
            assert "no such file" in serving.event("reload_refused")["faults"][0]
            assert title(serving) == "before"

    def test_a_file_that_is_none_any_more_is_refused(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            (site / "hubgate.toml").unlink()
            (site / "hubgate.toml").mkdir()
            reload(serving)
            assert "is a directory" in serving.event("reload_refused")["faults"][0]
            assert title(serving) == "before"

    def test_a_file_that_may_not_be_read_any_more_is_refused(self, site: Path) -> None:
        # What root may read says nothing: without these it is somebody like everybody.
        humble = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        command = [*humble, sys.executable, str(SCRIPT), str(site / "hubgate.toml")]
        with Serving(site / "hubgate.toml", command=command) as serving:
            serving.until_serving()
            (site / "hubgate.toml").chmod(0)
            reload(serving)
            assert "permission denied" in serving.event("reload_refused")["faults"][0]
            assert title(serving) == "before"

    @pytest.mark.parametrize(
        ("key", "options"),
        [
            ("gateway.listen", {"listen": '["127.0.0.1:0", "127.0.0.2:0"]'}),
            ("store.url", {"store": '[store]\nurl = "redis://127.0.0.1:6379/1"\n'}),
            ("store.url", {"store": '[store]\nurl = "memory://"\n'}),
        ],
    )
    def test_what_only_a_restart_changes_is_said(self, site: Path, key: str, options: dict[str, str]) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            rewrite(site, "after", **options)
            reload(serving)
            refusal = serving.event("reload_refused")
            assert refusal["reason"] == "what only a restart changes"
            (fault,) = refusal["faults"]
            assert fault.startswith(f"{key}: found ")
            assert title(serving) == "before"

    def test_another_password_of_the_same_store_is_taken(self, site: Path) -> None:
        with Serving(site / "hubgate.toml") as serving:
            serving.until_serving()
            rewrite(site, "after", store='[store]\nurl = "redis://u:swordfish@127.0.0.1:6379/0"\n')
            reloaded(serving)
            assert title(serving) == "after"
            assert not any("swordfish" in line for line in serving.seen)

    @pytest.mark.parametrize("how", ["operator", "bug"])
    def test_workers_that_can_not_start_change_nothing(self, site: Path, how: str) -> None:
        with Serving(site / "hubgate.toml") as serving:
            (old,) = serving.until_serving().workers
            with begin_slow(serving.ports[0]) as sock:
                rewrite(site, f"fails {how}", workers=2)
                reload(serving)
                assert "a new worker ended" in serving.event("reload_refused")["reason"]
                assert serving.get() == (200, str(old))
                sock.sendall(b"go")
                read_until(sock, b"done\n")
            rewrite(site, "after")
            reloaded(serving)
            assert title(serving) == "after"

    def test_nobody_is_relieved_by_workers_that_can_not_reach_the_store(self, site: Path) -> None:
        with Serving(site / "hubgate.toml", env={"HUBGATE_TEST_COMPLETE_WITHIN": "2"}) as serving:
            (old,) = serving.until_serving().workers
            rewrite(site, "lacks store")
            reload(serving)
            # Meanwhile nobody meets them, neither people nor balancers.
            for _ in range(5):
                assert serving.get() == (200, str(old))
                assert serving.get("/readyz", address=serving.ops)[0] == 200
            assert serving.event("cannot_start")["reason"] == "store: is away"
            serving.event("reload_refused")
            # A provider that is away is no reason, unless what is said about it is new.
            rewrite(site, "lacks oidc")
            reloaded(serving)
            assert title(serving) == "lacks oidc"

    def test_a_process_that_holds_all_sessions_stays(self, tmp_path: Path) -> None:
        with Serving(write_config(tmp_path)) as serving:
            serving.until_serving()
            reload(serving)
            assert "memory://" in serving.event("reload_refused")["reason"]
            assert serving.get() == (200, str(serving.process.pid))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_is_announced_before_the_doors_close(tmp_path: Path, workers: int) -> None:
    with Serving(write_config(tmp_path, workers=workers, notice="5s")) as serving:
        serving.until_serving(workers)
        serving.process.send_signal(signal.SIGTERM)
        for _ in range(workers):
            serving.event("stopping")
        assert serving.get("/readyz", address=serving.ops)[0] == 503
        assert serving.get()[0] == 200
        until(lambda: refused(serving.ports[0]))
        assert serving.ended() == Exit.OK
