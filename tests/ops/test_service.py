"""A service manager is told when we serve: `systemctl start` waits for that."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import pytest

from tests.ops.serving import PATIENCE, Serving, write_config


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_says_when_it_serves(workers: int, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(address)
        config = write_config(tmp_path, workers=workers)
        with Serving(config, env={"NOTIFY_SOCKET": address}) as serving:
            for _ in range(workers):
                assert manager.recv(4096) == b"READY=1"
            assert serving.until_serving(workers).get("/healthz", address=serving.ops)[0] == 200


def test_a_socket_outside_of_the_file_system(tmp_path: Path) -> None:
    name = f"hubgate-test-{os.getpid()}-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(f"\0{name}")
        with Serving(write_config(tmp_path), env={"NOTIFY_SOCKET": f"@{name}"}):
            assert manager.recv(4096) == b"READY=1"


def test_a_manager_that_is_gone_keeps_nobody_from_serving(tmp_path: Path) -> None:
    with Serving(write_config(tmp_path), env={"NOTIFY_SOCKET": str(tmp_path / "gone")}) as serving:
        serving.until_serving()
        assert serving.event("service_manager_silent")["reason"] == "No such file or directory"
        assert serving.get("/healthz", address=serving.ops)[0] == 200
