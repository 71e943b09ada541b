"""How often a second factor may be guessed: bounded for attackers, and never at its owner's cost."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.guesses import FORGET_AFTER, PLACE, STRANGERS, Guesses

NOW = 1_700_000_000.0
places = st.sampled_from([f"address {number}" for number in range(200)])
attempts = st.lists(st.tuples(places, st.floats(0, 3600)), max_size=300)


def after(guesses: Guesses, tries: list[tuple[str, float]]) -> tuple[Guesses, float, int]:
    """What is left after strangers tried, one after the other; when that was; and how many were let through."""
    now, through = NOW, 0
    for place, pause in tries:
        now += pause
        guesses, wait = guesses.attempt(place, known=False, now=now)
        through += not wait
    return guesses, now, through


def test_a_place_has_a_few_tries_and_then_waits() -> None:
    guesses = Guesses()
    for _ in range(int(PLACE.burst)):
        guesses, wait = guesses.attempt("here", known=False, now=NOW)
        assert wait == 0.0
    refused, wait = guesses.attempt("here", known=False, now=NOW)
    assert wait == 1 / PLACE.per_second
    assert refused is guesses, "a refusal costs nothing"
    _, wait = guesses.attempt("here", known=False, now=NOW + wait)
    assert wait == 0.0


@given(attempts)
def test_nobody_elsewhere_can_lock_out_a_browser_that_is_known(tries: list[tuple[str, float]]) -> None:
    guesses, now, _ = after(Guesses(), tries)
    for _ in range(int(PLACE.burst)):
        guesses, wait = guesses.attempt("browser of the owner", known=True, now=now)
        assert wait == 0.0


@given(st.integers(1, 2000), st.floats(1, 3600))
def test_one_place_alone_never_locks_out_a_stranger(tries: int, pause: float) -> None:
    guesses, now, _ = after(Guesses(), [("attacker", pause)] * tries)
    _, wait = guesses.attempt("owner on a journey", known=False, now=now)
    assert wait == 0.0


@given(attempts)
def test_all_strangers_together_are_bounded(tries: list[tuple[str, float]]) -> None:
    _, now, through = after(Guesses(), tries)
    assert through <= STRANGERS.burst + (now - NOW) * STRANGERS.per_second + 1


def test_strangers_in_large_numbers_wait() -> None:
    guesses, _, through = after(Guesses(), [(f"address {number}", 0.0) for number in range(1000)])
    assert through == STRANGERS.burst
    assert len(guesses.places) == 64


def test_all_is_forgotten_in_the_end() -> None:
    guesses, now, _ = after(Guesses(), [(f"address {number}", 0.0) for number in range(1000)])
    then, _ = guesses.attempt("new", known=False, now=now + FORGET_AFTER)
    assert then.strangers.tokens == STRANGERS.burst - 1


def test_what_was_right_does_not_count() -> None:
    guesses = Guesses()
    for known in (True, False):
        for _ in range(50):
            guesses, wait = guesses.attempt("here", known=known, now=NOW)
            assert wait == 0.0
            guesses = guesses.right("here", known=known)
    assert guesses.places["here"].tokens == PLACE.burst
    assert guesses.strangers.tokens == STRANGERS.burst
    assert guesses.right("nowhere", known=False) is guesses


@given(attempts)
def test_is_the_same_after_being_stored(tries: list[tuple[str, float]]) -> None:
    guesses, _, _ = after(Guesses(), tries)
    assert Guesses.from_record(json.loads(json.dumps(guesses.as_record()))) == guesses
