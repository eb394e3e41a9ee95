"""SRPO: sample routing (arXiv 2604.02288), over the context of another algorithm (RESD paper, section 6).

A sample that passed learns from its reward (GRPO); one that failed, and whose teacher knows something in hindsight, is
distilled, the more the surer the teacher is: the divergence at a token is multiplied by exp(-beta H) of the teacher's
entropy there, normalised to a mean of one over all distilled tokens. A failure without such a teacher learns from its
reward. `context` says who rolls out and what the teacher reads (`resd`: playbook and reflections; `sdpo`: feedback).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from resd import algorithms
from resd.algorithms import base
from resd.algorithms.grpo import by_group, compared
from resd.settings import AlgorithmSettings, ObjectiveSettings, PolicyGradientSettings, TeacherSettings
from resd.types import Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """`beta` is how much an unsure teacher loses; `normalise_std` as in GRPO."""

    name: Literal["srpo"]
    context: Annotated[SerializeAsAny[AlgorithmSettings], BeforeValidator(algorithms.settings)]
    beta: Annotated[float, Field(ge=0)]
    normalise_std: bool
    objective: ObjectiveSettings
    policy_gradient: PolicyGradientSettings
    teacher: TeacherSettings

    _group = compared("group")

    @model_validator(mode="after")
    def _sure(self) -> "Settings":
        if self.teacher.url is not None:
            raise ValueError("algorithm=srpo reads its teacher's entropy, which no address tells: write teacher.path=…")
        return self


class Algorithm(base.Algorithm[Settings]):
    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.context = algorithms.build(run, settings.context)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        observed = self.context.observe(problems)
        advantages = by_group(observed.attempts, self.settings.normalise_std)
        for attempt in observed.attempts:
            sample = attempt.sample
            if sample is not None and (attempt.passed or sample.teacher_prompt_ids is None):
                sample.teacher_prompt_ids = None
                sample.advantage = advantages.get(attempt.id)
        distilled = [sample for sample in observed.samples if sample.teacher_prompt_ids is not None]
        pulls = [
            [math.exp(-self.settings.beta * h) for h in said.entropies] for said in self.run.score(distilled) if said
        ]
        total, tokens = sum(map(sum, pulls)), sum(map(len, pulls))
        for sample, pull in zip(distilled, pulls, strict=True):
            sample.pull = [value * tokens / total for value in pull]
        share = len(distilled) / max(1, len(observed.samples))
        return Observation(observed.attempts, observed.samples, {**observed.metrics, "srpo/distilled": share})

    def state(self) -> dict[str, Any]:
        return self.context.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.context.restore(state)
