"""What a real hub says at start about settings that are wrong or unusual, and what comes of them."""

import getpass
import re

import pytest

from tests.hub.playing import Browser, send

pytestmark = pytest.mark.jupyterhub

LOGIN = "/htc/hub/login"


def said(hub):
    return re.findall(r"\[([EWI]) [^]]*\] hubgate check: (.*)", hub.log.read_text())


def test_everything_that_is_wrong_is_said_at_once(start_hub, gateway):
    hub = start_hub(
        """
c.HubgateAuthenticator.gateway_url = "https://jupyter.example.org/htc/"
c.HubgateAuthenticator.hub_name = ""
c.HubgateAuthenticator.allow_all = False
c.HubgateAuthenticator.jwks = "/nowhere/jwks.json"
c.JupyterHub.trusted_downstream_ips = []
"""
    )
    starts = [(level, " ".join(sentence.split()[:2])) for level, sentence in said(hub)]
    assert starts[:5] == [
        ("E", "gateway_url 'https://jupyter.example.org/htc'"),
        ("E", "hub_name is"),
        ("E", "jwks: there"),
        ("E", "nobody is"),
        ("W", "trusted_downstream_ips is"),
    ]
    assert [start for start in starts[5:] if start != ("W", "no keys")] == []
    # It runs, so that servers can; nobody gets in.
    fields = [("REMOTE_USER", "alice"), ("X-Hubgate-Assertion", gateway.assertion())]
    answer = send(hub.url, LOGIN, fields)
    assert answer.status == 503
    assert "This hub is not set up yet" in answer.reason
    assert "Reason: not_set_up" in answer.body


def test_header_alone_is_loud_and_works(start_hub):
    hub = start_hub(
        """
c.JupyterHub.redirect_to_server = False
c.HubgateAuthenticator.trust_header_alone = True
c.HubgateAuthenticator.identity_header = "X-Remote-User"
c.HubgateAuthenticator.gateway_url = ""
"""
    )
    [(level, sentence)] = said(hub)
    assert level == "W"
    assert "ANYBODY" in sentence
    answer = send(hub.url, LOGIN, [("X-Remote-User", "Alice")])
    assert (answer.status, answer.location) == (302, "/htc/hub/home")
    assert send(hub.url, LOGIN, [("REMOTE_USER", "alice")]).status == 403
    assert send(hub.url, LOGIN, [("X-Remote-User", "alice"), ("X-Remote-User", "admin")]).status == 403
    # No gateway to leave through.
    assert "Successfully logged out" in send(hub.url, "/htc/hub/logout").body


def test_system_users_with_keys_from_a_file(start_hub, gateway, tmp_path):
    jwks = tmp_path / "jwks.json"
    jwks.write_bytes(gateway.jwks())
    me = getpass.getuser()
    hub = start_hub(
        f"""
c.JupyterHub.redirect_to_server = False
c.JupyterHub.authenticator_class = "hubgate-local"
c.HubgateAuthenticator.allow_all = False
c.HubgateAuthenticator.allowed_groups = {{"atlas"}}
c.HubgateAuthenticator.jwks = {jwks.as_uri()!r}
"""
    )
    assert [level for level, _ in said(hub)] == ["I"]
    path, home = Browser(gateway, hub.url, "/htc/", me).visit("/htc/hub/")
    assert (path, home.status) == ("/htc/hub/home", 200)
    # The system's groups are not the gateway's.
    answer = Browser(gateway, hub.url, "/htc/", me, groups=["belle"]).get(LOGIN)
    assert answer.status == 403
    assert "Reason: not_admitted" in answer.body
    answer = Browser(gateway, hub.url, "/htc/", "no-such-account").get(LOGIN)
    assert answer.status == 403
    assert "You have no account on this system" in answer.reason
    assert "Reason: no_account" in answer.body
