"""Sampling: one uniform number per row, inverted through the distribution in descending order of probability.

Ordering by probability makes the nucleus a prefix, so the few most probable tokens nearly always decide and the whole
vocabulary is sorted only for rows whose draw falls outside of them. A row's token is a function of its own logits,
parameters and uniform number: what else is in the batch does not matter.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

CANDIDATES = 16  # how many of the most probable tokens are tried first; rows left over try 16 times more


def sample(
    logits_B_V: Float[Tensor, "B V"],
    temperature_B: Float[Tensor, " B"],
    top_p_B: Float[Tensor, " B"],
    uniform_B: Float[Tensor, " B"],
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Draw one token per row; returns ids and float32 log softmax(logits / temperature) of them, before top-p.

    Temperature 0 is greedy, and its log-probability is that of temperature 1. Top-p keeps the smallest set of the most
    probable tokens whose mass is at least `top_p`, always at least one. `uniform_B` is float64 in [0, 1).
    """
    greedy_B = temperature_B == 0
    scaled_B_V = logits_B_V.float() / torch.where(greedy_B, 1.0, temperature_B).float()[:, None]
    # greedy is the nucleus of mass zero: the most probable token
    return _invert(scaled_B_V, scaled_B_V.logsumexp(-1), top_p_B.masked_fill(greedy_B, 0.0), uniform_B, CANDIDATES)


def _invert(
    scaled_B_V: Float[Tensor, "B V"],
    log_total_B: Float[Tensor, " B"],
    top_p_B: Float[Tensor, " B"],
    uniform_B: Float[Tensor, " B"],
    candidates: int,
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Invert the cumulative distribution among the `candidates` most probable tokens, or more where that is too few."""
    everything = candidates >= scaled_B_V.shape[-1]
    logits_B_C, ids_B_C = scaled_B_V.topk(min(candidates, scaled_B_V.shape[-1]))
    logprobs_B_C = logits_B_C - log_total_B[:, None]
    mass_B_C = logprobs_B_C.double().exp()
    cumulative_B_C = mass_B_C.cumsum(-1)
    covered_B = cumulative_B_C[:, -1]

    size_B = (cumulative_B_C - mass_B_C < top_p_B[:, None]).sum(-1).clamp_min(1)
    nucleus_B = cumulative_B_C.gather(-1, size_B[:, None] - 1).squeeze(-1)
    # without top-p the nucleus is the whole distribution, whose mass is known without looking at it
    whole_B = (top_p_B >= 1) & (not everything)
    target_B = uniform_B * torch.where(whole_B, 1.0, nucleus_B)
    rank_B = torch.minimum((cumulative_B_C <= target_B[:, None]).sum(-1), size_B - 1)[:, None]
    ids_B, logprobs_B = ids_B_C.gather(-1, rank_B).squeeze(-1), logprobs_B_C.gather(-1, rank_B).squeeze(-1)

    if not everything:
        rest = torch.where(whole_B, target_B >= covered_B, covered_B < top_p_B).nonzero().squeeze(-1)
        if len(rest):
            ids_B[rest], logprobs_B[rest] = _invert(
                scaled_B_V[rest], log_total_B[rest], top_p_B[rest], uniform_B[rest], 16 * candidates
            )
    return ids_B, logprobs_B
