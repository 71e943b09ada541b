"""How long a login lives, and that neither a restart nor new secrets end it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from typing import Any

from aiohttp import web

from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import Background, eventually
from tests.kit.person import NAVIGATION
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, EchoHub, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]


class CookieHub(EchoHub):
    """A hub that logs people in by cookies, and tells how often."""

    def __init__(self, background: Background, name: str, **options: Any) -> None:
        self.logins = 0
        super().__init__(background, name, **options)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = await super()._answer(request)
        if request.path.endswith("/hub/home") and "jupyterhub-hub-login" not in request.cookies:
            self.logins += 1
            response.set_cookie("jupyterhub-hub-login", f"{self.name}-{self.logins}", path="/htc/hub/", httponly=True)
            response.set_cookie("jupyterhub-session-id", f"session-{self.logins}", path="/htc/", httponly=True)
        return response

    def seen(self) -> dict[str, str]:
        """The cookies of the last request."""
        fields = "; ".join(self.received[-1].values("Cookie"))
        return dict(part.split("=", 1) for part in fields.split("; ") if part)


async def _ended(somebody: Visitor) -> bool:
    return (await somebody.fetch("/htc/hub/api/poll")).status == 401


async def ended_kindly(scene: Scene, somebody: Visitor, hub: CookieHub) -> None:
    """What somebody meets whose session has met a limit, and how they go on."""
    told = await somebody.fetch("/htc/hub/api/x", method="POST", data=b"x")
    document = json.loads(told.text)
    assert (told.status, document["code"]) == (401, "session_required")
    assert "your session has ended" in document["detail"]
    assert document["login_url"].startswith(somebody.at("/_hubgate/login"))
    # A form of the hub's is answered by a page, and not lost in a redirect.
    page = await somebody.browser.request("POST", somebody.at("/htc/hub/spawn"), data={"a": "b"}, headers=NAVIGATION)
    assert page.status == 401
    assert "Your notebooks and files are not affected" in page.text
    assert "Log in again" in page.text
    page = await somebody.get()
    assert page.status == 302
    assert page.headers["Location"].startswith("/_hubgate/login?next=")
    # Nothing was taken away: the hub's own session goes on where it was, at the same hub.
    kept = somebody.browser.cookies(somebody.at("/htc/hub/home"))
    assert {"jupyterhub-hub-login", "jupyterhub-session-id", "hubgate-at-htc"} <= set(kept)
    before, logins = len(hub.received), hub.logins
    page = await somebody.browser.login(somebody.at("/htc/hub/home"), somebody.user)
    assert (page.status, page.url) == (200, somebody.at("/htc/hub/home"))
    assert len(hub.received) == before + 1
    assert hub.logins == logins
    assert hub.seen()["jupyterhub-hub-login"].endswith(f"-{logins}")
    after = somebody.browser.cookies(somebody.at("/htc/hub/home"))
    assert after.pop("hubgate") != kept.pop("hubgate")
    assert after == kept


async def test_idle_sessions_end_with_their_sockets_and_polls_are_no_person(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    hub = CookieHub(scene.background, "htc01")
    gateway = scene.gateway(pool("htc", hub), session={"idle": "8s", "max": "1h"}, store_url=fresh_redis.url)
    began = time.monotonic()
    active, idle = await scene.logged_in(gateway), await scene.logged_in(gateway)
    open_, left = await active.socket(), await idle.socket()

    async def ended() -> bool:
        assert (await active.get()).status == 200
        # A page that was left open asks and asks.
        return await _ended(idle)

    await eventually(ended, within=8 + SOON, every=0.2, what="the end of who is idle")
    assert time.monotonic() - began > 7  # limits are kept to a second
    assert await left.ended(SOON)
    assert await open_.echoes()
    await ended_kindly(scene, idle, hub)
    # Whoever goes on working elsewhere meanwhile was not disturbed.
    assert (await active.get()).status == 200


async def test_the_longest_session_ends_however_busy_it_is(scene: Scene) -> None:
    hub = CookieHub(scene.background, "htc01")
    gateway = scene.gateway(pool("htc", hub), session={"idle": "8s", "max": "8s"})
    began = time.monotonic()
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()

    async def busy() -> bool:
        page = await somebody.get()
        assert page.status in {200, 302}
        return page.status == 302

    await eventually(busy, within=8 + SOON, every=0.2, what="the end")
    assert time.monotonic() - began > 7  # limits are kept to a second
    assert await wire.ended(SOON)
    await ended_kindly(scene, somebody, hub)


async def test_who_works_at_one_gateway_is_not_idle_at_the_other(scene: Scene, fresh_redis: RedisServer) -> None:
    balancer, (first, second) = scene.balanced(
        2, pool("htc", scene.hub("htc01")), session={"idle": "8s", "max": "1h"}, store_url=fresh_redis.url
    )
    somebody = await scene.logged_in(first)
    balancer.choose(second)
    elsewhere = await somebody.again()
    wire = await elsewhere.socket()
    assert second.events("serving")
    balancer.choose(first)
    began = time.monotonic()
    while time.monotonic() < began + 11:
        assert (await somebody.get()).status == 200
        assert await wire.echoes()
        await asyncio.sleep(0.2)


OLD, NEW = "the old secret, which is long enough for a key", "the new secret, which is long enough for a key"


def with_keys(gateway: RunningGateway, *keys: str) -> None:
    """Stop, write other `secret_keys` into its configuration, start."""
    gateway.stop()
    text, count = re.subn(r"(?m)^secret_keys = .*$", f"secret_keys = {json.dumps(keys)}", gateway.config.read_text())
    assert count == 1
    gateway.config.write_text(text)
    gateway.start()
    gateway.listening()
    gateway.ready()


async def key_ids(somebody: Visitor) -> set[str]:
    """Of the keys that hubs are told to verify with."""
    page = await somebody.get("/_hubgate/jwks.json")
    return {str(key["kid"]) for key in json.loads(page.text)["keys"]}


def signed_by(hub: EchoHub) -> str:
    """The id of the key that signed the last assertion."""
    (assertion,) = next(each for each in reversed(hub.received) if "/hub/" in each.target).values("X-Hubgate-Assertion")
    head = assertion.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


async def test_new_secrets_log_nobody_out(scene: Scene, fresh_redis: RedisServer) -> None:
    one, two = CookieHub(scene.background, "htc01"), CookieHub(scene.background, "htc02")
    hubs = {"htc01": one, "htc02": two}
    gateway = scene.gateway(pool("htc", one, two), store_url=fresh_redis.url, gateway={"secret_keys": [OLD]})
    somebody = await scene.logged_in(gateway)
    home = hubs[await somebody.hub()]
    await somebody.get()
    given = home.seen()["jupyterhub-hub-login"]
    cookies = somebody.browser.cookies(somebody.at("/htc/hub/home"))
    first = signed_by(home)
    assert await key_ids(somebody) == {first}
    landing = await somebody.browser.get(somebody.at("/"))
    logins = one.logins, two.logins

    for keys in ([NEW, OLD], [OLD, NEW]):
        # A login that is under way while the gateway restarts is finished afterwards.
        late = scene.visitor(gateway)
        form_page = await late.browser.get(late.at("/htc/hub/home?late"))
        form = form_page.form_with("password")
        assert form is not None
        with_keys(gateway, *keys)
        page = await somebody.get()
        assert page.status == 200, page
        assert json.loads(page.text)["upstream"] == home.name
        assert "Set-Cookie" not in page.headers
        assert home.seen()["jupyterhub-hub-login"] == given
        assert somebody.browser.cookies(somebody.at("/htc/hub/home")) == cookies
        assert (one.logins, two.logins) == logins
        assert await (await somebody.socket()).echoes()
        known = await key_ids(somebody)
        assert len(known) == 2
        # Those who verify need the new key before anything is signed with it, and the old one for a while after.
        assert (signed_by(home) == first) is (keys[-1] == OLD)
        assert {first, signed_by(home)} <= known
        page = await late.browser.submit(form_page, form, username=late.user.username, password=late.user.password)
        done = await late.browser._fill(page, late.user, password="", code="")
        assert done is not None
        assert (done.status, done.url) == (200, late.at("/htc/hub/home?late"))
        logins = one.logins, two.logins
    # A form that was shown long before is still good.
    form = next(form for form in landing.forms if form.action.endswith("/_hubgate/logout"))

    # The old secret is taken away when its sessions are over. Who has logged in since has nothing left under it.
    somebody.browser.session.cookie_jar.clear(lambda morsel: morsel.key == "hubgate")
    assert (await somebody.arrive()).status == 200
    with_keys(gateway, NEW)
    assert await key_ids(somebody) == {signed_by(home)}
    assert await somebody.hub() == home.name
    somebody.browser.session.cookie_jar.clear(lambda morsel: morsel.key == "hubgate")
    page = await somebody.arrive()
    assert page.status == 200, page
    assert await somebody.hub() == home.name
    assert form.fields["csrf"]


async def test_gateways_that_differ_in_their_secrets_never_take_anybody_for_a_stranger(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    balancer, (first, second) = scene.balanced(
        2, pool("htc", scene.hub("htc01")), store_url=fresh_redis.url, gateway={"secret_keys": [NEW, OLD]}
    )

    async def both_know_everybody() -> None:
        for one, other in ((first, second), (second, first)):
            balancer.choose(one)
            somebody = await scene.logged_in(one)
            balancer.choose(other)
            elsewhere = await somebody.again()
            assert await elsewhere.hub() == "htc01"

    # The second step, half-way.
    with_keys(first, OLD, NEW)
    await both_know_everybody()
    # A mistake: what one seals with, the other doesn't know. It says that it can't tell, and takes nothing away.
    with_keys(second, OLD)
    balancer.choose(first)
    somebody = await scene.logged_in(first)
    before = somebody.cookies
    balancer.choose(second)
    elsewhere = await somebody.again()
    page = await elsewhere.get()
    assert page.status == 503, page
    assert "Nobody is logged out by that" in page.text
    assert "Set-Cookie" not in page.headers
    assert elsewhere.cookies == before
    assert any("secret_keys" in line.get("fault", "") for line in second.events("request_refused"))
    assert await somebody.hub() == "htc01"
    # The first step, half-way.
    with_keys(first, NEW, OLD)
    await both_know_everybody()
