"""What a run measures between its updates: the test problems, a second task, and which update was the best so far."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from resd.measure.evaluation import evaluate
from resd.measure.forgetting import Forgetting
from resd.measure.parts import Parts
from resd.observe.run import Run
from resd.report.ranking import beats, best_step
from resd.report.samples import write_attempts
from resd.settings import EvaluationSettings
from resd.types import Attempt, Messages, Problem


class Exam:
    """`best` is the update with the best evaluation (`resd.report.ranking`), None before the first trained one; `since`
    is how many came after it."""

    def __init__(
        self,
        problems: Sequence[Problem],
        settings: EvaluationSettings,
        forgetting: Forgetting | None = None,
        ends: Mapping[int, str] | None = None,
    ) -> None:
        self.problems, self.settings, self.forgetting = problems, settings, forgetting
        self.parts = Parts(ends or {})
        self.evaluations: dict[int, dict[str, float]] = {}
        self.best: int | None = None
        self.since = 0

    def evaluate(self, run: Run, prompt: Callable[[Problem], Messages]) -> None:
        """Try the test problems after update `run.step`."""
        metrics, attempts = evaluate(run.speech, self.problems, self.settings, run.sampling, prompt)
        metrics |= self.parts.measure(run.step, attempts, run.seed)
        if run.directory is not None:
            write_attempts(run.directory, run.step, attempts, folder="evaluations")
        self.evaluations[run.step] = metrics
        if run.step > 0:
            self.since += 1
            if beats(self.evaluations, run.step, self.best):
                self.best, self.since = run.step, 0
        run.speech.log.evaluation(run.step, metrics | run.clock.read())
        run.speech.log.responses(run.step, spread([a for a in attempts if a.member == 0], self.settings.show))

    @property
    def enough(self) -> str | None:
        """Why nothing better is expected, once `patience` is at its end."""
        patience = self.settings.patience
        if patience is None or self.since < patience:
            return None
        return f"{self.since} evaluations without a new best since update {self.best} (evaluation.patience={patience})"

    def measure_forgetting(self, run: Run) -> dict[str, float]:
        """Try the second task, if there is one."""
        if not self.forgetting:
            return {}
        metrics = self.forgetting.measure(run)
        run.speech.log.forgetting(run.step, self.forgetting.name, metrics)
        return metrics

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "evaluations": {str(step): metrics for step, metrics in self.evaluations.items()},
            "best": self.best,
            "since": self.since,
            "parts": self.parts.bases,
            "forgetting": self.forgetting.base if self.forgetting else None,
        }

    def restore(self, state: Mapping[str, Any], step: int, kept: Collection[int]) -> None:
        """Go on from `state` after update `step`. A best update without a checkpoint among `kept`, as when the run went
        back behind a later best one, leaves its place to the best one that has."""
        self.evaluations = {int(number): metrics for number, metrics in state["evaluations"].items()}
        self.best, self.since = state.get("best"), state.get("since", 0)
        if self.best not in kept:
            self.best = best_step({number: values for number, values in self.evaluations.items() if number in kept})
        self.parts.bases = dict(state.get("parts", {}))
        if self.forgetting:
            self.forgetting.restore(state.get("forgetting"), step)


def spread(attempts: Sequence[Attempt], count: int) -> list[Attempt]:
    """At most `count` of them, the same places each time."""
    count = min(count, len(attempts))
    return [attempts[i * len(attempts) // count] for i in range(count)]
