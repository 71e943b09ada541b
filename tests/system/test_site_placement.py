"""Two HTC hubs: a user stays with one, and the pool uses both."""

from __future__ import annotations

from collections.abc import Callable

from tests.kit.site import Visitor

TOGETHER = 16
"""People who all land on one of two hubs only once in thirty thousand runs."""


async def answered_by(somebody: Visitor) -> str:
    page = await somebody.browser.get(somebody.at("/htc/hub/home"))
    assert page.status == 200, page
    return page.headers["X-Answered-By"]


async def test_a_user_stays_with_one_hub_in_every_browser(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    await somebody.arrive("/htc/hub/home")
    hub = await answered_by(somebody)
    assert {await answered_by(somebody) for _ in range(5)} == {hub}
    elsewhere = visitor(user=somebody.user)
    await elsewhere.arrive("/htc/hub/home")
    assert await answered_by(elsewhere) == hub


async def test_both_hubs_of_the_pool_get_users(visitor: Callable[..., Visitor]) -> None:
    seen: set[str] = set()
    for _ in range(TOGETHER):
        somebody = visitor()
        await somebody.arrive("/htc/hub/home")
        seen.add(await answered_by(somebody))
        if seen == {"htc01", "htc02"}:
            break
    assert seen == {"htc01", "htc02"}


async def test_each_pool_has_its_own_hub(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor(groups=["htc-users", "hpc-users"])
    await somebody.arrive("/htc/hub/home")
    page = await somebody.browser.get(somebody.at("/hpc/hub/home"))
    assert page.status == 200
    assert page.headers["X-Answered-By"] == "hpc01"
    assert await answered_by(somebody) != "hpc01"
