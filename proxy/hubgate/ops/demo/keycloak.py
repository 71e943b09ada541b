"""A real Keycloak for a demo or a test.

It comes from Maven Central by its coordinates, through `mvn`; or from where somebody put it: unpacked in our cache, in
the local Maven repository, or at `HUBGATE_KEYCLOAK` (a folder or the zip). It is built once, for a database in memory
and for one node, so that each start is the quick one. Every instance has a home of its own, made of links, because
Keycloak reads the realms to import from its home: several can run at once, and all is forgotten at their end.

The realm's content is somebody else's business (realm.py).
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, command, java
from hubgate.ops.demo.child import Child, answers, free_ports
from hubgate.ops.demo.progress import Progress

VERSION = "26.5.6"
ADMIN_USER = "admin"
ADMIN_PASSWORD = "admin-demo"  # noqa: S105  (a demo's, on loopback, printed on the screen)

_COORDINATES = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
_BUILD = ("--db=dev-mem", "--health-enabled=false", "--metrics-enabled=false")
# Half of a start is the JVM's: it compiles less, trusts Keycloak's own classes, and collects garbage in one thread.
_JVM = {
    "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx640m",
    "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote "
    "-XX:-UseG1GC -XX:+UseSerialGC -XX:-UsePerfData",
}


def reason_missing() -> str:
    """Why a real Keycloak can't be had on this machine, as far as that shows without fetching anything; else empty."""
    unpacked = cache.root() / "keycloak" / f"keycloak-{VERSION}"
    if os.environ.get("HUBGATE_KEYCLOAK") or unpacked.is_dir() or _local_zip() is not None or shutil.which("mvn"):
        return ""
    return f"no Keycloak {VERSION} in the cache or the local Maven repository, and no mvn to fetch it"


def distribution(progress: Progress) -> Path:
    """The folder of a Keycloak that is unpacked and built. OperatorFault when it can't be had."""
    named = Path(os.environ.get("HUBGATE_KEYCLOAK", "")).expanduser()
    if named.name and named.is_dir():
        return _built(named.resolve(), progress)
    place = cache.root() / "keycloak"
    home = place / f"keycloak-{VERSION}"
    with cache.making("keycloak-unpacked"):
        if not cache.is_made(home, VERSION):
            archive = named.resolve() if named.name else _archive(progress)
            with progress.step("keycloak", f"unpacking {VERSION}", "unpacked"):
                shutil.rmtree(home, ignore_errors=True)
                place.mkdir(parents=True, exist_ok=True)
                with zipfile.ZipFile(archive) as zipped:
                    zipped.extractall(place)
                (home / "bin" / "kc.sh").chmod(0o755)
                cache.mark_made(home, VERSION)
    return _built(home, progress)


def _archive(progress: Progress) -> Path:
    archive = _local_zip()
    if archive is not None:
        return archive
    maven = shutil.which("mvn")
    if maven is None:
        raise OperatorFault("keycloak_missing", reason_missing())
    with progress.step("keycloak", f"fetching {_COORDINATES} with mvn (170 MB)", "fetched"):
        argv = [maven, "-q", "-B", "dependency:get", f"-Dartifact={_COORDINATES}", "-Dtransitive=false"]
        command.run("keycloak", argv)
    archive = _local_zip()
    if archive is None:
        raise OperatorFault("keycloak_missing", "mvn fetched Keycloak, but not into ~/.m2/repository")
    return archive


def _local_zip() -> Path | None:
    folder = Path.home() / ".m2" / "repository" / "org" / "keycloak" / "keycloak-quarkus-dist" / VERSION
    archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
    return archive if archive.is_file() else None


def _built(home: Path, progress: Progress) -> Path:
    runtime = java.have(progress)
    recipe = f"{VERSION} {' '.join(_BUILD)}"
    built = home / "data" / "hubgate"
    with cache.making("keycloak-built"):
        if not cache.is_made(built, recipe):
            with progress.step("keycloak", "preparing its server, once", "prepared"):
                env = {"JAVA_HOME": runtime.home, **_JVM}
                command.run("keycloak build", ["sh", str(home / "bin" / "kc.sh"), "build", *_BUILD], env=env)
                built.mkdir(parents=True, exist_ok=True)
                cache.mark_made(built, recipe)
    return home


class Keycloak(Child):
    """One running Keycloak. `realms` are imported at its start.

    `durable`: what it learns is kept in `folder`, and a start takes a quarter of the time, since the realms are already
    there; without, nothing of it outlives its end.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        realms: Sequence[Mapping[str, object]],
        *,
        port: int = 0,
        durable: bool = False,
        name: str = "keycloak",
    ) -> None:
        super().__init__(name, log=folder / "keycloak.log")
        self.home = home
        self.folder = folder
        self.realms = realms
        self.durable = durable
        self.port = port or free_ports(1)[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def issuer(self, realm: str) -> str:
        """The issuer's address of one of its realms."""
        return f"{self.url}/realms/{realm}"

    def start(self) -> None:
        """Starts it, again on the same port after a stop; without `durable`, with its realms as they were first."""
        instance = self.folder / "home"
        shutil.rmtree(instance, ignore_errors=True)
        imports = instance / "data" / "import"
        imports.mkdir(parents=True)
        (instance / "bin").mkdir()
        shutil.copy2(self.home / "bin" / "kc.sh", instance / "bin" / "kc.sh")
        shutil.copy2(self.home / "version.txt", instance / "version.txt")
        for part in ("lib", "conf", "providers", "themes"):
            (instance / part).symlink_to(self.home / part)
        for realm in self.realms:
            (imports / f"{realm['realm']}.json").write_text(json.dumps(realm))
        runtime = java.found()
        env = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN_USER,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
            **({"JAVA_HOME": runtime.home} if runtime else {}),
            **_JVM,
        }
        if self.durable:
            env["KC_DB_URL"] = f"jdbc:h2:file:{self.folder / 'database'};NON_KEYWORDS=VALUE;DB_CLOSE_DELAY=0"
        argv = [
            *("sh", str(instance / "bin" / "kc.sh"), "start", "--optimized", "--import-realm", "--cache=local"),
            *("--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={self.port}"),
            # One issuer, whatever address it was asked by: what `internal_url` is for.
            *(f"--hostname={self.url}", "--hostname-backchannel-dynamic=false"),
        ]
        self.launch(argv, env=env, cwd=self.folder)

    def ready(self, *, timeout: float = 240) -> None:
        """Returns when each realm answers with its discovery document."""
        for realm in self.realms:
            url = f"{self.issuer(str(realm['realm']))}/.well-known/openid-configuration"
            self.wait_until(lambda url=url: answers(url), timeout=timeout)  # type: ignore[misc]  # bound as a default
