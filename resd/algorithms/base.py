"""What the training loop asks of an algorithm: observe problems, then learn from the samples that this gives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from resd.settings import AlgorithmSettings
from resd.types import Messages, Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run

SettingsT = TypeVar("SettingsT", bound=AlgorithmSettings)


class Algorithm(Generic[SettingsT]):
    """A subclass implements `observe`; the rest has defaults. An algorithm may hold another one as its context.

    Without `learns` there is no learner: nothing is trained, a checkpoint holds the state alone. `papers` are the arXiv
    numbers of what it implements.
    """

    learns: ClassVar[bool] = True
    papers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, run: "Run", settings: SettingsT) -> None:
        self.run = run
        self.settings = settings

    def observe(self, problems: Sequence[Problem]) -> Observation:
        """Try the problems of update `run.step`; what is known in the end becomes samples."""
        raise NotImplementedError

    def update(self, problems: Sequence[Problem]) -> Observation:
        """One update on these problems, with the learner's metrics beside those of the observation."""
        observation = self.observe(problems)
        if not self.learns:
            return observation
        samples = self.run.taught(observation.samples)
        return replace(observation, samples=samples, metrics={**self.run.learn(samples), **observation.metrics})

    def prompt(self, problem: Problem) -> Messages:
        """How the student is asked, in rollouts and evaluations."""
        return self.run.task.prompt(problem)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
