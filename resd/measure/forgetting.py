"""Forgetting: what the student still can do on a second task, compared problem by problem with what it could before.

    python -m resd.train task=manufactoria forgetting.every=4 task@forgetting.task=ifeval

The second task (its test problems, plain prompts, the sampling of `evaluation`) is measured before the first update,
every `every` updates and after the last one. Samples have the same seeds each time, and the difference to the first
measurement is taken problem by problem, which removes the spread between problems from its error (the paper compares
two means, each with an error of 3 to 4 points on 100 prompts). The interval is a percentile bootstrap over problems.

Not covered: the tasks a student was trained on earlier, and the spread between training runs.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np

from resd import seeds
from resd.measure.evaluation import evaluate, scores, summarise
from resd.observe.run import Run
from resd.settings import EvaluationSettings, ForgettingSettings, VerifySettings
from resd.task import Task
from resd.types import Problem, UserError
from resd.verify import Verifier

RESAMPLES = 10_000
LEVEL = 0.95
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
            _, attempts = evaluate(speech, self.problems, self.settings, run.sampling, self.task.prompt)
        now = {name: means(by_problem) for name, by_problem in scores(attempts).items()}
        metrics = summarise(attempts, self.settings.samples, "forgetting")
        if self.base is None:
            self.base = now
        else:
            for name in ("per_task", "per_case", "reward"):
                if name not in self.base:  # of an older run
                    continue
                change, low, high = difference(self.base[name], now[name], run.seed)
                metrics |= {
                    f"forgetting/{name}/change": change,
                    f"forgetting/{name}/change_low": low,
                    f"forgetting/{name}/change_high": high,
                }
        return metrics


def means(by_problem: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean over the samples of each problem."""
    return {id: sum(values) / len(values) for id, values in by_problem.items()}


def difference(base: Mapping[str, float], now: Mapping[str, float], seed: int = 0) -> tuple[float, float, float]:
    """Mean of `now - base` over problems, and the ends of its 95 % interval from a paired bootstrap over problems.

    Both must hold the same problems, at least one.
    """
    difference_P = np.array([now[id] - base[id] for id in base])
    random = np.random.default_rng(seeds.derive(seed, "forgetting"))
    count = len(difference_P)
    drawn = (random.multinomial(count, np.full(count, 1 / count), RESAMPLES // 10) for _ in range(10))
    means_R = np.concatenate([times_R_P @ difference_P / count for times_R_P in drawn])
    low, high = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(difference_P.mean()), float(low), float(high)
