"""The sections of an algorithm: objective, teacher, what they all have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from resd.settings.base import Fraction, Positive, Section, Url, shipped
from resd.settings.run import SamplingSettings
from resd.task import Task
from resd.types import Problem


class ObjectiveSettings(Section):
    """The clipped f-divergence over top-k logits (paper Eq. 1)."""

    divergence: str
    """which one: forward_kl, reverse_kl, jsd, or another that is registered"""
    alpha: Fraction
    """weight of the teacher in the mixture of jsd"""
    top_k: Positive
    """how many tokens of the vocabulary are compared at each position"""
    select: Literal["student", "teacher"]
    """whose likeliest tokens these are"""
    support: Literal["tail", "renormalise", "full"]
    """the other tokens: one more outcome (tail), left out (renormalise), or compared too (full)"""
    ratio_min: Annotated[float, Field(gt=0, lt=1)] | None
    """floor of teacher over student probability; null: none"""
    ratio_max: Annotated[float, Field(gt=1)] | None
    """ceiling of it; null: none"""


class PolicyGradientSettings(Section):
    """The clipped surrogate of PPO; clips matter once `optimizer.mini_batches` exceeds 1."""

    clip_low: Annotated[float, Field(gt=0, lt=1)]
    """how far a ratio may fall below 1"""
    clip_high: Annotated[float, Field(gt=0)]
    """how far it may rise above 1"""
    dual_clip: Annotated[float, Field(gt=1)] | None
    """bound of the ratio where the advantage is negative; null: none"""


class TeacherSettings(Section):
    """Weights that score the student's tokens."""

    kind: Literal["frozen", "ema", "live", "external"]
    """frozen: the first weights; ema: a moving average in float32; live: the student's own; external: another model"""
    rate: Fraction = 0.0
    """share of the student that an ema takes over at each update"""
    path: Annotated[str, AfterValidator(shipped)] | None = None
    """folder of an external teacher with the student's vocabulary"""
    url: Url | None = None
    """address of an external teacher: http://HOST:PORT/v1"""
    model: str | None = None
    """its name at the address; null: the first one there"""

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
    """whether the rarer outcome of a batch weighs more"""
    a: Annotated[float, Field(ge=0)]
    """of Eq. 2: a success weighs (1 - success rate)^a"""
    b: Annotated[float, Field(ge=0)]
    """of Eq. 2: a failure weighs (success rate)^b"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an update asks a model in one phase (as in `time/PHASE`), for a plan of memory and time.

    `count` is how often at most, and `of` whom it is asked about: all attempts, or only failures or successes. A prompt
    holds a problem, an attempt at one besides, or what was written about a whole batch; what is said is an answer to a
    problem or a text about one. `sampling` has the limits, None: those of rollouts.
    """

    phase: str
    count: int
    sampling: SamplingSettings | None = None
    of: Literal["all", "failed", "passed"] = "all"
    reads: Literal["problem", "attempt", "batch"] = "problem"
    says: Literal["answer", "text"] = "answer"


class AlgorithmSettings(Section):
    """What every algorithm has."""

    name: str
    """a module of resd.algorithms"""
    group: Positive
    """rollouts of each prompt"""
    objective: ObjectiveSettings | None = None
    policy_gradient: PolicyGradientSettings | None = None
    teacher: TeacherSettings | None = None

    @property
    def compares(self) -> bool:
        """Whether the objective has a part in it."""
        return self.objective is not None

    @property
    def rollouts(self) -> int:
        """Attempts at each prompt."""
        return self.group

    def asks(self, problems: int) -> list[Asked]:
        """What an update of so many problems asks, at most; a phase of several algorithms inside is that of any."""
        inner = [value for _, value in self if isinstance(value, AlgorithmSettings)]
        return [each for value in inner for each in value.asks(problems)] or [Asked("rollout", problems * self.group)]

    def trains(self, problems: int) -> list[Asked]:
        """Which of it is trained, or what else."""
        return [each for each in self.asks(problems) if each.phase == "rollout"]

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

    def check_task(self, task: Task) -> None:
        """Raises UserError if the task lacks what is asked of it; called with `check`."""
        for _, value in self:
            if isinstance(value, AlgorithmSettings):
                value.check_task(task)


class TeacherPromptSettings(Section):
    """What the teacher may read besides the problem."""

    playbook: bool
    """whether the teacher reads the playbook"""
    previous_trial: bool
    """whether it reads the failed attempt"""
    feedback: bool
    """whether it reads what the verifier said"""
    reflection: bool
    """whether it reads the reflection"""
    solution: bool
    """whether it reads a solution, where one is known"""
    feedback_with_solution: bool
    """whether it reads feedback beside a solution too"""
    max_tokens: Positive
    """tokens of its prompt; a longer one is shortened part by part"""
