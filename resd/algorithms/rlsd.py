"""RLSD: the reward says whether, the self-teacher how much (arXiv 2604.03128), over the context of another algorithm.

A group-relative advantage A keeps its sign; at each token it is scaled by how far the teacher, who reads the context in
hindsight, agrees: (1 - mix) + mix clip(exp(sign(A) (log q - log p)), 1 - clip, 1 + clip). `mix` falls linearly to zero
over `decay` updates: what the teacher knows and the student never will should not be learned for ever. Samples without
a teacher in hindsight keep A. No divergence enters the loss. Demonstrations are learned by cross entropy.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from resd import algorithms
from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared, in_hindsight
from resd.settings import AlgorithmSettings, Fraction, PolicyGradientSettings, Positive, TeacherSettings
from resd.types import Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """The reward's sign, the self-teacher's size."""

    name: Literal["rlsd"]
    context: algorithms.Inner
    """whose teacher's prompt is used: algorithm@algorithm.context=resd or sdpo"""
    mix: Fraction
    """share of the teacher's ratio in a token's advantage at the start"""
    clip: Annotated[float, Field(gt=0, lt=1)]
    """how far that ratio may be from 1"""
    decay: Positive
    """updates in which mix falls to 0"""
    normalise_std: bool
    """divide advantages by the group's standard deviation"""
    policy_gradient: PolicyGradientSettings
    teacher: TeacherSettings

    _group = compared("group")
    _context = in_hindsight("context")


class Algorithm(base.Algorithm[Settings]):
    papers = ("2604.03128",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.context = algorithms.build(run, settings.context)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        observed = self.context.observe(problems)
        mix = self.settings.mix * max(0.0, 1 - (self.run.step - 1) / self.settings.decay)
        advantages = by_group(observed.attempts, self.settings.normalise_std)
        own = [a for a in observed.attempts if a.sample is not None and a.sample.sampled_logprobs is not None]
        taught = [a for a in own if mix and advantages.get(a.id) and a.sample and a.sample.teacher_prompt_ids]
        said = self.run.score([a.sample for a in taught if a.sample])
        scaled = {
            attempt.id: [
                self._scaled(advantages[attempt.id], q - p, mix)
                for q, p in zip(scores.logprobs, attempt.logprobs, strict=True)
            ]
            for attempt, scores in zip(taught, said, strict=True)
            if scores is not None
        }
        for attempt in own:
            if attempt.sample is not None:
                attempt.sample.advantage = scaled.get(attempt.id, advantages.get(attempt.id))
            if attempt.id not in scaled:
                attempt.teacher_prompt = None
        for sample in observed.samples:
            sample.teacher_prompt_ids = None
        return Observation(observed.attempts, observed.samples, {**observed.metrics, "rlsd/mix": mix})

    def _scaled(self, advantage: float, log_ratio: float, mix: float) -> float:
        """The advantage of a token that the teacher finds more likely than the student by `log_ratio` nats."""
        low, high = 1 - self.settings.clip, 1 + self.settings.clip
        agreement = math.exp(min(math.copysign(1.0, advantage) * log_ratio, 1.0))
        return advantage * (1 - mix + mix * min(high, max(low, agreement)))

    def state(self) -> dict[str, Any]:
        return self.context.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.context.restore(state)
