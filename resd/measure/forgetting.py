"""Forgetting: what the student still can do on a second task, compared problem by problem with what it could before.

    python -m resd.train task=manufactoria forgetting.every=4 task@forgetting.task=ifeval

The second task (its test problems, plain prompts, the sampling of `evaluation`) is measured before the first update,
every `every` updates and after the last one. Samples have the same seeds each time, and the difference to the first
measurement is taken problem by problem, which removes the spread between problems from its error (the paper compares
two means, each with an error of 3 to 4 points on 100 prompts). The interval is a percentile bootstrap over problems.

Not covered: the tasks a student was trained on earlier in the run (`parts`), and the spread between training runs.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from resd import seeds
from resd.measure.evaluation import evaluate, scores, summarise
from resd.observe.run import Run
from resd.settings import EvaluationSettings, ForgettingSettings, VerifySettings
from resd.task import Task
from resd.types import Problem, UserError
from resd.verify import Verifier

RESAMPLES = 10_000
LEVEL = 0.95
FloatArray = NDArray[np.float64]
Base = dict[str, dict[str, float]]  # by score and problem: the mean over samples before the first update


class Forgetting:
    """A second task and the student's first results on it. `base` is None until it was measured."""

    def __init__(
        self,
        task: Task,
        problems: Sequence[Problem],
        settings: ForgettingSettings,
        evaluation: EvaluationSettings,
        verify: VerifySettings,
    ) -> None:
        self.task, self.name, self.problems = task, settings.task.name, problems
        self.settings = evaluation.model_copy(update={"samples": settings.samples, "limit": settings.limit})
        self.verify = verify
        self.base: Base | None = None

    def restore(self, base: Base | None, step: int) -> None:
        """Go on after `step` updates. Raises UserError if nothing was measured before them."""
        if step and base is None:
            raise UserError(
                "forgetting.every has nothing to compare with in a run that began without it: "
                "write forgetting.every=0, or choose another run_dir"
            )
        self.base = base

    def measure(self, run: Run) -> dict[str, float]:
        """`forgetting/…` metrics of the engine's current weights; the first measurement is the base of the others."""
        with closing(Verifier(self.task, self.verify.workers, self.verify.timeout)) as verifier:
            speech = run.speech.judged_by(verifier)
            if self.base is None:
                speech.check_turns(self.problems, self.task.prompt)
            _, attempts = evaluate(speech, self.problems, self.settings, run.sampling, self.task.prompt)
        now = {name: means(by_problem) for name, by_problem in scores(attempts).items()}
        metrics = summarise(attempts, self.settings.samples, "forgetting")
        if self.base is None:
            self.base = now
            return metrics
        return metrics | changes(self.base, now, "forgetting", run.seed)


def changes(base: Base, now: Base, prefix: str, seed: int) -> dict[str, float]:
    """`PREFIX/{per_task,per_case,reward}/{change,change_low,change_high}` of the problems that both hold."""
    metrics: dict[str, float] = {}
    for name in ("per_task", "per_case", "reward"):
        if name in base:  # else it is younger than the run
            change, low, high = difference(base[name], now[name], seed)
            metrics |= {
                f"{prefix}/{name}/change": change,
                f"{prefix}/{name}/change_low": low,
                f"{prefix}/{name}/change_high": high,
            }
    return metrics


def means(by_problem: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean over the samples of each problem."""
    return {id: sum(values) / len(values) for id, values in by_problem.items()}


def difference(base: Mapping[str, float], now: Mapping[str, float], seed: int = 0) -> tuple[float, float, float]:
    """Mean of `now - base` over problems, and the ends of its 95 % interval from a paired bootstrap over problems.

    Both must hold the same problems, at least one.
    """
    return interval([(base, now)], seed)


def interval(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], seed: int) -> tuple[float, float, float]:
    """The same of the mean over several pairs of their differences; each has problems of its own to draw from."""
    random = np.random.default_rng(seeds.derive(seed, "forgetting"))
    differences = [np.array([now[id] - base[id] for id in base]) for base, now in pairs]
    means_R = np.mean([_resampled(difference_P, random) for difference_P in differences], axis=0)
    low, high = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.mean([difference_P.mean() for difference_P in differences])), float(low), float(high)


def _resampled(difference_P: FloatArray, random: np.random.Generator) -> FloatArray:
    """The mean over as many problems, drawn with replacement, RESAMPLES times."""
    count = len(difference_P)
    drawn = (random.multinomial(count, np.full(count, 1 / count), RESAMPLES // 10) for _ in range(10))
    return np.concatenate([times_R_P @ difference_P / count for times_R_P in drawn])
