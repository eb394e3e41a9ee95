"""Two algorithms, one after the other: RESD while success is rare, GRPO when it is frequent (RESD paper, section 4.4).

The run goes over to `then` once at least `when.passed` of the attempts of `when.updates` updates in a row have passed,
and back once fewer have in as many. Whether there is something to compare in a group can only be seen by trying: if
fewer than `when.mixed` of the groups of its first update have both successes and failures, `first` goes on. An
update without a verdict decides nothing.

Not covered: a learning rate of its own for either.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from resd import algorithms
from resd.algorithms import base
from resd.algorithms.grpo import mixed_share
from resd.settings import (
    AlgorithmSettings,
    Fraction,
    ObjectiveSettings,
    PolicyGradientSettings,
    Positive,
    Section,
    TeacherSettings,
)
from resd.types import Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run


class When(Section):
    """When the run goes over."""

    passed: Fraction
    """share of attempts that must pass"""
    updates: Positive
    """in so many updates in a row"""
    mixed: Fraction
    """share of groups with both outcomes that the second algorithm needs in its first update"""


class Settings(AlgorithmSettings):
    """Two algorithms, one after the other; objective, teacher and policy_gradient serve both."""

    name: Literal["switch"]
    first: algorithms.Inner
    """the algorithm while success is rare: algorithm@algorithm.first=NAME"""
    then: algorithms.Inner
    """the algorithm when it is frequent: algorithm@algorithm.then=NAME"""
    when: When
    objective: ObjectiveSettings
    teacher: TeacherSettings
    policy_gradient: PolicyGradientSettings

    @model_validator(mode="after")
    def _compares(self) -> "Settings":
        if self.then.group < 2:
            raise ValueError("switch goes by groups that have both outcomes: write algorithm.then.group=2 or more")
        if self.first.group > self.then.group:
            raise ValueError("switch starts with the fewer rollouts: write algorithm.first.group=1")
        if self.group != self.then.group:
            raise ValueError("algorithm.group is that of `then` here: write algorithm.then.group, and leave it out")
        return self


class Algorithm(base.Algorithm[Settings]):
    papers = ("2605.12741",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.first = algorithms.build(run, settings.first)
        self.then = algorithms.build(run, settings.then)
        self.switched = False
        self.probing = False  # this is the first update of `then`
        self.row = 0  # updates in a row that speak for the other one

    def observe(self, problems: Sequence[Problem]) -> Observation:
        when, switched = self.settings.when, self.switched
        observed = (self.then if switched else self.first).observe(problems)
        attempts = [attempt for attempt in observed.attempts if attempt.first]
        passed = sum(attempt.passed for attempt in attempts) / max(1, len(attempts))
        mixed = mixed_share(attempts)
        if attempts:
            frequent = passed >= when.passed
            self.row = self.row + 1 if frequent != switched else 0
            nothing_to_compare = self.probing and mixed < when.mixed
            self.probing = False
            if self.row == when.updates or nothing_to_compare:
                self.switched, self.row, self.probing = not switched, 0, not switched
        metrics = {**observed.metrics, "switch/switched": float(switched), "switch/mixed": mixed}
        return Observation(observed.attempts, observed.samples, metrics, observed.stop)

    def state(self) -> dict[str, Any]:
        own = {"switched": self.switched, "probing": self.probing, "row": self.row}
        return {**own, "first": self.first.state(), "then": self.then.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.switched, self.probing, self.row = state["switched"], state["probing"], state["row"]
        self.first.restore(state["first"])
        self.then.restore(state["then"])
