from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubgate.store.circuit import FAILURES, PAUSE, Circuit


def test_it_opens_after_some_failures_in_a_row() -> None:
    circuit = Circuit()
    for n in range(FAILURES):
        assert circuit.allows(float(n))
        circuit.failed(float(n))
    assert not circuit.allows(FAILURES - 1 + PAUSE / 2)


def test_an_answer_between_them_keeps_it_closed() -> None:
    circuit = Circuit()
    for n in range(10 * FAILURES):
        assert circuit.allows(0.0)
        if n % FAILURES:
            circuit.failed(0.0)
        else:
            circuit.answered()


def test_one_caller_at_a_time_tries_while_it_is_open() -> None:
    circuit = Circuit()
    for _ in range(FAILURES):
        circuit.failed(0.0)
    assert [circuit.allows(PAUSE) for _ in range(5)] == [True, False, False, False, False]
    # The one who tried was cancelled and never told how it went.
    assert [circuit.allows(2 * PAUSE) for _ in range(5)] == [True, False, False, False, False]
    circuit.failed(2 * PAUSE)
    assert not circuit.allows(2.9 * PAUSE)
    assert circuit.allows(3 * PAUSE)
    circuit.answered()
    assert all(circuit.allows(3 * PAUSE) for _ in range(100))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["asks", "answered", "failed"])), max_size=60))
def test_whatever_happened_somebody_may_ask_one_pause_later(steps: list[tuple[float, str]]) -> None:
    circuit, now = Circuit(), 0.0
    for passed, what in steps:
        now += passed
        match what:
            case "asks":
                circuit.allows(now)
            case "answered":
                circuit.answered()
            case _:
                circuit.failed(now)
    assert circuit.allows(now + PAUSE)
