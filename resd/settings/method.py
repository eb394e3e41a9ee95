"""The sections of an algorithm: objective, teacher, what they all have."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from resd.settings.base import Fraction, Positive, Section, Url, shipped
from resd.types import Problem


class ObjectiveSettings(Section):
    """The clipped f-divergence over top-k logits (paper Eq. 1; specs: ratio clip, support, tail bucket)."""

    divergence: str
    alpha: Fraction
    top_k: Positive
    select: Literal["student", "teacher"]
    support: Literal["tail", "renormalise", "full"]
    ratio_min: Annotated[float, Field(gt=0, lt=1)] | None
    ratio_max: Annotated[float, Field(gt=1)] | None


class PolicyGradientSettings(Section):
    """The clipped surrogate of PPO; clips matter once `optimizer.mini_batches` exceeds 1."""

    clip_low: Annotated[float, Field(gt=0, lt=1)]
    clip_high: Annotated[float, Field(gt=0)]
    dual_clip: Annotated[float, Field(gt=1)] | None


class TeacherSettings(Section):
    """Weights that score: `frozen` the initial ones, `ema` a moving average in float32, `live` the student's own.

    `external` are those of another model with the student's vocabulary: in the folder `path`, or served at the address
    `url` under the name `model` (null: the first one there).
    """

    kind: Literal["frozen", "ema", "live", "external"]
    rate: Fraction = 0.0
    path: Annotated[str, AfterValidator(shipped)] | None = None
    url: Url | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _whose(self) -> "TeacherSettings":
        if [self.path, self.url].count(None) != 2 - (self.kind == "external"):
            raise ValueError("write teacher.kind=external and one of teacher.path=…, teacher.url=…, or none of these")
        return self

    @property
    def weighs(self) -> bool:
        """Whether this run holds weights of its own for it."""
        return self.kind != "live" and self.url is None


class SuccessWeighting(Section):
    """Success-rate rebalancing, paper Eq. 2."""

    enabled: bool
    a: Annotated[float, Field(ge=0)]
    b: Annotated[float, Field(ge=0)]


class AlgorithmSettings(Section):
    """What every algorithm has. `name` is a module of `resd.algorithms`; `group` rollouts are drawn for each prompt."""

    name: str
    group: Positive
    objective: ObjectiveSettings | None = None
    policy_gradient: PolicyGradientSettings | None = None
    teacher: TeacherSettings | None = None

    @property
    def compares(self) -> bool:
        """Whether the objective has a part in it."""
        return self.objective is not None

    @model_validator(mode="after")
    def _answerable(self) -> "AlgorithmSettings":
        objective = self.objective if self.teacher and self.teacher.url and self.compares else None
        if objective and (objective.select == "student" or objective.support == "full"):
            raise ValueError(
                "algorithm.teacher.url tells no more than its own likeliest tokens: write "
                "algorithm.objective.select=teacher and algorithm.objective.support=tail"
            )
        return self

    def check(self, problems: Sequence[Problem]) -> str:
        """What a user should know about these training problems, or nothing; asked before a model is read.

        Raises UserError if there is nothing to learn from them.
        """
        return " ".join(value.check(problems) for _, value in self if isinstance(value, AlgorithmSettings)).strip()


class TeacherPromptSettings(Section):
    """What the teacher may read besides the problem, one switch a part, and how long its prompt may be in tokens."""

    playbook: bool
    previous_trial: bool
    feedback: bool
    reflection: bool
    solution: bool
    feedback_with_solution: bool
    max_tokens: Positive
