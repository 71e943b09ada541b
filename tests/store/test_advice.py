"""What an operator hears at start about the Redis that sessions are to be kept in."""

from __future__ import annotations

from typing import Any

import pytest

from hubgate.errors import StoreFault
from hubgate.store.advice import advice
from hubgate.store.base import Store
from tests.store.redis_server import RedisServer

GOOD_INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "aof_enabled": 1,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
}
GOOD_CONFIG = {"appendonly": "yes", "save": "", "maxmemory": "0", "maxmemory-policy": "noeviction"}


class Asked:
    """A Redis of which only INFO and CONFIG GET are known; None: it doesn't allow that."""

    def __init__(self, info: dict[str, Any] | None, config: dict[str, str] | None, refusal: str) -> None:
        self._info, self._config, self._refusal = info, config, refusal

    async def __call__(self, command: str, *arguments: str) -> Any:
        if command == "INFO" and self._info is not None:
            return self._info
        if command == "CONFIG GET" and self._config is not None:
            (name,) = arguments
            return {name.encode(): self._config[name].encode()} if name in self._config else {}
        raise StoreFault(self._refusal)


async def told(
    info: dict[str, Any] | None = GOOD_INFO, config: dict[str, str] | None = GOOD_CONFIG, refusal: str = "store_refused"
) -> list[str]:
    return await advice(Asked(info, config, refusal))


async def test_a_good_redis_gives_no_reason_to_speak() -> None:
    assert await told() == []
    assert await told(config=GOOD_CONFIG | {"appendonly": "no", "save": "900 1"}) == []
    assert await told(config=GOOD_CONFIG | {"maxmemory": "1000000"}) == []


async def test_a_redis_that_forgets() -> None:
    (sentence,) = await told(config=GOOD_CONFIG | {"appendonly": "no"})
    assert "restarts, everybody is logged out" in sentence
    assert "appendonly yes" in sentence


@pytest.mark.parametrize(
    ("limit", "when"), [("0", "as soon as a maxmemory is set"), ("100", "when its memory is full")]
)
async def test_a_redis_that_throws_away(limit: str, when: str) -> None:
    (sentence,) = await told(config=GOOD_CONFIG | {"maxmemory": limit, "maxmemory-policy": "allkeys-lru"})
    assert when in sentence
    assert "allkeys-lru" in sentence
    assert "maxmemory-policy noeviction" in sentence


async def test_where_second_factors_are_kept_forgetting_is_worse() -> None:
    good = Asked(GOOD_INFO, GOOD_CONFIG, "")
    assert await advice(good, enrolments=True) == []
    for changed, words in (
        ({"appendonly": "no"}, "whoever knows a password can enrol anew. Set `appendonly yes`"),
        ({"appendonly": "no", "save": "900 1"}, "second factors that were enrolled since the last one are lost"),
        ({"maxmemory-policy": "allkeys-lru"}, "sessions and enrolled second factors"),
        ({"maxmemory-policy": "volatile-lru"}, "Redis throws away sessions as soon as"),
    ):
        (sentence,) = await advice(Asked(GOOD_INFO, GOOD_CONFIG | changed, ""), enrolments=True)
        assert words in sentence
    blind = Asked(GOOD_INFO | {"aof_enabled": 0}, None, "store_forbidden")
    (sentence,) = await advice(blind, enrolments=True)
    assert "enrolled second factors are lost" in sentence


@pytest.mark.parametrize("refusal", ["store_refused", "store_forbidden"])
async def test_where_config_is_forbidden_info_tells(refusal: str) -> None:
    assert await told(config=None, refusal=refusal) == []
    persistence, eviction = await told(
        GOOD_INFO | {"aof_enabled": 0, "maxmemory_policy": "volatile-ttl", "maxmemory": 100}, None, refusal
    )
    assert "could not be checked" in persistence
    assert "volatile-ttl" in eviction
    assert "when its memory is full" in eviction
    known_little = await told({"redis_version": "7.0.0"}, None, refusal)
    assert ["could not be checked" in sentence for sentence in known_little] == [True, True]


@pytest.mark.parametrize("refusal", ["store_refused", "store_forbidden"])
async def test_where_both_are_forbidden_that_is_said(refusal: str) -> None:
    (sentence,) = await told(None, None, refusal)
    assert "check by yourself" in sentence
    assert await told(info=None, refusal=refusal) == []


@pytest.mark.parametrize("info", [GOOD_INFO, None])
async def test_a_redis_that_is_away_is_a_fault_and_no_advice(info: dict[str, Any] | None) -> None:
    with pytest.raises(StoreFault) as caught:
        await told(info, None, "store_unreachable")
    assert caught.value.code == "store_unreachable"


@pytest.mark.parametrize("version", ["2.8.24", "5.0.14", "6.0.16"])
async def test_a_redis_that_is_too_old(version: str) -> None:
    (sentence,) = await told(GOOD_INFO | {"redis_version": version})
    assert version in sentence
    assert "6.2 or newer" in sentence


@pytest.mark.parametrize("version", ["6.2.0", "6.10.1", "7.0.15", "8", "255.255.255", ""])
async def test_a_redis_that_is_not_too_old(version: str) -> None:
    assert await told(GOOD_INFO | {"redis_version": version}) == []


@pytest.mark.parametrize(("read_only", "kind"), [(1, "refuses writes"), (0, "writable replica")])
async def test_a_replica(read_only: int, kind: str) -> None:
    (sentence,) = await told(GOOD_INFO | {"role": "slave", "slave_read_only": read_only})
    assert kind in sentence
    assert "redis+sentinel://" in sentence


@pytest.mark.redis
async def test_a_real_one_is_read_rightly(redis_server: RedisServer, redis_store: Store) -> None:
    assert await redis_store.warnings() == []
    for name, value, expected in (
        ("appendonly", "no", "in memory only"),
        ("save", "900 1", None),
        ("maxmemory", "100mb", None),
        ("maxmemory-policy", "allkeys-lfu", "when its memory is full"),
        ("maxmemory", "0", "as soon as a maxmemory is set"),
        ("maxmemory-policy", "noeviction", None),
    ):
        redis_server.admin("CONFIG", "SET", name, value)
        sentences = await redis_store.warnings()
        assert len(sentences) == (expected is not None)
        assert expected is None or expected in sentences[0]
