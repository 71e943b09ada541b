"""What is to be reached, and what was found.

`GOALS` is the one place where the title, the unit, the limit and the aim of each figure stand; `scene` is how a module
that measures some of them is found. Nothing here measures, and nothing here prints.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.bench.measure import Spread

if TYPE_CHECKING:
    from tests.bench.workbench import Bench

Verdict = Literal["aim reached", "reached", "MISSED", "stated", "not measured"]


@dataclass(frozen=True, slots=True)
class Goal:
    """`must` is the limit and `aim` what we want, in `unit`; None for what is only stated. `at_least`: more is good."""

    title: str
    unit: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = False

    def meets(self, value: float, limit: float) -> bool:
        """Whether this value is as good as that limit."""
        return value >= limit if self.at_least else value <= limit


GOALS: dict[str, Goal] = {
    "get-200": Goal("CPU per request, 200 B, access log off: nginx", "×", 2.5, 2.0),
    "get-10k": Goal("CPU per request, 10 KiB, access log off: nginx", "×", 2.5, 2.0),
    "get-200-openidc": Goal("CPU per request, 200 B: Apache + mod_auth_openidc", "×", 0.4, 0.25),
    "get-10k-openidc": Goal("CPU per request, 10 KiB: Apache + mod_auth_openidc", "×", 0.4, 0.25),
    "get-200-chp": Goal("CPU per request, 200 B: configurable-http-proxy", "×", 0.25, 0.18),
    "get-10k-chp": Goal("CPU per request, 10 KiB: configurable-http-proxy", "×", 0.25, 0.18),
    "log-200": Goal("CPU per request, 200 B, with access log: without", "×", 1.25, 1.15),
    "log-10k": Goal("CPU per request, 10 KiB, with access log: without", "×", 1.25, 1.15),
    "ws-nginx": Goal("CPU per WebSocket message of 100 B, 50 sockets: nginx", "×", 1.2, 1.0),
    "ws-chp": Goal("CPU per WebSocket message of 100 B, 50 sockets: configurable-http-proxy", "×", 0.8, 0.6),
    "ws-large-cpu": Goal("1 MiB WebSocket messages per CPU second: configurable-http-proxy", "×", 1.4, 1.8, True),
    "ws-large-rate": Goal("1 MiB WebSocket messages per second: configurable-http-proxy", "×", 1.4, 1.8, True),
    "down": Goal("256 MiB down, throughput: nginx", "×", 0.9, 1.2, True),
    "up": Goal("256 MiB up, throughput: nginx", "×", 0.9, 1.2, True),
    "down-growth": Goal("256 MiB down: the process grows by", "MiB", 8, 3),
    "up-growth": Goal("256 MiB up: the process grows by", "MiB", 8, 3),
    "latency": Goal("Added median latency at one connection: nginx's", "×", 2.5, 2.0),
    "p99": Goal("p99 at 64 connections: nginx", "×", 2.5, 1.8),
    "idle": Goal("Memory per 1000 idle WebSockets, plain TCP", "MiB", 16, 10),
    "idle-tls": Goal("Memory per 1000 idle WebSockets over TLS", "MiB"),
    "redis": Goal("Redis calls per request in steady state", "", 0.01),
    "tls-get": Goal("TLS, CPU per request, 200 B: nginx with TLS", "×", 2.0, 1.6),
    "tls-ws": Goal("TLS, CPU per WebSocket message of 100 B, 50 sockets: nginx with TLS", "×", 1.3, 1.1),
    "tls-down": Goal("TLS, 256 MiB down, throughput: nginx with TLS", "×", 0.8, 0.95, True),
    "tls-up": Goal("TLS, 256 MiB up, throughput: nginx with TLS", "×", 0.8, 0.95, True),
    "tls-down-growth": Goal("TLS, 256 MiB down: the process grows by", "MiB"),
    "tls-up-growth": Goal("TLS, 256 MiB up: the process grows by", "MiB"),
    "login": Goal("CPU per complete login, without the provider's", "ms", 4, 2),
    "start-up": Goal("Start-up to ready, Redis and provider up", "s", 1.0, 0.5),
    "scale-beside": Goal("CPU per request beside 10 000 idle WebSockets and 20 000 sessions: alone", "×", 1.2),
    "scale-hubs": Goal("CPU per request with 100 hubs: with 1", "×", 1.1),
    "scale-sessions": Goal("CPU per request with 100 000 sessions: with 10", "×", 1.1),
    "scale-groups": Goal("CPU per request of somebody in 200 groups: in 1", "×", 1.1),
    "reconnect-back": Goal("2 000 sockets reconnecting at once: that came back", "", 2000, at_least=True),
    "reconnect-others": Goal("2 000 sockets reconnecting at once, others' median meanwhile: before", "×", 2.0),
    "page": Goal("A JupyterLab page in Chromium: directly at the hub", "×", 1.15, 1.05),
}
"""By key, in the order of the report. A colon reads "against": the value is ours divided by theirs. Add what a scene
of yours needs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was found for the goal `key`: a value per round, compared by their median. Empty: not measured, and `note`
    says why; otherwise `note` says what else one should know.
    """

    key: str
    values: Sequence[float]
    note: str = ""

    def __post_init__(self) -> None:
        if self.key not in GOALS:
            raise KeyError(f"{self.key} is no key of figures.GOALS")

    @property
    def goal(self) -> Goal:
        return GOALS[self.key]

    @property
    def spread(self) -> Spread | None:
        return Spread.of(self.values) if self.values else None

    @property
    def verdict(self) -> Verdict:
        goal, spread = self.goal, self.spread
        if spread is None:
            return "not measured"
        if goal.must is None:
            return "stated"
        if not goal.meets(spread.median, goal.must):
            return "MISSED"
        return "aim reached" if goal.aim is not None and goal.meets(spread.median, goal.aim) else "reached"


Scene = Callable[["Bench"], Awaitable[Sequence[Figure]]]

SCENES: dict[str, Scene] = {}
"""By name, in the order in which they are measured; filled by `scenes()`."""


BY_HAND: set[str] = set()
"""Scenes that are measured only when they are asked for by name."""


def scene(name: str, *, by_hand: bool = False) -> Callable[[Scene], Scene]:
    """Registers what measures some figures: a coroutine function that takes the bench and gives them. `by_hand`: only
    when somebody asks for it by name, since it takes long.
    """

    def register(measuring: Scene) -> Scene:
        if name in SCENES:
            raise ValueError(f"there are two scenes called {name}")
        SCENES[name] = measuring
        if by_hand:
            BY_HAND.add(name)
        return measuring

    return register


def scenes() -> Mapping[str, Scene]:
    """All scenes, of every module of this package that is called `scenes_…`."""
    package = importlib.import_module("tests.bench")
    for module in sorted(found.name for found in pkgutil.iter_modules(package.__path__)):
        if module.startswith("scenes_"):
            importlib.import_module(f"tests.bench.{module}")
    return SCENES
