"""Who gets into a real hub, and who doesn't: JupyterHub 5.5 and 6.1 behind configurable-http-proxy."""

import json
import re
import time

import pytest

from tests.hub.playing import Browser, send
from tests.hub.signing import Gateway

pytestmark = pytest.mark.jupyterhub

TOKEN = "a-token-for-the-tests-alone"
SETTINGS = f"""
c.JupyterHub.redirect_to_server = False
c.JupyterHub.services = [{{"name": "tester", "api_token": {TOKEN!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "tester", "services": ["tester"], "scopes": ["admin:users", "admin:auth_state", "tokens"]}}
]
c.HubgateAuthenticator.manage_groups = True
c.HubgateAuthenticator.admin_groups = {{"portal-admins"}}
c.HubgateAuthenticator.blocked_users = {{"mallory"}}
c.HubgateAuthenticator.enable_auth_state = True
c.CryptKeeper.keys = [b"0" * 32]
"""
LOGIN = "/htc/hub/login"


@pytest.fixture(scope="module")
def hub(start_hub):
    return start_hub(SETTINGS)


@pytest.fixture
def browser(hub, gateway):
    return lambda username, **claims: Browser(gateway, hub.url, "/htc/", username, **claims)


def identity(gateway, username="alice", **claims):
    return [("REMOTE_USER", username), ("X-Hubgate-Assertion", gateway.assertion(username, **claims))]


def last_reason(hub):
    return re.findall(r"hubgate: login refused, reason=(\w+)", hub.log.read_text())[-1]


def model(hub, username):
    answer = send(hub.url, f"/htc/hub/api/users/{username}", [("Authorization", f"token {TOKEN}")])
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_the_self_check_is_satisfied(hub, gateway):
    lines = re.findall(r"hubgate check: (.*)", hub.log.read_text())
    assert lines == [f"logins for htc01 are taken from {gateway.issuer}"]


def test_a_person_comes_in_without_a_form(browser):
    alice = browser("alice")
    path, answer = alice.visit("/htc/hub/")
    assert (path, answer.status) == ("/htc/hub/home", 200)
    assert "alice" in answer.body
    # Two redirects and no question: the hub's own cookie does the rest, also where no header is sent.
    alice.identity = lambda path: []
    assert alice.get("/htc/hub/home").status == 200


def test_a_deep_link_survives(browser):
    path, answer = browser("alice").visit("/htc/hub/token?from=mail")
    assert (path, answer.status) == ("/htc/hub/token?from=mail", 200)


@pytest.mark.parametrize("target", ["//evil.example.org/", "https://evil.example.org", "/\\evil.example.org", "/htc"])
def test_next_stays_here(browser, target):
    answer = browser("alice").get(f"{LOGIN}?next={target}")
    assert answer.status == 302
    assert re.match(r"/(?![/\\])", answer.location)


def test_groups_admin_and_auth_state(hub, browser):
    browser("carol", groups=["atlas", "portal-admins"]).visit("/htc/hub/home")
    carol = model(hub, "carol")
    assert sorted(carol["groups"]) == ["atlas", "portal-admins"]
    assert carol["admin"] is True
    state = carol["auth_state"]
    assert (state["acr"], state["amr"], state["sid"]) == ("mfa", ["pwd", "otp"], "s-1")
    assert state["iss"].startswith("http://127.0.0.1:")
    assert time.time() - state["auth_time"] < 300

    browser("carol", groups=[], acr=None, auth_time=None, amr=[]).visit("/htc/hub/home")
    carol = model(hub, "carol")
    assert carol["groups"] == []
    assert carol["admin"] is False
    assert carol["auth_state"]["acr"] is None


def test_names_beyond_ascii(hub, browser):
    path, answer = browser("zoë").visit("/htc/hub/home")
    assert (path, answer.status) == ("/htc/hub/home", 200)
    assert model(hub, "zo%C3%AB")["name"] == "zoë"


def test_an_assertion_works_once(hub, gateway):
    fields = identity(gateway)
    assert send(hub.url, LOGIN, fields).status == 302
    for base in (hub.url, hub.hub_url):
        answer = send(base, LOGIN, fields)
        assert answer.status == 403
        assert "Reason: replayed" in answer.body
        assert answer.set_cookies.keys() <= {"_xsrf"}
        assert last_reason(hub) == "replayed"


def test_from_a_notebook_with_a_header(hub):
    """The hub's own port, which every notebook reaches: the header alone is nothing."""
    for base in (hub.hub_url, hub.url):
        answer = send(base, LOGIN, [("REMOTE_USER", "admin")])
        assert answer.status == 403
        assert "Please come through the front door" in answer.body
        assert "You have reached this hub without passing the login" in answer.body
        assert "jupyterhub-hub-login" not in answer.set_cookies
        assert last_reason(hub) == "assertion_missing"
    assert "REMOTE_USER says 'admin'" in hub.log.read_text()


def test_past_the_gateway(hub, gateway):
    answer = send(hub.url, LOGIN)
    assert answer.status == 403
    assert f'<a href="{gateway.issuer}/">Start at {gateway.issuer}</a>' in answer.body
    assert answer.all("Cache-Control") == ["no-store"]


def refused_claims():
    now = time.time()
    return {
        "wrong_audience": {"audience": "htc02"},
        "wrong_issuer": {"iss": "https://evil.example.org"},
        "wrong_use": {"use": "page"},
        "expired": {"now": now - 3600},
        "future": {"now": now + 3600},
        "too_long_lived": {"exp": int(now) + 3600},
        "unknown_key": {"header": {"kid": "k9"}},
        "wrong_typ": {"header": {"typ": "JWT"}},
        "missing_jti": {"jti": None},
        "name_refused": {},
    }


@pytest.mark.parametrize("reason", refused_claims())
def test_what_else_is_refused(hub, gateway, reason):
    username = "../x" if reason == "name_refused" else "alice"
    answer = send(hub.hub_url, LOGIN, identity(gateway, username, **refused_claims()[reason]))
    assert answer.status == 403
    assert f"Reason: {reason}, hub: htc01" in answer.body
    assert last_reason(hub) == reason


def test_another_key_of_the_same_name(hub, gateway):
    foreign = Gateway(gateway.issuer)
    answer = send(hub.hub_url, LOGIN, identity(foreign, "admin"))
    assert answer.status == 403
    assert last_reason(hub) == "tampered"


@pytest.mark.parametrize("port", ["url", "hub_url"])
@pytest.mark.parametrize(
    "extra",
    [("REMOTE_USER", "admin"), ("Remote-User", "admin"), ("remote_user", "alice"), ("X_Hubgate_Assertion", "x")],
)
def test_a_second_identity_is_refused(hub, gateway, port, extra):
    good = identity(gateway)
    for fields in ([*good, extra], [extra, *good]):
        answer = send(getattr(hub, port), LOGIN, fields)
        assert answer.status == 403
        # Node joins two values into one before the hub sees them.
        assert last_reason(hub) in ("header_ambiguous", "identity_differs")


def test_header_and_assertion_must_agree(hub, gateway):
    answer = send(hub.hub_url, LOGIN, [("REMOTE_USER", "admin"), identity(gateway)[1]])
    assert answer.status == 403
    assert last_reason(hub) == "identity_differs"


def test_a_large_header_is_no_crash(hub):
    for size in (20_000, 60_000):
        answer = send(hub.hub_url, LOGIN, [("REMOTE_USER", "alice"), ("X-Hubgate-Assertion", "x" * size)])
        assert answer.status in (400, 403, 431)


def test_whoever_is_blocked_gets_a_page(hub, browser):
    answer = browser("mallory").get(LOGIN)
    assert answer.status == 403
    assert "You are logged in as mallory, but this hub doesn&#39;t let you in" in answer.body.replace("&#x27;", "&#39;")
    assert last_reason(hub) == "not_admitted"


def test_there_is_no_form(hub, gateway):
    answer = send(hub.url, LOGIN, identity(gateway), method="POST", body=b"username=admin&password=x")
    assert answer.status in (403, 405)
    assert "jupyterhub-hub-login" not in answer.set_cookies


def test_no_api_token_without_a_login(hub, gateway):
    """JupyterHub asks the authenticator here as well; pages' assertions don't log in."""
    path = "/htc/hub/api/users/alice/tokens"
    answer = send(hub.url, path, identity(gateway, use="page"), method="POST", body=b'{"auth": {"username": "alice"}}')
    assert answer.status == 403
    answer = send(hub.hub_url, path, [("REMOTE_USER", "alice")], method="POST", body=b"{}")
    assert answer.status == 403


def test_rotation_of_the_gateways_key(hub, gateway):
    """The new key is believed when a first token names it, unless somebody made the hub ask a moment ago."""
    new = Gateway(gateway.issuer, kid="k2")
    published = gateway.jwks
    gateway.jwks = lambda *others: published(new.jwk, *others)
    try:
        deadline = time.monotonic() + 30
        while (answer := send(hub.url, LOGIN, identity(new))).status == 403 and time.monotonic() < deadline:
            assert last_reason(hub) == "unknown_key"
            time.sleep(0.5)  # the hub's cool-down, which has no event to wait for
        assert answer.status == 302
        assert send(hub.url, LOGIN, identity(gateway)).status == 302
    finally:
        gateway.jwks = published
