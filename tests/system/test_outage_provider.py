"""The identity provider goes away: whoever is logged in goes on, whoever comes is told, and nothing needs a restart."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from hubgate.ops.demo.child import answers
from tests.kit.background import Background, Relay, eventually
from tests.kit.embedded import Mood
from tests.kit.person import Page, Person
from tests.kit.provider import KeycloakProvider
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]


def kind(page: Page, *statuses: int) -> None:
    """A page for a person: says what to do and carries its request id; no machine speaks from it."""
    assert page.status in (statuses or (503,)), page
    assert "The login service" in page.text
    assert "What you can do" in page.text
    assert re.search(r'<code class="request-id">[0-9a-f]+-[0-9a-f]+</code>', page.text), page
    assert "Traceback" not in page.text
    assert "no-store" in page.headers["Cache-Control"]


async def logs_in(scene: Scene, gateway: RunningGateway) -> bool:
    """Whether somebody new gets in."""
    return (await scene.visitor(gateway).arrive()).status == 200


async def goes_on(somebody: Visitor) -> None:
    """Pages, scripts and sockets of a person who is logged in."""
    assert (await somebody.get("/")).status == 200
    assert await somebody.hub() == "htc01"
    assert (await somebody.fetch(method="POST", data=b"x")).status == 200


async def test_who_is_logged_in_goes_on_and_logins_work_again_by_themselves(scene: Scene) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")))
    somebody = await scene.logged_in(gateway)
    socket = await somebody.socket()
    scene.provider.place.down()
    await goes_on(somebody)
    assert await socket.echoes()
    stranger = scene.visitor(gateway)
    page = await eventually(lambda: refused(stranger), within=SOON, what="the page that says so")
    kind(page)
    assert int(page.headers["Retry-After"]) > 0
    assert "hubgate" not in stranger.cookies
    # A script is told in its own way, and sent nowhere.
    assert (await stranger.fetch()).status == 401
    scene.provider.place.up()
    # The page's own way on, in the same browser.
    await eventually(lambda: _arrives(stranger), within=SOON, what="the login")
    assert await socket.echoes()
    assert somebody.cookies["hubgate"]
    assert gateway.alive


async def refused(stranger: Visitor) -> Page | None:
    """What somebody is told who comes to log in; None if they are still sent to the provider.

    That it was there two seconds ago is believed, so that a morning's logins don't each ask it.
    """
    page = await stranger.get("/_hubgate/login?next=/")
    return page if page.status != 302 else None


async def _arrives(somebody: Visitor) -> bool:
    page = await somebody.arrive()
    return page.status == 200 and page.url == somebody.at("/htc/hub/home")


async def test_log_out_ends_what_is_ours_and_says_what_is_left(scene: Scene) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")))
    somebody = await scene.logged_in(gateway)
    socket = await somebody.socket()
    stolen = somebody.cookies["hubgate"]
    landing = await somebody.browser.get(somebody.at("/"))
    scene.provider.place.down()
    form = next(form for form in landing.forms if form.action.endswith("/_hubgate/logout"))
    page = await somebody.browser.submit(landing, form)
    # Not into the browser's own "cannot connect".
    assert page.status == 200, page
    assert page.url.startswith(somebody.at("/_hubgate/logged-out"))
    assert "could not end your session at the login service" in page.text
    assert await socket.ended(SOON)
    assert "hubgate" not in somebody.cookies
    thief = scene.visitor(gateway)
    assert (await thief.fetch(headers={"Cookie": f"hubgate={stolen}"})).status == 401
    assert [line["outcome"] for line in gateway.events("logout")] == ["provider_session_open"]


async def test_log_out_does_not_wait_for_a_provider_that_hangs_and_asks_it_again_later(scene: Scene) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")))
    somebody = await scene.logged_in(gateway)
    socket = await somebody.socket()
    landing = await somebody.browser.get(somebody.at("/"))
    scene.provider.mood = "slow"
    form = next(form for form in landing.forms if form.action.endswith("/_hubgate/logout"))
    answer = asyncio.create_task(somebody.browser.submit(landing, form))
    assert await socket.ended(SOON), "what is ours ends at once"
    async with asyncio.timeout(SOON):  # the provider would take an hour
        page = await answer
    assert page.url.startswith(somebody.at("/_hubgate/logged-out"))
    assert "could not end your session at the login service" in page.text
    scene.provider.mood = "well"

    async def forgotten() -> bool:
        # The provider no longer knows this browser, and asks for the password again.
        somebody.browser.session.cookie_jar.clear(lambda morsel: morsel.key == "hubgate")
        page = await somebody.browser.get(somebody.at("/htc/hub/home"))
        return page.form_with("password") is not None

    await eventually(forgotten, within=SOON, every=1.0, what="the end of the provider's session")


@pytest.mark.parametrize(("mood", "statuses"), [("garbage", (502,)), ("broken", (503,)), ("lost", (502,))])
async def test_a_provider_that_talks_nonsense_is_told_as_such(
    scene: Scene, mood: Mood, statuses: tuple[int, ...]
) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")))
    somebody = await scene.logged_in(gateway)
    # Somebody is at the provider's form when it happens, and comes back to a gateway that can't finish the login.
    late = scene.visitor(gateway)
    page = await late.browser.get(late.at("/htc/hub/home"))
    form = page.form_with("password")
    assert form is not None
    page = await late.browser.submit(page, form, username=late.user.username, password=late.user.password)
    scene.provider.mood = mood
    code = await late.browser._fill(page, late.user, password="", code="")
    assert code is not None
    kind(code, *statuses)
    assert "hubgate" not in late.cookies
    assert "/_hubgate/callback" not in re.findall(r'href="([^"?]*)', code.text)
    await goes_on(somebody)
    scene.provider.mood = "well"
    await eventually(lambda: _arrives(late), within=SOON, what="the login")


@pytest.mark.parametrize("mood", ["garbage", "broken", "lost"])
async def test_a_gateway_starts_beside_a_provider_that_talks_nonsense(scene: Scene, mood: Mood) -> None:
    scene.provider.mood = mood
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), ready=False)
    assert not answers(f"{gateway.ops_url}/readyz")
    stranger = scene.visitor(gateway)
    kind(await stranger.browser.get(stranger.at("/")), 502, 503)
    scene.provider.mood = "well"
    await eventually(lambda: logs_in(scene, gateway), within=SOON, what="the login")
    assert answers(f"{gateway.ops_url}/readyz")


async def test_a_gateway_starts_while_the_provider_is_down(scene: Scene) -> None:
    scene.provider.place.down()
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), ready=False)
    assert answers(f"{gateway.ops_url}/healthz")
    async with Person() as probe:
        page = await probe.fetch(f"{gateway.ops_url}/readyz")
    assert page.status == 503
    assert list(json.loads(page.text)["missing"]) == ["oidc"]
    stranger = scene.visitor(gateway)
    kind(await stranger.browser.get(stranger.at("/htc/hub/home?x=1")))
    assert len(gateway.events("provider_unavailable")) == 1
    scene.provider.place.up()
    await eventually(lambda: _arrives(stranger), within=SOON, what="the login")
    # Without anybody's login, too: readiness is what a balancer waits for.
    assert answers(f"{gateway.ops_url}/readyz")


async def test_a_provider_that_never_answers_keeps_nobody_else_waiting(scene: Scene) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")))
    somebody = await scene.logged_in(gateway)
    leaver = await scene.logged_in(gateway)
    landing = await leaver.browser.get(leaver.at("/"))
    scene.provider.mood = "slow"

    async def told() -> Page:
        asking = partial(refused, scene.visitor(gateway))
        return await eventually(asking, within=SOON, every=0.5, what="the page that says so")

    waiting = [asyncio.create_task(told()) for _ in range(5)]
    form = next(form for form in landing.forms if form.action.endswith("/_hubgate/logout"))
    leaving = asyncio.create_task(leaver.browser.submit(landing, form))
    meanwhile = 0
    while not all(task.done() for task in (*waiting, leaving)):
        await goes_on(somebody)
        meanwhile += not any(task.done() for task in waiting)
        await asyncio.sleep(0.05)
    assert meanwhile > 1, "whoever had to wait would have waited as long as they did"
    for task in waiting:
        kind(task.result())
    assert leaving.result().url.startswith(leaver.at("/_hubgate/logged-out"))
    scene.provider.mood = "well"
    await eventually(lambda: logs_in(scene, gateway), within=SOON, what="the login")


@pytest.fixture
def keycloak_relay(background: Background, keycloak: KeycloakProvider) -> Iterator[Relay]:
    """The gateway's own way to the real Keycloak, which can be cut for it alone."""
    relay = Relay(background, int(keycloak.origin.rpartition(":")[2]))
    yield relay
    relay.cut()


async def test_a_real_keycloak_goes_away_and_comes_back(
    scene: Scene,
    keycloak: KeycloakProvider,
    keycloak_relay: Relay,
    gateway: Callable[..., RunningGateway],
) -> None:
    path = keycloak.issuer.removeprefix(keycloak.origin)
    running = gateway(
        pools=[pool("htc", scene.hub("htc01"))],
        provider=keycloak,
        oidc={"internal_url": f"http://127.0.0.1:{keycloak_relay.port}{path}"},
    )

    def visitor() -> Visitor:
        browser = Person(running.url, keycloak.origin)
        scene.people.append(Visitor(running, browser, keycloak.create_user(), running.url))
        return scene.people[-1]

    somebody, late = visitor(), visitor()
    assert (await somebody.arrive()).status == 200
    socket = await somebody.socket()
    page = await late.browser.get(late.at("/htc/hub/home"))
    form = page.form_with("password")
    assert form is not None
    page = await late.browser.submit(page, form, username=late.user.username, password=late.user.password)

    keycloak_relay.cut()
    await goes_on(somebody)
    assert await socket.echoes()
    # Who was on the way through Keycloak's forms finds the gateway unable to finish.
    back = await late.browser._fill(page, late.user, password="", code="")
    assert back is not None
    kind(back)
    assert "hubgate" not in late.cookies

    keycloak_relay.mend()
    # Keycloak knows them by now: no second password, no second code.
    page = await eventually(lambda: _page(late), within=SOON, what="the login")
    assert late.cookies["hubgate"]
    assert await socket.echoes()


async def _page(somebody: Visitor) -> Page | None:
    page = await somebody.browser.get(somebody.at("/htc/hub/home"))
    return page if page.status == 200 and page.url == somebody.at("/htc/hub/home") else None
