"""The hub knows who came, and starts a server for them."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.kit.notebooks import Notebooks
from tests.kit.site import Visitor


async def test_the_hub_knew_who_came_from_the_header(visitor: Callable[..., Visitor]) -> None:
    somebody = visitor()
    page = await somebody.arrive("/htc/hub/home")
    assert page.status == 200
    xsrf = somebody.browser.cookies(somebody.at("/htc/hub/")).get("_xsrf", "")
    told = await somebody.browser.fetch(somebody.at(f"/htc/hub/api/user?_xsrf={xsrf}"))
    assert told.status == 200, told
    assert json.loads(told.text)["name"] == somebody.user.username


async def test_spawning_tells_its_progress_as_it_happens(visitor: Callable[..., Visitor]) -> None:
    for _ in range(5):
        somebody = visitor()
        await somebody.arrive("/htc/hub/home")
        notebooks = Notebooks(somebody.browser, somebody.at("/htc/"), somebody.user.username)
        events = await notebooks.spawn()
        assert [event["progress"] for event in events][-1] == 100
        assert events[-1]["ready"]
        await notebooks.stop()
        if len(events) > 1:
            break  # else it was all over before this busy machine asked how far it is
    assert len(events) > 1
    assert events[0]["progress"] < 100
