"""What it costs to stop when a rule says so: the regret of every stopping rule over finished runs of a library.

    python scripts/stopping.py RUN/seed_0 RUN/seed_1 …                    # of algorithm=training_free_grpo, no rule set
    python scripts/stopping.py RUN/seed_* --gated GATED/seed_*            # and runs of the same with algorithm.gate=N

A run must have been evaluated after every update (`evaluation.every=1`). A rule reads what it would have read in the
run (`resd.context.stopping`); its regret is the test accuracy of the run's best update less that of the update it
stops after, or of the last one. *best in training* goes back, at the end, to the library that the update with the
largest share of passes began with. A gated run is held against the best of both runs of its name. Printed: the mean
over runs, with 95 % t-intervals. Choosing a rule by this table on the runs it was made from flatters it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resd.context.stopping import exhausted, restless
from resd.report.groups import estimate
from resd.report.read import read_run
from resd.train import guarded
from resd.types import UserError

Series = list[Any]


@dataclass(frozen=True)
class Curves:
    """What a run showed after each update, from the first."""

    tests: list[float]  # and before the first
    passed: Series
    churn: Series
    drift: Series


@dataclass
class Row:
    rule: str
    stops: list[int] = field(default_factory=list)
    regrets: list[float] = field(default_factory=list)


Rule = Callable[[Curves, int], bool]  # whether it stops after so many updates


def patience(updates: int) -> Rule:
    return lambda curves, n: exhausted(curves.passed[:n], updates)


def churn(limit: float) -> Rule:
    return lambda curves, n: restless(curves.churn[:n], limit)


def drift(limit: float) -> Rule:
    return lambda curves, n: restless(curves.drift[:n], limit)


RULES: dict[str, Rule] = {
    "to the end": lambda curves, n: False,
    **{f"patience={updates}": patience(updates) for updates in (1, 2, 3)},
    **{f"max_churn={limit}": churn(limit) for limit in (0.2, 0.4, 0.6)},
    **{f"max_drift={limit}": drift(limit) for limit in (0.3, 0.6)},
}


def read(run: Path) -> Curves:
    """Raises UserError if the run was not evaluated after every update."""
    record = read_run(run)
    trained = {row["step"]: row for row in record.rows if row["kind"] == "train"}
    score = f"eval/per_task/mean@{record.samples}"
    tested = {step: row[score] for step, row in record.evaluations.items()}
    if missing := [step for step in (0, *trained) if step not in tested]:
        raise UserError(f"{run.name} was not evaluated after update {missing[0]}: write evaluation.every=1")
    series = [
        [trained[step].get(name) for step in sorted(trained)]
        for name in ("train/per_task", "library/churn", "library/drift")
    ]
    return Curves([tested[step] for step in (0, *sorted(trained))], *series)


def scored(runs: Sequence[Path], gated: Sequence[Path] = ()) -> list[Row]:
    """A row a rule. Raises UserError for a run that cannot be read, or a gated one without its twin."""
    curves = {run.name: read(run) for run in runs}
    rows = [Row(rule) for rule in RULES]
    for row in rows:
        for curve in curves.values():
            last = len(curve.passed)
            _add(row, curve, next((n for n in range(1, last + 1) if RULES[row.rule](curve, n)), last))
    best = Row("best in training")
    for curve in curves.values():
        _add(best, curve, curve.passed.index(max(curve.passed)))
    row = Row("gate")
    for run in gated:
        if run.name not in curves:
            raise UserError(f"{run.name} has no run without a gate beside it: give both, under one name")
        own = read(run)
        row.stops.append(len(own.passed))
        row.regrets.append(max([*own.tests, *curves[run.name].tests]) - own.tests[-1])
    return [*rows, best, *([row] if gated else [])]


def _add(row: Row, curves: Curves, stop: int) -> None:
    row.stops.append(stop)
    row.regrets.append(max(curves.tests) - curves.tests[stop])


def report(runs: Sequence[Path], gated: Sequence[Path]) -> None:
    print("| rule | stops after | regret, points |\n| --- | --- | --- |")
    for row in scored(runs, gated):
        regret = estimate([100 * regret for regret in row.regrets])
        told = f"{regret.mean:.1f}" + (f" ± {regret.half:.1f}" if regret.half is not None else "")
        print(f"| {row.rule} | {', '.join(map(str, row.stops))} | {told} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--gated", nargs="+", type=Path, default=[])
    options = parser.parse_args()
    guarded(lambda: report(options.runs, options.gated))


if __name__ == "__main__":
    main()
