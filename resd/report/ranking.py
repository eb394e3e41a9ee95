"""Which checkpoint is the best: the paper's rank-sum rule (section 4.1).

At each logged step every one of the four validation metrics is ranked over all logged steps; the step with the highest
sum of ranks wins. Ties of a metric share their mean rank; ties of the sum go to the earlier step.

Where rewards are graded, and not just the share of cases, their mean and best are two more metrics: where little passes
yet, they alone tell one step from another. For every other task the rule is the paper's.
"""

from collections.abc import Mapping, Sequence

from resd.report.rewards import REWARD, ranked

METRICS = (
    "eval/per_task/mean@{n}",
    "eval/per_task/best@{n}",
    "eval/per_case/mean@{n}",
    "eval/per_case/best@{n}",
)


def ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value from 1 (smallest); equal values get the mean of their ranks."""
    return [sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2 for value in values]


def best_step(evaluations: Mapping[int, Mapping[str, float]], samples: int) -> int | None:
    """The step with the highest rank sum. `evaluations`: step to its validation metrics.

    Only evaluations with this number of samples are compared; None if there are none.
    """
    names = [name.format(n=samples) for name in METRICS]
    steps = sorted(step for step, values in evaluations.items() if values.keys() >= set(names))
    graded = [name.format(n=samples) for name in REWARD]
    known = all(evaluations[step].keys() >= set(graded) for step in steps)
    if known and any(ranked({name: evaluations[step][name] for name in (*names, *graded)}) for step in steps):
        names += graded
    columns = [ranks([evaluations[step][name] for step in steps]) for name in names]
    sums = [sum(column[i] for column in columns) for i in range(len(steps))]
    return steps[sums.index(max(sums))] if steps else None
