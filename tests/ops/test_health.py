"""`hubgate health`: what a health check, a service manager or a person is told, and with which exit status."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubgate.config.tables import Gateway
from hubgate.ops import health
from hubgate.ops.cli import main
from hubgate.ops.exits import Exit
from tests.kit.embedded import EmbeddedProvider
from tests.kit.running import RunningGateway

pytest_plugins = ["tests.kit.scene_fixtures"]

POOL = {"name": "htc", "path": "/htc/", "hubs": [{"name": "htc01", "url": "http://127.0.0.1:9"}]}


def test_it_takes_people_on(
    gateway: Callable[..., RunningGateway], embedded: EmbeddedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(gateway(pools=[POOL], provider=embedded).config)
    assert main(["health", "-c", config]) == Exit.OK
    assert main(["health", "--ready", "-c", config]) == Exit.OK
    assert capsys.readouterr().out == "ready\nready\n"


def test_a_gateway_that_cannot_take_people_on_is_alive_all_the_same(
    gateway: Callable[..., RunningGateway], capsys: pytest.CaptureFixture[str]
) -> None:
    # Whoever restarts it for that ends what still works.
    running = gateway(pools=[POOL], ready=False)
    config = str(running.config)
    assert main(["health", "-c", config]) == Exit.OK
    assert main(["health", "--ready", "-c", config]) == Exit.UNWELL
    out = capsys.readouterr().out
    assert out.splitlines() == ["not ready: oidc: the provider's metadata could not be read: nobody can log in"] * 2

    running.stop()
    assert main(["health", "-c", config]) == Exit.UNWELL
    assert "no gateway answers at 127.0.0.1" in capsys.readouterr().err


def test_a_fault_just_typed_in_makes_no_running_gateway_ill(gateway: Callable[..., RunningGateway]) -> None:
    running = gateway(pools=[POOL], ready=False)
    spoilt = running.config.read_text().replace("public_url", "pulbic_url")
    running.config.write_text(spoilt)
    assert main(["check-config", "-c", str(running.config)]) == Exit.CONFIG
    assert main(["health", "-c", str(running.config)]) == Exit.OK


def test_a_listener_that_says_something_else_is_no_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = tmp_path / "config.toml"
        config.write_text(f'[gateway]\nops_listen = "127.0.0.1:{server.getsockname()[1]}"')
        child = subprocess.Popen(
            [sys.executable, "-m", "hubgate", "health", "-c", config], stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
            assert child.communicate(timeout=30)[1].startswith("no gateway answers")
        assert child.returncode == Exit.UNWELL


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 9090)),
        ('[gateway]\nops_listen = "0.0.0.0:9000"', ("127.0.0.1", 9000)),
        ('[gateway]\nops_listen = "[::]:9000"', ("::1", 9000)),
        ('[gateway]\nops_listen = "10.0.0.7:9000"', ("10.0.0.7", 9000)),
    ],
)
def test_it_is_asked_where_it_listens(text: str, address: tuple[str, int], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    assert health.listener(str(config)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[gateway]\nops_listen = ""', 'is ""'),
        ('[gateway]\nops_listen = "127.0.0.1:0"', "without a host and a port"),
        ('[gateway]\nops_listen = "127.0.0.1:http"', "check-config"),
        ("gateway = 1", "check-config"),
        ("[gateway", "check-config"),
        (None, "no such file"),
    ],
)
def test_without_a_listener_that_can_be_asked_it_says_so(
    text: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    assert main(["health", "-c", str(config)]) == Exit.UNWELL
    assert why in capsys.readouterr().err


def test_the_default_is_that_of_the_configuration() -> None:
    assert Gateway.model_fields["ops_listen"].default == health.DEFAULT_LISTENER


def test_a_check_loads_neither_the_configuration_nor_a_web_server() -> None:
    loaded = "import sys, hubgate.ops.cli; sys.exit(bool({'pydantic', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
