"""SDPO: self-distillation policy optimization (arXiv 2601.20802), and SDPO+ss, one boolean apart.

The teacher reads the problem with a successful peer of the same group or, without one, the raw feedback. SDPO skips a
sample that is itself the only success; SDPO+ss (`distil_self_success`) distils it on its own answer. With `group=1`,
the setting of the RESD paper, there are no peers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from resd.settings import (
    AlgorithmSettings,
    ObjectiveSettings,
    SuccessWeighting,
    TeacherPromptSettings,
    TeacherSettings,
)
from resd.types import Attempt, Problem

if TYPE_CHECKING:
    from resd.run import Run


class Settings(AlgorithmSettings):
    """`teacher_prompt` has the same switches as RESD's; a playbook or reflection never exists here."""

    name: Literal["sdpo"]
    objective: ObjectiveSettings
    teacher: TeacherSettings
    teacher_prompt: TeacherPromptSettings
    success_weighting: SuccessWeighting
    distil_self_success: bool


class Algorithm:
    """The verbs of `resd.algorithms.base`."""

    def __init__(self, run: "Run", settings: Settings) -> None:
        self.run = run
        self.settings = settings
        self.teacher_prompt = run.teacher_prompt(run.prompts(), settings.teacher_prompt)

    def update(self, problems: Sequence[Problem]) -> tuple[list[Attempt], dict[str, float]]:
        attempts = self.run.rollout(problems, self.settings.group)
        weights = self.run.success_weights(attempts, self.settings.success_weighting)
        samples = [
            self.run.sample(
                attempt, self.teacher_prompt.compose(attempt, solution=self._solution(attempt, attempts)), w
            )
            for attempt, w in zip(attempts, weights, strict=True)
        ]
        return attempts, self.run.learn(samples)

    def _solution(self, attempt: Attempt, attempts: Sequence[Attempt]) -> str | None:
        """The first success at the same problem; its own counts only with `distil_self_success`."""
        for peer in attempts:
            allowed = peer is not attempt or self.settings.distil_self_success
            if allowed and peer.passed and peer.problem.id == attempt.problem.id:
                return self.run.spoken(peer)
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore: SDPO remembers nothing between updates."""
