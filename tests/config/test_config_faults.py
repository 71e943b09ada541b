"""Everything that is wrong, at once, in words, and nothing that is secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubgate.config import Config, ConfigFaults, Fault, load, parse
from hubgate.errors import OperatorFault
from tests.config.sample import HIDDEN, KEY, SOUND, faults_of, put, read_in, sound, spoilt

MANY = f"""
[gateway]
public_url = "https://jupyter.example.org"
listn = ["0.0.0.0:8443"]
workers = 2
secret_keys = [{{ env = "UNSET" }}, "short", "{KEY}", "{KEY}"]
[store]
url = "memory://"
[oidc]
client_id = "hubgate"
client_secert = "{HIDDEN}"
client_secret = "{HIDDEN}"
scopes = ["profile"]
[sesion]
idle = "30m"
[session]
idle = "13h"
[identity]
idle = 1
[[pools]]
name = "htc"
path = "/htc/"
[[pools.hubs]]
name = "one"
url = "http://:{HIDDEN}@10.0.0.11:8000"
[[pools]]
name = "htc"
path = "/htc/more/"
[[pools.hubs]]
name = "one"
url = "http://10.0.0.12:8000"
weight = -1
certificate = "gone.pem"
[[pools]]
title = "Nameless"
"""


def test_all_faults_come_at_once_each_with_its_key() -> None:
    with pytest.raises(ConfigFaults) as caught:
        parse(MANY)
    assert {fault.key for fault in caught.value.faults} == {
        "gateway.listn",
        "gateway.workers",
        "gateway.secret_keys[0]",
        "gateway.secret_keys[1]",
        "oidc.issuer",
        "oidc.client_secert",
        "oidc.scopes",
        "sesion",
        "session.idle",
        "identity.idle",
        "pools[0].hubs[0].url",
        "pools[1].name",
        "pools[1].path",
        "pools[1].hubs[0].name",
        "pools[1].hubs[0].weight",
        "pools[1].hubs[0].certificate",
        "pools[2].name",
        "pools[2].path",
        "pools[2].hubs",
    }
    text = str(caught.value)
    assert HIDDEN not in text
    assert KEY not in text
    assert text.startswith("(text): 19 faults\n")
    assert HIDDEN not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, OperatorFault)
    assert caught.value.code == "config_invalid"


def test_nothing_in_the_chain_of_the_exception_holds_what_was_read() -> None:
    # pydantic's own errors quote the input.
    with pytest.raises(ConfigFaults) as caught:
        parse(MANY)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("raw", "key", "expected"),
    [
        (spoilt(gateway__listn=[]), "gateway.listn", "did you mean listen?"),
        (spoilt(gatway={}), "gatway", "did you mean gateway?"),
        (spoilt(gateway__idle="5m"), "gateway.idle", "did you mean the idle of [session] or [[pools]]?"),
        (
            spoilt(gateway__certificate="x"),
            "gateway.certificate",
            "did you mean the certificate of [tls] or [[pools.hubs]]?",
        ),
        (spoilt(session__zebra="x"), "session.zebra", "one of idle, max"),
        (put(sound(), "pools[0].hubs[0].wieght", 1), "pools[0].hubs[0].wieght", "did you mean weight?"),
        (put(sound(), "pools[1].Title", "x"), "pools[1].Title", "did you mean title?"),
        (spoilt(öpfel=1), '"öpfel"', "one of gateway, tls"),
    ],
)
def test_an_unknown_key_is_a_fault_with_a_guess(raw: dict[str, object], key: str, expected: str) -> None:
    (fault,) = faults_of(raw)
    assert (fault.key, fault.found) == (key, "an unknown key")
    assert fault.expected.startswith(expected)


def test_what_is_missing_is_said_with_its_meaning() -> None:
    assert faults_of({}) == [
        Fault("gateway", "nothing", "the table [gateway]"),
        Fault("oidc", "nothing", "the table [oidc]"),
        Fault("pools", "nothing", "at least one [[pools]]"),
    ]
    raw = sound()
    del raw["gateway"]["secret_keys"], raw["oidc"]["issuer"], raw["pools"][0]["hubs"]
    by_key = {fault.key: fault.expected for fault in faults_of(raw)}
    assert by_key.keys() == {"gateway.secret_keys", "oidc.issuer", "pools[0].hubs"}
    assert '{ file = "/run/secrets/hubgate-key" }' in by_key["gateway.secret_keys"]
    assert '"https://id.example.org/realms/site"' in by_key["oidc.issuer"]
    assert by_key["pools[0].hubs"] == "at least one [[hubs]]"


def test_a_faulty_value_does_not_cause_a_second_fault() -> None:
    # The idle time is not compared with a maximum that could not be read, nor with its default.
    (fault,) = faults_of(spoilt(session={"idle": "20h", "max": "long"}))
    assert fault.key == "session.max"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[gateway\n", "line 1"),
        ("a = 1\nb = \n", "line 2"),
        ("a = 1\na = 2\n", "line 2"),
        ("x = " + "[" * 5000, "nesting"),
        ("x = " + "9" * 5000, "digits"),
        ('x = "\\ud800"', "line 1"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, where: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        parse(text)
    (fault,) = caught.value.faults
    assert fault.key == "(file)"
    assert where in fault.found


class TestFile:
    @staticmethod
    def fault(path: Path | str) -> Fault:
        with pytest.raises(ConfigFaults) as caught:
            load(path, {})
        assert str(path) in str(caught.value)
        (fault,) = caught.value.faults
        return fault

    def test_that_is_not_there(self, tmp_path: Path) -> None:
        assert self.fault(tmp_path / "gone.toml").found == "no such file or directory"

    def test_that_is_a_directory(self, tmp_path: Path) -> None:
        assert self.fault(tmp_path).found == "is a directory"

    def test_that_is_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
        assert "UTF-8" in self.fault(tmp_path / "x.toml").expected

    def test_whose_name_is_impossible(self) -> None:
        assert "hubgate can read" in self.fault("a\0b").expected or "UTF-8" in self.fault("a\0b").expected

    def test_relative_paths_start_where_the_file_is(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(KEY)
        (tmp_path / "site").mkdir()
        (tmp_path / "hubgate.toml").write_text(
            """
            [gateway]
            public_url = "https://jupyter.example.org"
            secret_keys = [{ file = "key" }]
            templates = "site"
            [log]
            audit = "audit.log"
            [oidc]
            issuer = "https://id.example.org/realms/site"
            client_id = "hubgate"
            client_secret = { env = "SECRET" }
            [[pools]]
            name = "htc"
            path = "/htc/"
            [[pools.hubs]]
            name = "htc01"
            url = "http://10.0.0.11:8000"
            """
        )
        config = load(tmp_path / "hubgate.toml", {"SECRET": HIDDEN})
        assert config.keys == (KEY.encode(),)
        assert config.gateway.templates == str(tmp_path / "site")
        assert config.log.audit == str(tmp_path / "audit.log")
        assert config.oidc.client_secret.reveal() == HIDDEN

    @pytest.mark.parametrize(("mode", "cautioned"), [(0o644, True), (0o600, False)])
    def test_with_secrets_that_everybody_reads_is_a_caution(self, tmp_path: Path, mode: int, cautioned: bool) -> None:
        path = tmp_path / "hubgate.toml"
        path.write_text(
            f"""
            [gateway]
            public_url = "https://jupyter.example.org"
            secret_keys = ["{KEY}"]
            [oidc]
            issuer = "https://id.example.org/realms/site"
            client_id = "hubgate"
            client_secret = "x"
            [[pools]]
            name = "htc"
            path = "/htc/"
            hubs = [{{ name = "htc01", url = "http://10.0.0.11:8000" }}]
            """
        )
        os.chmod(path, mode)
        assert any("holds secrets" in caution for caution in load(path, {}).cautions) is cautioned


def test_further_checks_are_asked_with_the_others_and_may_meet_holes() -> None:
    def check(config: Config) -> Iterator[Fault]:
        yield Fault("store.url", "x", config.store.url.reveal())

    with pytest.raises(ConfigFaults) as caught:
        parse("[store]\nurl = 'redis://h'", further=[check])
    assert [f.expected for f in caught.value.faults if f.key == "store.url"] == ["redis://h"]
    with pytest.raises(ConfigFaults) as caught:
        parse("[store]\nurl = 'mysql://h'", further=[check])
    assert [f.found for f in caught.value.faults if f.key == "store.url"] == ["an address that starts with mysql://"]


def test_the_sound_sample_is_sound_and_untouched() -> None:
    assert read_in(sound()).cautions == ()
    assert sound() == SOUND
