"""The embedded provider in a thread, with people enough for a whole file of tests, and every way to be unwell."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Literal

import pyotp
from aiohttp import web

from hubgate.ops.demo.child import free_ports
from hubgate.ops.demo.realm import DemoUser
from hubgate.ops.devidp import DevIdp, DevUser
from tests.kit.background import Background, Place
from tests.kit.provider import Provider

Mood = Literal["well", "slow", "garbage", "broken", "lost"]
CLIENT = ("hubgate", "a secret of the client")
_PEOPLE = 400


class EmbeddedProvider(Provider):
    """A provider for `gateway(provider=…)`. `place` takes it down and up; it remembers its sessions and its keys.

    `mood`: `slow` answers the gateway after a long time, `garbage` says what is no JSON, `broken` is a 500, `lost` a
    404. What browsers ask for is always answered well: it is the back channel that is tried here.
    """

    def __init__(self, background: Background, *, second_factor: bool = True) -> None:
        self._people = {}
        for number in range(_PEOPLE):
            name = f"user{number:03}"
            self._people[name] = DemoUser(
                name, f"{name}-pw", name.title(), f"{name}@example.org", ("htc-users",), pyotp.random_base32()
            )
        self._next = itertools.count()
        self.mood: Mood = "well"
        port = free_ports(1)[0]
        issuer = f"http://127.0.0.1:{port}/realms/dev"
        users = {
            user.username: DevUser(user.password, user.totp_key, user.groups, user.name, user.email)
            for user in self._people.values()
        }
        idp = DevIdp(users, *CLIENT, issuer, second_factor=second_factor)
        idp.app.middlewares.append(self._in_its_mood)
        self.place = Place(background, lambda: idp.app, port=port)
        super().__init__(issuer, *CLIENT, self._people)

    def create_user(self) -> DemoUser:
        """Somebody who has not logged in yet."""
        return self._people[f"user{next(self._next):03}"]

    @web.middleware
    async def _in_its_mood(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.headers.get("User-Agent") == "hubgate":
            match self.mood:
                case "slow":
                    await asyncio.sleep(3600)
                case "garbage":
                    return web.Response(text="<html>It works!</html>", content_type="text/html")
                case "broken":
                    return web.Response(status=500, text="oops")
                case "lost":
                    return web.Response(status=404, text="no such realm")
        return await handler(request)
