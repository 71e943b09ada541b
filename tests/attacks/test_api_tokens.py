"""Whoever comes with an API token gets what its owner may have now, and nothing in anybody else's name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from hubgate.core.identity import Identity
from hubgate.web import programs
from hubgate.web.sessions import user_key
from tests.attacks.test_backchannel_logout import claims, signed, told
from tests.kit.background import eventually
from tests.kit.echo import Received
from tests.kit.stand import Stand, stand

API = "/htc/hub/api/users/alice"
NOTEBOOK = "/htc/user/alice/api/contents/a.ipynb"
SOCKET = "/htc/user/alice/api/kernels/k/channels"


def token() -> str:
    return secrets.token_hex(16)


def takes_tokens(document: dict[str, Any]) -> None:
    for pool in document["pools"]:
        pool["api_tokens"] = True


@pytest.fixture
async def site() -> AsyncIterator[Stand]:
    async with stand(takes_tokens) as made:
        handled = made.served.front.programs
        assert handled is not None
        now = time.time()
        handled._clock = lambda: now  # what is believed for half a minute is so however slow this machine is
        yield made


class Program:
    """A plain client."""

    def __init__(self, site: Stand, token: str, *, scheme: str = "token", **headers: str) -> None:
        self.site = site
        self.headers = {"Authorization": f"{scheme} {token}", **headers}
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def __aenter__(self) -> Program:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(
        self, path: str = API, method: str = "GET", **options: Any
    ) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
        headers = {**self.headers, **options.pop("headers", {})}
        async with self.session.request(
            method, self.site.url + path, headers=headers, allow_redirects=False, **options
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else {"text": text}, answer

    async def refused(self, code: str, path: str = API, **options: Any) -> aiohttp.ClientResponse:
        before = len(self.site.received())
        status, told, answer = await self.ask(path, **options)
        assert (told.get("code"), told.get("status")) == (code, status), (status, told)
        assert len(self.site.received()) == before
        return answer


@contextlib.asynccontextmanager
async def logged_in(site: Stand, name: str = "alice") -> AsyncIterator[Any]:
    person = await site.logged_in(name)
    async with person:
        yield person


def got(site: Stand) -> Received:
    return site.received()[-1]


def audited(site: Stand, event: str = "api_token") -> list[dict[str, Any]]:
    return [line for line in map(json.loads, site.lines) if line["event"] == event]


async def test_a_program_works_with_its_token_alone_and_in_its_own_name(site: Stand) -> None:
    """After Log Out, too: sessions end in the evening, programs don't."""
    key = site.hubs["htc02"].gives(token(), "alice")
    async with logged_in(site) as person:
        page = await person.get(site.url + "/")
        await person.submit(page, next(form for form in page.forms if form.action.endswith("/_hubgate/logout")))
    for scheme in ("token", "Bearer"):
        async with Program(site, key, scheme=scheme, Cookie="_xsrf=1; jupyterhub-hub-login=2") as program:
            for method, path in (("GET", API), ("POST", API), ("PUT", NOTEBOOK)):
                status, told, _ = await program.ask(path, method, json={"a": 1})
                assert (status, told["upstream"]) == (200, "htc02")
                received = got(site)
                assert received.values("Authorization") == [f"{scheme} {key}"]
                assert received.values("Cookie") == []
                assert received.lookalikes("REMOTE_USER") == []
                assert received.lookalikes("X-Hubgate-Assertion") == []
                assert received.values("X-Forwarded-For") == ["127.0.0.1"]
    assert site.hubs["htc02"].asked == [key]  # once, and then from memory
    caller, line = site.access[-1]
    assert (caller.user, caller.auth, caller.pool, caller.upstream) == ("alice", "token", "htc", "htc02")
    assert line["path"] == NOTEBOOK
    (accepted,) = audited(site)
    assert (accepted["outcome"], accepted["user"], accepted["upstream"], accepted["token"]) == (
        "accepted",
        "alice",
        "htc02",
        "a0",
    )


async def test_a_kernels_socket_ends_with_the_owners_standing(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with (
        logged_in(site),
        Program(site, key) as program,
        program.session.ws_connect(site.url + SOCKET, headers=program.headers) as wire,
    ):
        await wire.send_str("hello")
        assert (await wire.receive(timeout=20)).data == "hello"
        assert site.served.count_tunnels() >= 1  # a worker that is to stop waits for it
        await ended(site, "alice")
        assert (await wire.receive(timeout=20)).type in {
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        }
        answer = await program.refused("token_owner_away")
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        async with logged_in(site):
            assert (await program.ask())[0] == 200


async def ended(site: Stand, name: str) -> None:
    """As by `hubgate sessions end --user`."""
    handled = site.served.front.programs
    assert handled is not None
    owner = await handled._usernames.owner(name)
    assert owner is not None
    await handled._standings.end(owner)


async def test_a_page_of_another_site_opens_no_socket_with_a_token(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key, Origin="https://evil.example") as program:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await program.session.ws_connect(site.url + SOCKET, headers=program.headers)
        assert refused.value.status == 403


@pytest.mark.parametrize(
    "path",
    ["/htc/hub/home", "/htc/hub/login", "/htc/hub/token", "/htc/user/alice/lab", "/htc/user/alice/files/x", "/htc/"],
)
async def test_a_token_opens_no_page(site: Stand, path: str) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        await program.refused("session_required", path)
    assert not site.hubs["htc01"].asked


@pytest.mark.parametrize("path", ["/", "/_hubgate/account"])
async def test_a_token_opens_no_page_of_ours(site: Stand, path: str) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        assert (await program.ask(path))[0] in {302, 401}


async def test_a_token_is_nothing_where_the_site_did_not_say_so() -> None:
    async with stand() as site, logged_in(site):
        key = site.hubs["htc01"].gives(token(), "alice")
        async with Program(site, key) as program:
            await program.refused("session_required")
        assert not site.hubs["htc01"].asked


async def test_somebody_elses_token_beside_my_session(site: Stand) -> None:
    """Bob's second factor is long ago; alice has a session, and got hold of his token."""
    bobs = {name: hub.gives(token(), "bob") for name, hub in site.hubs.items()}
    service = {name: hub.gives(token(), "alice", kind="service") for name, hub in site.hubs.items()}
    own = {name: hub.gives(token(), "alice", session_id="s-1") for name, hub in site.hubs.items()}
    async with logged_in(site) as alice:
        page = await alice.fetch(site.url + "/htc/hub/api/user")
        hub = json.loads(page.text)["upstream"]
        for path in (API, "/htc/user/bob/files/secret", "/htc/hub/home"):
            for field in (f"token {bobs[hub]}", f"BEARER  {bobs[hub]}", f"token {service[hub]}"):
                before = len(site.received())
                page = await alice.fetch(site.url + path, headers={"Authorization": field})
                assert page.status == 403, page
                assert len(site.received()) == before
        # JupyterLab's page sends its own beside the cookie, and whatever runs in notebooks what it likes.
        for field in (f"token {own[hub]}", "Bearer some-token-of-an-application", "Basic YTpi"):
            page = await alice.fetch(site.url + NOTEBOOK, headers={"Authorization": field})
            assert page.status == 200, page
            assert got(site).values("Authorization") == [field]
        # Whose it is was told once: the hub may be away, its notebooks go on.
        site.hubs[hub].silent = True
        handled = site.served.front.programs
        assert handled is not None
        handled._clock = lambda: time.time() + 3600
        page = await alice.fetch(site.url + NOTEBOOK, headers={"Authorization": f"token {own[hub]}"})
        assert page.status == 200, page
        page = await alice.fetch(site.url + NOTEBOOK, headers={"Authorization": f"token {token()}"})
        assert page.status == 503, page


async def test_my_session_beside_somebody_elses_token_lends_it_nothing(site: Stand) -> None:
    """A cookie of ours makes it a browser's request, whatever else it says."""
    key = site.hubs["htc01"].gives(token(), "bob")
    async with logged_in(site, "bob"), Program(site, key) as program:
        assert (await program.ask())[0] == 200
        await program.refused("session_required", headers={"Cookie": f"hubgate={'x' * 43}"})


async def test_script_in_a_browser_is_no_program(site: Stand) -> None:
    """A page of JupyterLab keeps its token after Log Out; what a browser sends ends with the session."""
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        await program.refused("session_required", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"})


async def test_the_token_behind_a_browsers_cookie_is_no_programs(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice", session_id="of-a-browser")
    async with logged_in(site), Program(site, key) as program:
        await program.refused("token_unknown")


async def test_a_services_token_is_nobodys(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice", kind="service")
    async with logged_in(site), Program(site, key) as program:
        await program.refused("token_unknown")


@pytest.mark.parametrize("query", ["?token=0123456789abcdef", "?a=b&%74oken=0123456789abcdef"])
async def test_a_token_in_the_address_is_not_taken(site: Stand, query: str) -> None:
    """A notebook server may prefer it to the header's, whose owner was looked at."""
    own, other = (site.hubs["htc01"].gives(token(), name) for name in ("alice", "bob"))
    query = query.replace("0123456789abcdef", other)
    async with logged_in(site), Program(site, own) as program:
        await program.refused("token_in_query", API + query)
        program.headers.clear()
        await program.refused("session_required", API + query)
    assert not site.hubs["htc01"].asked


async def test_two_tokens_are_none(site: Stand) -> None:
    own, other = (site.hubs["htc01"].gives(token(), name) for name in ("alice", "bob"))
    async with logged_in(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
        host = site.url.partition("://")[2]
        writer.write(
            f"GET {API} HTTP/1.1\r\nHost: {host}\r\nAuthorization: token {own}\r\nAuthorization: token {other}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        status = int((await reader.readline()).split()[1])
        writer.close()
        assert status in {400, 401}
    assert not site.received()


async def test_a_token_of_somebody_who_never_came_here(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "mallory")
    async with Program(site, key) as program:
        answer = await program.refused("token_owner_away")
        assert answer.status == 401
    (line,) = audited(site)
    assert (line["outcome"], line["user"], line["code"]) == ("refused", "mallory", "token_owner_away")


async def test_a_name_that_was_given_to_somebody_else(site: Stand) -> None:
    """The hub says "alice", and means whoever had that name before."""
    key = site.hubs["htc01"].gives(token(), "alice")
    handled = site.served.front.programs
    assert handled is not None
    async with logged_in(site), Program(site, key) as program:
        assert (await program.ask())[0] == 200
        owner = await handled._usernames.owner("alice")
        assert owner is not None
        await handled._usernames.release("alice")
        await handled._standings.end(owner)
        await handled._usernames.claim(Identity("https://id.example.org", "another", "alice"))

        async def refused() -> bool:
            return (await program.ask())[1].get("code") == "token_owner_away"

        await eventually(refused, within=20)


async def test_a_second_factor_that_is_too_old() -> None:
    def short(document: dict[str, Any]) -> None:
        takes_tokens(document)
        document["mfa"]["api_tokens_for"] = "1h"

    async with stand(short) as site, logged_in(site):
        handled = site.served.front.programs
        assert handled is not None
        key = site.hubs["htc01"].gives(token(), "alice")
        async with Program(site, key) as program:
            assert (await program.ask())[0] == 200
            async with program.session.ws_connect(site.url + SOCKET, headers=program.headers) as wire:
                handled._clock = handled._standings._clock = lambda: time.time() + 3601
                assert (await wire.receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
            _, told, _ = await program.ask()
            assert told["code"] == "token_owner_away"
            assert told["login_url"] == site.url + "/"
            assert "second factor" in told["detail"]


async def test_a_token_that_was_revoked_at_the_hub(site: Stand) -> None:
    handled = site.served.front.programs
    assert handled is not None
    hub = site.hubs["htc01"]
    key = hub.gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        async with program.session.ws_connect(site.url + SOCKET, headers=program.headers) as wire:
            await wire.send_str("hello")
            assert (await wire.receive(timeout=20)).data == "hello"
            hub.tokens.clear()
            assert (await program.ask())[0] == 200  # believed for a while
            handled._clock = lambda: time.time() + programs.BELIEVED
            assert (await wire.receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
        await program.refused("token_unknown")


async def test_a_place_that_asks_for_a_fresh_second_factor_asks_programs_too() -> None:
    def fresh(document: dict[str, Any]) -> None:
        takes_tokens(document)
        document["pools"][0] |= {"step_up": ["tokens"], "step_up_max_age": "1h"}

    async with stand(fresh) as site, logged_in(site):
        key = site.hubs["htc01"].gives(token(), "alice")
        front = site.served.front
        async with Program(site, key) as program:
            assert (await program.ask(f"{API}/tokens", "POST"))[0] == 200
            object.__setattr__(front, "clock", lambda: time.time() + 3601)
            answer = await program.refused("fresh_factor_required", f"{API}/tokens", method="POST")
            assert "insufficient_user_authentication" in answer.headers["WWW-Authenticate"]
            assert (await program.ask())[0] == 200


async def test_a_pool_that_is_not_the_owners(site: Stand) -> None:
    key = site.hubs["hpc01"].gives(token(), "bob")
    async with logged_in(site, "bob"), Program(site, key) as program:
        await program.refused("group_missing", "/hpc/hub/api/user")


async def test_guessing_is_not_multiplied_and_gets_slow(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        assert (await program.ask())[0] == 200
        handled = site.served.front.programs
        assert handled is not None
        now = handled._clock()
        guess = token()
        async with Program(site, guess) as guesser:
            for _ in range(3):
                await guesser.refused("token_unknown")
        assert [hub.asked.count(guess) for hub in site.hubs.values()] == [1, 1, 0]
        codes = set()
        for _ in range(80):
            async with Program(site, token()) as guesser:
                status, told, answer = await guesser.ask()
                codes.add((status, told["code"]))
                if status == 429:
                    assert int(answer.headers["Retry-After"]) >= 1
        assert codes == {(401, "token_unknown"), (429, "too_many_tokens")}
        assert len(site.hubs["htc01"].asked) < 70
        # Who was known before is not kept waiting by whoever sits behind the same address.
        handled._clock = lambda: now + programs.BELIEVED - 20
        assert (await program.ask())[0] == 200


async def test_a_hub_that_does_not_say_makes_no_token_bad(site: Stand) -> None:
    site.hubs["htc01"].silent = True
    key = site.hubs["htc02"].gives(token(), "alice")
    async with logged_in(site):
        async with Program(site, key) as program:
            assert (await program.ask())[0] == 200
        async with Program(site, token()) as program:
            await program.refused("hub_down")
        handled = site.served.front.programs
        assert handled is not None
        async with Program(site, key) as program:
            assert (await program.ask())[0] == 200
            site.hubs["htc02"].silent = True
            now = handled._clock()
            handled._clock = lambda: now + programs.BELIEVED
            assert (await program.ask())[0] == 200  # for as long as the site lets known ones go on
            handled._clock = lambda: now + 200
            await program.refused("hub_down")


async def test_no_token_in_log_metrics_or_store(site: Stand) -> None:
    key = site.hubs["htc01"].gives(token(), "alice")
    unknown = token()
    async with logged_in(site) as person:
        for each in (key, unknown):
            async with Program(site, each) as program:
                await program.ask()
        page = await person.get(site.url + "/_hubgate/account")
    written = b"".join(site.lines) + repr(site.access).encode() + page.text.encode()
    kept = repr(vars(site.store)).encode()
    metrics = await site.served.front.metrics.render()
    for each in (key, unknown):
        for place in (written, kept, metrics):
            assert each.encode() not in place
    assert b'hubgate_api_tokens_total{outcome="ok"} 1.0' in metrics
    assert b'hubgate_api_tokens_total{outcome="token_unknown"} 1.0' in metrics
    handled = site.served.front.programs
    assert handled is not None

    async def forgotten() -> bool:
        return not any(program.token for program in handled._programs.values())

    await eventually(forgotten, within=20)


async def test_the_account_page_tells_the_owner_and_nobody_else(site: Stand) -> None:
    key = site.hubs["htc02"].gives(token(), "alice")
    async with logged_in(site) as alice, logged_in(site, "bob") as bob, Program(site, key) as program:
        page = await alice.get(site.url + "/_hubgate/account")
        assert "No program has used one lately." in page.text
        assert (await program.ask())[0] == 200
        page = await alice.get(site.url + "/_hubgate/account")
        assert "API token <bdi>a0</bdi>" in page.text
        assert "htc02" in page.text
        assert f'href="{site.url}/htc/hub/token"' in page.text
        page = await bob.get(site.url + "/_hubgate/account")
        assert "<bdi>a0</bdi>" not in page.text


async def test_groups_that_change_at_the_provider(site: Stand) -> None:
    """Renewed tokens of a session tell; an open socket of a program in a pool that is theirs no longer is closed."""
    key = site.hubs["hpc01"].gives(token(), "alice")
    handled = site.served.front.programs
    assert handled is not None
    async with (
        logged_in(site),
        Program(site, key) as program,
        program.session.ws_connect(site.url + SOCKET.replace("htc", "hpc"), headers=program.headers) as wire,
    ):
        await wire.send_str("hello")
        assert (await wire.receive(timeout=20)).data == "hello"
        (live,) = (each.live for each in handled._programs.values())
        identity = live.session.identity
        assert user_key(identity) == live.user_key
        left = Identity(identity.issuer, identity.subject, identity.username, groups=("htc-users",))
        await handled._standings.learn(left)
        assert (await wire.receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
        await program.refused("group_missing", API.replace("htc", "hpc"))


async def test_a_pool_that_is_somebodys_no_longer_after_a_reload(site: Stand) -> None:
    """Of the process that is left, too, what is open is closed; what is open in other pools is not."""
    keys = {pool: site.hubs[f"{pool}01"].gives(token(), "alice") for pool in ("htc", "hpc")}
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(logged_in(site))
        wires = {}
        for pool, key in keys.items():
            program = await stack.enter_async_context(Program(site, key))
            path = SOCKET.replace("htc", pool)
            wires[pool] = await stack.enter_async_context(
                program.session.ws_connect(site.url + path, headers=program.headers)
            )
        assert site.served.obey({"hpc": ("staff",)}) == 1
        assert (await wires["hpc"].receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
        await wires["htc"].send_str("hello")
        assert (await wires["htc"].receive(timeout=20)).data == "hello"
        # And nothing that was about to be opened is.
        async with Program(site, keys["hpc"]) as program:
            with contextlib.suppress(aiohttp.ClientError):
                async with program.session.ws_connect(site.url + path, headers=program.headers) as late:
                    assert (await late.receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
        assert site.served.count_tunnels() == 1


async def test_somebody_who_was_disabled_while_nobody_was_logged_in(site: Stand) -> None:
    """No session whose tokens could be refused: so the provider is asked about whose programs are at work."""
    handled = site.served.front.programs
    assert handled is not None
    disabled: set[str] = set()
    asked: list[str] = []

    async def lets_in(subject: str, *, since: int = 0) -> bool:
        asked.append(subject)
        return subject not in disabled

    handled._lets_in = lets_in
    key = site.hubs["htc01"].gives(token(), "alice")
    async with (
        logged_in(site),
        Program(site, key) as program,
        program.session.ws_connect(site.url + SOCKET, headers=program.headers) as wire,
    ):
        await wire.send_str("hello")
        assert (await wire.receive(timeout=20)).data == "hello"

        async def was_asked() -> bool:
            return bool(asked)

        await eventually(was_asked, within=20)
        disabled.update(asked)
        handled._asked_about.clear()  # five minutes later
        assert (await wire.receive(timeout=20)).type is not aiohttp.WSMsgType.TEXT
        await program.refused("token_owner_away")
    assert "owner_disabled" in [line["outcome"] for line in audited(site)]


async def test_the_provider_says_that_a_person_is_out(site: Stand) -> None:
    """Back-channel logout by `sub`: not one session of theirs, but they."""
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), Program(site, key) as program:
        assert (await program.ask())[0] == 200
        page = await told(site, signed(site, claims(site, sid=None)))
        assert page.status == 200, page

        async def is_out() -> bool:
            return (await program.ask())[1].get("code") == "token_owner_away"

        await eventually(is_out, within=20)


async def test_alices_token_at_bobs_path_is_alices(site: Stand) -> None:
    """Whether she may is the hub's to say; what goes there says nothing of bob, who is logged in as well."""
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), logged_in(site, "bob"), Program(site, key) as program:
        for path in ("/htc/user/bob/api/contents/secret", "/htc/hub/api/users/bob/tokens"):
            assert (await program.ask(path))[0] == 200
            received = got(site)
            assert received.values("Authorization") == [f"token {key}"]
            assert received.values("Cookie") == []
            assert received.lookalikes("REMOTE_USER") == []
            assert (site.access[-1][0].user, site.access[-1][0].auth) == ("alice", "token")


async def test_a_token_that_one_pool_knows_is_nobodys_in_another(site: Stand) -> None:
    """What is remembered of one hub or pool is never believed of another."""
    key = site.hubs["htc01"].gives(token(), "alice")
    async with logged_in(site), logged_in(site, "bob"), Program(site, key) as program:
        assert (await program.ask())[0] == 200
        await program.refused("token_unknown", API.replace("htc", "hpc"))
        assert (await program.ask())[0] == 200
        # Two hubs gave out the same one, to different people: each is right about itself.
        both = site.hubs["htc02"].gives(token(), "alice")
        site.hubs["hpc01"].gives(both, "bob")
        async with Program(site, both) as other:
            assert (await other.ask())[0] == 200
            await other.refused("group_missing", API.replace("htc", "hpc"))  # bob's, who has no such group
            assert (await other.ask())[0] == 200
            assert (site.access[-1][0].user, site.access[-1][0].upstream) == ("alice", "htc02")


@pytest.mark.parametrize(
    "says",
    [
        (200, b"welcome"),
        (200, b"[]"),
        (200, b'"alice"'),
        (200, b'{"kind": "user"}'),
        (200, b'{"kind": "user", "name": ["alice"]}'),
        (200, b'{"kind": "user", "name": "alice", "groups": ["' + b"x" * 1024 * 1024 + b'"]}'),
        (204, b""),
        (302, b""),
        (503, b'{"kind": "user", "name": "alice"}'),
    ],
    ids=lambda says: f"{says[0]} {says[1][:30].decode()}",
)
async def test_a_hub_that_answers_nonsense_lets_nobody_in(site: Stand, says: tuple[int, bytes]) -> None:
    for hub in site.hubs.values():
        hub.says = says
    async with logged_in(site), Program(site, token()) as program:
        assert (await program.refused("hub_down")).status == 503


async def test_a_hub_that_lies_takes_no_token_away_from_another(site: Stand) -> None:
    """One that calls every token alice's gets those that nobody else knew, and no more of alice than they had."""
    known = site.hubs["htc02"].gives(token(), "alice")
    async with logged_in(site), Program(site, known) as program, Program(site, token()) as stranger:
        assert (await program.ask())[1]["upstream"] == "htc02"
        site.hubs["htc01"].says = (200, b'{"kind": "user", "name": "alice", "token_id": "a1"}')
        handled = site.served.front.programs
        assert handled is not None
        now = handled._clock() + programs.BELIEVED
        handled._clock = lambda: now
        assert (await program.ask())[1]["upstream"] == "htc02"
        assert (await stranger.ask())[1]["upstream"] == "htc01"
        await stranger.refused("token_unknown", API.replace("htc", "hpc"))
        # Somebody who isn't there can't be made up.
        site.hubs["htc01"].says = (200, b'{"kind": "user", "name": "root"}')
        async with Program(site, token()) as other:
            await other.refused("token_owner_away")


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 7,
        b"x" * 513,
        b"x" * 7000,
        b"\xff\xfe" * 16,
        "töken-töken".encode(),
        b"abcdefgh ijklmnop",
        b"abcdefgh\tijklmnop",
        b"abcdefgh\xa0ijklmnop",
        b"token abcdefghijklmnop",
        b"../../users/alice\x7f",
    ],
    ids=lambda value: f"{len(value)} {value[:12]!r}",
)
@pytest.mark.parametrize("scheme", [b"token", b"Bearer"])
async def test_a_token_with_odd_bytes_is_shown_to_no_hub(site: Stand, scheme: bytes, value: bytes) -> None:
    async with logged_in(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
        host = site.url.partition("://")[2].encode()
        writer.write(
            b"GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s %s\r\nConnection: close\r\n\r\n"
            % (API.encode(), host, scheme, value)
        )
        answer = await reader.read()
        writer.close()
        assert int(answer.split()[1]) in {400, 401, 431}
        assert value not in answer
    assert not site.received()
    assert not any(hub.asked for hub in site.hubs.values())


async def test_a_guesser_slows_down_nobody_elsewhere() -> None:
    def behind_a_proxy(document: dict[str, Any]) -> None:
        takes_tokens(document)
        document["gateway"]["trusted_proxies"] = ["127.0.0.1"]

    async with stand(behind_a_proxy) as site, logged_in(site):
        handled = site.served.front.programs
        assert handled is not None
        now = time.time()
        handled._clock = lambda: now
        there, elsewhere = {"X-Forwarded-For": "192.0.2.66"}, {"X-Forwarded-For": "198.51.100.7"}
        while (await ask_once(site, token(), there))[0] != 429:
            continue
        new = site.hubs["htc01"].gives(token(), "alice")
        assert (await ask_once(site, new, there))[0] == 429, "which it is nobody can know"
        assert (await ask_once(site, new, elsewhere))[0] == 200
        assert (await ask_once(site, new, there))[0] == 200, "known by now"
        assert (await ask_once(site, token(), elsewhere))[0] == 401


async def ask_once(site: Stand, key: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with Program(site, key, **headers) as program:
        status, told, _ = await program.ask()
        return status, told
