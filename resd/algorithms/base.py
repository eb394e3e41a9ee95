"""What the training loop asks of an algorithm: observe problems, then learn from the samples that this gives."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from resd.context.playbook import Playbook
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

    def write_playbook(self, playbook: Playbook) -> list[dict[str, Any]]:
        """Write down what has changed since the last call, and the playbook as it is now; returns the changes."""
        events = playbook.drain_events()
        self._log(*events)
        self.run.write_file("playbook.md", playbook.to_markdown())
        return events

    def restore_playbook(self, playbook: Playbook, state: Mapping[str, Any]) -> None:
        """Where the run has no log of what led to this state, as a branch of another run, it begins with the state."""
        playbook.load_state_dict(state)
        beginning = playbook.beginning(self.run.step)
        file = self.run.directory and self.run.directory / "playbook.jsonl"
        if beginning and file and not (file.is_file() and file.stat().st_size):
            self._log(beginning)

    def _log(self, *events: Mapping[str, Any]) -> None:
        self.run.write_file("playbook.jsonl", "".join(json.dumps(event) + "\n" for event in events), append=True)
