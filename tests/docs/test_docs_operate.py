"""docs/operate.md, followed by its letters on two gateways with one Redis: keys, backup, health, people in need."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubgate.config import Config
from hubgate.ops.demo import redis
from hubgate.ops.demo.child import Child, free_ports
from hubgate.ops.demo.settings import merged, to_toml
from tests.docs.letters import DOCS, blocks, follow, placed, typed
from tests.kit.background import eventually
from tests.kit.embedded import EmbeddedProvider
from tests.kit.phone import asks_for, enrolled, logged_in, with_password
from tests.kit.running import RunningGateway
from tests.kit.scene import SOON, Balancer, Scene, pool

pytest_plugins = ["tests.kit.scene_fixtures"]
pytestmark = [pytest.mark.redis, pytest.mark.site]
PAGE = "operate.md"


class Site:
    """Redis and secrets as docs/install.md leaves them, below `folder`, and a shell there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.places: dict[str, object] = {
            "/etc/hubgate": folder / "etc",
            "/etc/redis": folder / "redis-etc",
            "/var/lib/redis": folder / "redis",
            "/var/backups": folder,
            "127.0.0.1:6379": f"127.0.0.1:{self.port}",
        }
        (folder / "redis").mkdir()
        (folder / "redis-etc").mkdir()
        typed(placed(follow("install.md", "secrets"), self.places), cwd=folder)
        self.settings = folder / "redis-etc" / "redis.conf"
        system = f"bind 127.0.0.1\nport {self.port}\ndir {folder / 'redis'}\n"
        self.settings.write_text(system + placed(follow("install.md", "redis"), self.places))
        self.redis = Child("redis", log=folder / "redis.log")

    @property
    def store_url(self) -> dict[str, str]:
        return {"file": str(self.folder / "etc/secrets/store-url")}

    def start_redis(self) -> None:
        self.redis.launch([redis.executable(), str(self.settings)], cwd=self.folder / "redis")
        self.redis.wait_until(self._pongs, timeout=60)

    def _pongs(self) -> bool:
        try:
            return "PONG" in typed(placed(follow("install.md", "redis-works"), self.places), cwd=self.folder)
        except AssertionError:
            return False

    def type_(self, text: str, *, at: RunningGateway | None = None) -> str:
        """What is printed; `at`: the gateway that the page's addresses mean."""
        places = dict(self.places)
        if at is not None:
            places["/etc/hubgate/config.toml"] = at.config
            places["https://jupyter.example.org"] = at.url
            places["http://127.0.0.1:9090"] = at.ops_url
        return typed(placed(text, places), cwd=self.folder)

    def written(self, at: RunningGateway, fragment: str) -> None:
        """Lay a table of the page over a gateway's configuration."""
        where = placed(fragment.replace("secrets/", "/etc/hubgate/secrets/"), self.places)
        at.config.write_text(to_toml(merged(tomllib.loads(at.config.read_text()), tomllib.loads(where))))


@pytest.fixture
def laid_out(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.start_redis()
    yield site
    site.redis.stop()


def two_gateways(scene: Scene, site: Site, **options: object) -> tuple[Balancer, list[RunningGateway]]:
    key = {"secret_keys": [{"file": str(site.folder / "etc/secrets/hubgate-key")}]}
    return scene.balanced(
        2,
        pool("htc", scene.hub("htc01")),
        gateway=key,
        store_url="memory://",
        ready=False,
        store={"url": site.store_url},
        **options,  # type: ignore[arg-type]
    )


def reloaded(balancer: Balancer, gateways: list[RunningGateway]) -> Iterator[RunningGateway]:
    """Reload each as the page says, with people at it."""
    for at in gateways:
        balancer.choose(at)
        at.reload()
        yield at


def one_after_another(balancer: Balancer, gateways: list[RunningGateway]) -> Iterator[RunningGateway]:
    """Restart each as the page says. People are at the other one meanwhile, and at each when it is back."""
    first, second = gateways
    for at, other in ((first, second), (second, first)):
        balancer.choose(other)
        at.stop()
        at.start()
        at.listening()
        at.ready()
        balancer.choose(at)
        yield at


async def test_a_new_key_logs_nobody_out_and_the_old_one_can_be_taken_away(scene: Scene, laid_out: Site) -> None:
    balancer, gateways = two_gateways(scene, laid_out)
    earlier = await scene.logged_in(gateways[0])
    laid_out.type_(follow(PAGE, "new-key"))
    steps = [block.text for block in blocks(PAGE) if block.language == "toml" and "secret_keys" in block.text]
    assert len(steps) == 3
    for step in steps[:2]:
        for at in gateways:
            laid_out.written(at, step)
        for _ in reloaded(balancer, gateways):
            page = await (await earlier.again()).get("/htc/hub/home")
            assert page.status == 200, page
    assert '"kid"' in laid_out.type_(follow(PAGE, "jwks"), at=gateways[0])
    # A week later: nobody is left who has not logged in since.
    later = await scene.logged_in(gateways[1])
    (laid_out.folder / "etc/secrets/hubgate-key").unlink()
    for at in gateways:
        laid_out.written(at, steps[2])
    for _ in reloaded(balancer, gateways):
        page = await (await later.again()).get("/htc/hub/home")
        assert page.status == 200, page


async def test_a_change_is_checked_and_taken_over_while_people_work(scene: Scene, laid_out: Site) -> None:
    _, (at, _) = two_gateways(scene, laid_out)
    somebody = await scene.logged_in(at)
    wire = await somebody.socket()
    laid_out.written(at, '[[announcements]]\ntext = "The cafeteria is closed."')
    assert laid_out.type_(follow(PAGE, "check"), at=at).startswith("ok\n")
    at.reload()
    assert "The cafeteria is closed." in (await (await somebody.again()).get("/")).text
    assert await wire.echoes()


async def test_the_redis_password_is_changed_while_people_work(scene: Scene, laid_out: Site) -> None:
    balancer, gateways = two_gateways(scene, laid_out)
    somebody = await scene.logged_in(gateways[0])
    before = (laid_out.folder / "etc/secrets/store-url").read_text().strip()
    shell = "OLD=$(sed 's/^requirepass //' /etc/hubgate/secrets/redis-password.conf)\n"
    old = typed(placed(shell + 'printf %s "$OLD"', laid_out.places), cwd=laid_out.folder)
    laid_out.type_(follow(PAGE, "redis-password"))
    assert (laid_out.folder / "etc/secrets/store-url").read_text().strip() != before
    for _ in one_after_another(balancer, gateways):
        assert (await (await somebody.again()).get("/")).status == 200
    ask = """alias ask='redis-cli -u "$(cat /etc/hubgate/secrets/store-url)" --no-auth-warning'\n"""
    laid_out.type_(f"OLD={old}\n{ask}" + follow(PAGE, "redis-password-end"))
    refused = typed(f"redis-cli -u {before} ping || true", cwd=laid_out.folder)
    assert "PONG" not in refused
    assert (await (await somebody.again()).get("/")).status == 200


async def test_a_backup_brings_second_factors_back_and_no_session(scene: Scene, laid_out: Site) -> None:
    scene.provider = EmbeddedProvider(scene.background, second_factor=False)
    _, gateways = two_gateways(scene, laid_out, mfa={"mode": "gateway"})
    at = gateways[0]
    user = scene.provider.create_user()
    somebody = scene.visitor(at, user=user)
    phone, _, _ = await enrolled(somebody.browser, at.url + "/", user)
    laid_out.type_(follow(PAGE, "backup"))

    for each in gateways:
        each.stop()
    laid_out.redis.stop()
    laid_out.type_(follow(PAGE, "restore"))
    laid_out.start_redis()
    assert "Ended: 1 session," in laid_out.type_(follow(PAGE, "restored"), at=at)
    at.start()
    at.ready()
    assert (await somebody.fetch()).status == 401, "a session came back to life"
    somebody = scene.visitor(at, user=user)
    page = await logged_in(somebody.browser, at.url + "/", user, phone)
    assert page.url == at.url + "/", page

    # And the page's help: for somebody who must be out, or who has lost the phone.
    laid_out.places["ada"] = user.username
    assert user.username in laid_out.type_(follow(PAGE, "out"), at=at)
    assert (await somebody.fetch()).status == 401
    assert user.username in laid_out.type_(follow(PAGE, "lost-phone"), at=at)
    assert f"{user.username} is free" in laid_out.type_(follow(PAGE, "new-owner"), at=at)
    page = await with_password(scene.visitor(at, user=user).browser, at.url + "/", user)
    assert asks_for(page) == {"ticket"}


async def test_health_metrics_and_logs_are_where_the_page_says(scene: Scene, laid_out: Site) -> None:
    _, (at, _) = two_gateways(scene, laid_out)
    somebody = await scene.logged_in(at)
    assert "\nok\n" in laid_out.type_(follow(PAGE, "upgrade"), at=at)
    assert laid_out.type_(follow(PAGE, "ready"), at=at) == "ready\n"
    said = laid_out.type_(follow(PAGE, "vitals"), at=at)
    assert said.startswith("ok\n")
    told = (DOCS / PAGE).read_text()
    named = set(re.findall(r"hubgate_[a-z_]+", told))
    assert named
    assert [name for name in named if f"# TYPE {name.removesuffix('_total')}" not in said] == []
    assert 'hubgate_logins_total{outcome="ok"}' in said
    assert 'pool="portal",status="' in said

    page = await somebody.get("/nowhere")
    (number,) = re.findall(r"<code[^>]*>([0-9a-f]{8}-[0-9a-f]+)</code>", page.text)

    async def written() -> bool:
        return any(line.get("request_id") == number and "status" in line for line in at.lines())

    await eventually(written, within=SOON, what="the line of the access log")
    laid_out.places |= {"9d3c51aa-1f": number, "/var/log/hubgate.log": at.log}
    assert '"status": 404' in laid_out.type_(follow(PAGE, "find-request"))


def test_the_defaults_that_the_page_speaks_of_are_the_codes() -> None:
    fields = Config.model_fields
    assert fields["affinity"].annotation().lifetime == 7 * 86400  # type: ignore[misc]
    assert fields["limits"].annotation().stop_grace == 20  # type: ignore[misc]
