"""SDPO: self-distillation policy optimization (arXiv 2601.20802), and SDPO+ss, one boolean apart.

The teacher reads the problem with a successful peer of the same group or, without one, the raw feedback. SDPO skips a
sample that is itself the only success; SDPO+ss (`distil_self_success`) distils it on its own answer. With `group=1`,
the setting of the RESD paper, there are no peers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from resd.algorithms import base
from resd.settings import (
    AlgorithmSettings,
    ObjectiveSettings,
    SuccessWeighting,
    TeacherPromptSettings,
    TeacherSettings,
)
from resd.types import Attempt, Observation, Problem

if TYPE_CHECKING:
    from resd.observe.run import Run


class Settings(AlgorithmSettings):
    """The switches of teacher_prompt are RESD's; a playbook or reflection never exists here."""

    name: Literal["sdpo"]
    objective: ObjectiveSettings
    teacher: TeacherSettings
    teacher_prompt: TeacherPromptSettings
    success_weighting: SuccessWeighting
    distil_self_success: bool
    """whether a success is distilled too, on its own answer"""


class Algorithm(base.Algorithm[Settings]):
    papers = ("2601.20802",)

    def __init__(self, run: "Run", settings: Settings) -> None:
        super().__init__(run, settings)
        self.hindsight = run.hindsight(settings.teacher_prompt)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        attempts = self.run.rollout(problems, self.settings.group, prompt=self.prompt)
        solutions = [self._solution(attempt, attempts) for attempt in attempts]
        return Observation(attempts, self.hindsight.samples(attempts, solutions, self.settings.success_weighting))

    def _solution(self, attempt: Attempt, attempts: Sequence[Attempt]) -> str | None:
        """The first success at the same problem; its own counts only with `distil_self_success`."""
        for peer in attempts:
            allowed = peer is not attempt or self.settings.distil_self_success
            if allowed and peer.passed and peer.problem.id == attempt.problem.id:
                return self.hindsight.spoken(peer)
        return None
