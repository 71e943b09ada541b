"""What an operator should change about a Redis before sessions are kept in it.

hubgate works with a Redis that forgets: people are then asked to log in again, for no reason that they can see. That
is worth a line at start. Managed services often forbid CONFIG; then INFO tells most of it, and what it doesn't tell is
said to be unknown instead of fine. This module asks and judges, and changes nothing.

Where people's second factors are kept in it as well (`mfa.mode = "gateway"`), forgetting is worse: whoever knows the
password of somebody whose enrolment is lost can enrol in their place. Then snapshots are not enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hubgate.errors import StoreFault

OLDEST = (6, 2)
"""The first Redis with GETDEL, which login states and one-time codes are taken with."""

Ask = Callable[..., Awaitable[Any]]


_ENROLMENTS = "enrolled second factors are lost, and whoever knows a password can enrol anew"


async def advice(ask: Ask, *, enrolments: bool = False) -> list[str]:
    """Sentences, worst first; empty when all is well. `ask` runs a command; `enrolments`: second factors are kept here.

    StoreFault when Redis can't be reached.
    """
    info = await _info(ask)
    settings = await _settings(ask)
    if info is None and settings is None:
        return ["Redis allows neither INFO nor CONFIG GET: check by yourself that it persists and never evicts keys."]
    known = info or {}
    return [
        *_role(known),
        *_version(known),
        *_persistence(known, settings, enrolments),
        *_eviction(known, settings, enrolments),
    ]


def _role(info: Mapping[str, Any]) -> list[str]:
    if info.get("role") != "slave":
        return []
    kind = "a replica that refuses writes" if info.get("slave_read_only", 1) else "a writable replica"
    return [
        f"Redis at store.url is {kind}: nobody can log in, or logins are lost. "
        "Let store.url lead to the primary, or to the sentinels that know it (redis+sentinel://)."
    ]


def _version(info: Mapping[str, Any]) -> list[str]:
    found = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2 or numbers >= OLDEST:
        return []
    oldest = ".".join(map(str, OLDEST))
    return [f"Redis {found} is too old, logins will fail: it lacks GETDEL. Use {oldest} or newer."]


def _persistence(info: Mapping[str, Any], settings: Mapping[str, str] | None, enrolments: bool) -> list[str]:
    remedy = _ask("set `appendonly yes`")
    lost = "everybody is logged out" + (f", {_ENROLMENTS}" if enrolments else "")
    if settings is not None:
        if settings.get("appendonly") != "no":
            return []
        if not settings.get("save"):
            return [f"Redis keeps everything in memory only: when it restarts, {lost}. {remedy}"]
        if enrolments:
            return [
                "Redis takes snapshots only: when it crashes, second factors that were enrolled since the last one are "
                f"lost, and one-time codes that were used since then are good again. {remedy}"
            ]
        return []
    if info.get("aof_enabled"):
        return []
    return [
        "Redis keeps no append-only file, and whether it takes snapshots could not be checked, since CONFIG GET is not "
        f"allowed: without either, after a restart {lost}. {remedy}"
    ]


def _eviction(info: Mapping[str, Any], settings: Mapping[str, str] | None, enrolments: bool) -> list[str]:
    told = settings if settings is not None else info
    policy = told.get("maxmemory-policy", told.get("maxmemory_policy"))
    limit = str(told.get("maxmemory", ""))
    if policy is None:
        return ["Whether Redis evicts keys could not be checked: set `maxmemory-policy noeviction`."]
    if policy == "noeviction":
        return []
    when = "as soon as a maxmemory is set" if limit == "0" else "when its memory is full"
    # Enrolments have no time to live, so the volatile- policies pass them over.
    everything = enrolments and not str(policy).startswith("volatile-")
    what = "sessions and enrolled second factors" if everything else "sessions"
    harm = _ENROLMENTS if everything else "people are logged out at random"
    return [
        f"Redis throws away {what} {when} (maxmemory-policy is {policy}): {harm}. "
        f"{_ask('set `maxmemory-policy noeviction`')}"
    ]


def _ask(remedy: str) -> str:
    return f"{remedy[0].upper()}{remedy[1:]} in redis.conf."


async def _info(ask: Ask) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = await ask("INFO")
    except StoreFault as fault:
        _raise_unless_forbidden(fault)
        return None
    return found


async def _settings(ask: Ask) -> dict[str, str] | None:
    settings: dict[str, str] = {}
    try:
        # One by one: CONFIG GET takes several names since Redis 7 only.
        for name in ("appendonly", "save", "maxmemory", "maxmemory-policy"):
            found: Mapping[Any, Any] = await ask("CONFIG GET", name)
            settings |= {_text(key): _text(value) for key, value in found.items()}
    except StoreFault as fault:
        _raise_unless_forbidden(fault)
        return None
    return settings


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _raise_unless_forbidden(fault: StoreFault) -> None:
    if fault.code not in {"store_refused", "store_forbidden"}:
        raise fault
