"""`python -m tests.bench`: see the package's docstring."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from hubgate.ops.demo import cache
from tests.bench import figures, quick, report
from tests.bench.workbench import Bench, standing

_DOCS = Path(__file__).parents[2] / "docs"


async def _all(folder: Path, names: Sequence[str], rounds: int) -> int:
    scenes = figures.scenes()
    unknown = set(names) - set(scenes)
    if unknown:
        print(f"no scene is called {', '.join(sorted(unknown))}; there are: {', '.join(scenes)}", file=sys.stderr)
        return 2
    machine = report.Machine.here()
    found: list[figures.Figure] = []
    failed: list[str] = []
    async with standing(folder, rounds=rounds) as bench:
        for name in names or [name for name in scenes if name not in figures.BY_HAND]:
            try:
                found += await scenes[name](bench)
            except Exception:  # noqa: BLE001 - whatever it is, what was measured before is worth keeping; see the status
                failed.append(name)
                traceback.print_exc()
        made = _report(bench, machine, found, names)
    _written(made, everything=not names and not failed)
    if failed:
        print(f"not measured, see above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or made.missed else 0


def _report(
    bench: Bench, machine: report.Machine, found: Sequence[figures.Figure], names: Sequence[str]
) -> report.Report:
    return report.Report(
        machine=machine,
        command=" ".join(("make bench", f'ARGS="{" ".join(names)}"')) if names else "make bench",
        rounds=bench.rounds,
        figures=found,
        costs=bench.costs,
        targets=bench.who,
        absent=bench.absent,
    )


def _written(made: report.Report, *, everything: bool) -> None:
    measured = made.markdown()
    print(measured)
    kept = cache.root() / "bench"
    kept.mkdir(exist_ok=True)
    for folder in (kept, _DOCS) if everything else (kept,):
        (folder / "performance.json").write_text(made.json(), encoding="utf-8")
        made.plot(folder / "performance.svg")
    if everything:
        document = _DOCS / "performance.md"
        document.write_text(report.placed(document.read_text(encoding="utf-8"), measured), encoding="utf-8")
    print(f"in {kept}{' and docs/' if everything else ''}: performance.json, performance.svg", file=sys.stderr)


async def _quick(folder: Path) -> int:
    async with standing(folder, rounds=quick.ROUNDS) as bench:
        judged = await quick.judged(bench)
    for each in judged:
        print(f"{'SLOWER' if each.slower else 'good'}: {each}")
    return 1 if any(each.slower for each in judged) else 0


def main() -> int:
    """An exit status: 1 when a figure is not what it must be, or nobody could measure it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What a request costs.")
    parser.add_argument("scenes", nargs="*", help="only these")
    parser.add_argument("--quick", action="store_true", help="the gateway against nginx")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hubgate-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # nginx and Apache give up being root
        return asyncio.run(_quick(folder) if asked.quick else _all(folder, asked.scenes, asked.rounds))


if __name__ == "__main__":
    sys.exit(main())
