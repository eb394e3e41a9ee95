"""GRPO: group-relative policy optimization, the reward-only baseline (paper section 4.4, Appendix G).

`group` rollouts of each prompt; a rollout's advantage is its reward against its group. No teacher, no context, no KL.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import ValidationInfo, field_validator

from resd.algorithms import base
from resd.settings import AlgorithmSettings, PolicyGradientSettings
from resd.types import Attempt, Observation, Problem


def compared(field: str, what: str = "rollouts of one prompt") -> Any:
    """A validator of the number of those that are compared with each other."""

    def enough(cls: type[AlgorithmSettings], group: int) -> int:
        if group < 2:
            name = cls.model_fields["name"].annotation
            raise ValueError(f"{get_args(name)[0]} compares {what}: write algorithm.{field}=2 or more")
        return group

    return field_validator(field)(classmethod(enough))


def in_hindsight(field: str) -> Any:
    """A validator of the algorithm that rolls out for another one, whose `group` comes before it."""

    def teaches(cls: type[AlgorithmSettings], inner: Any, info: ValidationInfo) -> Any:
        told = dict(inner) if isinstance(inner, (Mapping, AlgorithmSettings)) else {}
        name, group = get_args(cls.model_fields["name"].annotation)[0], info.data.get("group")
        if told and told.get("objective") is None:
            raise ValueError(f"{name} needs a context with a teacher: write algorithm@algorithm.{field}=resd or sdpo")
        if told and group and told.get("group") != group:
            raise ValueError(
                f"algorithm.{field}.group={told.get('group')} is not algorithm.group={group}: leave the former out"
            )
        return inner

    return field_validator(field, mode="before")(classmethod(teaches))


class Settings(AlgorithmSettings):
    """Group-relative policy optimisation."""

    name: Literal["grpo"]
    normalise_std: bool
    """divide advantages by the group's standard deviation"""
    policy_gradient: PolicyGradientSettings

    _group = compared("group")


class Algorithm(base.Algorithm[Settings]):
    papers = ("2402.03300",)

    def observe(self, problems: Sequence[Problem]) -> Observation:
        attempts = self.run.rollout(problems, self.settings.group, prompt=self.prompt)
        advantages = by_group(attempts, self.settings.normalise_std)
        samples = [a.as_sample(advantage=advantages[a.id]) for a in attempts if a.id in advantages]
        return Observation(attempts, samples)


def by_group(attempts: Sequence[Attempt], normalise_std: bool) -> dict[str, float]:
    """Advantages by attempt id. A group that lost members is compared among those left, if two are."""
    import torch

    from resd.objectives.policy_gradient import group_advantages

    advantages: dict[str, float] = {}
    for group in grouped(attempts):
        if len(group) < 2:
            continue
        rewards_1_G = torch.tensor([[a.verdict.reward for a in group if a.verdict is not None]])
        values_1_G = group_advantages(rewards_1_G, normalise_std)
        advantages |= zip([a.id for a in group], values_1_G[0].tolist(), strict=True)
    return advantages


def grouped(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Those that answer the same: a problem, or what followed from one attempt at it."""
    groups: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault((attempt.problem.id, attempt.parent.id if attempt.parent else ""), []).append(attempt)
    return list(groups.values())


def mixed_share(attempts: Sequence[Attempt]) -> float:
    """The share of groups with both a success and a failure."""
    groups = grouped(attempts)
    return sum(len({attempt.passed for attempt in group}) == 2 for group in groups) / max(1, len(groups))
