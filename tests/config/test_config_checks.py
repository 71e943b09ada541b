"""What keys must be for each other, what is cautioned against, and what core gets to see."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hubgate.core.session import Limits
from hubgate.core.site import Disclose
from tests.config.sample import faults_of, put, read_in, sound, spoilt


def pair(directory: Path, name: str, password: bytes | None = None) -> None:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    seal = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (directory / f"{name}-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, seal)
    )


class TestTls:
    def test_a_pair_that_belongs_together(self, tmp_path: Path) -> None:
        pair(tmp_path, "a")
        config = read_in(spoilt(tls={"certificate": "a.pem", "key": "a-key.pem"}), tmp_path)
        assert config.tls is not None
        assert config.tls.certificate == str(tmp_path / "a.pem")

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        pair(tmp_path, "a")
        pair(tmp_path, "b")
        (fault,) = faults_of(spoilt(tls={"certificate": "a.pem", "key": "b-key.pem"}), tmp_path)
        assert fault.key == "tls.certificate"
        assert "mismatch" in fault.found

    def test_a_key_with_a_passphrase_asks_nobody(self, tmp_path: Path) -> None:
        pair(tmp_path, "a", password=b"x")
        (fault,) = faults_of(spoilt(tls={"certificate": "a.pem", "key": "a-key.pem"}), tmp_path)
        assert "without a passphrase" in fault.expected

    def test_a_hub_with_its_own_authority_and_mutual_tls(self, tmp_path: Path) -> None:
        pair(tmp_path, "a")
        raw = sound()
        raw["pools"][1]["hubs"][0] |= {"ca": "a.pem", "certificate": "a.pem", "key": "a-key.pem"}
        (upstream,) = read_in(raw, tmp_path).site().pools[1].upstreams
        assert (upstream.ca, upstream.certificate) == (str(tmp_path / "a.pem"),) * 2
        assert upstream.key == str(tmp_path / "a-key.pem")


class TestListeners:
    def test_the_same_address_twice(self) -> None:
        (fault,) = faults_of(spoilt(gateway__listen=["0.0.0.0:1", "[::]:1", "0.0.0.0:1"]))
        assert fault.key == "gateway.listen[2]"

    @pytest.mark.parametrize("listen", ["127.0.0.1:9090", "0.0.0.0:9090"])
    def test_vitals_on_the_public_port(self, listen: str) -> None:
        (fault,) = faults_of(spoilt(gateway__listen=[listen]))
        assert fault.key == "gateway.ops_listen"

    def test_ports_that_the_system_picks_are_never_the_same(self) -> None:
        raw = spoilt(gateway__listen=["127.0.0.1:0", "127.0.0.1:0"], gateway__ops_listen="127.0.0.1:0")
        assert faults_of(raw) == []


def test_several_workers_need_a_store_that_they_share() -> None:
    (fault,) = faults_of(spoilt(gateway__workers=2, store__url="memory://"))
    assert fault.key == "gateway.workers"
    assert faults_of(spoilt(gateway__workers=2)) == []


def test_the_admin_api_needs_a_keycloak() -> None:
    raw = spoilt(keycloak={"client_id": "a", "client_secret": "b"}, oidc__issuer="https://id.example.org")
    (fault,) = faults_of(raw)
    assert fault.key == "oidc.issuer"


@pytest.mark.parametrize(
    ("mfa", "sound_"),
    [
        ({}, True),
        ({"acr": "", "amr": ["otp"]}, True),
        ({"acr": "", "amr": []}, False),
        ({"acr": "", "mode": "off"}, True),
        ({"mode": "gateway"}, True),
        ({"mode": "gateway", "acr": "", "enrolment": "ticket"}, True),
        ({"mode": "gateway", "enrolment": "later"}, False),
    ],
)
def test_a_second_factor_must_be_proved_by_something(mfa: dict[str, object], sound_: bool) -> None:
    assert (faults_of(spoilt(mfa=mfa)) == []) is sound_


class TestPlacesOfPools:
    """A pool's place is its host and its path; no two may overlap, and none may cover ours."""

    @pytest.mark.parametrize(
        ("first", "second", "sound_"),
        [
            (("/a/", None), ("/b/", None), True),
            (("/a/", None), ("/ab/", None), True),
            (("/a/", None), ("/a/", None), False),
            (("/a/b/", None), ("/a/", None), False),
            (("/a/", "h.example.org"), ("/a/", None), True),
            (("/a/", "h.example.org"), ("/a/", "H.example.org"), False),
            (("/a/", "h.example.org"), ("/a/", "h.example.org:443"), False),
            (("/a/", "h.example.org"), ("/a/", "h.example.org:8443"), True),
            (("/", "h.example.org"), ("/a/", "h.example.org"), False),
            (("/", "h.example.org"), ("/", "i.example.org"), True),
            (("/a/", "jupyter.example.org"), ("/a/", None), False),
            (("/", "jupyter.example.org"), ("/a/", None), False),
        ],
    )
    def test_are_apart(self, first: tuple[str, str | None], second: tuple[str, str | None], sound_: bool) -> None:
        raw = sound()
        for pool, (path, host) in zip(raw["pools"], (first, second), strict=True):
            pool["path"] = path
            if host is not None:
                pool["host"] = host
        assert (faults_of(raw) == []) is sound_

    @pytest.mark.parametrize(
        ("public_url", "host", "expected"),
        [
            ("https://p.example.org", "h.example.org", "h.example.org"),
            ("https://p.example.org", "h.example.org:443", "h.example.org"),
            ("https://p.example.org:8443", "h.example.org", "h.example.org:8443"),
            ("https://p.example.org:8443", "h.example.org:443", "h.example.org"),
            ("http://127.0.0.1:8080", "localhost", "localhost:8080"),
            ("http://127.0.0.1:8080", "[::1]", "[::1]:8080"),
            ("https://p.example.org:8443", "p.example.org", None),
        ],
    )
    def test_share_the_port_of_the_portal_unless_they_name_one(
        self, public_url: str, host: str, expected: str | None
    ) -> None:
        raw = put(put(sound(), "gateway.public_url", public_url), "pools[0].host", host)
        site = read_in(raw).site()
        assert site.pools[0].host == expected
        assert site.pool_host(site.pools[0]) in site.hosts


class TestCautions:
    """Legal, but said at every start."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"mfa__mode": "off"}, 'mfa.mode is "off"'),
            ({"gateway__public_url": "http://127.0.0.1:8080"}, "gateway.public_url is http://"),
            ({"store__url": "memory://"}, "store.url is memory://"),
            ({"gateway__trusted_proxies": []}, "something in front must end TLS"),
            ({"gateway__trusted_proxies": ["0.0.0.0/0"]}, "holds every address"),
            ({"gateway__public_url": "https://192.0.2.7"}, "bare address"),
            ({"oidc__issuer": "http://id.example.org"}, "oidc.issuer is http://"),
            ({"oidc__internal_url": "http://id.internal"}, "oidc.internal_url is http://"),
        ],
    )
    def test_are_said(self, changes: dict[str, object], said: str) -> None:
        (caution,) = read_in(spoilt(**changes)).cautions
        assert said in caution

    def test_second_factors_that_are_forgotten(self) -> None:
        cautions = read_in(spoilt(mfa={"mode": "gateway"}, store__url="memory://")).cautions
        assert any("whoever knows a password can enrol anew" in caution for caution in cautions)
        assert read_in(spoilt(mfa={"mode": "gateway"})).cautions == ()

    def test_a_pool_that_discloses_to_notebooks(self) -> None:
        (caution,) = read_in(put(sound(), "pools[1].disclose", "all")).cautions
        assert "the pool hpc" in caution

    def test_hubs_with_one_address(self) -> None:
        (caution,) = read_in(put(sound(), "pools[1].hubs[0].url", "http://10.0.0.11:8000/")).cautions
        assert "htc01 and hpc01" in caution

    def test_tls_without_https(self, tmp_path: Path) -> None:
        pair(tmp_path, "a")
        raw = spoilt(tls={"certificate": "a.pem", "key": "a-key.pem"}, gateway__public_url="http://127.0.0.1")
        assert any("people will type" in caution for caution in read_in(raw, tmp_path).cautions)

    def test_loopback_is_no_reason(self) -> None:
        assert read_in(spoilt(oidc__issuer="http://127.0.0.1:8180/realms/site")).cautions == ()


class TestWhatCoreSees:
    def test_site(self) -> None:
        raw = sound()
        raw["pools"][0] |= {
            "title": "HTC",
            "description": "Batch",
            "section": "Farms",
            "help": "Ask.",
            "groups": ["htc"],
            "disclose": "login",
        }
        raw["pools"][0]["hubs"][0]["weight"] = 2.5
        raw["gateway"]["admin_groups"] = ["admins"]
        site = read_in(raw).site()
        assert (site.public_url, site.secure, site.admin_groups) == ("https://jupyter.example.org", True, ("admins",))
        first, second = site.pools
        assert (first.title, first.description, first.section, first.help) == ("HTC", "Batch", "Farms", "Ask.")
        assert (first.groups, first.disclose, first.host) == (("htc",), Disclose.LOGIN, None)
        assert (first.upstreams[0].name, first.upstreams[0].pool, first.upstreams[0].weight) == ("htc01", "htc", 2.5)
        assert (second.title, second.disclose) == ("hpc", Disclose.HUB)

    def test_limits_usernames_and_admission(self) -> None:
        config = read_in(
            spoilt(
                session={"idle": "10m", "max": "1h"},
                identity={"strip_domains": ["example.org"], "map": {"Bob": "robert"}, "lowercase": False},
                oidc__username_claim="upn",
                oidc__allow_groups=["staff"],
                oidc__allow_idps=["home"],
            )
        )
        assert config.session_limits() == Limits(idle=600.0, max=3600.0)
        raw = spoilt(session={"idle": "10m", "max": "1h"})
        raw["pools"][0]["idle"] = "5m"
        assert read_in(raw).session_limits() == Limits(idle=600.0, max=3600.0, idle_by_hub={"htc01": 300.0})
        raw["pools"][0]["idle"] = "2h"
        (fault,) = faults_of(raw)
        assert (fault.key, fault.found) == ("pools[0].idle", "7200 seconds")
        policy, admission = config.usernames(), config.admission()
        assert (policy.claim, policy.lowercase, policy.strip_domains) == ("upn", False, ("example.org",))
        assert policy.mapping == {"Bob": "robert"}
        assert (admission.groups, admission.email_domains, admission.idps) == (("staff",), (), ("home",))


class TestMail:
    SOUND: ClassVar = {"smtp": "smtps://mail.example.org", "sender": "Example Lab <jupyter@example.org>"}

    @pytest.mark.parametrize(
        ("mail", "key"),
        [
            ({"smtp": "mail.example.org"}, "mail.smtp"),
            ({"smtp": "https://mail.example.org"}, "mail.smtp"),
            ({"smtp": "smtp://"}, "mail.smtp"),
            ({"smtp": "smtps://mail.example.org/path"}, "mail.smtp"),
            ({"smtp": "smtps://user:swordfish@mail.example.org"}, "mail.smtp"),
            ({"sender": "Example Lab"}, "mail.sender"),
            ({"sender": "Example Lab <jupyter@example.org>, x@example.org"}, "mail.sender"),
            ({"sender": "jupyter@example.org\nBcc: x@example.org"}, "mail.sender"),
            ({"user": "jupyter"}, "mail.password"),
            ({"password": "swordfish"}, "mail.user"),
            ({"user": "jupyter", "password": "swordfish", "smtp": "smtp://mail.example.org"}, "mail.smtp"),
            ({"ca": "nowhere.pem"}, "mail.ca"),
        ],
    )
    def test_what_cannot_work(self, mail: dict[str, str], key: str, tmp_path: Path) -> None:
        found = faults_of(spoilt(mail={**self.SOUND, **mail}), tmp_path)
        assert [fault.key for fault in found] == [key]
        assert "swordfish" not in str(found)

    def test_a_server_and_who_writes(self, tmp_path: Path) -> None:
        config = read_in(spoilt(mail={**self.SOUND, "smtp": "smtp+starttls://[2001:db8::7]:2525"}), tmp_path)
        assert config.mail is not None
        assert config.mail.smtp == "smtp+starttls://[2001:db8::7]:2525"
        assert any("nothing that hubgate would write about" in caution for caution in config.cautions)


class TestStepUp:
    def test_places_and_an_age(self, tmp_path: Path) -> None:
        raw = sound()
        raw["pools"][0] |= {"step_up": ["admin", "user/*/lab$"], "step_up_max_age": "5m"}
        demand = read_in(raw, tmp_path).site().pools[0].step_up
        assert demand is not None
        assert (demand.max_age, demand.acr) == (300, "mfa")
        assert demand.covers("hub/admin")
        assert read_in(sound(), tmp_path).site().pools[0].step_up is None

    @pytest.mark.parametrize(
        ("more", "key"),
        [
            ({"step_up": ["/hub/admin"]}, "pools[0].step_up[0]"),
            ({"step_up": ["admin", "a b"]}, "pools[0].step_up[1]"),
            ({"step_up_max_age": "59s"}, "pools[0].step_up_max_age"),
        ],
    )
    def test_what_cannot_be_demanded(self, more: dict[str, Any], key: str, tmp_path: Path) -> None:
        raw = sound()
        raw["pools"][0] |= more
        assert [fault.key for fault in faults_of(raw, tmp_path)] == [key]

    def test_without_a_second_factor_there_is_nothing_to_show(self, tmp_path: Path) -> None:
        raw = spoilt(mfa={"mode": "off"})
        raw["pools"][0] |= {"step_up": ["admin"]}
        (fault,) = faults_of(raw, tmp_path)
        assert fault.key == "pools[0].step_up"
