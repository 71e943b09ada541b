"""Edges of the gateway: TLS towards browsers and hubs, proxies in front, the operator's port, what is written down."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import eventually
from tests.kit.certificates import Authority
from tests.kit.person import Person
from tests.kit.running import SECRET_KEY, RunningGateway
from tests.kit.scene import SOON, EchoHub, Scene, Visitor, pool

pytest_plugins = ["tests.kit.scene_fixtures"]

MIB = 1 << 20


def the_cookie(somebody: Visitor, name: str) -> Mapping[str, str]:
    """A cookie with its attributes, as the browser keeps it."""
    return next(morsel for morsel in somebody.browser.session.cookie_jar if morsel.key == name)


async def test_https_with_a_certificate_of_its_own_and_sockets_over_it(scene: Scene, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    url = f"https://localhost:{free_ports(1)[0]}"
    hub = scene.hub("htc01")
    gateway = scene.gateway(
        pool("htc", hub), public_url=url, tls={"certificate": issued.certificate, "key": issued.key}
    )
    somebody = await scene.logged_in(gateway, ssl=authority.trusting())
    told = hub.received[-1]
    assert told.values("X-Forwarded-Proto") == ["https"]
    assert told.values("Host") == [url.removeprefix("https://")]

    names = set(somebody.cookies)
    assert {"__Host-hubgate", "__Host-hubgate-at-htc"} <= names
    for name in names:
        assert name.startswith("__Host-hubgate")
        cookie = the_cookie(somebody, name)
        # What a browser demands of the prefix (RFC 6265bis, 4.1.3.2), and what keeps scripts out.
        assert cookie["secure"]
        assert cookie["path"] == "/"
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
    page = await somebody.get("/")
    assert page.headers["Strict-Transport-Security"]
    set_cookies = [line for step in page.trail for line in step.headers.getall("Set-Cookie", [])]
    assert not any("domain=" in line.lower() for line in set_cookies)

    wire = await somebody.socket()
    assert await wire.echoes()
    for size in (1, 125, 126, 65536, 3 * MIB):
        await wire.ws.send_bytes(b"\x5a" * size)
        assert await wire.ws.receive_bytes(timeout=20) == b"\x5a" * size
    body = bytes(range(256)) * (8 * MIB // 256)
    page = await somebody.fetch(method="PUT", data=body)
    assert json.loads(page.text)["length"] == len(body)
    assert hub.received[-1].body == body

    # Nobody is served in the clear, and whoever tries harms nobody.
    async with Person() as plain:
        with pytest.raises(aiohttp.ClientError):
            await plain.fetch(url.replace("https://", "http://"))
    async with Person(ssl=ssl.create_default_context()) as distrustful:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await distrustful.fetch(url)
    assert await wire.echoes()
    page = await somebody.log_out()
    assert page.url.startswith(url + "/_hubgate/logged-out")
    assert await wire.ended(SOON)
    assert "__Host-hubgate" not in somebody.cookies
    assert not [line for line in gateway.lines() if line.get("level") in {"error", "critical"}]


async def test_hubs_by_https_with_their_own_authority_and_our_certificate(scene: Scene, tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path), Authority(tmp_path, "somebody else")
    shown = ours.issue("gateway", client=True)
    proof = {"certificate": shown.certificate, "key": shown.key}

    def hub(name: str) -> EchoHub:
        made = scene.hub(name, tls=ours.serving("localhost", clients=True))
        made.url = made.place.url("localhost")
        return made

    good, mistaken, bare = hub("good"), hub("mistaken"), hub("bare")
    gateway = scene.gateway(
        pool("good", good.entry(ca=ours.file, **proof)),
        pool("mistaken", mistaken.entry(ca=foreign.file, **proof)),
        pool("bare", bare.entry(ca=ours.file)),
    )
    somebody = await scene.logged_in(gateway, "/good/hub/home")
    assert await somebody.hub("/good/hub/home") == "good"
    assert good.received[-1].values("REMOTE_USER") == [somebody.user.username]
    wire = await somebody.socket("/good/user/x/api/kernels/k/channels")
    await wire.ws.send_bytes(b"\x5a" * MIB)
    assert await wire.ws.receive_bytes(timeout=20) == b"\x5a" * MIB
    page = await somebody.fetch("/good/hub/api/x", method="PUT", data=b"y" * 4 * MIB)
    assert json.loads(page.text)["length"] == 4 * MIB

    # A hub that we don't trust, or that doesn't trust us, is down: nothing of the person ever gets there.
    for name, made in (("mistaken", mistaken), ("bare", bare)):
        page = await somebody.get(f"/{name}/hub/home")
        assert page.status == 503, page
        assert "No hub is available right now" in page.text
        assert made.received == []

    async def reasons() -> dict[str, str]:
        found = {event["upstream"]: event["reason"] for event in gateway.events("upstream_condition")}
        return found if len(found) > 1 else {}

    told = await eventually(reasons, within=SOON, what="the reasons")
    assert "certificate" in told["mistaken"].lower()
    assert set(told) == {"mistaken", "bare"}


TRUSTED = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]


WHO_ASKED: list[tuple[list[str], str]] = [
    ([], "127.0.0.1"),
    (["203.0.113.9"], "203.0.113.9"),
    # What the client itself wrote stands on the left of what proxies added, and is not believed.
    (["198.51.100.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
    (["198.51.100.1", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
    (["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
    (["2001:db8::7, fd00::1"], "2001:db8::7"),
    (["203.0.113.9, rubbish<script>"], "127.0.0.1"),
]
"""Fields of X-Forwarded-For, and whom they mean to a gateway that trusts `TRUSTED`."""


async def test_who_asked_is_read_from_trusted_proxies_and_nobody_else(scene: Scene) -> None:
    hub = scene.hub("htc01")
    believing = scene.gateway(pool("htc", hub), gateway={"trusted_proxies": TRUSTED})
    doubting = scene.gateway(pool("htc", hub))
    for gateway in (believing, doubting):
        somebody = await scene.logged_in(gateway)
        expected: dict[str, str] = {}
        for number, (given, client) in enumerate(WHO_ASKED):
            path = f"/htc/hub/api/{number}"
            expected[path] = client if gateway is believing else "127.0.0.1"
            headers = [("X-Forwarded-For", value) for value in given]
            async with somebody.browser.session.get(somebody.at(path), headers=headers) as response:
                assert response.status == 200
            got = hub.received[-1]
            assert (got.target, got.values("X-Forwarded-For")) == (path, [expected[path]])
        # The access log tells the same.
        await eventually(partial(_written, gateway, expected), within=SOON, what="the lines of the access log")


async def _written(gateway: RunningGateway, expected: Mapping[str, str]) -> bool:
    lines = [line for line in gateway.lines() if line.get("log") == "access"]
    return {line["path"]: line["client"] for line in lines if line["path"] in expected} == expected


async def test_the_operators_port_tells_how_it_is_and_the_public_one_does_not(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    one, two = scene.hub("htc01"), scene.hub("htc02")
    two.place.down()
    gateway = scene.gateway(pool("htc", one, two), store_url=fresh_redis.url, gateway={"workers": 2})
    somebody = await scene.logged_in(gateway)
    wire = await somebody.socket()
    assert await wire.echoes()
    for _ in range(5):
        assert (await somebody.fetch()).status == 200
    await somebody.fetch("/htc/nowhere/%2e%2e/x")
    async with Person() as operator:
        assert (await operator.fetch(f"{gateway.ops_url}/healthz")).text == "ok\n"
        ready = await operator.fetch(f"{gateway.ops_url}/readyz")
        assert (ready.status, json.loads(ready.text)) == (200, {"ready": True, "missing": {}})
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await operator.fetch(gateway.url + path)).status == 404
        assert (await operator.fetch(f"{gateway.ops_url}/htc/hub/home")).status == 404

        expected = {
            'hubgate_tunnels_open{pool="htc"}': 1,
            'hubgate_logins_total{outcome="ok"}': 1,
            'hubgate_requests_total{pool="htc",status="1xx",upstream="htc01"}': 1,
            'hubgate_upstream_up{pool="htc",upstream="htc01"}': 1,
            'hubgate_upstream_up{pool="htc",upstream="htc02"}': 0,
        }
        at_least = (
            'hubgate_request_duration_seconds_count{pool="htc"}',
            'hubgate_requests_total{pool="htc",status="2xx",upstream="htc01"}',
        )

        async def counted() -> bool:
            """Whether the metrics say so, once the worker that isn't asked has settled what it counted, too."""
            text = (await operator.fetch(f"{gateway.ops_url}/metrics")).text
            assert somebody.user.username not in text
            found = {
                name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
            }
            return expected.items() <= found.items() and all(found.get(name, 0) >= 6 for name in at_least)

        await eventually(counted, within=SOON, what="six requests, a login and a tunnel in the metrics")


async def test_what_is_written_down_holds_no_secret(scene: Scene, fresh_redis: RedisServer) -> None:
    hub = scene.hub("htc01")
    api_token = "a-token-of-a-service-at-the-hub"
    gateway = scene.gateway(
        pool("htc", hub.entry(api_token=api_token)), store_url=fresh_redis.url, log={"level": "debug"}
    )
    secrets = {SECRET_KEY, fresh_redis.password, api_token, scene.provider.client_secret}
    urls: list[str] = []

    async def pass_through(somebody: Visitor) -> None:
        page = await somebody.arrive("/htc/hub/home?token=a-token-in-an-address")
        urls.extend(step.url for step in page.trail)
        secrets.update(somebody.cookies.values())

    somebody, other = scene.visitor(gateway), scene.visitor(gateway)
    await pass_through(somebody)
    await pass_through(other)
    secrets.add(hub.received[-1].values("X-Hubgate-Assertion")[0])
    secrets.update(user.password for user in (somebody.user, other.user))
    secrets.update(user.totp_key for user in (somebody.user, other.user))
    credential = {"Authorization": "Bearer a-credential-of-a-program", "X-XSRFToken": "a-token-of-a-form"}
    await somebody.fetch(headers=credential)
    await somebody.socket(headers=credential)
    # And everything that goes wrong.
    scene.provider.mood = "broken"
    late = scene.visitor(gateway)
    page = await late.browser.login(late.at("/"), late.user)
    urls.extend(step.url for step in page.trail)
    scene.provider.mood = "well"
    await somebody.get("/_hubgate/callback?code=a-code-made-up&state=a-state-made-up")
    await somebody.get("/htc/..%2f/?password=a-password-in-an-address")
    hub.place.down()
    await somebody.get("/htc/user/x/?token=a-token-for-a-hub-that-is-down")
    fresh_redis.kill()
    stranger = scene.visitor(gateway)
    forged = "A" * 43
    await stranger.fetch("/htc/hub/api/x?code=a-code-in-an-outage", headers={"Cookie": f"hubgate={forged}"})
    await other.log_out()
    gateway.stop()

    secrets.add(forged)
    for url in urls:
        for name, value in parse_qsl(urlsplit(url).query):
            if name in {"code", "state", "nonce", "token", "code_challenge", "execution", "tab_id", "id_token_hint"}:
                secrets.add(value)
    output = gateway.output()
    assert len(secrets) > 15
    assert somebody.user.username in output
    assert not [secret for secret in secrets if secret in output]
    assert not re.findall(r"a-(?:token|code|state|credential|password)-[a-z-]+", output)
    assert "eyJ" not in output
    # Each line is a whole one, whoever wrote it.
    for line in output.splitlines():
        assert json.loads(line)["log"] in {"gateway", "access", "audit"}


async def test_the_process_shows_no_secret_to_other_users_of_the_machine(
    scene: Scene, fresh_redis: RedisServer
) -> None:
    gateway = scene.gateway(pool("htc", scene.hub("htc01")), store_url=fresh_redis.url)
    shown = await asyncio.to_thread(Path(f"/proc/{gateway.pid}/cmdline").read_text)
    for secret in (SECRET_KEY, fresh_redis.password, scene.provider.client_secret):
        assert secret not in shown
