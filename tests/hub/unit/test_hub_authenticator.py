"""Who is there? Headers in all their spellings, names, groups, and when a page ends a session."""

import asyncio
import logging
import os
import pwd
import re
import time
from types import SimpleNamespace

import pytest
from tornado.httputil import HTTPHeaders

from hubgate_hub.assertion import Refused
from hubgate_hub.authenticator import HubgateAuthenticator, HubgateLocalAuthenticator, single
from hubgate_hub.doors import LoginHandler, TurnedAway
from tests.hub.signing import ISSUER, Gateway

HEADER = "X-Hubgate-Assertion"


class Hub:
    """An authenticator that has been up for a while, with the keys of `gateway`; and requests to it."""

    def __init__(self, tmp_path, cls=HubgateAuthenticator, **settings):
        self.gateway = Gateway()
        jwks = tmp_path / "jwks.json"
        jwks.write_bytes(self.gateway.jwks())
        given = {"gateway_url": ISSUER, "hub_name": "htc01", "jwks": str(jwks), "allow_all": True}
        self.authenticator = cls(**(given | settings))
        self.authenticator.log = logging.getLogger("hub")
        self.authenticator._started = time.time() - 100

    def request(self, *fields, cls=SimpleNamespace, **more):
        headers = HTTPHeaders()
        for name, value in fields:
            headers.add(name, value)
        handler = cls.__new__(cls)
        handler.request = SimpleNamespace(headers=headers, remote_ip="192.0.2.7", path="/htc/hub/login")
        for name, value in more.items():
            setattr(handler, name, value)
        return handler

    def login(self, *fields):
        """What JupyterHub makes of a request: the user's model, or None."""
        return asyncio.run(self.authenticator.get_authenticated_user(self.request(*fields), None))

    def reason(self, *fields):
        with pytest.raises(TurnedAway) as away:
            self.login(*fields)
        return re.search(r"Reason: (\w+)", away.value.details).group(1)

    def good(self, username="alice", **claims):
        return ("REMOTE_USER", username), (HEADER, self.gateway.assertion(username, **claims))


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path)


def test_a_login(hub):
    model = hub.login(*hub.good(groups=["atlas", "hpc"]))
    assert model["name"] == "alice"
    assert model["groups"] == ["atlas", "hpc"]
    state = model["auth_state"]
    assert (state["iss"], state["sid"], state["acr"], state["amr"]) == (ISSUER, "s-1", "mfa", ["pwd", "otp"])
    assert abs(state["auth_time"] - time.time()) < 60


def test_the_name_comes_as_octets(hub):
    sent = "zoë".encode().decode("latin-1")  # what tornado makes of UTF-8
    assert hub.login(("REMOTE_USER", sent), (HEADER, hub.gateway.assertion("zoë")))["name"] == "zoë"
    assert hub.reason(("REMOTE_USER", "zoë"), (HEADER, hub.gateway.assertion("zoë"))) == "identity_differs"


@pytest.mark.parametrize("name", ["REMOTE_USER", "remote_user", "Remote_User"])
def test_the_case_of_a_header_does_not_matter(hub, name):
    assert hub.login((name, "alice"), (HEADER.upper(), hub.gateway.assertion()))["name"] == "alice"


def test_another_header(tmp_path):
    hub = Hub(tmp_path, identity_header="X-Remote-User")
    token = hub.gateway.assertion()
    assert hub.reason(("REMOTE_USER", "alice"), (HEADER, token)) == "identity_missing"
    assert hub.login(("X-Remote-User", "alice"), (HEADER, token))["name"] == "alice"


@pytest.mark.parametrize("name", ["alic", "alice2", "Alice", "bob", "alice,alice", "alice, admin", "аlice"])
def test_both_must_agree(hub, name):
    sent = name.encode().decode("latin-1")
    assert hub.reason(("REMOTE_USER", sent), (HEADER, hub.gateway.assertion("alice"))) == "identity_differs"


def test_the_header_alone_is_nothing(hub):
    assert hub.reason(("REMOTE_USER", "admin")) == "assertion_missing"
    assert hub.reason() == "assertion_missing"
    assert hub.reason(("REMOTE_USER", "admin"), (HEADER, "")) == "malformed"


def test_the_assertion_alone_is_not_enough(hub):
    token = hub.gateway.assertion()
    assert hub.reason((HEADER, token)) == "identity_missing"
    assert hub.reason(("REMOTE_USER", ""), (HEADER, token)) == "identity_missing"
    # Nothing was used up by what was refused.
    assert hub.login(("REMOTE_USER", "alice"), (HEADER, token))["name"] == "alice"


@pytest.mark.parametrize(
    "extra",
    [
        ("REMOTE_USER", "alice"),
        ("REMOTE_USER", "admin"),
        ("remote_user", "admin"),
        ("Remote-User", "admin"),
        ("REMOTE-USER", ""),
        (HEADER, "x"),
        ("X_Hubgate_Assertion", "x"),
        ("x-hubgate_assertion", "x"),
    ],
    ids=str,
)
def test_a_second_value_in_any_spelling_is_refused(hub, extra):
    good = hub.good()
    assert hub.reason(*good, extra) == "header_ambiguous"
    assert hub.reason(extra, *good) == "header_ambiguous"


def test_another_spelling_alone_is_refused(hub):
    token = hub.gateway.assertion()
    assert hub.reason(("Remote-User", "alice"), (HEADER, token)) == "header_ambiguous"
    assert hub.reason(("REMOTE_USER", "alice"), ("X_HUBGATE_ASSERTION", token)) == "header_ambiguous"


def test_single():
    headers = HTTPHeaders({"A-B": "1"})
    assert single(headers, "a-b") == "1"
    assert single(headers, "C") is None
    headers.add("A-B", "2")
    with pytest.raises(Refused):
        single(headers, "A-B")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"audience": "htc02"}, "wrong_audience"),
        ({"aud": ["htc01"]}, "wrong_audience"),
        ({"iss": "https://evil.example.org"}, "wrong_issuer"),
        ({"use": "page"}, "wrong_use"),
        ({"now": time.time() - 70}, "expired"),
        ({"now": time.time() + 60}, "future"),
        ({"header": {"kid": "other"}}, "unknown_key"),
        ({"header": {"typ": "JWT"}}, "wrong_typ"),
    ],
    ids=str,
)
def test_what_an_assertion_must_be(hub, claims, reason):
    assert hub.reason(*hub.good(**claims)) == reason


def test_someone_elses_signature(hub):
    token = Gateway().assertion("admin")
    assert hub.reason(("REMOTE_USER", "admin"), (HEADER, token)) == "tampered"


def test_once_only(hub):
    good = hub.good()
    assert hub.login(*good)
    assert hub.reason(*good) == "replayed"


def test_of_two_at_once_one_gets_in(hub):
    good = hub.good()

    async def both():
        requests = [hub.request(*good), hub.request(*good)]
        asked = (hub.authenticator.get_authenticated_user(request, None) for request in requests)
        return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = asyncio.run(both())
    assert len([outcome for outcome in outcomes if isinstance(outcome, dict)]) == 1
    assert len([outcome for outcome in outcomes if isinstance(outcome, TurnedAway)]) == 1


def test_not_from_before_the_start(hub):
    hub.authenticator._started = time.time()
    assert hub.reason(*hub.good(now=time.time() - 3)) == "before_start"


@pytest.mark.parametrize("setting", ["gateway_url", "hub_name"])
def test_a_hub_that_is_not_set_up_lets_nobody_in(tmp_path, setting):
    hub = Hub(tmp_path, **{setting: ""})
    assert hub.reason(*hub.good()) == "not_set_up"
    hub = Hub(tmp_path, jwks="ftp://nowhere")
    assert hub.reason(*hub.good()) == "not_set_up"


def test_a_request_proves_itself_once_for_all_who_ask(hub):
    async def twice():
        request = hub.request(*hub.good())
        first = await hub.authenticator.prove(request)
        # JupyterHub logs the headers of requests that fail.
        assert HEADER not in request.request.headers
        assert "REMOTE_USER" in request.request.headers
        return first, await hub.authenticator.prove(request)

    first, second = asyncio.run(twice())
    assert first is second


def test_the_log_has_one_line_with_a_reason_and_no_token(hub, caplog):
    token = hub.gateway.assertion("alice", audience="htc02")
    with caplog.at_level(logging.INFO):
        hub.reason(("REMOTE_USER", "alice"), (HEADER, token))
        hub.reason(("REMOTE_USER", "a" * 500), (HEADER, hub.gateway.assertion()))
        hub.reason(("REMOTE_USER", "admin"))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "hubgate: login refused, reason=wrong_audience client=192.0.2.7 path=/htc/hub/login: "
        "aud 'htc02', expected 'htc01'"
    )
    assert "reason=identity_differs" in lines[1]
    assert "a" * 100 not in lines[1]
    assert lines[2].endswith("REMOTE_USER says 'admin'")
    assert len(lines) == 3
    assert not any(part in line for line in lines for part in token.split("."))


class TestNames:
    def test_a_name_is_not_bent(self, hub):
        hub.authenticator.username_map = {"Alice": "root"}
        assert hub.login(*hub.good("Alice"))["name"] == "Alice"

    @pytest.mark.parametrize("name", ["a/b", ".", "..", "-rf", "a,b", "a\tb", "a\nb", " a", "%2e", "x" * 256])
    def test_names_that_can_not_be_used(self, hub, name):
        assert not hub.authenticator.validate_username(name)

    def test_a_name_that_can_not_be_used_gets_a_page(self, hub):
        assert hub.reason(*hub.good("a/b")) == "name_refused"

    @pytest.mark.parametrize("name", ["alice", "zoë", "a.b@example.org", "First Last", "x" * 255])
    def test_names_that_can(self, hub, name):
        assert hub.authenticator.validate_username(name)


class TestWhoMayComeIn:
    def test_nobody_by_default(self, tmp_path):
        hub = Hub(tmp_path, allow_all=False)
        assert hub.login(*hub.good()) is None

    def test_by_name(self, tmp_path):
        hub = Hub(tmp_path, allow_all=False, allowed_users={"alice"})
        assert hub.login(*hub.good("alice"))
        assert hub.login(*hub.good("bob")) is None

    @pytest.mark.parametrize("cls", [HubgateAuthenticator, HubgateLocalAuthenticator])
    def test_by_group(self, tmp_path, cls):
        hub = Hub(tmp_path, cls, allow_all=False, allowed_groups={"atlas"})
        me = pwd.getpwuid(os.getuid()).pw_name
        assert hub.login(*hub.good(me, groups=["belle", "atlas"]))
        assert hub.login(*hub.good(me, groups=["belle"])) is None
        assert hub.login(*hub.good(me, groups=[])) is None

    def test_the_gateways_groups_are_not_the_systems(self, tmp_path):
        me = pwd.getpwuid(os.getuid())
        hub = Hub(tmp_path, HubgateLocalAuthenticator, allow_all=False, allowed_groups={me.pw_name, "root"})
        assert hub.login(*hub.good(me.pw_name, groups=["belle"])) is None

    def test_blocked_is_blocked(self, tmp_path):
        hub = Hub(tmp_path, blocked_users={"alice"})
        assert hub.login(*hub.good()) is None

    @pytest.mark.parametrize(
        ("settings", "groups", "admin"),
        [
            ({}, ["portal-admins"], None),
            ({"admin_groups": {"portal-admins"}}, ["portal-admins"], True),
            ({"admin_groups": {"portal-admins"}}, ["portal"], False),
            ({"admin_groups": {"portal-admins"}, "admin_users": {"alice"}}, [], True),
            ({"admin_users": {"alice"}}, [], True),
        ],
        ids=str,
    )
    def test_administrators(self, tmp_path, settings, groups, admin):
        hub = Hub(tmp_path, **settings)
        assert hub.login(*hub.good(groups=groups))["admin"] is admin


class TestSystemUsers:
    def test_an_account_is_needed(self, tmp_path):
        hub = Hub(tmp_path, HubgateLocalAuthenticator)
        assert hub.reason(*hub.good("no-such-account-here")) == "no_account"

    def test_or_can_be_created(self, tmp_path):
        hub = Hub(tmp_path, HubgateLocalAuthenticator, create_system_users=True)
        assert hub.login(*hub.good("no-such-account-here"))["name"] == "no-such-account-here"


class TestTrustingTheHeaderAlone:
    @pytest.fixture
    def hub(self, tmp_path):
        return Hub(tmp_path, trust_header_alone=True, gateway_url="", hub_name="", jwks="")

    def test_the_header_is_enough(self, hub):
        model = hub.login(("REMOTE_USER", "Alice"))
        # JupyterHub's own way with names, which is what people come from.
        assert model["name"] == "alice"
        assert model["groups"] is None
        assert model["auth_state"] is None

    def test_a_map_is_used_once(self, hub):
        hub.authenticator.username_map = {"a": "b", "b": "c"}
        assert hub.login(("REMOTE_USER", "A"))["name"] == "b"

    @pytest.mark.parametrize("value", ["alice, admin", "a\xc2\x85b", "..", "-x", "\xff"], ids=ascii)
    def test_what_is_no_name(self, hub, value):
        assert hub.reason(("REMOTE_USER", value)) == "name_refused"

    def test_there_must_be_one(self, hub):
        assert hub.reason() == "identity_missing"
        assert hub.reason(("REMOTE_USER", "")) == "identity_missing"
        assert hub.reason(("REMOTE_USER", "alice"), ("Remote-User", "bob")) == "header_ambiguous"

    def test_admin_rights_stay_as_they_are(self, hub):
        hub.authenticator.admin_groups = {"portal-admins"}
        assert hub.login(("REMOTE_USER", "alice"))["admin"] is None


class TestRefresh:
    """False must be rare: it blocks API tokens and servers' own reports."""

    class Handler:
        """As much of a hub's page as refresh_user looks at."""

        cleared = False

        def get_current_user_cookie(self):
            return None

        def clear_login_cookie(self):
            self.cleared = True

    @pytest.fixture
    def alice(self):
        return SimpleNamespace(name="alice")

    def page(self, hub, username, **claims):
        return (("REMOTE_USER", username), (HEADER, hub.gateway.assertion(username, **{"use": "page", **claims})))

    def refreshed(self, hub, user, handler):
        return asyncio.run(hub.authenticator.refresh_user(user, handler))

    def test_another_user_ends_the_session(self, hub, alice):
        handler = hub.request(*self.page(hub, "bob"), cls=self.Handler)
        assert self.refreshed(hub, alice, handler) is False
        assert handler.cleared
        # JupyterHub 6.1.1 reads it next.
        assert handler._token_authenticated is False

    def test_the_same_user_goes_on(self, hub, alice):
        handler = hub.request(*self.page(hub, "alice"), cls=self.Handler, _jupyterhub_user=alice)
        assert self.refreshed(hub, alice, handler) is True
        assert not handler.cleared

    def test_page_assertions_serve_many_pages(self, hub, alice):
        fields = self.page(hub, "bob")
        for _ in range(3):
            assert self.refreshed(hub, alice, hub.request(*fields, cls=self.Handler)) is False

    def test_no_handler(self, hub, alice):
        assert self.refreshed(hub, alice, None) is True

    def test_tokens(self, hub, alice):
        handler = hub.request(*self.page(hub, "bob"), cls=self.Handler, _token_authenticated=True)
        assert self.refreshed(hub, alice, handler) is True

    def test_a_request_about_somebody_else(self, hub, alice):
        handler = hub.request(*self.page(hub, "bob"), cls=self.Handler, _jupyterhub_user=SimpleNamespace(name="bob"))
        assert self.refreshed(hub, alice, handler) is True

    def test_the_login_page_sees_for_itself(self, hub, alice):
        handler = hub.request(*hub.good("bob"), cls=LoginHandler)
        assert self.refreshed(hub, alice, handler) is True

    @pytest.mark.parametrize(
        "claims",
        [{"now": time.time() - 100}, {"audience": "htc02"}, {"use": "login"}, {"header": {"kid": "other"}}],
        ids=str,
    )
    def test_what_proves_nothing_ends_nothing(self, hub, alice, claims):
        handler = hub.request(*self.page(hub, "bob", **claims), cls=self.Handler)
        assert self.refreshed(hub, alice, handler) is True
        assert not handler.cleared

    def test_nor_does_a_bare_header(self, hub, alice):
        for fields in ([], [("REMOTE_USER", "bob")], [("REMOTE_USER", "bob"), ("REMOTE_USER", "bob")]):
            handler = hub.request(*fields, cls=self.Handler)
            assert self.refreshed(hub, alice, handler) is True

    def test_unless_headers_are_trusted(self, tmp_path, alice):
        hub = Hub(tmp_path, trust_header_alone=True)
        assert self.refreshed(hub, alice, hub.request(("REMOTE_USER", "Alice"), cls=self.Handler)) is True
        assert self.refreshed(hub, alice, hub.request(cls=self.Handler)) is True
        assert self.refreshed(hub, alice, hub.request(("REMOTE_USER", "bob"), cls=self.Handler)) is False
