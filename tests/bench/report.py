"""What a person reads afterwards: the tables on the terminal, a JSON file, a plot, and docs/performance.md.

Only the part of docs/performance.md between the two markers is written; the text around it is written by people and
repeats no figure. The plot needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.figures import GOALS, Figure, Goal
from tests.bench.measure import Spread

BEGIN = "<!-- measured: begin (make bench writes this part) -->"
END = "<!-- measured: end -->"
_LIBRARIES = ("aiohttp", "httptools", "redis", "uvloop")
_PLOTTED = {
    "GET 200 B, CPU µs per request": "a request, CPU µs",
    "WebSocket 100 B, CPU µs per message there and back": "a WebSocket message\nthere and back, CPU µs",
    "MiB per 1000 idle WebSockets": "1000 idle WebSockets, MiB",
}
_REASONED = (
    ("200 B", "GET 200 B, CPU µs per request", "gateway"),
    ("200 B, access log on", "GET 200 B, CPU µs per request", "gateway-log"),
    ("10 KiB", "GET 10 KiB, CPU µs per request", "gateway"),
)
_WORKERS = (1, 4, 16)
_OURS, _THEIRS = "#2a6f97", "#a9b4bd"


@dataclass(frozen=True)
class Machine:
    """Where it was measured. `load`: the load average in the minute before, which tells whether others were at it."""

    date: str
    load: float
    cpu: str
    cores: int
    kernel: str
    python: str
    libraries: Mapping[str, str]

    @classmethod
    def here(cls) -> Machine:
        """This one, now."""
        found = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return cls(
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            load=os.getloadavg()[0],
            cpu=found[1] if found else platform.processor() or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            libraries={name: version(name) for name in _LIBRARIES},
        )


@dataclass(frozen=True)
class Report:
    """`figures` in any order; `costs` by title and target; `targets`: what each is; `absent`: who isn't, and why."""

    machine: Machine
    command: str
    rounds: int
    figures: Sequence[Figure]
    costs: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def ordered(self) -> list[Figure]:
        """In the order of the goals."""
        order = list(GOALS)
        return sorted(self.figures, key=lambda figure: order.index(figure.key))

    @property
    def missed(self) -> list[Figure]:
        """Those that are not what they must be, or that nobody could measure."""
        return [figure for figure in self.ordered if figure.verdict in {"MISSED", "not measured"}]

    def markdown(self) -> str:
        """All of it."""
        machine = self.machine
        libraries = ", ".join(f"{name} {number}" for name, number in machine.libraries.items())
        rows = [
            (figure.goal.title, _found(figure), _limit(figure.goal, figure.goal.must),
             _limit(figure.goal, figure.goal.aim), f"**{figure.verdict}**" if figure in self.missed else figure.verdict)
            for figure in self.ordered
        ]  # fmt: skip
        notes = [f"- {figure.goal.title}: {figure.note}" for figure in self.ordered if figure.note]
        who = [f"- `{name}`: {what}" for name, what in self.targets.items()]
        who += [f"- `{name}` is **missing**: {why}" for name, why in self.absent.items()]
        parts = (
            f"Measured on {machine.date} with `{self.command}`, {self.rounds} rounds: {machine.cpu}, {machine.cores} "
            f"cores (load average before: {machine.load:.1f}), {machine.kernel}, Python {machine.python}, {libraries}.",
            _table(("figure (ours : theirs)", "median (least to greatest)", "must", "aim", ""), rows),
            "\n".join(notes),
            self._costs(),
            self._reasoned(),
            "Who is who:",
            "\n".join(who),
        )
        return "\n\n".join(part for part in parts if part) + "\n"

    def _costs(self) -> str:
        names = [name for name in self.targets if any(name in found for found in self.costs.values())]
        rows = [
            (title, *(_number(found[name].median) if name in found else "" for name in names))
            for title, found in self.costs.items()
        ]
        return _table(("median", *(f"`{name}`" for name in names)), rows) if rows else ""

    def _reasoned(self) -> str:
        """Requests a second of workers that have a core each: reasoned from the CPU of one request, not measured."""
        if not all(name in self.costs.get(title, {}) for _, title, name in _REASONED):
            return ""
        rates = [1e6 / self.costs[title][name].median for _, title, name in _REASONED]
        # Two digits are what such a calculation is worth.
        rows = [(f"{count}", *(f"{float(f'{count * rate:.2g}'):,.0f}" for rate in rates)) for count in _WORKERS]
        heads = ("workers with a core each: requests a second, on paper", *(label for label, _, _ in _REASONED))
        return _table(heads, rows)

    def json(self) -> str:
        """The same for programs, each round's value included."""
        figures = [
            {
                "key": figure.key,
                "title": figure.goal.title,
                "unit": figure.goal.unit,
                "values": list(figure.values),
                "median": figure.spread.median if figure.spread else None,
                "must": figure.goal.must,
                "aim": figure.goal.aim,
                "at_least": figure.goal.at_least,
                "verdict": figure.verdict,
                "note": figure.note,
            }
            for figure in self.ordered
        ]
        document: dict[str, Any] = {
            "machine": dataclasses.asdict(self.machine),
            "command": self.command,
            "rounds": self.rounds,
            "targets": dict(self.targets),
            "absent": dict(self.absent),
            "figures": figures,
            "costs": {
                title: {name: dataclasses.asdict(spread) for name, spread in found.items()}
                for title, found in self.costs.items()
            },
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def plot(self, file: Path) -> bool:
        """Bars of the main costs, as SVG. False without matplotlib, which is said."""
        try:
            import matplotlib as mpl
        except ImportError:
            print("no plot: pip install matplotlib (the extra `bench`)", file=sys.stderr)
            return False
        mpl.use("svg")
        mpl.rcParams["svg.hashsalt"] = "hubgate"  # the same figures make the same file
        from matplotlib import pyplot

        shown = {title: label for title, label in _PLOTTED.items() if title in self.costs}
        if not shown:
            return False
        figure, axes = pyplot.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.2), squeeze=False)
        for axis, (title, label) in zip(axes[0], shown.items(), strict=True):
            found = self.costs[title]
            names = [name for name in self.targets if name in found][::-1]
            medians = [found[name].median for name in names]
            below = [found[name].median - found[name].low for name in names]
            above = [found[name].high - found[name].median for name in names]
            colours = [_OURS if name.startswith("gateway") else _THEIRS for name in names]
            axis.barh(names, medians, xerr=[below, above], color=colours, error_kw={"elinewidth": 0.8})
            axis.set_title(label, fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        figure.tight_layout()
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)
        return True


def placed(document: str, measured: str) -> str:
    """The document with its measured part written anew. ValueError when a marker isn't there exactly once."""
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ValueError("the document has no place for what was measured")
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{measured}\n{END}{after}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _found(figure: Figure) -> str:
    spread, unit = figure.spread, figure.goal.unit
    if spread is None:
        return ""
    median = _with_unit(spread.median, unit)
    return median if len(figure.values) == 1 else f"{median} ({_number(spread.low)} to {_number(spread.high)})"


def _limit(goal: Goal, value: float | None) -> str:
    return "" if value is None else f"{'≥' if goal.at_least else '≤'} {_with_unit(value, goal.unit)}"


def _with_unit(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".strip()


def _number(value: float) -> str:
    """Three significant digits, and no exponent."""
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 or not value else f"{value:.2g}"
