"""Clipped policy gradient and group-relative advantages: the objective of GRPO.

As the paper's baseline has it: advantages within a group of responses to one prompt, PPO's clipped ratio with a higher
upper clip, an optional dual clip, no KL penalty and no entropy bonus. The average over tokens and samples belongs to
`weighting`, the correction for the sampling engine too.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from resd.objectives.weighting import MAX_LOG_RATIO
from resd.types import UserError


def policy_gradient(
    logprobs_C: Float[Tensor, " C"],
    old_logprobs_C: Float[Tensor, " C"] | None,
    advantage_C: Float[Tensor, " C"],
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
) -> tuple[Float[Tensor, " C"], dict[str, Float[Tensor, " C"]]]:
    """Loss per token [C], -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = pi / pi_old, and statistics [C].

    `old_logprobs_C` None means that the old policy is the current one: r = 1 and the gradient is -A grad log pi.
    `dual_clip` (above 1) bounds the loss of a token with negative advantage by -dual_clip A. Statistics, detached:
    `policy_clipped` is 1 where a clip stops the gradient, `policy_kl` estimates KL(old || current) in nats and is >= 0.
    """
    old_C = logprobs_C.detach() if old_logprobs_C is None else old_logprobs_C
    log_ratio_C = (logprobs_C - old_C).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_C = log_ratio_C.exp()
    clipped_ratio_C = ratio_C.clamp(1 - clip_low, 1 + clip_high)
    loss_C = torch.maximum(-ratio_C * advantage_C, -clipped_ratio_C * advantage_C)
    stopped_C = ((advantage_C > 0) & (ratio_C > 1 + clip_high)) | ((advantage_C < 0) & (ratio_C < 1 - clip_low))
    if dual_clip is not None:
        loss_C = torch.where(advantage_C < 0, torch.minimum(loss_C, -dual_clip * advantage_C), loss_C)
        stopped_C |= (advantage_C < 0) & (ratio_C > dual_clip)
    return loss_C, {
        "policy_clipped": stopped_C.to(loss_C.dtype),
        "policy_kl": (ratio_C - 1 - log_ratio_C).detach(),
    }


def group_advantages(rewards_P_G: Float[Tensor, "P G"], normalise_std: bool = True) -> Float[Tensor, "P G"]:
    """Reward minus the mean of its group, over (unbiased standard deviation + 1e-6) if `normalise_std`.

    A group of equal rewards gives exactly 0. UserError for groups of fewer than two.
    """
    if rewards_P_G.shape[-1] < 2:
        raise UserError("An advantage compares several responses to one prompt: write a group size of at least 2.")
    advantages_P_G = rewards_P_G - rewards_P_G.mean(-1, keepdim=True)
    if normalise_std:
        advantages_P_G = advantages_P_G / (rewards_P_G.std(-1, keepdim=True) + 1e-6)
    # rounding of the mean alone, divided by 1e-6, would be a visible advantage
    equal_P_1 = (rewards_P_G == rewards_P_G[:, :1]).all(-1, keepdim=True)
    return advantages_P_G.masked_fill(equal_P_1, 0)
