"""Somebody at a browser that was left open, at the places for which the site wants to see who it is.

The short way passes what was let through before: it must not do so a moment longer than the proof is fresh.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.attacks.lane import Lane, lane
from tests.attacks.rides import Rides
from tests.kit.raw import Peer

MAX_AGE = 900


def shown(at: Lane, seconds_ago: float) -> None:
    """As if everybody had shown their second factor then."""
    for live in at.site.served.live._by_cookie.values():
        proof = dataclasses.replace(live.session.proof, auth_time=int(time.time() - seconds_ago))
        live.session = dataclasses.replace(live.session, proof=proof)


def later(at: Lane, seconds: float) -> None:
    at.site.served.shortcut._clock = ahead = lambda: time.time() + seconds
    object.__setattr__(at.site.served.front, "clock", ahead)


async def refused(client: Peer, data: bytes) -> None:
    await client.send(data)
    reply = await client.reply()
    assert reply.status == 401
    assert reply.fields("WWW-Authenticate")[0].startswith(b'Bearer error="insufficient_user_authentication"')


@pytest.mark.parametrize("place", ["all", "hub/file.js"])
async def test_the_short_way_ends_with_the_proof(place: str, rides: Rides) -> None:
    async with lane(1, pool={"step_up": [place], "step_up_max_age": "15m"}) as at:
        target, client = at.place(), await at.client()
        shown(at, MAX_AGE - 20)
        await at.goes_well(client, target, 4)
        went = rides.number
        assert went, "it was on the short way"
        later(at, 10)
        await at.goes_well(client, target, 1)
        assert rides.number == went + 1, "it still is"
        seen = len(at.requests)
        later(at, 21)
        await refused(client, at.get(target))
        assert len(at.requests) == seen
        assert rides.number == went + 1


async def test_what_was_let_through_elsewhere_opens_no_place_of_the_demand(rides: Rides) -> None:
    """The same browser, the same words, the same zone: another place."""
    async with lane(1, pool={"step_up": ["hub/admin"]}) as at:
        target, client = at.place(), await at.client()
        shown(at, MAX_AGE + 1)
        await at.goes_well(client, target, 4)
        assert rides.number
        seen, went = len(at.requests), rides.number
        for path in (b"/p0/hub/admin", b"/p0/hub/admin/", b"/p0/hub/admin?x=1", b"/p0/hub/admin/x"):
            await refused(client, at.get(target).replace(target, path, 1))
        assert (len(at.requests), rides.number) == (seen, went)
        await at.goes_well(client, target, 1)


async def test_requests_one_behind_another_are_judged_each(rides: Rides) -> None:
    async with lane(1, pool={"step_up": ["hub/admin"]}) as at:
        target, client = at.place(), await at.client()
        shown(at, MAX_AGE + 1)
        await at.goes_well(client, target, 4)
        good = at.get(target)
        await client.send(good + good.replace(target, b"/p0/hub/admin", 1) + good)
        await at.is_good(client)
        assert (await client.reply()).status == 401
        await at.is_good(client)
