"""Decoding with a Hugging Face model's own forward pass and cache, for architectures that `fused` does not cover."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel


class CachedDecoder:
    """Up to `rows` rows that start together (see `decode.Decoder`), padded on the left.

    A running batch takes no new rows, since the caches of different architectures cannot be merged in one way.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.rows = rows
        self.accepts = inspect.signature(model.forward).parameters
        self.cache: Any = None
        self.mask_B_T = torch.zeros((0, 0), dtype=torch.long, device=model.device)

    @property
    def room(self) -> int:
        return 0 if len(self.mask_B_T) else self.rows

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        width, device = max(map(len, prompts)), self.model.device
        ids_B_T = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts], device=device)
        start_B_1 = torch.tensor([[width - len(prompt)] for prompt in prompts], device=device)
        self.mask_B_T = (torch.arange(width, device=device) >= start_B_1).long()
        self.cache = None
        return self._forward(ids_B_T)

    def step(self, ids_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        self.mask_B_T = F.pad(self.mask_B_T, (0, 1), value=1)
        return self._forward(ids_B[:, None])

    def keep(self, order: Sequence[int]) -> None:
        index = torch.tensor(order, dtype=torch.long, device=self.mask_B_T.device)
        self.mask_B_T = self.mask_B_T[index]
        if order:
            self.cache.reorder_cache(index)

    def _forward(self, ids_B_T: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        positions_B_T = (self.mask_B_T.cumsum(-1) - 1).clamp_min(0)[:, -ids_B_T.shape[1] :]
        optional = {"position_ids": positions_B_T, "logits_to_keep": 1}
        output = self.model(
            input_ids=ids_B_T,
            attention_mask=self.mask_B_T,
            past_key_values=self.cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self.accepts},
        )
        self.cache = output.past_key_values
        return output.logits[:, -1]
