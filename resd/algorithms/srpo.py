"""SRPO: sample routing (arXiv 2604.02288), over the context of another algorithm (RESD paper, section 6).

A sample that passed learns from its reward (GRPO); one that failed, and whose teacher knows something in hindsight, is
distilled, the more the surer the teacher is: the divergence at a token is multiplied by exp(-beta H) of the teacher's
entropy there, normalised to a mean of one over all distilled tokens that count. A failure without such a teacher
learns from its reward. `context` says who rolls out and what the teacher reads (`resd`: playbook and reflections;
`sdpo`: feedback). Demonstrations are left as they are.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from resd import algorithms
from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared, in_hindsight
from resd.settings import AlgorithmSettings, ObjectiveSettings, PolicyGradientSettings, TeacherSettings
from resd.types import Observation, Problem, Sample

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """GRPO for groups with both outcomes, distillation for the others."""

    name: Literal["srpo"]
    context: algorithms.Inner
    """whose teacher's prompt is used: algorithm@algorithm.context=resd or sdpo"""
    beta: Annotated[float, Field(ge=0)]
    """how much an unsure teacher loses"""
    normalise_std: bool
    """divide advantages by the group's standard deviation"""
    objective: ObjectiveSettings
    policy_gradient: PolicyGradientSettings
    teacher: TeacherSettings

    _group = compared("group")
    _context = in_hindsight("context")

    @model_validator(mode="after")
    def _sure(self) -> "Settings":
        if self.teacher.url is not None:
            raise ValueError("algorithm=srpo reads its teacher's entropy, which no address tells: write teacher.path=…")
        return self


class Algorithm(base.Algorithm[Settings]):
    papers = ("2604.02288",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.context = algorithms.build(run, settings.context)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        observed = self.context.observe(problems)
        advantages = by_group(observed.attempts, self.settings.normalise_std)
        for attempt in observed.attempts:
            sample = attempt.sample
            if sample is None or sample.sampled_logprobs is None:
                continue
            if attempt.passed or sample.teacher_prompt_ids is None:
                sample.teacher_prompt_ids = attempt.teacher_prompt = None
                sample.advantage = advantages.get(attempt.id)
        distilled = [sample for sample in observed.samples if sample.teacher_prompt_ids is not None]
        self._weigh(distilled)
        share = len(distilled) / max(1, len(observed.samples))
        return Observation(observed.attempts, observed.samples, {**observed.metrics, "srpo/distilled": share})

    def _weigh(self, distilled: Sequence[Sample]) -> None:
        """Set `pull` of each token by the teacher's entropy there."""
        entropies = [said.entropies for said in self.run.score(distilled) if said]
        least = min((h for each in entropies for h in each), default=0.0)  # cancels; keeps some exp above zero
        pulls = [[math.exp(self.settings.beta * (least - h)) for h in each] for each in entropies]
        masks = [sample.mask or [True] * len(pull) for sample, pull in zip(distilled, pulls, strict=True)]
        counted = [value for pull, mask in zip(pulls, masks, strict=True) for value in compress(pull, mask)]
        mean = sum(counted) / max(1, len(counted)) or 1.0
        for sample, pull in zip(distilled, pulls, strict=True):
            sample.pull = [value / mean for value in pull]

    def state(self) -> dict[str, Any]:
        return self.context.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.context.restore(state)
