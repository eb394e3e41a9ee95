"""The output head fused with the loss of its tokens: one pass over the logits of a chunk serves every term.

From hidden states and output embeddings to loss and gradients without ever holding logits of all tokens (design section
4.4). For each chunk of tokens two matrix products make the logits of student and teacher and two more the gradients of
hidden states and head, which are therefore taken in forward; nothing is computed twice. `chunk` has what lies between.
Memory: a chunk of logits (two for `full` and the teacher's support) and the head's gradient, whatever the tokens.

Logits and losses are float32 (float64 for float64 inputs) also when hidden states and head are bfloat16; the gradient
of the head is accumulated in float32 too, and rounded to the head's type once. Not covered: a head with a bias, and a
vocabulary split across ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from resd.objectives.chunk import BLOCK_TOKENS, Compared, Likeliest, Places, log_softmax_, loss_and_gradient
from resd.objectives.distill import Distillation, Stats
from resd.objectives.logits import Logits
from resd.types import UserError

CHUNK_TOKENS = 512  # products of this length run at full speed

TokenLoss = Callable[[slice, Float[Tensor, " C"], Float[Tensor, " C"] | None], tuple[Float[Tensor, ""], Stats]]


@dataclass(frozen=True, slots=True)
class TeacherHead:
    """The teacher's hidden states of the same tokens in its own context, its output embedding, and the comparison.

    Its statistics are of the tokens `counted_T` alone; None: of all.
    """

    hidden_T_D: Float[Tensor, "T D"]
    weight_V_D: Float[Tensor, "V D"]
    distillation: Distillation
    counted_T: Bool[Tensor, " T"] | None = None


@dataclass(frozen=True, slots=True)
class DistantTeacher:
    """What a teacher elsewhere says of the same tokens, and the comparison; its K likeliest ones are the support."""

    likeliest: Likeliest
    distillation: Distillation
    counted_T: Bool[Tensor, " T"] | None = None


def fused_head_loss(
    hidden_T_D: Float[Tensor, "T D"],
    weight_V_D: Float[Tensor, "V D"],
    ids_T: Int[Tensor, " T"],
    token_loss: TokenLoss,
    teacher: TeacherHead | DistantTeacher | None = None,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[Float[Tensor, ""], Stats]:
    """Sum of a token loss over all tokens, differentiable in the hidden states and the head, and summed statistics.

    `token_loss(rows, logprobs_C, divergence_C)` gets, for the tokens `rows`, the log-probabilities of `ids_T` and the
    divergence to the teacher (None without one), and returns their weighted loss, summed to a scalar, and scalar sums;
    gradients flow through these two alone. The statistics of the comparison are summed and added to its own. It is
    called once even when there is no token, so that every rank reports the same statistics. `temperature` divides all
    logits; UserError if the comparison has another one. The result can be differentiated once. Example:

        def token_loss(rows, logprobs_C, divergence_C):
            return (weight_T[rows] * divergence_C).sum(), {"logprob": logprobs_C.detach().sum()}
    """
    if teacher is not None and teacher.distillation.temperature != temperature:
        raise UserError(
            f"The distillation's temperature {teacher.distillation.temperature} is not the {temperature} "
            "of the log-probabilities: write the same value for both."
        )
    if not torch.is_grad_enabled():  # inside the Function this can no longer be told
        hidden_T_D, weight_V_D = hidden_T_D.detach(), weight_V_D.detach()
    return _FusedHeadLoss.apply(hidden_T_D, weight_V_D, ids_T, token_loss, teacher, temperature, chunk_tokens)


@torch.no_grad()
def chunked_logprobs(
    hidden_T_D: Float[Tensor, "T D"],
    weight_V_D: Float[Tensor, "V D"],
    ids_T: Int[Tensor, " T"],
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Float[Tensor, " T"]:
    """log softmax(logits / temperature) of the tokens `ids_T`, without gradient."""
    chunks = _chunks(len(hidden_T_D), chunk_tokens)
    head = Logits(hidden_T_D, weight_V_D, temperature, chunks[0].stop)
    return torch.cat([log_softmax_(head.of(rows)).gather(-1, ids_T[rows, None]) for rows in chunks]).squeeze(-1)


@torch.no_grad()
def chunked_scores(
    hidden_T_D: Float[Tensor, "T D"],
    weight_V_D: Float[Tensor, "V D"],
    ids_T: Int[Tensor, " T"],
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """What `chunked_logprobs` gives, and the entropy (nats) of each token's distribution over the vocabulary."""
    chunks = _chunks(len(hidden_T_D), chunk_tokens)
    head = Logits(hidden_T_D, weight_V_D, temperature, chunks[0].stop)
    logprobs, entropies = [], []
    for rows in chunks:
        log_p_C_V = log_softmax_(head.of(rows))
        logprobs.append(log_p_C_V.gather(-1, ids_T[rows, None]).squeeze(-1))
        entropies.append(torch.special.entr(log_p_C_V.exp_()).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


class _FusedHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_T_D: Tensor,
        weight_V_D: Tensor,
        ids_T: Tensor,
        token_loss: TokenLoss,
        teacher: TeacherHead | DistantTeacher | None,
        temperature: float,
        chunk_tokens: int,
    ) -> tuple[Tensor, Stats]:
        chunks = _chunks(len(hidden_T_D), chunk_tokens)
        head = Logits(hidden_T_D, weight_V_D, temperature, chunks[0].stop)
        compared = None
        if isinstance(teacher, DistantTeacher):
            compared = Compared(teacher.likeliest, teacher.distillation, teacher.counted_T)
        elif teacher is not None:
            teacher_head = Logits(teacher.hidden_T_D, teacher.weight_V_D, temperature, chunks[0].stop)
            compared = Compared(teacher_head, teacher.distillation, teacher.counted_T)
        gradients = _Gradients(head, *ctx.needs_input_grad[:2])
        total = torch.zeros((), dtype=head.precision, device=hidden_T_D.device)
        stats: Stats = {}
        for rows in chunks:
            result = loss_and_gradient(
                head.of(rows), compared, rows, ids_T[rows], partial(token_loss, rows), gradients.wanted
            )
            total += result.loss
            for name, value in result.stats.items():
                stats[name] = stats.get(name, 0) + value.detach()
            if result.gradient is not None:
                gradients.add(rows, result.gradient)
        ctx.save_for_backward(*gradients.result(weight_V_D.dtype))
        ctx.temperature = temperature
        return total, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: None) -> tuple[Tensor | None, ...]:
        scale = d_loss / ctx.temperature
        gradients = ctx.saved_tensors
        if scale.is_cuda or scale != 1:  # in place, for a copy would double the memory
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(scale)
        return (*gradients, None, None, None, None, None)


class _Gradients:
    """Sums the gradients of hidden states and head, either only if it is wanted."""

    def __init__(self, head: Logits, hidden_wanted: bool, weight_wanted: bool) -> None:
        self.head = head
        self.d_hidden_T_D = torch.zeros_like(head.hidden_T_D) if hidden_wanted else None
        self.d_weight_V_D: Float[Tensor, "V D"] | None = None  # the first product makes it: zeros would cost two passes
        self.weight_wanted = weight_wanted
        self.wanted = hidden_wanted or weight_wanted

    def add(self, rows: slice, d_logits: Float[Tensor, "C V"] | Places) -> None:
        """Add what the gradient in the logits of a chunk makes of both."""
        if isinstance(d_logits, Places):
            self._add_places(rows, d_logits)
            return
        head = self.head
        d_logits = d_logits.to(head.weight_V_D.dtype)
        if self.d_hidden_T_D is not None:
            self.d_hidden_T_D[rows] = head.product(d_logits, head.weight_V_D).to(self.d_hidden_T_D.dtype)
        if self.weight_wanted:
            self.d_weight_V_D = head.add_product(self.d_weight_V_D, d_logits.T, head.hidden_T_D[rows])

    def _add_places(self, rows: slice, places: Places) -> None:
        """The same sums over those few words of each token, without a product."""
        head = self.head
        if self.d_hidden_T_D is not None:
            weights_C_N = places.values_C_N.to(head.weight_V_D.dtype)
            self.d_hidden_T_D[rows] = F.embedding_bag(
                places.ids_C_N, head.weight_V_D, per_sample_weights=weights_C_N, mode="sum"
            ).to(self.d_hidden_T_D.dtype)
        if self.weight_wanted:
            self.d_weight_V_D = self._weight()
            parts = (x.split(BLOCK_TOKENS) for x in (*places, head.hidden_T_D[rows].to(head.precision)))
            for ids_B_N, values_B_N, hidden_B_D in zip(*parts, strict=True):
                outer_B_N_D = values_B_N[..., None] * hidden_B_D[:, None]
                self.d_weight_V_D.index_add_(0, ids_B_N.flatten(), outer_B_N_D.flatten(0, 1))

    def _weight(self) -> Float[Tensor, "V D"]:
        if self.d_weight_V_D is not None:
            return self.d_weight_V_D
        return torch.zeros_like(self.head.weight_V_D, dtype=self.head.precision)

    def result(self, dtype: torch.dtype) -> tuple[Float[Tensor, "T D"] | None, Float[Tensor, "V D"] | None]:
        """The gradients of the hidden states, and of the head as `dtype`."""
        return self.d_hidden_T_D, self._weight().to(dtype) if self.weight_wanted else None


def _chunks(tokens: int, chunk_tokens: int) -> list[slice]:
    """Slices that cover `tokens`; a single empty one when there are none."""
    if chunk_tokens < 1:
        raise UserError(f"chunk_tokens={chunk_tokens} is too small: write at least 1.")
    starts = range(0, max(tokens, 1), chunk_tokens)
    return [slice(start, min(start + chunk_tokens, tokens)) for start in starts]
