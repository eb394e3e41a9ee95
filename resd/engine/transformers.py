"""The built-in engine: generation in this process with the weights of a Hugging Face model.

The laptop default, and the reference for other engines; runs on CPU and GPU, in float32 and bfloat16. Llama-like models
take our own forward pass (`fused`), every other causal language model takes its own (`CacheDecoder`). It cannot enforce
a `Request.schema`: it ignores it, and the caller parses whatever comes.
"""

import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from resd.engine.decode import Decoder, decode
from resd.engine.fused import FusedDecoder, FusedModel, supports
from resd.types import Completion, Request, UserError


class TransformersEngine:
    """An `Engine` around a Hugging Face model, which it owns from now on.

    At most `max_batch` requests decode at once. `max_length` bounds prompt plus completion, in tokens. `fused=False`
    forces the model's own forward pass.
    """

    def __init__(
        self, model: PreTrainedModel, *, eos_ids: Collection[int], max_batch: int, max_length: int, fused: bool = True
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.eos_ids = frozenset(eos_ids)
        self.max_batch = max_batch
        self.max_length = min(
            max_length, getattr(model.config.get_text_config(), "max_position_embeddings", max_length)
        )
        self.fused = FusedModel(model, self.max_length) if fused and supports(model) else None

    @classmethod
    def load(
        cls,
        path: str,
        *,
        eos_ids: Collection[int],
        max_batch: int,
        max_length: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Self:
        """From a Hugging Face folder or id."""
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Cannot load a causal language model from {path!r}; give a Hugging Face folder or id."
            ) from error
        return cls(model.to(device), eos_ids=eos_ids, max_batch=max_batch, max_length=max_length)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """See `Engine.generate`."""
        rows = min(self.max_batch, len(requests))
        decoder: Decoder = FusedDecoder(self.fused, rows) if self.fused else CacheDecoder(self.model, rows)
        yield from decode(decoder, requests, self.max_length, self.eos_ids)

    @torch.no_grad()
    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy into the weights in place; see `Engine.sync`."""
        own = dict(self.model.named_parameters(remove_duplicate=False))
        missing = {id(parameter): name for name, parameter in own.items()}
        for name, tensor in weights:
            if name not in own or own[name].shape != tensor.shape:
                expected = tuple(own[name].shape) if name in own else "no such parameter"
                raise ValueError(f"weight {name} has shape {tuple(tensor.shape)}, the engine expects {expected}")
            own[name].copy_(tensor)
            missing.pop(id(own[name]), None)
        if missing:
            raise ValueError(
                f"sync left {len(missing)} weights as they were, the first is {next(iter(missing.values()))}"
            )

    def sleep(self) -> None:
        """Nothing to do: the cache lives only as long as a call of `generate`."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class CacheDecoder:
    """The model's own forward pass with its own cache (see `decode.Decoder`), for any architecture.

    Prompts are padded on the left. A running batch takes no new rows, since caches differ too much between architectures
    to be merged.
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
        pads = [[0] * (width - len(prompt)) for prompt in prompts]
        ids_B_T = torch.tensor([[*pad, *prompt] for pad, prompt in zip(pads, prompts, strict=True)], device=device)
        first_B_1 = torch.tensor(list(map(len, pads)), device=device)[:, None]
        self.mask_B_T = (torch.arange(width, device=device) >= first_B_1).long()
        self.cache = None
        return self._forward(ids_B_T)

    def step(self, ids_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        self.mask_B_T = torch.nn.functional.pad(self.mask_B_T, (0, 1), value=1)
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
