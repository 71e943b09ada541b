"""One value at a time: what is taken, as what, and what is said about the rest."""

from __future__ import annotations

import copy
import ipaddress
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from hubgate.config import Secret
from hubgate.config.values import Address
from tests.config.sample import HIDDEN, KEY, faults_of, put, read_in, sound


def at(config: object, key: str) -> Any:
    for part in key.replace("[", ".").replace("]", "").split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)  # type: ignore[index]
    return config


TAKEN = [
    ("gateway.public_url", "https://Jupyter.Example.org:443/", "https://jupyter.example.org"),
    ("gateway.public_url", "https://jupyter.example.org:8443", "https://jupyter.example.org:8443"),
    ("gateway.public_url", "http://127.0.0.1:80", "http://127.0.0.1"),
    ("gateway.public_url", "http://[::1]:8080", "http://[::1]:8080"),
    ("gateway.public_url", "http://portal.localhost:8080", "http://portal.localhost:8080"),
    ("gateway.listen", ["127.0.0.1:0", "[::]:8443"], (Address("127.0.0.1", 0), Address("::", 8443))),
    ("gateway.listen", ["localhost:8080"], (Address("localhost", 8080),)),
    ("gateway.ops_listen", "", None),
    (
        "gateway.trusted_proxies",
        ["192.0.2.7", "fd00::/8"],
        (ipaddress.ip_network("192.0.2.7/32"), ipaddress.ip_network("fd00::/8")),
    ),
    ("gateway.workers", 4, 4),
    ("session.idle", "90s", 90.0),
    ("session.idle", "1h30m", 5400.0),
    ("session.idle", "0.5s", 0.5),
    ("health.interval", "250ms", 0.25),
    ("affinity.lifetime", "7d", 604800.0),
    ("limits.idle_timeout", "0s", 0.0),
    ("store.outage_grace", "0s", 0.0),
    ("oidc.issuer", "https://id.example.org/realms/site/", "https://id.example.org/realms/site/"),
    ("oidc.allow_email_domains", ["Example.ORG"], ("example.org",)),
    ("oidc.prompt", "login consent", "login consent"),
    ("identity.header", "X-Remote-User", "X-Remote-User"),
    ("identity.map", {"Alice Liddell": "alice"}, {"Alice Liddell": "alice"}),
    ("portal.help_url", "mailto:help@example.org", "mailto:help@example.org"),
    ("portal.help_url", "/docs", "/docs"),
    ("portal.help_text", "Call\nthe desk.", "Call\nthe desk."),
    ("pools[0].name", "GPU_a.1", "GPU_a.1"),
    ("pools[0].path", "/a/b-c/", "/a/b-c/"),
    ("pools[0].host", "HTC.example.org", "htc.example.org"),
    ("pools[0].hubs[0].url", "HTTP://Hub_1:8000/", "http://hub_1:8000"),
    ("pools[0].hubs[0].weight", 3, 3.0),
]


@pytest.mark.parametrize(("key", "value", "expected"), TAKEN)
def test_is_taken(key: str, value: object, expected: object) -> None:
    assert at(read_in(put(sound(), key, value)), key) == expected


REFUSED = [
    ("gateway.public_url", "jupyter.example.org", '"jupyter.example.org"', "https://jupyter.example.org"),
    ("gateway.public_url", "https://jupyter.example.org/hub", "/hub", "without a path"),
    ("gateway.public_url", "https://u:pw@jupyter.example.org", "…@jupyter", "without user"),
    ("gateway.public_url", "https://jupyter.example.org:", "org:", "without user"),
    ("gateway.public_url", "https://jupyter.example.org:port", "port", "address"),
    ("gateway.public_url", "https://jupyter.example.org:99999", "99999", "address"),
    ("gateway.public_url", "ftp://jupyter.example.org", "ftp", "address"),
    ("gateway.public_url", "https://jüpyter.example.org", "jüpyter", "address"),
    ("gateway.public_url", "https://[::1", "[::1", "address"),
    ("gateway.public_url", "https://jupyter.example.org\n", "\\n", "one line"),
    ("gateway.public_url", "http://jupyter.example.org", "http://jupyter", "https://"),
    ("gateway.public_url", 7, "7", "text"),
    ("gateway.listen", ":8443", '":8443"', "list"),
    ("gateway.listen", [], "empty list", "at least one"),
    ("gateway.listen[0]", ":8443", '":8443"', "0.0.0.0:8443"),
    ("gateway.listen[0]", "0.0.0.0", "0.0.0.0", "0.0.0.0:8443"),
    ("gateway.listen[0]", "0.0.0.0:70000", "70000", "port"),
    ("gateway.listen[0]", "256.0.0.1:80", "256", "port"),
    ("gateway.listen[0]", "::1:80", "::1:80", "[::]:8443"),
    ("gateway.listen[0]", 8443, "8443", "0.0.0.0:8443"),
    ("gateway.workers", 0, "0", "1 or more"),
    ("gateway.workers", 1000, "1000", "256 at most"),
    ("gateway.workers", "2", '"2"', "a whole number"),
    ("gateway.workers", True, "true", "a whole number"),
    ("gateway.workers", 1.5, "1.5", "a whole number"),
    ("gateway.trusted_proxies[0]", "10.0.0.1/8", "10.0.0.1/8", 'did you mean "10.0.0.0/8"'),
    ("gateway.trusted_proxies[0]", "proxy.example.org", "proxy", "address range"),
    ("gateway.trusted_proxies[0]", 10, "10", "address range"),
    ("gateway.secret_keys", KEY, "a text", "list"),
    ("gateway.secret_keys[0]", "short", "5 characters (not shown)", "new-secret"),
    ("gateway.secret_keys[0]", 5, "a number", "{ env ="),
    ("gateway.secret_keys[0]", "", "empty", "not empty"),
    ("gateway.secret_keys[0]", f"{KEY}\n", "not shown", "one line"),
    ("gateway.secret_keys[0]", {"evn": "X"}, "did you mean env?", "{ env ="),
    ("gateway.secret_keys[0]", {"env": "X", "file": "Y"}, "both env and file", "{ env ="),
    ("gateway.secret_keys[0]", {"env": 7}, "no reference", "{ env ="),
    ("gateway.secret_keys[0]", {"env": "UNSET"}, '"UNSET", which is not set', "UNSET to be set"),
    ("gateway.secret_keys[0]", {"env": "EMPTY"}, "EMPTY, which is empty", "not empty"),
    ("gateway.secret_keys[0]", {"file": "gone"}, "no such file", "can read"),
    ("gateway.secret_keys[0]", {"file": "empty"}, "empty: empty", "holds the secret"),
    ("gateway.secret_keys[0]", {"file": "bytes"}, "not text", "UTF-8"),
    ("gateway.secret_keys[0]", {"file": "."}, "is a directory", "can read"),
    ("gateway.secret_keys[0]", {"file": "/dev/zero"}, "more than 65536 bytes", "one secret"),
    ("gateway.secret_keys[0]", {"file": "a\0b"}, "\\u0000", "path"),
    ("gateway.admin_groups[0]", "", '""', "not empty"),
    ("gateway.templates", "gone", "no such file", "directory"),
    ("gateway.templates", "empty", "not a directory", "directory"),
    ("store.url", "mysql://h", "mysql://", "redis://"),
    ("store.url", HIDDEN, "not shown", "redis://"),
    ("store.url", "memory://x", "memory://", "memory://"),
    ("store.url", "redis://", "redis://", "redis://"),
    ("store.ca", "gone", "no such file", "can read"),
    ("store.ca", "empty", "empty: ", "PEM"),
    ("oidc.ca", "empty", "empty: ", "PEM"),
    ("oidc.issuer", "id.example.org", '"id.example.org"', "https://id.example.org"),
    ("oidc.issuer", "https://id.example.org/realms/site?x=1", "?x=1", "without user"),
    ("oidc.scopes", "openid", '"openid"', "list"),
    ("oidc.scopes", ["profile"], "a list of 1", "openid"),
    ("oidc.prompt", "none", '"none"', "select_account"),
    ("oidc.allow_email_domains[0]", "@example.org", '"@example.org"', "after"),
    ("oidc.token_endpoint_auth_method", "none", '"none"', '"client_secret_basic"'),
    ("oidc.client_secret", ["x"], "a list of 1", "{ env ="),
    ("mfa.enrolment", "later", '"later"', '"open" or "ticket"'),
    ("mfa.mode", "on", '"on"', '"keycloak", "gateway" or "off"'),
    ("mfa.acr", "", '""', "amr"),
    ("session.idle", 30, "30", '"90s"'),
    ("session.idle", "30", '"30"', '"90s"'),
    ("session.idle", "30 m", '"30 m"', '"90s"'),
    ("session.idle", "0s", '"0s"', "longer than nothing"),
    ("session.idle", "-5m", '"-5m"', '"90s"'),
    ("session.idle", "99999d", '"99999d"', "ten years"),
    ("session.idle", "13h", "46800 seconds", "session.max (43200 seconds) at most"),
    ("identity.header", "REMOTE USER", '"REMOTE USER"', "header name"),
    ("identity.header", "Cookie", '"Cookie"', "no other meaning"),
    ("identity.header", "X_Forwarded_For", '"X_Forwarded_For"', "no other meaning"),
    ("identity.header", "X-Hubgate-Assertion", "Assertion", "another header"),
    ("identity.lowercase", "yes", '"yes"', "true or false"),
    ("identity.pattern", "[a-z", '"[a-z"', "regular expression"),
    ("identity.map", "x", '"x"', "table"),
    ("identity.map", {"Bob": "Bob Roberts"}, '"Bob Roberts"', "identity.pattern"),
    ("identity.map", {"Bob": 7}, "7", "text"),
    ("log.level", "loud", '"loud"', '"debug"'),
    ("log.audit", "gone/audit.log", "can't be written", "append"),
    ("log.audit", ".", "is a directory", "append"),
    ("portal.title", "a\x07b", "\\u0007", "one line"),
    ("portal.help_url", "javascript:alert(1)", "javascript", "https://"),
    ("portal.help_url", "//evil.example", "//evil", "https://"),
    ("portal.help_text", "a\x00", "\\u0000", "control"),
    ("pools", [], "an empty list", "at least one"),
    ("pools", {"name": "htc"}, "a table", "list"),
    ("pools[0]", "htc", '"htc"', "a table"),
    ("pools[0].name", "high throughput", '"high throughput"', "short name"),
    ("pools[0].name", "a;b", '"a;b"', "short name"),
    ("pools[0].name", "a" * 65, "aaa", "short name"),
    ("pools[0].path", "htc", '"htc"', 'starts and ends with "/"'),
    ("pools[0].path", "/htc", '"/htc"', 'starts and ends with "/"'),
    ("pools[0].path", "/h//c/", '"/h//c/"', 'starts and ends with "/"'),
    ("pools[0].path", "/../", '"/../"', 'starts and ends with "/"'),
    ("pools[0].path", "/h%74c/", "%74", 'starts and ends with "/"'),
    ("pools[0].path", "/", '"/"', "the portal itself"),
    ("pools[0].path", "/_hubgate/x/", "_hubgate", "hubgate's own"),
    ("pools[1].path", "/htc/x/", '"/htc/x/"', "a path apart"),
    ("pools[0].host", "https://htc.example.org", "https://htc", "host name"),
    ("pools[0].host", "htc.example.org/x", "/x", "host name"),
    ("pools[0].host", "htc.example.org:x", ":x", "host name"),
    ("pools[0].host", "u@htc.example.org", "u@htc", "host name"),
    ("pools[0].disclose", "none", '"none"', '"hub", "login" or "all"'),
    ("pools[0].hubs", [], "an empty list", "at least one"),
    ("pools[0].hubs[0].name", "h 1", '"h 1"', "short name"),
    ("pools[0].hubs[0].name", "hpc01", '"hpc01"', "pools[0].hubs[0] has this one"),
    ("pools[1].name", "htc", '"htc"', "pools[0] has this one"),
    ("pools[0].hubs[0].url", "10.0.0.11:8000", '"10.0.0.11:8000"', "http://10.0.0.11:8000"),
    ("pools[0].hubs[0].url", "http://10.0.0.11:8000/htc/", "/htc/", "without a path"),
    ("pools[0].hubs[0].weight", 0, "0", "more than 0"),
    ("pools[0].hubs[0].weight", float("nan"), "nan", "number"),
    ("pools[0].hubs[0].weight", float("inf"), "inf", "number"),
    ("pools[0].hubs[0].weight", "1", '"1"', "number"),
    ("pools[0].hubs[0].ca", "empty", "empty", "http://"),
    ("pools[1].hubs[0].ca", "gone", "no such file", "can read"),
    ("pools[1].hubs[0].ca", "empty", "empty: ", "PEM"),
    ("pools[1].hubs[0].certificate", "empty", "nothing", "together"),
    ("pools[1].hubs[0].key", "empty", "nothing", "together"),
    ("pools[1].hubs[0].api_token", "", "empty", "not empty"),
    ("tls", {"certificate": "empty", "key": "empty"}, "empty: ", "own private key"),
    ("tls", 7, "7", "table"),
    ("keycloak", {"client_id": "hubgate"}, "nothing", "secret"),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 40)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "found", "expected"), REFUSED, ids=[f"{case[0]}-{n}" for n, case in enumerate(REFUSED)]
)
def test_is_refused(directory: Path, key: str, value: object, found: str, expected: str) -> None:
    faults = faults_of(put(sound(), key, value), directory, {"EMPTY": ""})
    assert len(faults) == 1, faults
    fault = faults[0]
    assert found in fault.found
    assert expected in fault.expected
    # The fault is at the key that was spoilt, or at its counterpart.
    assert re.split(r"[.\[]", fault.key)[0] == re.split(r"[.\[]", key)[0]
    assert HIDDEN not in str(fault)
    assert "\n" not in fault.key + fault.found + fault.expected


def test_a_number_that_is_too_long_to_be_shown() -> None:
    (fault,) = faults_of(put(sound(), "gateway.workers", 16**5000))
    assert fault.found == "a number out of all bounds"


def test_a_date_is_told_as_one() -> None:
    import datetime

    (fault,) = faults_of(put(sound(), "portal.title", datetime.date(2026, 1, 1)))
    assert fault.found == "a date or time"


class TestSecrets:
    def test_come_from_the_environment_and_from_files(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(f"{KEY}\n")
        raw = put(sound(), "gateway.secret_keys", [{"env": "OLD"}, {"file": "key"}, {"file": str(tmp_path / "key2")}])
        (tmp_path / "key2").write_text(f"{KEY[::-1]}\r\n")
        config = read_in(raw, tmp_path, {"OLD": "o" * 32})
        assert config.keys == (b"o" * 32, KEY.encode(), KEY[::-1].encode())

    def test_are_shown_nowhere(self) -> None:
        config = read_in(sound())
        assert config.oidc.client_secret.reveal() == HIDDEN
        for shown in (repr(config), str(config), repr(config.oidc.client_secret), f"{config.oidc.client_secret}"):
            assert HIDDEN not in shown
            assert KEY not in shown
        assert HIDDEN not in str(config.model_dump())

    def test_are_not_written_by_accident(self) -> None:
        with pytest.raises(TypeError):
            pickle.dumps(Secret(HIDDEN))
        with pytest.raises(Exception, match="serialize"):
            read_in(sound()).model_dump_json()

    def test_compare_by_value(self) -> None:
        assert Secret("a") == Secret("a")
        assert hash(Secret("a")) == hash(Secret("a"))
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert not Secret("")

    def test_the_same_key_twice_is_a_fault(self) -> None:
        (fault,) = faults_of(put(sound(), "gateway.secret_keys", [KEY, KEY]))
        assert fault.key == "gateway.secret_keys[1]"
        assert KEY not in str(fault)

    @pytest.mark.parametrize(("mode", "cautioned"), [(0o644, True), (0o640, False), (0o600, False)])
    def test_a_file_that_everybody_reads_is_a_caution(self, tmp_path: Path, mode: int, cautioned: bool) -> None:
        (tmp_path / "key").write_text(KEY)
        os.chmod(tmp_path / "key", mode)
        config = read_in(put(sound(), "gateway.secret_keys", [{"file": "key"}]), tmp_path)
        assert any("can be read by everyone" in caution for caution in config.cautions) is cautioned


def test_a_configuration_is_frozen() -> None:
    config = read_in(sound())
    with pytest.raises(Exception, match="frozen"):
        config.session.idle = 1.0
    assert copy.deepcopy(config.session) == config.session
