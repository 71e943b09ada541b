"""The files in deploy/: each is what its format asks for, and they agree with each other, the image and our defaults.

Whether they work where they belong is tried by hand, and deploy/README.md says how far.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hubgate.config import load
from hubgate.ops.cli import main
from hubgate.ops.demo.redis import RedisServer
from hubgate.ops.supervisor import _AFTER_GRACE
from hubgate.store import open_store
from tests.config.test_config_checks import pair

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
CONFIGS = sorted(DEPLOY.glob("*/config.toml"))
OLDEST, NEWEST = "1.30", "1.37"
"""Of Kubernetes; the oldest has a `sleep` before a stop."""

Document = Mapping[str, Any]


@pytest.fixture(scope="module")
def compose() -> Document:
    return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Document]:
    """Manifests by kind."""
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    found = [yaml.safe_load((DEPLOY / "kubernetes" / name).read_text()) for name in kustomization["resources"]]
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture(scope="module")
def pod(kubernetes: dict[str, Document]) -> Document:
    return kubernetes["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The unit's options with all their values."""
    options: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "hubgate.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            options.setdefault(name, []).append(value)
    return options


def at_home(config: Path, home: Path) -> Path:
    """The configuration with what it reads from /run in a folder of ours, and something in each of these files."""
    text = re.sub(r"/run/[a-z./]*/", f"{home}/", config.read_text())
    for name in ("hubgate-key", "oidc-client-secret"):
        (home / name).write_text("0123456789abcdef" * 3)
        (home / name).chmod(0o400)
    (home / "store-url").write_text("redis://default:0123456789@redis:6379/0")
    (home / "store-url").chmod(0o400)
    pair(home, "tls")
    here = home / "config.toml"
    here.write_text(text)
    return here


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parent.name)
def test_a_configuration_passes_check_config_without_a_word(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-config", "-c", str(at_home(config, tmp_path))]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ok\n")
    assert "caution" not in said


def test_each_way_has_its_configuration() -> None:
    assert [path.parent.name for path in CONFIGS] == ["compose", "kubernetes", "systemd"]


def stop_grace(config: Path, tmp_path: Path) -> float:
    """Seconds until the last process is gone, at the worst."""
    return load(at_home(config, tmp_path)).limits.stop_grace + _AFTER_GRACE


# -- compose


def test_the_compose_file_is_what_the_specification_asks_for() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, DEPLOY / "compose" / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_compose_gives_the_gateway_what_its_configuration_reads(compose: Document, tmp_path: Path) -> None:
    gateway = compose["services"]["gateway"]
    read = set(re.findall(r'"/run/secrets/([^"]+)"', (DEPLOY / "compose" / "config.toml").read_text()))
    assert read == set(gateway["secrets"])
    every = {name for service in compose["services"].values() for name in service.get("secrets", ())}
    assert every == set(compose["secrets"])
    for path in (path.partition(":")[0] for s in compose["services"].values() for path in s.get("volumes", ())):
        assert path in compose["volumes"] or (DEPLOY / "compose" / path).is_file(), path
    assert int(gateway["stop_grace_period"].rstrip("s")) >= stop_grace(DEPLOY / "compose" / "config.toml", tmp_path)


def test_compose_takes_away_what_can_be_taken_away(compose: Document) -> None:
    for name in ("gateway", "redis"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in service
        assert "privileged" not in service
    assert compose["services"]["gateway"]["user"] == image_user()
    # The store is reached by nobody else, and reaches nobody.
    assert compose["services"]["redis"]["networks"] == ["store"]
    assert compose["networks"]["store"] == {"internal": True}
    assert "ports" not in compose["services"]["redis"]


def test_secrets_are_made_once_and_fit_each_other(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose" / "make-secrets", tmp_path)

    def make() -> dict[str, str]:
        done = subprocess.run([tmp_path / "make-secrets"], capture_output=True, text=True, check=True)
        assert {line.rpartition("/")[2] for line in done.stderr.splitlines()} == {
            "oidc-client-secret",
            "tls.pem",
            "tls-key.pem",
        }
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    made = make()
    assert make() == made
    assert set(made) == {"hubgate-key", "store-url", "redis-password.conf"}
    password = made["redis-password.conf"].removeprefix("requirepass ").strip()
    assert f"redis://default:{password}@redis:6379/0\n" == made["store-url"]
    assert len(made["hubgate-key"].strip()) >= 32
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


# -- Redis


@pytest.mark.redis
async def test_a_redis_with_our_configuration_needs_no_advice(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start("--include", str(DEPLOY / "redis" / "redis.conf"))
    try:
        server.ready()
        store = open_store(server.url)
        try:
            assert await store.warnings(enrolments=True) == []
        finally:
            await store.close()
    finally:
        server.stop()


# -- Kubernetes


def manifests() -> Iterator[Any]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield pytest.param(yaml.safe_load(path.read_text()), id=path.name)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", list(manifests()))
def test_a_manifest_is_what_kubernetes_asks_for(manifest: Document, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_key_of_a_manifest_is_found(kubernetes: dict[str, Document]) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**kubernetes["Service"], "sepc": {}}, NEWEST, strict=True)


def test_the_base_names_every_manifest() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there
    assert len(kustomization["resources"]) == len(there)
    assert kustomization["configMapGenerator"] == [{"name": "hubgate", "files": ["config.toml"]}]


def test_every_selector_finds_the_pods(kubernetes: dict[str, Document], pod: Document) -> None:
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        kubernetes["Deployment"]["spec"]["selector"]["matchLabels"],
        kubernetes["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        kubernetes["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        kubernetes["Service"]["spec"]["selector"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]),
    ]
    assert selectors == [labels] * len(selectors)


def test_every_port_that_is_named_is_one_that_is_listened_on(
    kubernetes: dict[str, Document], pod: Document, tmp_path: Path
) -> None:
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = load(at_home(DEPLOY / "kubernetes" / "config.toml", tmp_path))
    assert config.gateway.ops_listen is not None
    assert ports == {"http": config.gateway.listen[0].port, "ops": config.gateway.ops_listen.port}
    # The kubelet asks the pod's address, not its loopback.
    assert config.gateway.ops_listen.host == "0.0.0.0"
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert [(probe["port"], probe["path"]) for probe in probes] == [
        ("ops", "/healthz"),
        ("ops", "/healthz"),
        ("ops", "/readyz"),
    ]
    assert kubernetes["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    # What only machines may ask is not behind the door for people.
    rules = kubernetes["NetworkPolicy"]["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in rules] == [["http"], ["ops"]]


def test_a_pod_is_nobody_and_has_time_to_end(pod: Document, tmp_path: Path) -> None:
    container = pod["containers"][0]
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == image_user()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ending = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending += stop_grace(DEPLOY / "kubernetes" / "config.toml", tmp_path)
    assert pod["terminationGracePeriodSeconds"] >= ending


def test_a_pod_mounts_what_its_configuration_reads(pod: Document) -> None:
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted["config"] == "/etc/hubgate"
    read = re.findall(r'"(/run/[^"]+)/[^/"]+"', (DEPLOY / "kubernetes" / "config.toml").read_text())
    assert set(read) == {mounted["secrets"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)


# -- systemd


def test_the_unit_hands_in_what_its_configuration_reads(unit: dict[str, list[str]]) -> None:
    read = re.findall(r'"/run/credentials/hubgate\.service/([^"]+)"', (DEPLOY / "systemd" / "config.toml").read_text())
    assert {line.partition(":")[0] for line in unit["LoadCredential"]} == set(read)


def test_the_unit_stops_after_us_and_not_before(unit: dict[str, list[str]], tmp_path: Path) -> None:
    assert int(unit["TimeoutStopSec"][0]) >= stop_grace(DEPLOY / "systemd" / "config.toml", tmp_path)
    # Only the first process is asked, and it asks the others; what is left after that time is killed.
    assert unit["KillMode"] == ["mixed"]
    assert unit["ExecStart"][0].endswith("/hubgate serve -c /etc/hubgate/config.toml")


@pytest.mark.nightly
def test_systemd_understands_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("no systemd-analyze (apt-get install systemd)")
    # It looks whether the program is there.
    unit = tmp_path / "hubgate.service"
    unit.write_text(
        (DEPLOY / "systemd" / "hubgate.service").read_text().replace("/opt/hubgate/bin/hubgate", sys.executable)
    )
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


def image_user() -> str:
    found = re.search(r"(?m)^USER (\S+)$", (TOP / "Dockerfile").read_text())
    assert found is not None
    return found[1]
