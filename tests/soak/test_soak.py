"""The whole gateway for a while, with everything at once: short for every change, ten minutes for `make soak`.

`SOAK_SECONDS` and `SOAK_SEED` say how long and which; the seed is printed, and a failure names it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from hubgate.ops.demo.redis import RedisServer
from tests.kit.embedded import EmbeddedProvider
from tests.kit.running import RunningGateway
from tests.soak.soaking import soaked

pytest_plugins = ["tests.kit.scene_fixtures"]

SHORT, LONG = 25.0, 600.0


def _seed() -> int:
    return int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))


async def test_a_short_soak(
    gateway: Callable[..., RunningGateway], embedded: EmbeddedProvider, fresh_redis: RedisServer
) -> None:
    await soaked(SHORT, _seed(), start=gateway, provider=embedded, store_url=fresh_redis.url, say=print)


@pytest.mark.nightly
@pytest.mark.timeout(0)
async def test_a_long_soak(
    gateway: Callable[..., RunningGateway],
    embedded: EmbeddedProvider,
    fresh_redis: RedisServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    seconds = float(os.environ.get("SOAK_SECONDS", LONG))
    await soaked(seconds, _seed(), start=gateway, provider=embedded, store_url=fresh_redis.url, say=say)
