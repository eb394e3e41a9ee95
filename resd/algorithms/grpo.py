"""GRPO: group-relative policy optimization, the reward-only baseline (paper section 4.4, Appendix G).

`group` rollouts of each prompt; a rollout's advantage is its reward against its group. No teacher, no context, no KL.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from resd.settings import AlgorithmSettings, PolicyGradientSettings
from resd.types import Attempt, Problem, Sample

if TYPE_CHECKING:
    from resd.run import Run


class Settings(AlgorithmSettings):
    """`normalise_std` divides advantages by the group's standard deviation."""

    name: Literal["grpo"]
    normalise_std: bool
    policy_gradient: PolicyGradientSettings

    @field_validator("group")
    @classmethod
    def _has_something_to_compare(cls, group: int) -> int:
        if group < 2:
            raise ValueError("grpo compares rollouts of one prompt: write algorithm.group=2 or more")
        return group


class Algorithm:
    """The verbs of `resd.algorithms.base`."""

    def __init__(self, run: "Run", settings: Settings) -> None:
        self.run = run
        self.settings = settings

    def update(self, problems: Sequence[Problem]) -> tuple[list[Attempt], dict[str, float]]:
        attempts = self.run.rollout(problems, self.settings.group)
        advantages = self._advantages(attempts)
        samples = [
            Sample(a.prompt_ids, a.response_ids, a.logprobs, advantage=advantages[a.id])
            for a in attempts
            if a.id in advantages
        ]
        return attempts, self.run.learn(samples)

    def _advantages(self, attempts: Sequence[Attempt]) -> dict[str, float]:
        """By attempt id. A group that lost members to verification is compared among those left, if two are."""
        import torch

        from resd.objectives.policy_gradient import group_advantages

        groups: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            groups.setdefault(attempt.problem.id, []).append(attempt)
        advantages: dict[str, float] = {}
        for group in groups.values():
            if len(group) < 2:
                continue
            rewards_1_G = torch.tensor([[a.verdict.reward for a in group if a.verdict is not None]])
            values_1_G = group_advantages(rewards_1_G, self.settings.normalise_std)
            advantages |= zip([a.id for a in group], values_1_G[0].tolist(), strict=True)
        return advantages

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore: GRPO remembers nothing between updates."""
