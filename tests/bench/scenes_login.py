"""What does it cost that somebody logs in?"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import quote

from tests.bench import measure
from tests.bench.backend import BASE
from tests.bench.figures import Figure, scene
from tests.bench.sites import pool, site
from tests.bench.targets import Unfit
from tests.bench.workbench import Bench
from tests.kit.person import Person

_LOGINS = 160
_AT_ONCE = 8
_HOME = f"{BASE}hub/home"


@scene("login")
async def login(bench: Bench) -> list[Figure]:
    """All that the gateway does from the first navigation, which is sent to log in, until it sends on somebody who is.

    Those are four requests (the page itself, the page that saves a #fragment, the way to the provider, the way back
    from it), the exchange of the code, the check of the ID token, and four questions to Redis.
    """
    # One address may not begin so many logins; a balancer says that they are many.
    door = {"trusted_proxies": ["127.0.0.1/32"]}
    gateway = site(bench, "login", [pool(BASE.strip("/"), {"hub01": bench.backend.url})], gateway=door).gateway
    costs = []
    with bench.progress.step("login", f"{bench.rounds} times {_LOGINS} logins", "measured"):
        async with AsyncExitStack() as stack:
            browsers = (Person(gateway.url, bench.provider.origin) for _ in range(_AT_ONCE))
            people = [await stack.enter_async_context(browser) for browser in browsers]
            for person in people:
                await person.login(f"{gateway.url}{_HOME}", bench.provider.create_user())
            for number in range(bench.rounds + 1):
                before = measure.tasks(gateway.pid)
                await asyncio.gather(*(_log_in(person, gateway.url, number) for person in people))
                cpu = measure.spent(before, measure.tasks(gateway.pid))
                if number:  # the first one warms up
                    costs.append(cpu / _LOGINS * 1e3)
    return [Figure("login", costs, "four requests, code exchange, ID token (ES256), session; four questions to Redis")]


async def _log_in(person: Person, url: str, number: int) -> None:
    """Somebody's share of a round's logins."""
    for each in range(_LOGINS // _AT_ONCE):
        await _once(person, url, f"10.{number}.{each}.1")


async def _once(person: Person, url: str, address: str) -> None:
    """With a browser that the provider knows and the gateway doesn't. `Unfit` when it is led elsewhere."""
    person.session.cookie_jar.clear(lambda cookie: cookie.key.startswith("hubgate"))
    page = f"{url}/_hubgate/login?next={quote(_HOME, safe='')}"
    steps = (f"{url}{_HOME}", 302), (page, 200), (f"{page}&on=1", 302), ("", 302), ("", 303)
    location = ""
    for step, status in steps:
        answer = await person.get(step or location, follow=False, headers={"X-Forwarded-For": address})
        location = answer.headers.get("Location", "")
        if answer.status != status:
            raise Unfit(f"{status} was expected: {answer}")
    if location != _HOME:
        raise Unfit(f"the login leads to {location}")
