"""The image, as an operator has it: built, started with a configuration, secrets and a Redis, and somebody logs in.

podman takes away what `docker run` could: the container's user is no one here, its root is read-only, it has no
capability and can get none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from hubgate.ops.demo import settings
from hubgate.ops.demo.child import free_ports, text_at
from hubgate.ops.demo.redis import RedisServer
from hubgate.ops.exits import Exit
from tests.kit.background import Background
from tests.kit.image import USER, Container, build, inspected, podman
from tests.kit.person import code_book
from tests.kit.provider import KeycloakProvider
from tests.kit.scene import EchoHub, pool

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]
pytest_plugins = ["tests.kit.scene_fixtures"]

LARGEST = 75 * 2**20
"""Bytes that we may add to the base, uncompressed."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tag = f"localhost/hubgate-test:{os.getpid()}"
    build(tag, tmp_path_factory.mktemp("image") / "build.log")
    yield tag
    podman("rmi", tag)


Containers = Callable[..., Container]


@pytest.fixture
def container(
    image: str, tmp_path: Path, background: Background, keycloak: KeycloakProvider, fresh_redis: RedisServer
) -> Iterator[Containers]:
    """`container()`: a gateway before one echo server, its secrets files that nobody else can read."""
    made: list[Container] = []
    hub = EchoHub(background, "htc01")

    def start(*options: str, **tables: Any) -> Container:
        name = f"hubgate-test-{os.getpid()}-{len(made)}"
        etc, private = tmp_path / name / "etc", tmp_path / name / "secrets"
        etc.mkdir(parents=True)
        private.mkdir()
        for file, content in {
            "key": secrets.token_urlsafe(48),
            "client": keycloak.client_secret,
            "store": fresh_redis.url,
        }.items():
            (private / file).write_text(content)
            (private / file).chmod(0o400)
            os.chown(private / file, USER, USER)
        port, ops_port = free_ports(2)
        base = settings.gateway(
            public_url=f"http://127.0.0.1:{port}",
            listen=[f"127.0.0.1:{port}"],
            ops_listen=f"127.0.0.1:{ops_port}",
            secret_keys=[],
            store_url="",
            issuer=keycloak.issuer,
            client=keycloak.client,
            pools=[pool("htc", hub)],
        )
        at = {name: {"file": f"/run/secrets/{name}"} for name in ("key", "client", "store")}
        base = settings.merged(base, {"store": {"url": at["store"]}, "oidc": {"client_secret": at["client"]}})
        base = settings.merged(base, {"gateway": {"secret_keys": [at["key"]]}})
        (etc / "config.toml").write_text(settings.to_toml(settings.merged(base, tables)))
        made.append(
            Container(
                image,
                etc=etc,
                secrets=private,
                url=f"http://127.0.0.1:{port}",
                ops_url=f"http://127.0.0.1:{ops_port}",
                name=name,
            )
        )
        made[-1].start(options)
        made[-1].listening()
        return made[-1]

    yield start
    for each in made:
        podman("rm", "--force", "--ignore", each.name)
        each.stop()


async def test_somebody_logs_in_through_the_container(
    container: Containers, keycloak: KeycloakProvider, chromium: Browser
) -> None:
    running = container()
    running.ready()
    somebody = keycloak.create_user(groups=["htc-users"])
    page = await chromium.new_page()
    await page.goto(running.url)
    await page.locator("#username").fill(somebody.username)
    await page.locator("#password").fill(somebody.password)
    await page.locator("#kc-login").click()
    await page.locator("#otp").fill(await code_book(somebody.totp_key).next())
    await page.locator("#kc-login").click()
    await expect(page.locator("body")).to_contain_text(somebody.username)
    await expect(page.locator("body")).to_contain_text("Pool htc")
    await page.goto(f"{running.url}/htc/hub/home")
    seen = json.loads(await page.locator("body").inner_text())
    assert ["REMOTE_USER", somebody.username] in seen["headers"]
    assert seen["upstream"] == "htc01"


def test_its_process_is_nobody_and_can_write_nothing(container: Containers) -> None:
    running = container()
    status = running.execute("cat", "/proc/1/status").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert facts["Uid"].split() == [str(USER)] * 4
    assert facts["Gid"].split() == [str(USER)] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[kind], 16) == 0, kind
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    for place in ("/", "/tmp", "/etc/hubgate", "/opt/hubgate", "/run"):
        tried = running.execute("python3", "-c", f"open('{place}/written', 'w')")
        assert "Read-only file system" in tried.stderr or "Permission denied" in tried.stderr, place


def test_several_workers_need_a_tmp_and_no_more(container: Containers) -> None:
    running = container("--tmpfs=/tmp:size=64m", gateway={"workers": 2})
    running.ready()
    assert "hubgate_sessions_cached" in (text_at(f"{running.ops_url}/metrics") or "")


def test_it_tells_how_it_is_while_its_store_is_away(container: Containers, fresh_redis: RedisServer) -> None:
    running = container()
    running.ready()
    assert podman("healthcheck", "run", running.name).returncode == 0

    def health(*options: str) -> subprocess.CompletedProcess[str]:
        return running.execute("hubgate", "health", *options, "-c", "/etc/hubgate/config.toml")

    assert health("--ready").stdout == "ready\n"
    fresh_redis.stop()
    running.wait_until(lambda: health("--ready").returncode == Exit.UNWELL, timeout=30)
    # Alive all the same: whoever restarts what is unhealthy would end sockets that outlive an outage.
    assert podman("healthcheck", "run", running.name).returncode == 0
    assert health().stdout.startswith("not ready: store: ")


def test_it_ends_when_it_is_asked_to(container: Containers) -> None:
    running = container()
    running.ready()
    running.send(signal.SIGTERM)
    assert running.ended() == Exit.OK
    assert '"event": "stopped"' in running.tail(50)


def test_faults_of_the_configuration_are_told_and_nothing_starts(image: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[gateway]\npublic_url = "jupyter.example.org"\n')
    mounted = f"--volume={config}:/etc/hubgate/config.toml:ro"
    started = podman("run", "--rm", "--read-only", mounted, image, check=False)
    assert started.returncode == Exit.CONFIG
    assert "gateway.public_url\n" in started.stderr


def test_what_the_image_says_of_itself(image: str) -> None:
    found = inspected(image)
    assert found["Healthcheck"]["Test"][:3] == ["CMD", "hubgate", "health"]
    said = found["Config"]
    assert said["User"] == f"{USER}:{USER}"
    assert said["Entrypoint"] == ["hubgate"]
    assert said["StopSignal"] in {"SIGTERM", "15"}
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", said["Labels"]["org.opencontainers.image.version"])


def test_there_is_nothing_inside_to_build_or_install_with(image: str) -> None:
    look = """
import importlib.util, os
print(*(name for folder in os.get_exec_path() if os.path.isdir(folder) for name in os.listdir(folder)))
print(*(name for name in ("hubgate", "pip", "setuptools", "wheel", "hatchling") if importlib.util.find_spec(name)))
"""
    ran = podman("run", "--rm", "--read-only", "--entrypoint", "/opt/hubgate/bin/python3", image, "-c", look)
    programs, modules = map(str.split, ran.stdout.splitlines())
    assert "hubgate" in programs
    assert not {"cc", "gcc", "c++", "g++", "clang", "ld", "as", "make", "git", "curl", "wget"} & set(programs)
    assert modules == ["hubgate"]


def test_what_we_add_is_small(image: str) -> None:
    layers = json.loads(podman("history", "--format", "json", image).stdout)
    ours = sum(layer["size"] for layer in layers if "imported from tarball" not in layer.get("comment", ""))
    assert 0 < ours <= LARGEST, f"{ours / 2**20:.1f} MiB"
