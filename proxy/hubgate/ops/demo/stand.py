"""The demo's stand: which parts there are, how they are made, started and ended together.

Two HTC hubs, an HPC hub, a Redis, a Keycloak (or the embedded provider) and the gateway in front, on loopback. What
takes long is prepared side by side, and each part is started as soon as it is there; processes are started by the main
thread, which their leash is tied to (child.py). Browsers talk to two of them, the gateway and the provider, which
therefore have ports that one can remember.

What people did is there again at the next start: sessions, phones, notebooks. Redis and Keycloak belong together there,
since a session of the one is a session at the other: both are kept, or both begin anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, command, hubs, keycloak, phones, ports, realm, redis, settings
from hubgate.ops.demo.child import answers, free_ports, is_free
from hubgate.ops.demo.embedded import EmbeddedProvider
from hubgate.ops.demo.gateway import Gateway
from hubgate.ops.demo.progress import Progress

_T = TypeVar("_T")
ProviderChoice = Literal["auto", "keycloak", "embedded"]
FactorChoice = Literal["keycloak", "gateway"]

POOLS: dict[str, dict[str, Any]] = {
    "htc": {
        "title": "High-throughput computing",
        "description": "Many small jobs: two hubs that share the work",
        "section": "HTC",
        "hubs": ("htc01", "htc02"),
        "groups": [],
    },
    "hpc": {
        "title": "High-performance computing",
        "description": "Large jobs on the cluster",
        "section": "HPC",
        "hubs": ("hpc01",),
        "groups": ["hpc-users"],
        "help": "Ask for the group hpc-users. In the demo, alice and carol are in it.",
    },
}
NOTEBOOK = "start-here.ipynb"
_NOTEBOOKS = Path(__file__).with_name("notebooks")
_ROOM = {"first": 1200, "later": 100}
"""Megabytes that have to be free before a start."""
_FACTORS: dict[FactorChoice, dict[str, Any]] = {
    "keycloak": {"mode": "keycloak", "acr": "mfa"},
    "gateway": {"mode": "gateway", "issuer_label": "hubgate demo"},
}
_WELCOME = """
# Whoever starts a server for the first time finds a notebook to begin with, and no question about news.
def lay_out(spawner):
    import pathlib, shutil
    home = pathlib.Path({homes!r}) / spawner.user.name
    quiet = home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    if not quiet.exists():
        quiet.parent.mkdir(parents=True, exist_ok=True)
        quiet.write_text('{{"fetchNews": "false", "checkForUpdates": false}}')
    if not (home / {name!r}).exists():
        shutil.copy({notebook!r}, home / {name!r})

c.Spawner.pre_spawn_hook = lay_out
c.Spawner.default_url = {url!r}
"""
_CONFIG_HEADING = """\
The configuration that `hubgate demo` wrote for its gateway: a living example.
config.example.toml shows every key with its meaning and default."""


Provider = keycloak.Keycloak | EmbeddedProvider
Part = redis.RedisServer | Provider | hubs.Hub | Gateway


@dataclass
class Stand:
    """`folder` keeps configuration, logs, hubs' databases and notebooks between two runs; `port` is the gateway's.

    `factor`: whose one-time codes there are. `fresh`: what people did before is forgotten, but for their notebooks.
    """

    folder: Path
    port: int
    choice: ProviderChoice
    progress: Progress
    factor: FactorChoice = "keycloak"
    fresh: bool = False
    provider: str = ""
    """What people log in at, for them to read."""
    redis_version: str = ""
    parts: list[Part] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "hubgate.toml"

    @property
    def _passing(self) -> Path:
        """Where the parts' temporary files go."""
        return self.folder / "tmp"

    def demand_port(self) -> None:
        """OperatorFault when somebody else has our port."""
        if is_free(self.port):
            return
        who = ports.holder(self.port)
        if str(self.config) in who:
            who = "another hubgate demo: use that one, or end it with Ctrl-C in its terminal"
        another = f"make demo PORT={self.port + 100}, or hubgate demo --port {self.port + 100}"
        raise OperatorFault(
            "port_busy",
            f"port {self.port} is taken{f', by {who}' if who else ''}.\nTo have this one elsewhere: {another}",
        )

    def run(self) -> None:
        """Prepares and starts everything. OperatorFault when something can't be had; `stop` is still to be called."""
        self.demand_port()
        made = hubs.place(hubs.NEWEST)
        _demand_room(self.folder, "later" if hubs.is_made(made) else "first")
        self.redis_version = redis.version(redis.executable())
        self._passing.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(self._passing)
        threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="stand")
        try:
            self._up(threads, made)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # what they wait for ends with `stop`

    def stop(self) -> None:
        """Ends everything, the gateway first. Nothing that was started is left."""
        command.abandon()
        with ThreadPoolExecutor(max_workers=8) as pool:
            for ending in [pool.submit(part.stop, grace=15) for part in reversed(self.parts)]:
                ending.result()
        self.parts.clear()
        shutil.rmtree(self._passing, ignore_errors=True)

    def hurry(self) -> None:
        """Makes `stop`, which another thread is in, end at once what it still waits for."""
        for part in self.parts:
            part.send(signal.SIGKILL)

    def ended(self) -> Part | None:
        """A part that ended by itself, None while all is well."""
        return next((part for part in self.parts if not part.alive), None)

    # -- before anything runs

    def _keycloak_or_nothing(self) -> Path | None:
        if self.choice == "embedded":
            return None
        try:
            return keycloak.distribution(self.progress)
        except OperatorFault as fault:
            if self.choice == "keycloak" or fault.code == "abandoned":
                raise
            self.progress.say("keycloak", f"{fault.message}\n  {'':<12} the embedded provider stands in")
            return None

    # -- the parts

    def _up(self, threads: ThreadPoolExecutor, made: hubs.HubEnvironment) -> None:
        home = threads.submit(self._keycloak_or_nothing)
        environment = threads.submit(hubs.environment, hubs.NEWEST, self.progress)
        running = [self._hub(made, pool, name) for pool, each in POOLS.items() for name in each["hubs"]]
        provider = self._provider(_result(home, environment))
        issuer = _issuer(provider)
        store = self._store(provider)
        gateway = self._gateway(store, issuer, provider, running)
        self._start(store)
        store.ready()
        if self.factor == "gateway":
            people = realm.users(realm.document()).values()
            phones.enrol(self.config, [(each.identity(issuer), each) for each in people if each.totp_key])
        self._start(provider, gateway)
        waiting = [threads.submit(self._await, part) for part in (provider, gateway)]
        gateway.listening()  # a hub that finds the gateway's keys at its start has nothing to complain of
        _result(environment, *waiting)
        self._start(*running)
        waiting += [threads.submit(self._await, hub) for hub in running]
        for each in as_completed(waiting):
            each.result()
        gateway.sees(hub.name for hub in running)

    def _start(self, *parts: Part) -> None:
        for part in parts:
            part.log.unlink(missing_ok=True)
            self.parts.append(part)
            part.start()

    def _await(self, part: Part) -> None:
        with self.progress.step(part.name, "starting", "ready"):
            if isinstance(part, Gateway):
                part.listening()
                # Its own login leads to the provider's form: then both are ready, and know each other.
                part.wait_until(lambda: answers(f"{self.url}/_hubgate/login", timeout=10), timeout=240)
            part.ready()

    def _store(self, provider: Provider) -> redis.RedisServer:
        """The Redis, with what it and the provider knew of each other, or both without."""
        recipe = "\n".join((self.factor, keycloak.VERSION, json.dumps(self._realm()), _issuer(provider)))
        kept = self.folder / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        stamp = hashlib.sha256(recipe.encode()).hexdigest()
        if self.fresh or isinstance(provider, EmbeddedProvider) or not cache.is_made(kept, stamp):
            for folder in ("redis", "keycloak"):
                shutil.rmtree(self.folder / folder, ignore_errors=True)
        cache.mark_made(kept, stamp)
        return redis.RedisServer(self.folder / "redis", durable=True)

    def _realm(self) -> dict[str, Any]:
        return realm.for_addresses([self.url], second_factor=self.factor == "keycloak")

    def _provider(self, home: Path | None) -> Provider:
        port = self.port + 1 if is_free(self.port + 1) else free_ports(1)[0]
        if home is None:
            self.provider = f"the embedded provider (development only) at http://127.0.0.1:{port}"
            return EmbeddedProvider(self.folder, port=port, second_factor=self.factor == "keycloak")
        server = keycloak.Keycloak(home, self.folder / "keycloak", [self._realm()], port=port, durable=True)
        self.provider = (
            f"Keycloak {keycloak.VERSION} at {server.url} ({keycloak.ADMIN_USER} / {keycloak.ADMIN_PASSWORD})"
        )
        return server

    def _hub(self, made: hubs.HubEnvironment, pool: str, name: str) -> hubs.Hub:
        # The replicas of a pool share their users' homes, as a site's would.
        homes = self.folder / "homes" / pool
        extra = _WELCOME.format(
            notebook=str(_NOTEBOOKS / pool / NOTEBOOK), homes=str(homes), name=NOTEBOOK, url=f"/lab/tree/{NOTEBOOK}"
        )
        return hubs.Hub(
            made, self.folder / name, name=name, path=f"/{pool}/", gateway_url=self.url, homes=homes, extra=extra
        )

    def _gateway(self, store: redis.RedisServer, issuer: str, provider: Provider, running: list[hubs.Hub]) -> Gateway:
        client = realm.client(realm.document())
        pools = [
            {
                "name": pool,
                "path": f"/{pool}/",
                **{key: value for key, value in each.items() if key != "hubs"},
                "hubs": [{"name": hub.name, "url": hub.url} for hub in running if hub.name in each["hubs"]],
            }
            for pool, each in POOLS.items()
        ]
        ops = f"127.0.0.1:{free_ports(1)[0]}"
        value = settings.gateway(
            public_url=self.url,
            listen=[f"127.0.0.1:{self.port}"],
            ops_listen=ops,
            secret_keys=[self._secret_key()],
            store_url=store.url,
            issuer=issuer,
            client=client,
            pools=pools,
            mfa=_FACTORS[self.factor],
        )
        value["portal"] = {"title": "hubgate demo"}
        value["health"] = {"interval": "1s"}  # so that it can be seen what happens when a hub is stopped
        if isinstance(provider, keycloak.Keycloak):
            value["keycloak"] = dict(zip(("client_id", "client_secret"), client, strict=True))
        self.config.write_text(settings.to_toml(value, _CONFIG_HEADING))
        self.config.chmod(0o600)
        return Gateway(self.config, url=self.url, ops_url=f"http://{ops}", log=self.folder / "gateway.log")

    def _secret_key(self) -> str:
        kept = self.folder / "secret-key"
        if not kept.exists():
            kept.touch(mode=0o600)
            kept.write_text(secrets.token_urlsafe(32))
        return kept.read_text()


def _result(wanted: Future[_T], *others: Future[Any]) -> _T:
    """What `wanted` comes to. What goes wrong with one of the others meanwhile is raised at once."""
    waiting = {wanted, *others}
    while not wanted.done():
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for each in done:
            each.result()
    return wanted.result()


def _demand_room(folder: Path, when: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free >> 20
    if free < _ROOM[when]:
        raise OperatorFault(
            "disk_full",
            f"{free} MB are free at {folder}, and {_ROOM[when]} MB are needed.\n"
            "Make room there, or let HUBGATE_CACHE name a folder on another disk",
        )


def _issuer(provider: Provider) -> str:
    return provider.issuer if isinstance(provider, EmbeddedProvider) else provider.issuer(_realm_name())


def _realm_name() -> str:
    return str(realm.document()["realm"])
