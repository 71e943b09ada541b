"""No secret is where it doesn't belong: logs, pages about errors, representations, the public port.

A whole life of a login is led, good and bad; everything that is secret in it is collected on the way; nothing of it may
turn up in what was written down.
"""

from __future__ import annotations

import io
import json
import logging
import re
from urllib.parse import parse_qsl, urlsplit

import pytest

from hubgate.core.cookies import parse_cookies
from hubgate.core.identity import Identity, Proof
from hubgate.metrics import Metrics
from hubgate.ops.logs import AccessLog, JsonFormatter, MalformedRequests
from hubgate.web.sessions import Found
from tests.attacks.door import HANDSHAKE, Door, door
from tests.kit.background import eventually
from tests.kit.person import Page, Person


class Journal:
    """Everything that a gateway writes down, and everything secret that passed it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.secrets: dict[str, str] = {}

    def knows(self, secret: str, what: str) -> None:
        if len(secret) >= 6:
            self.secrets[secret] = what

    def saw(self, person: Person, page: Page) -> None:
        """Keep what an address or a cookie of this journey held."""
        for step in page.trail:
            for url in (step.url, step.headers.get("Location", "")):
                query = urlsplit(url).query
                for name, value in parse_qsl(query):
                    if name in {"code", "state", "nonce", "code_challenge", "session_state", "id_token_hint"}:
                        self.knows(value, f"{name} in an address")
            for cookie in step.headers.getall("Set-Cookie", ()):
                self.knows(cookie.partition(";")[0].partition("=")[2], "a cookie")
        for token in re.findall(r'name="csrf" value="([^"]+)"', page.text):
            self.knows(token, "a form's token")
        for cookie in person.session.cookie_jar:
            self.knows(cookie.value, "a cookie")

    def written(self, at: Door) -> str:
        lines: list[bytes] = []
        access = AccessLog(lines.append)
        for visit, line in at.site.access:
            access(visit, **line)
        access.flush()
        return b"".join([*lines, *at.site.lines]).decode() + self.stream.getvalue()


@pytest.fixture
def journal():
    kept = Journal()
    handler = logging.StreamHandler(kept.stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(MalformedRequests())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield kept
    root.removeHandler(handler)
    root.setLevel(before)


def two_hosts(document) -> None:
    port = document["gateway"]["public_url"].rpartition(":")[2]
    document["pools"][1]["host"] = f"localhost:{port}"


async def test_a_whole_life_leaves_no_secret_in_any_log(journal) -> None:
    async with door(two_hosts, login=()) as at:
        there = f"http://localhost:{at.port}"
        urls = [
            *(
                at.site.url + path
                for path in ("/", "/htc/hub/login", "/htc/user/alice/lab", "/nowhere?token=in-a-query")
            ),
            *(there + path for path in ("/hpc/hub/home", "/hpc/hub/login", "/_hubgate/logout")),
        ]
        async with at.site.person() as alice, at.site.person() as thief:
            wanted = at.site.url + "/htc/hub/home?token=in-a-query"
            journal.saw(alice, await alice.get(wanted))
            page = await alice.login(wanted, at.site.users["alice"])
            assert page.status == 200
            journal.saw(alice, page)
            callback = next(step.url for step in page.trail if "/_hubgate/callback" in step.url)
            for url in urls:
                journal.saw(alice, await alice.get(url))
            handover = f"{there}/_hubgate/handover?code=an-overheard-code"
            for url in (callback, callback.replace("state=", "state=x"), callback.replace("code=", "code=x"), handover):
                for person in (alice, thief):
                    journal.saw(person, await person.get(url, follow=False))
            for field in (
                f"hubgate={next(iter(alice.cookies(at.site.url).values()))}; hubgate=x",
                "hubgate=" + "z" * 43,
            ):
                journal.saw(
                    thief, await thief.get(at.site.url + "/htc/hub/home", headers={"Cookie": field}, follow=False)
                )
            cookie = alice.cookies(at.site.url)["hubgate"]
            bearer = b"Authorization: Bearer a-bearer-of-the-hub"
            for data in (
                at.request(
                    b"/htc/hub/home", b"Cookie: hubgate=" + cookie.encode(), bearer, *HANDSHAKE, b"Origin: null"
                ),
                at.request(b"/htc/hub/home", b"Cookie : hubgate=" + cookie.encode(), bearer),
                at.request(b"/htc/hub/home", b"Cookie: hubgate=" + cookie.encode() + b"\0", bearer),
                at.request(b"/htc/hub/home", b"Cookie: hubgate=" + cookie.encode() + b"\r\n x: y", bearer),
                at.request(b"/htc/hub/home?token=in-a-query \0", b"Cookie: hubgate=" + cookie.encode()),
                at.request(b"/_hubgate/logout", method=b"POST", body=b"csrf=a-guessed-token"),
            ):
                await at.told(data)
            # A hub that breaks off, and one that is not there.
            for hub in at.hubs.values():
                hub.answer = lambda _: (
                    b"HTTP/1.1 200 OK\r\nSet-Cookie: jupyterhub-hub-login=a-cookie-of-the-hub\r\nbroken\r\n\r\n"
                )
            await alice.get(at.site.url + "/htc/hub/home")
            for hub in at.hubs.values():
                journal.secrets |= {
                    value.decode(): "an assertion"
                    for got in hub.requests
                    for value in got.values(b"X-Hubgate-Assertion")
                }
                hub.answer = None
            session = next(iter(at.site.served.live._by_cookie.values())).session
            for name in ("csrf", "id_token", "refresh_token"):
                journal.knows(getattr(session, name), name)
            landing = await alice.get(at.site.url + "/")
            form = landing.form_with("csrf")
            assert form is not None
            journal.saw(alice, await alice.submit(landing, form, csrf="a-guessed-token"))
            journal.saw(alice, await alice.submit(landing, form))
            journal.saw(alice, await alice.get(callback, follow=False))
        for secret in (
            "in-a-query",
            "a-bearer-of-the-hub",
            "a-guessed-token",
            "an-overheard-code",
            "a-cookie-of-the-hub",
        ):
            journal.knows(secret, "made up for this test")
        journal.knows("lab-secret", "the client's secret")
        journal.knows("a secret key of thirty-two characters at least", "the secret key")
        journal.knows(at.site.users["alice"].totp_key, "the key of the second factor")
        journal.knows("alice-pw", "the password")
        kinds = set(journal.secrets.values())
        assert {"a cookie", "a form's token", "an assertion", "code in an address", "state in an address"} <= kinds
        assert {"id_token", "refresh_token", "nonce in an address"} <= kinds
        assert len(journal.secrets) > 30
        written = journal.written(at)
        assert len(written.splitlines()) > 40
        found = {what: secret for secret, what in journal.secrets.items() if secret in written}
        assert not found
        assert '"path": "/nowhere"' in written, "the path is there, its query is not"


async def test_an_accident_tells_people_nothing_and_the_log_no_secret(journal) -> None:
    """An error that nobody foresaw, with a secret in its text."""
    async with door() as at:
        cookie = at.cookies["alice"].decode().removeprefix("hubgate=")

        def accident(*_: object, **__: object) -> None:
            raise RuntimeError(
                f"Cookie: hubgate={cookie}; token=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.x password=hunter22"
            )

        object.__setattr__(at.site.served.front.clearing.disclosure, "lines", accident)
        for fields in ((), (b"Accept: text/html", b"Sec-Fetch-Mode: navigate")):
            reply = await at.ask(b"/htc/hub/home", *fields, user="alice")
            assert reply.status == 500
            for word in (
                cookie.encode(),
                b"hunter22",
                b"Traceback",
                b"RuntimeError",
                b".py",
                b"aiohttp",
                b"Python",
                b"eyJ",
            ):
                assert word not in reply.body + reply.head, word
            (request_id,) = set(re.findall(rb"[0-9a-f]{8}-[0-9a-f]+", reply.body))
            assert request_id.decode() in journal.written(at), "what people read out is found in the log"
        written = journal.written(at)
        assert "request_failed" in written
        for word in (cookie, "hunter22", "eyJhbGciOiJub25lIn0"):
            assert word not in written
        assert at.received() == []


async def test_pages_about_errors_repeat_no_code_and_no_state() -> None:
    async with door() as at:
        for target in (
            b"/_hubgate/callback?code=secretcode&state=secretstate",
            b"/_hubgate/callback?code=secretcode&state=secretstate&iss=x",
            b"/_hubgate/callback?error=access_denied&state=secretstate&error_description=secretcode",
            b"/_hubgate/callback?code=secretcode",
            b"/_hubgate/handover?code=secretcode",
            b"/_hubgate/farewell?code=secretcode",
        ):
            for user in ("alice", ""):
                for accept in (b"text/html", b"application/json"):
                    fields = (b"Accept: " + accept, b"Cookie: hubgate-login=" + b"l" * 43)
                    reply = await at.ask(target, *fields, user=user)
                    assert b"secret" not in reply.body + reply.head, (target, reply)


async def test_what_is_for_operators_is_not_on_the_public_port() -> None:
    async with door() as at:
        for target in (
            *(
                b"/metrics",
                b"/healthz",
                b"/readyz",
                b"/_hubgate/metrics",
                b"/_hubgate/healthz",
                b"/_hubgate/readyz",
                b"/status",
            ),
            *(
                b"/_hubgate/admin",
                b"/_hubgate/debug",
                b"/debug/pprof",
                b"/server-status",
                b"/.well-known/openid-configuration",
            ),
            *(
                b"/_hubgate/",
                b"/_hubgate",
                b"/_hubgate/static/",
                b"/_hubgate/static/../../app.py",
                b"/_hubgate/static/site.toml",
            ),
            *(b"/_hubgate/static/base.html", b"/_hubgate/static/en.toml", b"/.git/config", b"/config.toml", b"/.env"),
        ):
            for user in ("alice", ""):
                for host in (None, b"localhost:%d" % at.port, b"127.0.0.1:9090"):
                    for method in (b"GET", b"HEAD", b"POST"):
                        reply = await at.ask(target, method=method, user=user, host=host)
                        assert reply.status in {400, 404, 405, 421}, (target, reply)
                        assert b"hubgate_" not in reply.body
                        assert b"# HELP" not in reply.body
        assert at.received() == []


async def test_strangers_add_no_series_to_the_metrics() -> None:
    async with door() as at:
        metrics: Metrics = at.site.served.front.metrics

        async def series() -> set[bytes]:
            lines = (await metrics.render()).splitlines()
            return {line.partition(b"}")[0].partition(b" ")[0] for line in lines if line[:1] != b"#"}

        paths = (b"/htc/hub/%d", b"/hpc/%d", b"/%d", b"/_hubgate/%d", b"/_hubgate/callback?state=%d", b"/htc/../%d")

        async def wander(rounds: range) -> None:
            for number in rounds:
                for path in paths:
                    for more in ({"user": "alice"}, {}, {"host": b"h%d.example" % number}):
                        methods = (b"GET", b"POST", b"PROPFIND", b"MKCOL")
                        await at.ask(path % number, b"User-Agent: %d" % number, method=methods[number % 4], **more)
            at.received()

        async def told_by_upkeep() -> bool:
            return any(name.startswith(b"hubgate_sessions_seen") for name in await series())

        await wander(range(4))
        await eventually(told_by_upkeep, within=60)  # what comes by itself in the first seconds is no stranger's
        before = await series()
        await wander(range(4, 16))
        assert await series() == before
        text = await metrics.render()
        assert b"alice" not in text
        assert at.cookies["alice"].removeprefix(b"hubgate=") not in text


def test_representations_show_no_secret() -> None:
    """What a debugger, an assertion or a careless log message would print."""
    from hubgate.core.balancer import Affinity
    from hubgate.core.headers import HeaderRules
    from hubgate.core.keyring import Keyring
    from hubgate.core.session import Session
    from hubgate.store.codec import Sealer
    from hubgate.web.live import Bound, LiveSession
    from hubgate.web.visit import Kind, Visit

    secret = "s3cr3t" * 8
    session = Session(
        "handle", Identity("i", "s", "alice"), Proof(), 0.0, 0.0, csrf=secret, id_token=secret, refresh_token=secret
    )
    found = Found("key", session, secret.encode())
    live = LiveSession(secret, "h", found, 0.0)
    live.bound["htc"] = Bound(Affinity("htc01", 0.0), secret)
    cookies = parse_cookies(f"hubgate={secret}; hubgate-login={secret}; _xsrf={secret}", "hubgate")
    fields = [(b"Host", b"h"), (b"Cookie", secret.encode()), (b"Authorization", b"Bearer " + secret.encode())]
    headers = HeaderRules(identity_header="REMOTE_USER").to_upstream(fields)
    visit = Visit(
        "127.0.0.1", Kind.FETCH, raw=f"/?code={secret}", session_cookie=secret, cookies=cookies.own, live=live
    )
    ring = Keyring([secret.encode()])
    for thing in (
        session,
        found,
        live,
        live.bound,
        cookies,
        headers,
        visit,
        ring,
        Sealer(ring, "x"),
        ring.sealing_keys("x"),
    ):
        assert secret not in repr(thing), type(thing)
        assert secret not in str(thing), type(thing)
        assert json.dumps(str(thing))
