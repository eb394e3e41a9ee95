"""Runs that differ only in their seed are one method: names, and mean ± interval over seeds.

The interval is Student's 95 % confidence interval of the mean; one run has none.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resd.defaults import completed
from resd.report.ranking import METRICS, alike, best_step, samples
from resd.report.read import RunRecord
from resd.report.rewards import REWARD, graded, judges
from resd.word import flat

# Settings that say where and how a run was made, not what it learned.
INCIDENTAL = (
    *("seed", "run_dir", "resume", "progress", "trackers", "checkpoints", "verify", "hardware"),
    *("engine.max_batch", "evaluation.show", "evaluation.vote", "style.markers"),
)
# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; the normal one beyond.
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
Z_95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and half the width of its interval (None for one seed)."""

    mean: float
    half: float | None


@dataclass(frozen=True)
class Group:
    """Runs with the same settings; `label` says what sets them apart from the other groups."""

    label: str
    runs: list[RunRecord]
    settings: dict[str, Any]

    @property
    def seeds(self) -> list[Any]:
        return [run.config.get("seed") for run in self.runs]

    @property
    def samples(self) -> int | None:
        """The n of mean@n; None without an evaluation."""
        return next((run.samples for run in self.runs if run.samples), None)


@dataclass(frozen=True)
class Checkpoint:
    """One line of the table: the base, best or last evaluation, and whether all were asked like their run's last one.
    `steps` and `interactions` have one number a run.
    """

    name: str
    alike: bool
    steps: list[int]
    interactions: list[float]
    scores: list[Estimate | None]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of at least one value, and its interval if there are more."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(mean, None)
    return Estimate(mean, t_95(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5)


def t_95(freedom: int) -> float:
    """Half the width of Student's 95 % interval, in standard errors."""
    return T_95[freedom - 1] if freedom <= len(T_95) else Z_95


def group_runs(runs: Sequence[RunRecord], across: Sequence[str] = ()) -> list[Group]:
    """Groups in the order in which their first run was given; runs of one may differ in the settings `across` too."""
    members: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = essential(run.config, across)
        told = sorted((name, value) for name, value in settings.items() if value is not None)
        key = repr(told) if settings else str(run.path)
        members.setdefault(key, []).append(run)
    groups = list(members.values())
    settled = [essential(group[0].config, across) for group in groups]
    labels = _labels(settled, [group[0].path.name for group in groups])
    return [Group(*parts) for parts in zip(labels, groups, settled, strict=True)]


def essential(config: Mapping[str, Any], across: Sequence[str] = ()) -> dict[str, Any]:
    """Flat settings without the incidental ones; those that are younger than the run are as shipped."""
    return {
        key: value
        for key, value in flat(completed(config) if config else config).items()
        if not any(key == name or key.startswith(f"{name}.") for name in (*INCIDENTAL, *across))
    }


def _labels(settings: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The algorithm's name, and where groups share it, the settings in which one leaves the majority of them.

    Where no value has a majority, every group says its own.
    """
    algorithms = [str(s.get("algorithm.name", name)) for s, name in zip(settings, names, strict=True)]
    labels = []
    for algorithm, own in zip(algorithms, settings, strict=True):
        peers = [s for s, name in zip(settings, algorithms, strict=True) if name == algorithm]
        parts = [algorithm]
        for key in differing(peers):
            value, count = Counter(repr(s.get(key)) for s in peers).most_common(1)[0]
            if 2 * count <= len(peers) or repr(own.get(key)) != value:
                parts.append(f"{key.removeprefix('algorithm.').removeprefix('teacher_prompt.')}={plain(own.get(key))}")
        labels.append(" ".join(parts))
    return labels


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that are not the same everywhere, in the order of the configuration."""
    keys = dict.fromkeys(key for s in settings for key in s)
    return [key for key in keys if len({repr(s.get(key)) for s in settings}) > 1]


def checkpoints(group: Group, names: Sequence[str] = METRICS) -> list[Checkpoint]:
    """The base, the best by rank sum among the trained, and the last evaluation, of the runs that have them.

    `names` are those of the scores, with {n} for the number of samples.
    """
    evaluated = [run for run in group.runs if run.samples and run.samples == group.samples]
    untrained = [run for run in evaluated if 0 in run.evaluations]
    trained = [run for run in evaluated if max(run.evaluations) > 0]
    found = []
    if untrained:
        name = "base" if group.settings else "evaluation"  # what `resd.evaluate` wrote has no settings
        found.append(_checkpoint(name, untrained, [0] * len(untrained), names))
    if trained:
        found.append(_checkpoint("best", trained, [best(run) for run in trained], names))
        found.append(_checkpoint("last", trained, [max(run.evaluations) for run in trained], names))
    return found


def plain(value: Any) -> str:
    """A setting as the command line writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def score_names(groups: Sequence[Group]) -> list[str]:
    """The scores that tables show, mean and best of each, with {n}: rewards if any are graded, and those of judges."""
    rows = [row for group in groups for run in group.runs for row in run.evaluations.values()]
    found = judges(name for row in rows for name in row)
    rewards = REWARD if any(map(graded, rows)) else ()
    return [
        *METRICS,
        *rewards,
        *(f"eval/reward/{each}/{kind}@{{n}}" for each in found for kind in ("mean", "best")),
    ]


def best(run: RunRecord) -> int:
    """The update with the best evaluation: the one that is kept, where the run says which."""
    found = best_step(run.evaluations) if run.kept_best not in run.evaluations else run.kept_best
    return max(run.evaluations) if found is None else found


def otherwise(run: RunRecord) -> list[int]:
    """Updates whose evaluation was not asked like the last one."""
    rows = run.evaluations
    return [step for step in sorted(rows) if not alike(rows[step], rows[max(rows)])]


def _checkpoint(name: str, runs: Sequence[RunRecord], steps: list[int], names: Sequence[str]) -> Checkpoint:
    interactions = [r.timeline.interactions[r.timeline.steps.index(s)] for r, s in zip(runs, steps, strict=True)]
    scores: list[Estimate | None] = []
    rows = [run.evaluations[step] for run, step in zip(runs, steps, strict=True)]
    for each in names:
        values = [row.get(each.format(n=samples(row))) for row in rows]
        known = [value for value in values if value is not None]
        scores.append(estimate(known) if len(known) == len(runs) else None)
    asked = all(step not in otherwise(run) for run, step in zip(runs, steps, strict=True))
    return Checkpoint(name, asked, steps, interactions, scores)
