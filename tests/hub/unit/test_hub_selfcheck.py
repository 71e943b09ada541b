"""One line for each thing that is wrong, and none for what is right."""

import asyncio
import logging
from types import SimpleNamespace

import jupyterhub
import pytest

from hubgate_hub.authenticator import HubgateAuthenticator, HubgateLocalAuthenticator
from hubgate_hub.selfcheck import complaints
from tests.hub.signing import Gateway

GOOD = {"gateway_url": "https://jupyter.example.org", "hub_name": "htc01", "allow_all": True}


def app(**changed):
    settings = {
        "bind_url": "http://127.0.0.1:8000/htc/",
        "cookie_host_prefix_enabled": False,
        "trusted_downstream_ips": ["10.0.0.2"],
        "proxy": SimpleNamespace(should_start=True),
    }
    return SimpleNamespace(**(settings | changed))


def found(settings, the_app=None):
    return complaints(HubgateAuthenticator(**settings), the_app or app())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"gateway_url": "https://jupyter.example.org/"},
        {"gateway_url": "https://jupyter.example.org:8443"},
        {"gateway_url": "http://127.0.0.1:8080"},
        {"gateway_url": "http://localhost:8080"},
        {"gateway_url": "http://[::1]:8080"},
        {"jwks": "https://10.0.0.2:8443/_hubgate/jwks.json"},
        {"allow_all": False, "allowed_users": {"alice"}},
        {"allow_all": False, "allowed_groups": {"atlas"}},
        {"allow_all": False, "any_allow_config": True},
    ],
    ids=str,
)
def test_nothing_to_say(changed):
    assert found(GOOD | changed) == []


@pytest.mark.parametrize(
    ("changed", "level", "says"),
    [
        ({"gateway_url": ""}, logging.ERROR, "gateway_url is missing"),
        ({"gateway_url": "jupyter.example.org"}, logging.ERROR, "is not a URL"),
        ({"gateway_url": "ftp://jupyter.example.org"}, logging.ERROR, "is not a URL"),
        ({"gateway_url": "https://[jupyter"}, logging.ERROR, "is not a URL"),
        ({"gateway_url": "https://jupyter.example.org:x"}, logging.ERROR, "is not a URL"),
        ({"gateway_url": "https://jupyter.example.org/htc"}, logging.ERROR, "scheme and host alone"),
        ({"gateway_url": "https://me@jupyter.example.org"}, logging.ERROR, "scheme and host alone"),
        ({"gateway_url": "http://jupyter.example.org"}, logging.ERROR, "is http"),
        ({"gateway_url": "http://10.0.0.2"}, logging.ERROR, "is http"),
        ({"hub_name": ""}, logging.ERROR, "hub_name is missing"),
        ({"allow_all": False}, logging.ERROR, "nobody is allowed in"),
        ({"username_map": {"a": "b"}}, logging.ERROR, "username_map has no effect"),
        ({"jwks": "ftp://x/jwks.json"}, logging.ERROR, "neither an http(s) URL nor a file"),
        ({"jwks": "http://10.0.0.2/jwks.json"}, logging.ERROR, "is http"),
        ({"jwks": "/nowhere/jwks.json"}, logging.ERROR, "no file '/nowhere/jwks.json'"),
        ({"identity_header": ""}, logging.ERROR, "identity_header"),
        ({"identity_header": "x-hubgate-assertion"}, logging.ERROR, "identity_header"),
        ({"trust_header_alone": True}, logging.WARNING, "ANYBODY"),
    ],
    ids=str,
)
def test_settings_of_the_authenticator(changed, level, says):
    [(at, sentence)] = found(GOOD | changed)
    assert at == level
    assert says in sentence
    assert sentence.isprintable()


def test_everything_at_once():
    sentences = [sentence for _, sentence in complaints(HubgateAuthenticator(), app(trusted_downstream_ips=[]))]
    assert [sentence.split()[0] for sentence in sentences] == [
        "gateway_url",
        "hub_name",
        "nobody",
        "trusted_downstream_ips",
    ]


def test_other_proxies_need_no_gateway_but_have_no_groups():
    alone = {"trust_header_alone": True, "allow_all": True}
    assert len(found(alone)) == 1
    assert any("no effect" in sentence for _, sentence in found(alone | {"admin_groups": {"x"}}))


@pytest.mark.parametrize(
    ("changed", "level", "says"),
    [
        ({"bind_url": "http://:8000/htc/"}, logging.WARNING, "public addresses"),
        ({"bind_url": "http://0.0.0.0:8000"}, logging.WARNING, "public addresses"),
        ({"bind_url": "http://[::]:8000"}, logging.WARNING, "public addresses"),
        ({"bind_url": "http://130.199.1.1:8000"}, logging.WARNING, "public addresses"),
        ({"cookie_host_prefix_enabled": True}, logging.ERROR, "cookie_host_prefix_enabled"),
        ({"trusted_downstream_ips": []}, logging.WARNING, "trusted_downstream_ips"),
    ],
    ids=str,
)
def test_settings_of_the_hub(changed, level, says):
    [(at, sentence)] = found(GOOD, app(**changed))
    assert at == level
    assert says in sentence


@pytest.mark.parametrize(
    "changed",
    [
        {"bind_url": "http://10.0.0.11:8000"},
        {"bind_url": "http+unix://%2Fsrv%2Fproxy.sock"},
        {"bind_url": "http://hub.internal:8000"},
        # An external proxy listens where it was told, not where the hub believes.
        {"bind_url": "http://:8000", "proxy": SimpleNamespace(should_start=False)},
    ],
    ids=str,
)
def test_addresses_that_are_fine(changed):
    assert found(GOOD, app(**changed)) == []


def test_a_jupyterhub_with_known_weaknesses(monkeypatch):
    monkeypatch.setattr(jupyterhub, "version_info", (5, 4, 3, "", ""))
    [(level, sentence)] = found(GOOD)
    assert level == logging.WARNING
    assert "5.5.1" in sentence


def test_the_system_users_variant_reads_the_same_settings():
    sentences = [sentence for _, sentence in complaints(HubgateLocalAuthenticator(), None)]
    assert [sentence.split()[0] for sentence in sentences] == ["gateway_url", "hub_name", "nobody"]


def checked(caplog, settings):
    """What a hub logs at start."""
    authenticator = HubgateAuthenticator(**settings)
    authenticator.log = logging.getLogger("hub")

    async def start():
        authenticator.check_allow_config()
        if authenticator._checking is not None:
            await authenticator._checking

    caplog.clear()
    with caplog.at_level(logging.INFO, logger="hub"):
        asyncio.run(start())
    return [record.getMessage() for record in caplog.records]


def test_the_lines_in_the_log(caplog, tmp_path):
    keys = tmp_path / "jwks.json"
    keys.write_bytes(Gateway().jwks())
    good = GOOD | {"jwks": str(keys)}
    assert checked(caplog, good) == [
        "hubgate check: logins for htc01 are taken from https://jupyter.example.org",
    ]
    keys.write_text('{"keys": []}')
    lines = checked(caplog, good)
    assert len(lines) == 2
    assert lines[1].startswith(f"hubgate check: no keys from {keys} (ValueError: the JWK Set has no key")
    keys.unlink()
    assert any("there is no file" in line for line in checked(caplog, good))
    lines = checked(caplog, {})
    assert len(lines) == 3
    assert all(line.startswith("hubgate check: ") and "\n" not in line for line in lines)
    assert [line for line in checked(caplog, {"trust_header_alone": True, "allow_all": True}) if "ANYBODY" in line]
