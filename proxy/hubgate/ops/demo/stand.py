"""The demo's stand: which parts there are, how they are made, started and ended together.

Two HTC hubs, an HPC hub, a Redis, a Keycloak (or the embedded provider) and the gateway in front, on loopback. What
takes long is prepared side by side; processes are started by the main thread, which their leash is tied to (child.py).
Browsers talk to two of them, the gateway and the provider, which therefore have ports that one can remember.
"""

from __future__ import annotations

import secrets
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hubgate.errors import OperatorFault
from hubgate.ops.demo import hubs, keycloak, realm, redis, settings
from hubgate.ops.demo.child import free_ports, is_free
from hubgate.ops.demo.embedded import EmbeddedProvider
from hubgate.ops.demo.gateway import Gateway
from hubgate.ops.demo.progress import Progress

ProviderChoice = Literal["auto", "keycloak", "embedded"]

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
_CONFIG_HEADING = """\
The configuration that `hubgate demo` wrote for its gateway: a living example.
config.example.toml shows every key with its meaning and default."""


Provider = keycloak.Keycloak | EmbeddedProvider
Part = redis.RedisServer | Provider | hubs.Hub | Gateway


@dataclass
class Stand:
    """`folder` keeps configuration, logs, hubs' databases and notebooks between two runs; `port` is the gateway's."""

    folder: Path
    port: int
    choice: ProviderChoice
    progress: Progress
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

    def run(self) -> None:
        """Prepares and starts everything. OperatorFault when something can't be had; `stop` is still to be called."""
        if not is_free(self.port):
            raise OperatorFault("port_busy", f"port {self.port} is in use: choose another one with --port")
        self.folder.mkdir(parents=True, exist_ok=True)
        made, home = self._prepare()
        # A session of the last run would belong to a provider that has forgotten it.
        shutil.rmtree(self.folder / "redis", ignore_errors=True)
        store = redis.RedisServer(self.folder / "redis", durable=True)
        self.redis_version = redis.version(redis.executable())
        provider = self._provider(home)
        running = [self._hub(made, pool, name) for pool, each in POOLS.items() for name in each["hubs"]]
        gateway = self._gateway(store, provider, running)
        self._up(store, provider, gateway, running)

    def stop(self) -> None:
        """Ends everything, the gateway first. Nothing that was started is left."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            for ending in [pool.submit(part.stop, grace=15) for part in reversed(self.parts)]:
                ending.result()
        self.parts.clear()

    def ended(self) -> Part | None:
        """A part that ended by itself, None while all is well."""
        return next((part for part in self.parts if not part.alive), None)

    # -- before anything runs

    def _prepare(self) -> tuple[hubs.HubEnvironment, Path | None]:
        redis.executable()
        with ThreadPoolExecutor(max_workers=2) as pool:
            environment = pool.submit(hubs.environment, hubs.NEWEST, self.progress)
            home = pool.submit(keycloak.distribution, self.progress) if self._wants_keycloak() else None
            return environment.result(), self._keycloak_or_nothing(home)

    def _wants_keycloak(self) -> bool:
        if self.choice == "embedded":
            return False
        reason = keycloak.reason_missing()
        if reason and self.choice == "auto":
            self.progress.say("keycloak", f"{reason}: the embedded provider stands in")
            return False
        return True

    def _keycloak_or_nothing(self, home: Future[Path] | None) -> Path | None:
        if home is None:
            return None
        try:
            return home.result()
        except OperatorFault as fault:
            if self.choice == "keycloak":
                raise
            self.progress.say("keycloak", f"{fault.message}\n  keycloak     the embedded provider stands in")
            return None

    # -- the parts

    def _provider(self, home: Path | None) -> Provider:
        port = self.port + 1 if is_free(self.port + 1) else free_ports(1)[0]
        if home is None:
            embedded = EmbeddedProvider(self.folder, port=port)
            self.provider = f"the embedded provider (development only) at http://127.0.0.1:{port}"
            return embedded
        document = realm.for_addresses([self.url])
        server = keycloak.Keycloak(home, self.folder / "keycloak", [document], port=port)
        self.provider = (
            f"Keycloak {keycloak.VERSION} at {server.url}\n"
            f"  (its administrator: {keycloak.ADMIN_USER} / {keycloak.ADMIN_PASSWORD})"
        )
        return server

    def _hub(self, made: hubs.HubEnvironment, pool: str, name: str) -> hubs.Hub:
        # The replicas of a pool share their users' homes, as a site's would.
        homes = self.folder / "homes" / pool
        return hubs.Hub(made, self.folder / name, name=name, path=f"/{pool}/", gateway_url=self.url, homes=homes)

    def _gateway(self, store: redis.RedisServer, provider: Provider, running: list[hubs.Hub]) -> Gateway:
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
            issuer=provider.issuer if isinstance(provider, EmbeddedProvider) else provider.issuer(_realm_name()),
            client=client,
            pools=pools,
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

    def _up(self, store: redis.RedisServer, provider: Provider, gateway: Gateway, running: list[hubs.Hub]) -> None:
        """Nothing needs this order, but a hub that finds the gateway's keys at its start has nothing to complain of."""
        begun = time.monotonic()
        self._start(store)
        store.ready()
        self._start(provider, gateway)
        gateway.listening()
        self._start(*running)
        for part in (store, *running, provider, gateway):
            part.ready()
            self.progress.say(part.name, f"ready after {time.monotonic() - begun:.0f} s")
        gateway.sees(hub.name for hub in running)

    def _start(self, *parts: Part) -> None:
        self.progress.say("starting", ", ".join(part.name for part in parts) + " …")
        for part in parts:
            part.log.unlink(missing_ok=True)
            self.parts.append(part)
            part.start()


def _realm_name() -> str:
    return str(realm.document()["realm"])
