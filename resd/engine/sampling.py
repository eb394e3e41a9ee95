"""Sampling: one uniform number per row, inverted through the row's distribution.

A row's token is a function of its own logits, parameters and uniform number: what else is in the batch does not matter.
For top-p the distribution is taken in descending order of probability, where the nucleus is a prefix; the few most
probable tokens nearly always contain it, and only the rows left over look at more.
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
    scale_B_1 = temperature_B.masked_fill(greedy_B, 1.0).float()[:, None]
    logprobs_B_V = (logits_B_V.float() / scale_B_1).log_softmax(-1)
    top_p_B = top_p_B.masked_fill(greedy_B, 0.0)  # greedy is the nucleus of one token
    ids_B = torch.empty(len(logits_B_V), dtype=torch.long, device=logits_B_V.device)
    whole_B = top_p_B >= 1
    if len(rows := whole_B.nonzero().squeeze(-1)):
        ids_B[rows] = _draw(logprobs_B_V[rows], uniform_B[rows])
    if len(rows := (~whole_B).nonzero().squeeze(-1)):
        ids_B[rows] = _draw_nucleus(logprobs_B_V[rows], top_p_B[rows], uniform_B[rows], CANDIDATES)
    return ids_B, logprobs_B_V.gather(-1, ids_B[:, None]).squeeze(-1)


def _draw(logprobs_B_V: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """From the whole distribution, in the order of the vocabulary."""
    # float64, since float32 would give the same cumulative mass to neighbours in the tail
    cumulative_B_V = logprobs_B_V.exp().cumsum(-1, dtype=torch.float64)
    target_B_1 = (uniform_B * cumulative_B_V[:, -1])[:, None]
    rank_B = torch.searchsorted(cumulative_B_V, target_B_1, right=True).squeeze(-1)
    return rank_B.clamp_max(logprobs_B_V.shape[-1] - 1)


def _draw_nucleus(
    logprobs_B_V: Float[Tensor, "B V"], top_p_B: Float[Tensor, " B"], uniform_B: Float[Tensor, " B"], candidates: int
) -> Int[Tensor, " B"]:
    """From the nucleus, looked for among the `candidates` most probable tokens, or more where it is larger."""
    candidates = min(candidates, logprobs_B_V.shape[-1])
    logprobs_B_C, ids_B_C = logprobs_B_V.topk(candidates)
    cumulative_B_C = logprobs_B_C.exp().cumsum(-1, dtype=torch.float64)
    last_B_1 = (cumulative_B_C < top_p_B[:, None]).sum(-1, keepdim=True).clamp_max(candidates - 1)
    target_B_1 = uniform_B[:, None] * cumulative_B_C.gather(-1, last_B_1)
    rank_B_1 = torch.searchsorted(cumulative_B_C, target_B_1, right=True).minimum(last_B_1)
    ids_B = ids_B_C.gather(-1, rank_B_1).squeeze(-1)

    larger = (cumulative_B_C[:, -1] < top_p_B).nonzero().squeeze(-1)
    if candidates < logprobs_B_V.shape[-1] and len(larger):
        ids_B[larger] = _draw_nucleus(logprobs_B_V[larger], top_p_B[larger], uniform_B[larger], 16 * candidates)
    return ids_B
