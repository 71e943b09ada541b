"""Whose session is it? Two people at one browser, log out, and what a restart of the hub leaves."""

import json
import re
import time

import pytest

from tests.hub.playing import Browser, ready, send

pytestmark = pytest.mark.jupyterhub

TOKEN = "a-token-for-the-tests-alone"
SETTINGS = f"""
c.JupyterHub.redirect_to_server = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.services = [{{"name": "tester", "api_token": {TOKEN!r}}}]
c.JupyterHub.load_roles = [{{
    "name": "tester", "services": ["tester"], "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"]
}}]
"""
HOME = "/htc/hub/home"
LOGIN = "/htc/hub/login"
HUB_COOKIE = "jupyterhub-hub-login"
SESSION_COOKIE = "jupyterhub-session-id"


@pytest.fixture(scope="module")
def hub(start_hub):
    return start_hub(SETTINGS)


@pytest.fixture
def browser(hub, gateway):
    return lambda username, **claims: Browser(gateway, hub.url, "/htc/", username, **claims)


def api(hub, path, *, method="GET"):
    answer = send(hub.url, f"/htc/hub/api/{path}", [("Authorization", f"token {TOKEN}")], method=method)
    assert answer.status < 300, answer
    return json.loads(answer.body) if answer.body else None


def whose(page):
    """Whose name JupyterHub's page shows."""
    return re.search(r'user: "([^"]*)"', page.body).group(1)


def session_tokens(hub, username):
    """Tokens that hang on a browser's session, e.g. those of the cookies of notebook servers."""
    return [token for token in api(hub, f"users/{username}/tokens")["api_tokens"] if token["session_id"]]


def test_two_people_at_one_browser(browser):
    shared = browser("alice")
    _, home = shared.visit(HOME)
    assert whose(home) == "alice"
    alices = dict(shared.cookies)

    shared.now_is("bob")
    answer = shared.get(f"{LOGIN}?next={HOME}")
    assert (answer.status, answer.location) == (302, HOME)
    assert shared.cookie(HUB_COOKIE) != alices[HUB_COOKIE, "/htc/hub/"]
    assert shared.cookie(SESSION_COOKIE) != alices[SESSION_COOKIE, "/htc/"]
    assert whose(shared.get(HOME)) == "bob"


def test_the_same_person_again_keeps_the_session(browser):
    alice = browser("alice")
    alice.visit(HOME)
    before = alice.cookie(SESSION_COOKIE)
    assert alice.get(LOGIN).status == 302
    assert alice.cookie(SESSION_COOKIE) == before
    assert whose(alice.get(HOME)) == "alice"


def test_log_out_leads_through_the_gateway(browser, gateway):
    alice = browser("alice")
    alice.visit(HOME)
    answer = alice.get("/htc/hub/logout")
    assert (answer.status, answer.location) == (302, f"{gateway.issuer}/_hubgate/logout")
    assert alice.cookie(HUB_COOKIE) is None
    assert alice.cookie(SESSION_COOKIE) is None
    alice.identity = lambda path: []  # the gateway's session is over as well
    answer = alice.get(HOME)
    assert answer.status == 302
    assert answer.location.startswith(LOGIN)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_ends_no_hub_session(browser, gateway, site):
    """A link, or an image's redirect, to the hub's Log Out: the gateway asks, and until then nothing has happened."""
    alice = browser("alice")
    alice.visit(HOME)
    answer = alice.get("/htc/hub/logout", [("Sec-Fetch-Site", site)])
    assert (answer.status, answer.location) == (302, f"{gateway.issuer}/_hubgate/logout")
    assert alice.cookie(HUB_COOKIE) is not None
    assert whose(alice.get(HOME)) == "alice"
    for own in ("same-origin", "none"):
        answer = alice.get("/htc/hub/logout", [("Sec-Fetch-Site", own)])
        assert answer.location == f"{gateway.issuer}/_hubgate/logout"
        assert alice.cookie(HUB_COOKIE) is None
        alice.visit(HOME)


def test_log_out_without_a_session_leads_there_too(browser, gateway):
    assert browser("alice").get("/htc/hub/logout").location == f"{gateway.issuer}/_hubgate/logout"


def test_servers_cookies_and_tokens_end_with_the_session(hub, browser):
    """A server believes its cookie for minutes after the token is gone, so the browser must lose it, too."""
    shared = browser("alice")
    shared.visit(HOME)
    send(hub.url, "/htc/hub/api/users/alice/server", [("Authorization", f"token {TOKEN}")], method="POST", body=b"")
    deadline = time.monotonic() + 90
    while not api(hub, "users/alice")["servers"].get("", {}).get("ready"):
        assert time.monotonic() < deadline, hub.tail()
        time.sleep(0.2)  # a foreign program starts
    path, lab = shared.visit("/htc/user/alice/lab")
    assert (path, lab.status) == ("/htc/user/alice/lab", 200)
    assert shared.cookie("jupyterhub-user-alice")
    assert len(session_tokens(hub, "alice")) == 1

    shared.now_is("bob")
    answer = shared.get(f"{LOGIN}?next={HOME}")
    assert answer.set_cookies["jupyterhub-user-alice"] == ("", "/htc/user/alice/")
    assert shared.cookie("jupyterhub-user-alice") is None
    assert session_tokens(hub, "alice") == []
    # Her server goes on; it just isn't his to open.
    assert api(hub, "users/alice")["servers"][""]["ready"]
    assert shared.visit("/htc/user/alice/lab")[1].status == 403

    # The same at log out.
    shared.now_is("alice")
    shared.get(LOGIN)
    shared.visit("/htc/user/alice/lab")
    assert shared.cookie("jupyterhub-user-alice")
    shared.get("/htc/hub/logout")
    assert shared.cookie("jupyterhub-user-alice") is None
    assert session_tokens(hub, "alice") == []


def test_a_restart(hub, gateway, browser):
    """Cookies stay good; what was signed before it is not; and the next page asks who is there."""
    alice, shared = browser("alice"), browser("carol")
    alice.visit(HOME)
    shared.visit(HOME)
    early = [("REMOTE_USER", "alice"), ("X-Hubgate-Assertion", gateway.assertion("alice"))]
    assert send(hub.url, LOGIN, early).status == 302
    kept = [("REMOTE_USER", "alice"), ("X-Hubgate-Assertion", gateway.assertion("alice"))]
    hub.stop()
    hub.start()
    ready(hub, gateway)

    for fields in (early, kept):
        answer = send(hub.url, LOGIN, fields)
        if answer.status != 403 or "Reason: expired" not in answer.body:  # a slow machine
            assert answer.status == 403
            assert "Reason: before_start" in answer.body
            assert answer.all("Refresh") == ["2"]
    assert whose(alice.get(HOME)) == "alice"

    # The hub's first look at carol's session comes with an assertion about dave.
    shared.now_is("dave")
    answer = shared.get(HOME)
    assert answer.status == 302
    assert answer.location.startswith(LOGIN)
    assert shared.cookie(HUB_COOKIE) is None
    assert shared.cookie(SESSION_COOKIE) is None
    assert "hub session of carol ended, the gateway says dave" in hub.log.read_text()
    path, home = shared.visit(answer.location)
    assert (path, whose(home)) == (HOME, "dave")


def test_tokens_and_requests_about_others_go_on(hub, browser, gateway):
    """Whatever page assertion lies beside them: an API token is its own proof."""
    hub.stop()
    hub.start()
    ready(hub, gateway)
    assertion = ("X-Hubgate-Assertion", gateway.assertion("bob", use="page"))
    fields = [("Authorization", f"token {TOKEN}"), ("REMOTE_USER", "bob"), assertion]
    assert send(hub.url, "/htc/hub/api/users/alice", fields).status == 200
    answer = send(hub.url, "/htc/hub/api/users/alice/tokens", fields, method="POST", body=b"{}")
    assert answer.status == 201
    alices = [("Authorization", f"token {json.loads(answer.body)['token']}"), ("REMOTE_USER", "bob"), assertion]
    assert json.loads(send(hub.url, "/htc/hub/api/user", alices).body)["name"] == "alice"
