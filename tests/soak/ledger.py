"""What happened, and what must not have: the one place where a soak's failures and counts come together."""

from __future__ import annotations

from collections import Counter

ENOUGH = 20
"""Failures after which a soak ends: the first one is what matters, the others show how it spreads."""


class SoakFailed(AssertionError):
    """Something that the catalogue doesn't allow."""


class Ledger:
    """`outcomes`: how often a behaviour led to an outcome. `failures`: in the order in which they came."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.answers: Counter[int] = Counter()
        """Whole answers that clients got, by status."""

    def count(self, what: str, outcome: object) -> None:
        """Something ended as it may."""
        self.outcomes[what, str(outcome)] += 1

    def fail(self, what: str) -> None:
        """Something ended as it may not."""
        if len(self.failures) < ENOUGH:
            self.failures.append(what)

    @property
    def over(self) -> bool:
        """Whether going on would tell nothing more."""
        return len(self.failures) >= ENOUGH

    def judge(self) -> None:
        """Raise `SoakFailed` with all failures, if there is one."""
        if self.failures:
            raise SoakFailed("\n".join(self.failures))

    def table(self) -> str:
        """Behaviours and how often each outcome came."""
        rows: dict[str, list[str]] = {}
        for (what, outcome), number in sorted(self.outcomes.items()):
            rows.setdefault(what, []).append(f"{outcome} x {number}")
        return "\n".join(f"  {what:<28} {', '.join(told)}" for what, told in rows.items())
