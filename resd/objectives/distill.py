"""Clipped f-divergence to a teacher over a small support of the vocabulary (paper Eq. 1 and appendix G).

Where the paper leaves room, this is what happens, in order:

1. log-probabilities are exact, over the whole vocabulary, and are then read at the support, the `top_k` tokens of the
   student (or teacher);
2. the rest of the vocabulary becomes one more bucket (`tail`), which makes the sum a true divergence between two
   coarser distributions; or both sides are renormalised over the support;
3. the teacher, tail included, is held within [ratio_min, ratio_max] times the student, and not renormalised. The
   student is a constant in this bound, so that a clipped token keeps the gradient of the divergence to a constant
   teacher; clipping the ratio inside f and differentiating through it, as Eq. 1 reads literally, gives another one.

Not covered: a support joined from both models, and nucleus supports.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resd.objectives.divergence import divergence
from resd.objectives.top import top_ids
from resd.types import UserError

Select = Literal["student", "teacher"]
Support = Literal["tail", "renormalise", "full"]
Stats = dict[str, Tensor]

LOG_FLOOR = -1e4  # exp underflows to exactly 0 here, yet no 0 * inf can arise from a masked logit of -inf
MAX_LOG_MASS = -1e-7  # keeps the tail above 1e-7; a support that holds everything sends no gradient through it


@dataclass(frozen=True)
class Distillation:
    """What to minimise at each token. UserError for values that cannot work.

    `top_k` beyond the vocabulary means `full`; `alpha` concerns jsd alone; a `ratio_*` of None disables that clip;
    `temperature` divides the logits of both models.
    """

    divergence: str = "reverse_kl"
    alpha: float = 0.5
    top_k: int = 100
    select: Select = "student"
    support: Support = "tail"
    ratio_min: float | None = 0.2
    ratio_max: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        divergence(self.divergence, self.alpha)
        for name, value, known in [("select", self.select, Select), ("support", self.support, Support)]:
            if value not in get_args(known):
                raise UserError(f"Unknown {name} {value!r}: write one of {', '.join(get_args(known))}.")
        if self.top_k < 1:
            raise UserError(f"top_k={self.top_k} leaves no token to compare: write at least 1, or support=full.")
        if self.ratio_min is not None and not 0 < self.ratio_min <= 1:
            raise UserError(f"ratio_min={self.ratio_min} must lie in (0, 1]: write null to disable the lower clip.")
        if self.ratio_max is not None and not 1 <= self.ratio_max < math.inf:
            raise UserError(f"ratio_max={self.ratio_max} must be at least 1: write null to disable the upper clip.")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature} must be positive: write 1.0 to leave the logits alone.")

    def __call__(
        self, student_logits_C_V: Float[Tensor, "C V"], teacher_logits_C_V: Float[Tensor, "C V"]
    ) -> tuple[Float[Tensor, " C"], Stats]:
        """The definition over whole logits, differentiable in the student's alone; `head` gives the same by chunks.

        Returns what `compare` does.
        """
        log_p_C_V = (student_logits_C_V / self.temperature).log_softmax(-1)
        log_q_C_V = (teacher_logits_C_V.detach() / self.temperature).log_softmax(-1)
        if self.reads_all(log_p_C_V.shape[-1]):
            return self.compare(log_p_C_V, log_q_C_V, whole=True)
        ids_C_K = self.support_ids(log_p_C_V.detach() if self.select == "student" else log_q_C_V)
        return self.compare(log_p_C_V.gather(-1, ids_C_K), log_q_C_V.gather(-1, ids_C_K))

    def reads_all(self, vocabulary: int) -> bool:
        """Whether the support is the whole vocabulary."""
        return self.support == "full" or self.top_k >= vocabulary

    def support_ids(self, chosen_C_V: Float[Tensor, "C V"]) -> Int[Tensor, "C K"]:
        """Token ids of the support, from logits or log-probabilities of the model that `select` names."""
        return top_ids(chosen_C_V, self.top_k)

    def compare(
        self, log_p_C_K: Float[Tensor, "C K"], log_q_C_K: Float[Tensor, "C K"], *, whole: bool = False
    ) -> tuple[Float[Tensor, " C"], Stats]:
        """Divergence per token [C] in nats from the log-probabilities at the support, and detached statistics [C].

        `whole` says that the support is the vocabulary. Differentiable in `log_p_C_K` alone. Statistics: `topk_mass`
        and `teacher_topk_mass` are the probability of the support, `ratio_floored` and `ratio_capped` the fraction of
        buckets whose teacher was clipped, `student_entropy` and `teacher_entropy` the entropies (nats) over the buckets
        before clipping.
        """
        log_p_C_B, mass_C = self._buckets(log_p_C_K, whole)
        log_q_C_B, teacher_mass_C = self._buckets(log_q_C_K.detach(), whole)
        constant_log_p_C_B = log_p_C_B.detach()
        lowest_C_B = constant_log_p_C_B + (math.log(self.ratio_min) if self.ratio_min else -math.inf)
        highest_C_B = constant_log_p_C_B + (math.log(self.ratio_max) if self.ratio_max else math.inf)
        clipped_C_B = torch.minimum(torch.maximum(log_q_C_B, lowest_C_B), highest_C_B)
        loss_C = divergence(self.divergence, self.alpha)(log_p_C_B, clipped_C_B).sum(-1)
        return loss_C, {
            "topk_mass": mass_C.detach(),
            "teacher_topk_mass": teacher_mass_C,
            "ratio_floored": (log_q_C_B < lowest_C_B).to(loss_C.dtype).mean(-1),
            "ratio_capped": (log_q_C_B > highest_C_B).to(loss_C.dtype).mean(-1),
            "student_entropy": _entropy(constant_log_p_C_B),
            "teacher_entropy": _entropy(log_q_C_B),
        }

    def _buckets(
        self, log_prob_C_K: Float[Tensor, "C K"], whole: bool
    ) -> tuple[Float[Tensor, "C B"], Float[Tensor, " C"]]:
        """Log-probability of each bucket, at least `LOG_FLOOR`, and the probability of the support."""
        log_prob_C_K = log_prob_C_K.clamp(min=LOG_FLOOR)
        if whole:
            return log_prob_C_K, torch.ones_like(log_prob_C_K[:, 0])
        log_mass_C_1 = log_prob_C_K.logsumexp(-1, keepdim=True)
        if self.support == "renormalise":
            log_prob_C_B = log_prob_C_K - log_mass_C_1
        else:
            # expm1: in float32 a tail of 1e-7 would come out of 1 - e^s as 1.19e-7
            log_tail_C_1 = (-log_mass_C_1.clamp(max=MAX_LOG_MASS).expm1()).log()
            log_prob_C_B = torch.cat([log_prob_C_K, log_tail_C_1], dim=-1)
        return log_prob_C_B, log_mass_C_1.squeeze(-1).exp()


def _entropy(log_prob_C_K: Float[Tensor, "C K"]) -> Float[Tensor, " C"]:
    return -(log_prob_C_K.exp() * log_prob_C_K).sum(-1)
