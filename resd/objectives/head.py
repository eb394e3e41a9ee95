"""The output head and a token loss, a chunk of tokens at a time (design section 4.4).

Logits of all tokens never exist: each chunk's logits are made, turned into a loss and a gradient, and dropped. What
stays for backward is the gradient of the hidden states [T, D] and of the head [V, D], both taken in forward; only the
former grows with the number of tokens.

Logits and token losses are float32 (float64 for float64 inputs) also when hidden states and head are bfloat16; the
gradient of the head is accumulated in float32 too, and rounded to the head's type once. Not covered: a head with a
bias, and a vocabulary split across ranks.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from resd.types import UserError

Stats = dict[str, Tensor]
TokenLoss = Callable[[Float[Tensor, "C V"], slice], tuple[Float[Tensor, ""], Stats]]


def chunked_head_loss(
    hidden_T_D: Float[Tensor, "T D"],
    weight_V_D: Float[Tensor, "V D"],
    token_loss: TokenLoss,
    chunk_tokens: int = 1024,
) -> tuple[Float[Tensor, ""], Stats]:
    """Sum of a token loss over all tokens, differentiable in the hidden states and the head, and summed statistics.

    `token_loss(logits_C_V, rows)` gets the logits of the tokens `rows` and returns their weighted loss, summed to a
    scalar, and scalar sums. No gradient reaches anything but the logits. It is called once even when there is no token,
    so that every rank reports the same statistics. Example, with a teacher:

        def token_loss(logits_C_V, rows):
            loss_C, stats = distillation(logits_C_V, head_logits(teacher_hidden_T_D[rows], teacher_weight_V_D))
            return (weight_T[rows] * loss_C).sum(), {name: value_C.sum() for name, value_C in stats.items()}
    """
    if not torch.is_grad_enabled():  # inside the Function this can no longer be told
        hidden_T_D, weight_V_D = hidden_T_D.detach(), weight_V_D.detach()
    return _ChunkedHeadLoss.apply(hidden_T_D, weight_V_D, token_loss, chunk_tokens)


@torch.no_grad()
def chunked_logprobs(
    hidden_T_D: Float[Tensor, "T D"],
    weight_V_D: Float[Tensor, "V D"],
    ids_T: Int[Tensor, "T"],
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
) -> Float[Tensor, "T"]:
    """log softmax(logits / temperature) of the tokens `ids_T`, without gradient."""
    logprobs = []
    for rows in _chunks(len(hidden_T_D), chunk_tokens):
        logits_C_V = head_logits(hidden_T_D[rows], weight_V_D) / temperature
        logprobs.append(token_logprobs(logits_C_V, ids_T[rows]))
    return torch.cat(logprobs)


def token_logprobs(logits_C_V: Float[Tensor, "C V"], ids_C: Int[Tensor, "C"]) -> Float[Tensor, "C"]:
    """log softmax(logits) of one token per row."""
    return logits_C_V.log_softmax(-1).gather(-1, ids_C[:, None]).squeeze(-1)


@torch.no_grad()
def head_logits(hidden_C_D: Float[Tensor, "C D"], weight_V_D: Float[Tensor, "V D"]) -> Float[Tensor, "C V"]:
    """Logits in float32 (float64 for float64 inputs), without gradient."""
    return _matmul(hidden_C_D, weight_V_D.T)


class _ChunkedHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_T_D: Tensor, weight_V_D: Tensor, token_loss: TokenLoss, chunk_tokens: int
    ) -> tuple[Tensor, Stats]:
        hidden_needed, weight_needed = ctx.needs_input_grad[:2]
        precision = torch.promote_types(weight_V_D.dtype, torch.float32)
        d_hidden_T_D = torch.zeros_like(hidden_T_D) if hidden_needed else None
        d_weight_V_D = torch.zeros_like(weight_V_D, dtype=precision) if weight_needed else None
        total = torch.zeros((), dtype=precision, device=hidden_T_D.device)
        stats: Stats = {}
        for rows in _chunks(len(hidden_T_D), chunk_tokens):
            hidden_C_D = hidden_T_D[rows]
            logits_C_V = head_logits(hidden_C_D, weight_V_D)
            loss, chunk_stats, d_logits_C_V = _loss_and_gradient(
                token_loss, logits_C_V, rows, hidden_needed or weight_needed
            )
            total += loss
            for name, value in chunk_stats.items():
                stats[name] = stats.get(name, 0) + value.detach()
            if d_logits_C_V is None:
                continue
            d_logits_C_V = d_logits_C_V.to(weight_V_D.dtype)
            if d_hidden_T_D is not None:
                d_hidden_T_D[rows] = _matmul(d_logits_C_V, weight_V_D).to(hidden_T_D.dtype)
            if d_weight_V_D is not None:
                d_weight_V_D += _matmul(d_logits_C_V.T, hidden_C_D)
        ctx.save_for_backward(d_hidden_T_D, None if d_weight_V_D is None else d_weight_V_D.to(weight_V_D.dtype))
        return total, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: None) -> tuple[Tensor | None, Tensor | None, None, None]:
        d_hidden_T_D, d_weight_V_D = (None if saved is None else saved * d_loss for saved in ctx.saved_tensors)
        return d_hidden_T_D, d_weight_V_D, None, None


def _loss_and_gradient(
    token_loss: TokenLoss, logits_C_V: Float[Tensor, "C V"], rows: slice, needed: bool
) -> tuple[Float[Tensor, ""], Stats, Float[Tensor, "C V"] | None]:
    """A chunk's loss, statistics and, if `needed`, gradient in its logits (None too for a constant loss)."""
    if not needed:
        loss, stats = token_loss(logits_C_V, rows)
        return loss, stats, None
    with torch.enable_grad():
        loss, stats = token_loss(logits_C_V.requires_grad_(), rows)
    gradient_C_V = torch.autograd.grad(loss, logits_C_V)[0] if loss.requires_grad else None
    return loss.detach(), stats, gradient_C_V


def _chunks(tokens: int, chunk_tokens: int) -> Iterator[slice]:
    """Slices that cover `tokens`; a single empty one when there are none."""
    if chunk_tokens < 1:
        raise UserError(f"chunk_tokens={chunk_tokens} is too small: write at least 1.")
    for start in range(0, max(tokens, 1), chunk_tokens):
        yield slice(start, min(start + chunk_tokens, tokens))


def _matmul(left: Float[Tensor, "M N"], right: Float[Tensor, "N O"]) -> Float[Tensor, "M O"]:
    """Matrix product with a result of at least float32: rounding logits to bfloat16 would cost most of their digits."""
    if torch.promote_types(left.dtype, torch.float32) == left.dtype:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
