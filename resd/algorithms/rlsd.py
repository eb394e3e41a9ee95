"""RLSD: the reward says whether, the self-teacher how much (arXiv 2604.03128), over the context of another algorithm.

A group-relative advantage A keeps its sign; at each token it is scaled by how far the teacher, who reads the context in
hindsight, agrees: (1 - mix) + mix clip(exp(sign(A) (log q - log p)), 1 - clip, 1 + clip). `mix` falls linearly to zero
over `decay` updates: what the teacher knows and the student never will should not be learned for ever. Samples without
a teacher in hindsight keep A.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from resd import algorithms
from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared
from resd.settings import AlgorithmSettings, Fraction, PolicyGradientSettings, Positive, TeacherSettings
from resd.types import Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """`mix`, `clip` and `decay` as above; `normalise_std` as in GRPO."""

    name: Literal["rlsd"]
    context: Annotated[SerializeAsAny[AlgorithmSettings], BeforeValidator(algorithms.settings)]
    mix: Fraction
    clip: Annotated[float, Field(gt=0, lt=1)]
    decay: Positive
    normalise_std: bool
    policy_gradient: PolicyGradientSettings
    teacher: TeacherSettings

    _group = compared("group")


class Algorithm(base.Algorithm[Settings]):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.context = algorithms.build(run, settings.context)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        observed = self.context.observe(problems)
        mix = self.settings.mix * max(0.0, 1 - (self.run.step - 1) / self.settings.decay)
        advantages = by_group(observed.attempts, self.settings.normalise_std)
        taught = [a for a in observed.attempts if a.sample and a.sample.teacher_prompt_ids and advantages.get(a.id)]
        said = self.run.score([a.sample for a in taught if a.sample]) if mix else []
        scales = {
            attempt.id: [
                1 - mix + mix * self._clipped(math.copysign(1.0, advantages[attempt.id]) * (q - p))
                for q, p in zip(scores.logprobs, attempt.logprobs, strict=True)
            ]
            for attempt, scores in zip(taught, said, strict=bool(mix))
            if scores is not None
        }
        for attempt in observed.attempts:
            if attempt.sample is not None:
                attempt.sample.teacher_prompt_ids = None
                advantage = advantages.get(attempt.id)
                scale = scales.get(attempt.id)
                attempt.sample.advantage = advantage if scale is None else [advantages[attempt.id] * s for s in scale]
        return Observation(observed.attempts, observed.samples, {**observed.metrics, "rlsd/mix": mix})

    def _clipped(self, log_ratio: float) -> float:
        low, high = 1 - self.settings.clip, 1 + self.settings.clip
        return min(high, max(low, math.exp(min(log_ratio, 1.0))))

    def state(self) -> dict[str, Any]:
        return self.context.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.context.restore(state)
