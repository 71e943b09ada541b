"""The gateway's own second factor with real processes: workers and replicas on one Redis, and what outlives them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from hubgate.ops.cli import main
from hubgate.ops.demo.realm import DemoUser
from hubgate.ops.demo.redis import RedisServer
from tests.kit.background import Background
from tests.kit.embedded import EmbeddedProvider
from tests.kit.person import Page, Person
from tests.kit.phone import asks_for, enrolled, logged_in, step_form, with_password
from tests.kit.running import RunningGateway
from tests.kit.scene import pool

pytest_plugins = ["tests.kit.scene_fixtures"]

Replicas = Callable[[], list[RunningGateway]]


@pytest.fixture
def provider(background: Background) -> EmbeddedProvider:
    """Asks for the password alone."""
    return EmbeddedProvider(background, second_factor=False)


@pytest.fixture
def replicas(gateway: Callable[..., RunningGateway], provider: EmbeddedProvider, fresh_redis: RedisServer) -> Replicas:
    """Two gateways of two workers each, on one Redis."""

    def start() -> list[RunningGateway]:
        return [
            gateway(
                pools=[pool("htc", {"name": "htc01", "url": "http://127.0.0.1:9"})],
                provider=provider,
                store_url=fresh_redis.url,
                mfa={"mode": "gateway", "issuer_label": "Example Lab"},
                gateway={"workers": 2},
            )
            for _ in range(2)
        ]

    return start


@pytest.fixture
async def browsers(provider: EmbeddedProvider) -> AsyncIterator[Callable[[RunningGateway], Person]]:
    """A new browser for each call."""
    async with contextlib.AsyncExitStack() as stack:
        people: list[Person] = []

        def open_one(at: RunningGateway) -> Person:
            people.append(Person(provider.origin, at.url))
            stack.push_async_callback(people[-1].session.close)
            return people[-1]

        yield open_one


async def _with_code(person: Person, page: Page, code: str) -> Page:
    return await person.submit(page, step_form(page, "code"), code=code)


def _let_in(person: Person, at: RunningGateway) -> bool:
    return "hubgate" in person.cookies(at.url)


async def test_a_code_is_good_once_for_all_replicas_and_survives_restarts(
    replicas: Replicas,
    provider: EmbeddedProvider,
    fresh_redis: RedisServer,
    browsers: Callable[[RunningGateway], Person],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateways = replicas()
    user: DemoUser = provider.create_user()
    phone, codes, _ = await enrolled(browsers(gateways[0]), gateways[0].url + "/", user)
    assert len(codes) == 10

    for _ in range(2):
        places = gateways * 2  # six tries that are wrong in the end, all from one address, which has eight
        people = [browsers(at) for at in places]
        pages = [await with_password(each, at.url + "/", user) for each, at in zip(people, places, strict=True)]
        code = await phone.code()
        await asyncio.gather(*(_with_code(each, page, code) for each, page in zip(people, pages, strict=True)))
        assert sum(_let_in(each, at) for each, at in zip(people, places, strict=True)) == 1

    assert not [line for at in gateways for line in at.events("store_advice")], "this Redis is as it should be"
    await asyncio.to_thread(fresh_redis.stop)
    await asyncio.to_thread(fresh_redis.start)
    await asyncio.to_thread(fresh_redis.ready)
    for at in gateways:
        await asyncio.to_thread(at.stop)
    at = replicas()[0]
    somebody = browsers(at)
    page = await with_password(somebody, at.url + "/", user)
    assert asks_for(page) == {"code", "recovery"}, "the password alone leads to no enrolment after a restart either"
    page = await logged_in(somebody, at.url + "/", user, phone)
    assert page.url == at.url + "/"

    assert await asyncio.to_thread(main, ["users", "reset-otp", user.username, "-c", str(at.config)]) == 0
    assert await asyncio.to_thread(main, ["users", "enrolment-ticket", user.username, "-c", str(at.config)]) == 0
    ticket = capsys.readouterr().out.split()[-1]
    newcomer = browsers(at)
    page = await with_password(newcomer, at.url + "/", user)
    assert asks_for(page) == {"ticket"}
    page = await newcomer.submit(page, step_form(page, "ticket"), code=ticket)
    assert asks_for(page) == {"confirm"}
    secrets = (phone.key.replace(" ", ""), *codes, ticket)
    assert not [secret for each in gateways for secret in secrets if secret in each.output()]
