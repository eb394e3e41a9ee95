"""Which checkpoint is the best: the paper's rank-sum rule (section 4.1), applied as evaluations come in.

Every one of the four validation metrics is ranked over all trained steps that were evaluated so far; an evaluation is
the new best if its sum of ranks is above that of the best before it. Ties of a metric share their mean rank; ties of
the sum leave the earlier step the best. Ranking all steps once, at the end, may choose another one, which nobody had
reason to keep when it was evaluated.

Where rewards are graded, and not just the share of cases, their mean and best are two more metrics: where little passes
yet, they alone tell one step from another. For every other task the rule is the paper's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from resd.report.rewards import REWARD, ranked

METRICS = (
    "eval/per_task/mean@{n}",
    "eval/per_task/best@{n}",
    "eval/per_case/mean@{n}",
    "eval/per_case/best@{n}",
)


def rank(value: float, values: Sequence[float]) -> float:
    """Of one of `values`, from 1 (smallest); equal values get the mean of their ranks."""
    return sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2


# What an evaluation says of how it was asked, beside the n of mean@n; one from before it did may have been asked alike.
ASKED = tuple(f"eval/asked/{name}" for name in ("problems", "temperature", "top_p", "max_response"))


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations were asked alike, so that they can be compared."""
    return samples(one) == samples(other) and all(
        one[key] == other[key] for key in ASKED if key in one and key in other
    )


def samples(evaluation: Mapping[str, Any]) -> int | None:
    """The n of mean@n; None if the four metrics are not there."""
    marks = (name.split("@")[1] for name in evaluation if name.startswith("eval/per_task/mean@"))
    found = [int(n) for n in marks if all(evaluation.get(name.format(n=n)) is not None for name in METRICS)]
    return found[0] if found else None


def beats(evaluations: Mapping[int, Mapping[str, Any]], new: int, old: int | None) -> bool:
    """Whether step `new` has a higher rank sum than `old` among those that were asked like `new`.

    So it has if `old` is not one of these, and has not if it cannot be ranked itself.
    """
    n = samples(evaluations[new])
    if n is None:
        return False
    names = [name.format(n=n) for name in METRICS]
    peers = {step: values for step, values in evaluations.items() if step > 0 and alike(values, evaluations[new])}
    graded = [name.format(n=n) for name in REWARD]
    known = all(values.keys() >= set(graded) for values in peers.values())
    if known and any(ranked({name: values[name] for name in (*names, *graded)}) for values in peers.values()):
        names += graded
    columns = [[values[name] for values in peers.values()] for name in names]
    sums = [
        sum(rank(peers[step][name], column) for name, column in zip(names, columns, strict=True))
        for step in (new, old)
        if step in peers
    ]
    return len(sums) < 2 or sums[0] > sums[1]


def best_step(evaluations: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The best step after all of `evaluations`: step to its metrics. None if no trained one can be ranked."""
    best = None
    for step in sorted(step for step in evaluations if step > 0):
        if beats({s: values for s, values in evaluations.items() if s <= step}, step, best):
            best = step
    return best
