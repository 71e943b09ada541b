"""Verdicts, and that nothing is left out of a report in silence."""

from __future__ import annotations

import json

import pytest

from tests.bench import figures, report
from tests.bench.driving import Cost, together
from tests.bench.figures import GOALS, Figure, Verdict
from tests.bench.load import Outcome
from tests.bench.measure import Spread
from tests.bench.quick import Judged

MACHINE = report.Machine("2026-01-01", 0.1, "a CPU", 2, "Linux 6", "3.11", {"uvloop": "0.23"})


def made(*found: Figure, **more: object) -> report.Report:
    return report.Report(MACHINE, "make bench", 3, found, **more)  # type: ignore[arg-type] # passed through


@pytest.mark.parametrize(
    ("key", "values", "verdict"),
    [
        ("get-200", [1.9, 2.0, 9.0], "aim reached"),
        ("get-200", [2.1, 2.5], "reached"),
        ("get-200", [2.6, 2.6, 1.0], "MISSED"),
        ("down", [1.2], "aim reached"),
        ("down", [0.9], "reached"),
        ("down", [0.89], "MISSED"),
        ("redis", [0.001], "reached"),
        ("idle-tls", [1000.0], "stated"),
        ("get-200", [], "not measured"),
    ],
)
def test_a_median_is_judged_by_its_goal(key: str, values: list[float], verdict: Verdict) -> None:
    figure = Figure(key, values)
    assert figure.verdict == verdict
    assert made(figure).missed == ([figure] if verdict in {"MISSED", "not measured"} else [])


def test_every_limit_of_the_issue_is_a_goal_that_its_aim_doesnt_contradict() -> None:
    for goal in GOALS.values():
        if goal.must is not None and goal.aim is not None:
            assert goal.meets(goal.aim, goal.must), goal


def test_a_figure_without_a_goal_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Figure("no such", [1.0])


def test_the_report_says_what_was_found_and_who_is_missing() -> None:
    one = made(
        Figure("ws-nginx", [1.0, 1.1, 1.4], "a note"),
        Figure("get-200-openidc", [], "apt-get install it"),
        Figure("get-200", [3.0]),
        costs={"GET": {"nginx": Spread(10.04, 9.0, 11.0)}},
        targets={"nginx": "nginx 1"},
        absent={"apache": "apt-get install it"},
    )
    said = one.markdown()
    assert "| 1.10 × (1.00 to 1.40) | ≤ 1.20 × | ≤ 1.00 × | reached |" in said
    assert said.count("**MISSED**") == said.count("**not measured**") == 1
    assert "- `apache` is **missing**: apt-get install it" in said
    assert "a note" in said
    assert "| GET | 10.0 |" in said
    assert [figure["key"] for figure in json.loads(one.json())["figures"]] == ["get-200", "get-200-openidc", "ws-nginx"]


def test_many_workers_are_reasoned_from_the_cpu_of_one_request() -> None:
    small = {"gateway": Spread(30.0, 29.0, 31.0), "gateway-log": Spread(40.0, 39.0, 41.0)}
    costs = {"GET 200 B, CPU µs per request": small, "GET 10 KiB, CPU µs per request": small}
    assert "| 4 | 130,000 | 100,000 | 130,000 |" in made(costs=costs).markdown()


def test_turns_make_a_round() -> None:
    one, other = Cost(1.0, 5, Outcome(10, 2.0, 0.1, 0.2)), Cost(3.0, 4, Outcome(30, 4.0, 0.3, 0.4))
    both = together([one, other])
    assert (both.cpu, both.peak, both.each, both.outcome.seconds) == (4.0, 5, 0.1, 6.0)
    assert both.outcome.p50 == pytest.approx(0.2)
    assert both.outcome.p99 == pytest.approx(0.3)


def test_only_the_part_between_the_markers_is_written() -> None:
    document = f"before {report.BEGIN} old {report.END} after"
    once = report.placed(document, "new")
    assert once == f"before {report.BEGIN}\n\nnew\n{report.END} after"
    assert report.placed(once, "new") == once
    for broken in ("", report.BEGIN, document + document):
        with pytest.raises(ValueError, match="no place"):
            report.placed(broken, "new")


def test_scenes_are_found_and_measure_what_has_a_goal() -> None:
    assert {"get", "latency", "redis", "ws", "ws-large", "idle", "transfers", "tls"} <= set(figures.scenes())


def test_the_last_attempt_of_the_quick_gate_counts() -> None:
    over, within = Spread(4.0, 3.0, 5.0), Spread(2.0, 1.0, 3.0)
    assert Judged("request", [over, over, over], 3.5).slower
    assert not Judged("request", [over, within], 3.5).slower
