"""Logits of a chunk of hidden states, and the matrix products around them.

Results are float32 (float64 for float64 inputs) also for bfloat16. Not covered: a head with a bias, and a vocabulary
split across ranks.
"""

import math
import mmap

import torch
from jaxtyping import Float, Int
from torch import Tensor

SLICE = 2048  # words of the vocabulary whose logits exist at once where few are read
LARGE = 2**22  # bytes from which memory is asked for in large pages


class Logits:
    """An output embedding [V, D] applied to hidden states [T, D], some rows at a time, always in the same memory."""

    def __init__(
        self, hidden_T_D: Float[Tensor, "T D"], weight_V_D: Float[Tensor, "V D"], temperature: float, chunk_tokens: int
    ) -> None:
        self.precision = torch.promote_types(weight_V_D.dtype, torch.float32)
        self.hidden_T_D = hidden_T_D
        # a CPU would round products of bfloat16 to bfloat16, which costs logits most of their digits
        self.weight_V_D = weight_V_D if weight_V_D.is_cuda else weight_V_D.to(self.precision)
        self.temperature = temperature
        self.chunk_tokens = chunk_tokens
        self._buffer_C_V: Tensor | None = None

    def of(self, rows: slice) -> Float[Tensor, "C V"]:
        """Logits over temperature; valid until the next call."""
        if self._buffer_C_V is None:
            self._buffer_C_V = self._empty(self.chunk_tokens, len(self.weight_V_D))
        logits_C_V = self._buffer_C_V[: rows.stop - rows.start]
        return self._scaled(self.product(self.hidden_T_D[rows], self.weight_V_D.T, out=logits_C_V))

    def logprobs_at(self, rows: slice, ids_C_K: Int[Tensor, "C K"]) -> Float[Tensor, "C K"]:
        """Log-probabilities of few ids, from slices of the vocabulary that stay in cache."""
        hidden_C_D = self.hidden_T_D[rows]
        found_C_K = torch.zeros_like(ids_C_K, dtype=self.precision)
        sums = []
        for start in range(0, len(self.weight_V_D), SLICE):
            logits_C_S = self._scaled(self.product(hidden_C_D, self.weight_V_D[start : start + SLICE].T))
            places_C_K = (ids_C_K - start).clamp(0, logits_C_S.shape[-1] - 1)
            found_C_K = torch.where(places_C_K == ids_C_K - start, logits_C_S.gather(-1, places_C_K), found_C_K)
            # log_softmax is logsumexp in one pass: what it takes from the first logit
            first_C_1 = logits_C_S[:, :1].clone()
            sums.append(first_C_1 - torch.log_softmax(logits_C_S, dim=-1, out=logits_C_S)[:, :1])
        return found_C_K - torch.cat(sums, dim=-1).logsumexp(-1, keepdim=True)

    def product(
        self, left: Float[Tensor, "M N"], right: Float[Tensor, "N O"], out: Float[Tensor, "M O"] | None = None
    ) -> Float[Tensor, "M O"]:
        """left @ right, of operands in the type of the weight."""
        left, right = left.to(self.weight_V_D.dtype), right.to(self.weight_V_D.dtype)
        if left.dtype == self.precision:
            return torch.mm(left, right, out=out)
        return torch.mm(left, right, out_dtype=self.precision, out=out)

    def add_product(
        self, total: Float[Tensor, "M O"] | None, left: Float[Tensor, "M N"], right: Float[Tensor, "N O"]
    ) -> Float[Tensor, "M O"]:
        """total + left @ right, in place of the total if there is one."""
        if total is None:
            return self.product(left, right)
        if self.weight_V_D.dtype == self.precision:
            return total.addmm_(left, right.to(self.precision))
        return total.add_(self.product(left, right))

    def _empty(self, *shape: int) -> Tensor:
        """Uninitialised memory. The first touch of small pages would cost as much as a pass over the vocabulary."""
        size = math.prod(shape) * self.precision.itemsize
        if self.weight_V_D.is_cuda or size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
            return self.weight_V_D.new_empty(shape, dtype=self.precision)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(memory, dtype=self.precision).view(shape)

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits.div_(self.temperature)
