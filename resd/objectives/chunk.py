"""Loss of a chunk of tokens and its gradient in their logits, with few passes over the vocabulary.

The loss sees a token's logits in a few places, its sampled id and its support, and through `log_sum`, the logarithm of
the sum of exponentials. With p the softmax,

    d loss / d logit_v = p_v d loss / d log_sum + sum over places at v of d loss / d (logit read there)

so autograd runs over the few; p, in the place of the logits, is scaled by one number a token, and the few are added.
On a CPU the logits become p a few rows at a time, while these are in cache: memory sees one pass, the scaling another.
A loss that does not depend on log_sum, as with `renormalise`, has a gradient in the few alone. `full` reads every
logit; autograd then sees whole rows, a few at a time.

Buffers of logits are overwritten. Not covered: terms that read other logits than the sampled one and the support.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from resd.objectives.distill import Distillation, Stats
from resd.objectives.logits import Logits
from resd.objectives.top import top_ids

BLOCK_TOKENS = 8  # whole rows that are worked on at once, so that they stay in cache

ChunkLoss = Callable[[Float[Tensor, " C"], Float[Tensor, " C"] | None], tuple[Float[Tensor, ""], Stats]]


class Places(NamedTuple):
    """What is read at, or is the gradient in, few logits of each token; an id may occur twice."""

    ids_C_N: Int[Tensor, "C N"]
    values_C_N: Float[Tensor, "C N"]


class Result(NamedTuple):
    """`gradient` is in the logits; None for a constant loss, or where none is wanted."""

    loss: Float[Tensor, ""]
    stats: Stats
    gradient: Float[Tensor, "C V"] | Places | None


class Likeliest(NamedTuple):
    """What is known of a teacher whose logits are not: its K likeliest tokens at each place."""

    ids_T_K: Int[Tensor, "T K"]
    logprobs_T_K: Float[Tensor, "T K"]


class Compared(NamedTuple):
    """Whom the student is compared with, and how, and which tokens the statistics of that are of; None: all."""

    teacher: Logits | Likeliest
    distillation: Distillation
    counted_T: Bool[Tensor, " T"] | None = None

    def of(self, rows: slice) -> "How":
        """The comparison of these tokens."""
        return How(self.distillation, slice(None) if self.counted_T is None else self.counted_T[rows])


class How(NamedTuple):
    """A comparison, and what picks the tokens that its statistics are of."""

    distillation: Distillation
    counted_C: Bool[Tensor, " C"] | slice


def loss_and_gradient(
    logits_C_V: Float[Tensor, "C V"],
    compared: Compared | None,
    rows: slice,
    ids_C: Int[Tensor, " C"],
    chunk_loss: ChunkLoss,
    differentiate: bool,
) -> Result:
    """What `chunk_loss` makes of the log-probabilities of `ids_C` and, with a teacher, of the divergence to it.

    `chunk_loss(logprobs_C, divergence_C)` returns a scalar and scalar statistics; those of the divergence are summed
    and added. Logits, already divided by the temperature, are used up. Whole logits of the teacher are made only where
    they are read: to choose the support, or as all of it.
    """
    ids_C_1 = ids_C[:, None]
    if compared is None:
        return _on_support(logits_C_V, softmax_(logits_C_V, ids_C_1, None), None, chunk_loss, None, differentiate)
    teacher, distillation, how = compared.teacher, compared.distillation, compared.of(rows)
    if isinstance(teacher, Likeliest):
        read = softmax_(logits_C_V, torch.cat([ids_C_1, teacher.ids_T_K[rows]], dim=-1), None)
        return _on_support(logits_C_V, read, teacher.logprobs_T_K[rows], chunk_loss, how, differentiate)
    if distillation.reads_all(logits_C_V.shape[-1]):
        log_p_C_V, log_q_C_V = log_softmax_(logits_C_V), log_softmax_(teacher.of(rows))
        return _on_vocabulary(log_p_C_V, ids_C_1, log_q_C_V, chunk_loss, how, differentiate)
    if distillation.select == "student":
        read = softmax_(logits_C_V, ids_C_1, distillation.support_ids)
        log_q_C_K = teacher.logprobs_at(rows, read.ids_C_N[:, 1:])
    else:
        support_C_K, log_q_C_K = softmax_(teacher.of(rows), ids_C_1[:, :0], distillation.support_ids)
        read = softmax_(logits_C_V, torch.cat([ids_C_1, support_C_K], dim=-1), None)
    return _on_support(logits_C_V, read, log_q_C_K, chunk_loss, how, differentiate)


def _on_support(
    p_C_V: Float[Tensor, "C V"],
    read: Places,
    log_q_C_K: Float[Tensor, "C K"] | None,
    chunk_loss: ChunkLoss,
    how: How | None,
    differentiate: bool,
) -> Result:
    """The loss reads log p at `read`, the sampled ids and then the support; the gradient takes the place of p."""
    ids_C_N, log_p_C_N = read
    read_C_N = log_p_C_N.requires_grad_(differentiate)  # log p are logits whose log_sum is 0
    log_sum_C_1 = torch.zeros_like(read_C_N[:, :1]).requires_grad_(differentiate)
    divergence_C: Tensor | None = None
    stats: Stats = {}
    with torch.set_grad_enabled(differentiate):
        if how is not None and log_q_C_K is not None:
            # a renormalised divergence is blind to log_sum; detached, no rounding error poses as a gradient
            shift_C_1 = log_sum_C_1.detach() if how.distillation.support == "renormalise" else log_sum_C_1
            divergence_C, found = how.distillation.compare(read_C_N[:, 1:] - shift_C_1, log_q_C_K)
            stats = {name: value_C[how.counted_C].sum() for name, value_C in found.items()}
        loss, more = chunk_loss((read_C_N[:, :1] - log_sum_C_1).squeeze(-1), divergence_C)
    stats |= more
    if not loss.requires_grad:
        return Result(loss, stats, None)
    d_read_C_N, d_log_sum_C_1 = torch.autograd.grad(loss, (read_C_N, log_sum_C_1), allow_unused=True)
    if d_log_sum_C_1 is None:
        return Result(loss.detach(), stats, Places(ids_C_N, d_read_C_N))
    return Result(loss.detach(), stats, p_C_V.mul_(d_log_sum_C_1).scatter_add_(-1, ids_C_N, d_read_C_N))


def _on_vocabulary(
    log_p_C_V: Float[Tensor, "C V"],
    ids_C_1: Int[Tensor, "C 1"],
    log_q_C_V: Float[Tensor, "C V"],
    chunk_loss: ChunkLoss,
    how: How,
    differentiate: bool,
) -> Result:
    """The divergence reads every logit: its gradient takes the place of log p, and p that of log q."""
    logprobs_C = log_p_C_V.gather(-1, ids_C_1).squeeze(-1).requires_grad_(differentiate)
    blocks = zip(log_p_C_V.split(BLOCK_TOKENS), log_q_C_V.split(BLOCK_TOKENS), strict=True)
    compared = [_compare_(log_p_B_V, log_q_B_V, how.distillation, differentiate) for log_p_B_V, log_q_B_V in blocks]
    divergence_C = torch.cat([divergence_B for divergence_B, _ in compared]).requires_grad_(differentiate)
    with torch.set_grad_enabled(differentiate):
        loss, stats = chunk_loss(logprobs_C, divergence_C)
    stats |= {name: torch.cat([each[name] for _, each in compared])[how.counted_C].sum() for name in compared[0][1]}
    if not loss.requires_grad:
        return Result(loss, stats, None)
    d_logprobs_C, d_divergence_C = torch.autograd.grad(loss, (logprobs_C, divergence_C), materialize_grads=True)
    d_logits_C_V, p_C_V, d_logprobs_C_1 = log_p_C_V, log_q_C_V, d_logprobs_C[:, None]  # as `_compare_` leaves them
    d_logits_C_V.mul_(d_divergence_C[:, None]).addcmul_(p_C_V, d_logprobs_C_1, value=-1)
    return Result(loss.detach(), stats, d_logits_C_V.scatter_add_(-1, ids_C_1, d_logprobs_C_1))


def _compare_(
    log_p_B_V: Float[Tensor, "B V"], log_q_B_V: Float[Tensor, "B V"], distillation: Distillation, differentiate: bool
) -> tuple[Float[Tensor, " B"], Stats]:
    """Divergence of a few whole rows; its gradient in the logits takes the place of log p, and p that of log q."""
    read_B_V = log_p_B_V.detach().requires_grad_(differentiate)
    with torch.set_grad_enabled(differentiate):
        divergence_B, stats = distillation.compare(read_B_V, log_q_B_V, whole=True)
    if differentiate:
        (d_log_p_B_V,) = torch.autograd.grad(divergence_B, read_B_V, torch.ones_like(divergence_B))
        p_B_V = torch.exp(log_p_B_V, out=log_q_B_V)
        torch.addcmul(d_log_p_B_V, p_B_V, d_log_p_B_V.sum(-1, keepdim=True), value=-1, out=log_p_B_V)
    return divergence_B.detach(), stats


def softmax_(
    logits_C_V: Float[Tensor, "C V"],
    ids_C_N: Int[Tensor, "C N"],
    choose: Callable[[Float[Tensor, "C V"]], Int[Tensor, "C K"]] | None,
) -> Places:
    """Softmax in place of the logits; log-probabilities at `ids_C_N` and at the likely ones that `choose` finds."""
    step = BLOCK_TOKENS if logits_C_V.device.type == "cpu" else max(1, len(logits_C_V))
    blocks = zip(logits_C_V.split(step), ids_C_N.split(step), strict=True)
    ids, logprobs = zip(*(_softmax_(*block, choose) for block in blocks), strict=True)
    return Places(torch.cat(ids), torch.cat(logprobs))


def _softmax_(
    logits_B_V: Float[Tensor, "B V"],
    ids_B_N: Int[Tensor, "B N"],
    choose: Callable[[Float[Tensor, "B V"]], Int[Tensor, "B K"]] | None,
) -> Places:
    likely_B_K = top_ids(logits_B_V, 1) if choose is None else choose(logits_B_V)
    if choose is not None:
        ids_B_N = torch.cat([ids_B_N, likely_B_K], dim=-1)
    read_B_N = logits_B_V.gather(-1, ids_B_N)
    # log_sum from the likeliest word, whose probability cannot vanish
    largest_B_1, place_B_1 = logits_B_V.gather(-1, likely_B_K).max(-1, keepdim=True)
    p_B_V = torch.softmax(logits_B_V, dim=-1, out=logits_B_V)
    log_sum_B_1 = largest_B_1 - p_B_V.gather(-1, likely_B_K.gather(-1, place_B_1)).log()
    return Places(ids_B_N, read_B_N - log_sum_B_1)


def log_softmax_(logits_C_V: Float[Tensor, "C V"]) -> Float[Tensor, "C V"]:
    """log softmax in place of the logits."""
    return torch.log_softmax(logits_C_V, dim=-1, out=logits_C_V)
