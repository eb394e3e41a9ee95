"""Weights of samples and tokens: success rebalancing (paper Eq. 2), importance truncation, and the loss normaliser.

The loss of an update is the plain sum of weight times token loss over all tokens of all samples, on all ranks and in
all micro-batches; every average is in the weights, which are known before the first backward. The paper's Eq. 3 sums
the tokens of a sample without dividing by their number; `sequence_mean` divides, as its released code effectively does.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Reduction = Literal["sequence_mean", "token_mean"]

MAX_LOG_RATIO = 20.0  # nats; keeps the exponential of a wild log-ratio finite


def success_weights(passed_A: Bool[Tensor, " A"], a: float = 1.0, b: float = 1.0) -> Float[Tensor, " A"]:
    """Weights with mean 1 that raise the rarer outcome of the whole batch: (1 - s)^a for passed, s^b for failed ones.

    s is the success rate. With a = b = 1 either outcome holds half of the total. Where the formula vanishes, as it does
    when all samples share one outcome, every weight is 1. Computed and returned in float64.
    """
    rate = passed_A.double().mean()
    raw_A = torch.where(passed_A, (1 - rate) ** a, rate**b)
    mean = raw_A.mean()
    return raw_A / mean if mean > 1e-8 else torch.ones_like(raw_A)


def truncated_importance(
    logprobs_T: Float[Tensor, " T"], sampled_logprobs_T: Float[Tensor, " T"], cap: float = 2.0
) -> Float[Tensor, " T"]:
    """min(pi_trainer / pi_engine, cap) per token, detached: corrects for an engine that computes otherwise."""
    log_ratio_T = (logprobs_T - sampled_logprobs_T).detach()
    return log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)


def token_weights(
    masks: Sequence[Bool[Tensor, " T"]],
    weights_A: Sequence[float] | Float[Tensor, " A"],
    reduction: Reduction,
    total_samples: int,
    total_tokens: int,
) -> list[Float[Tensor, " T"]]:
    """What each token's loss is multiplied by, one float32 tensor per sample; 0 where the mask is False.

    `sequence_mean`: sample weight / (total_samples x masked-in tokens of the sample); `token_mean`: sample weight /
    total_tokens. The totals count the whole update, every rank and micro-batch included: all samples, also those
    without a masked-in token, and all masked-in tokens.
    """
    if reduction == "sequence_mean":
        denominators = [total_samples * max(1, int(mask_T.sum())) for mask_T in masks]
    else:
        denominators = [max(1, total_tokens)] * len(masks)
    return [
        mask_T.float() * (float(weight) / denominator)
        for mask_T, weight, denominator in zip(masks, weights_A, denominators, strict=True)
    ]
