"""The built-in engine: generation in this process with the weights of a Hugging Face model.

The laptop's default and the reference for other engines; runs on CPU and GPU, in float32 and bfloat16. Models of the
Llama family take our own forward pass (`fused`), all others theirs (`cached`). It cannot enforce `Request.schema` and
ignores it: the caller parses whatever comes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from resd import dist
from resd.engine.base import More
from resd.engine.cached import CachedDecoder
from resd.engine.decode import Decoder, decode
from resd.engine.fused import FusedDecoder, FusedModel, supports
from resd.types import Completion, Request


class TransformersEngine:
    """An `Engine` around a Hugging Face causal language model, which belongs to it from now on.

    At most `max_batch` requests decode at once; `max_length` bounds prompt plus completion, in tokens, besides the
    model's own limit. `dtype` and `device` default to the model's. `fused=False` forces the model's own forward pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        eos_ids: Collection[int],
        max_batch: int,
        max_length: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        fused: bool = True,
    ) -> None:
        self.replica, self.replicas = dist.rank(), dist.world()
        self.model = model.eval().requires_grad_(False).to(device or model.device)
        for parameter in model.parameters():  # not the buffers: rounding rope frequencies moves every distant token
            parameter.data = parameter.data.to(dtype or model.dtype)
        self.eos_ids = frozenset(eos_ids)
        self.max_batch = max_batch
        self.max_length = min(
            max_length, getattr(model.config.get_text_config(), "max_position_embeddings", max_length)
        )
        self.fused = FusedModel(model, self.max_length) if fused and supports(model) else None

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], more: More | None = None) -> Iterator[tuple[int, Completion]]:
        """See `Engine.generate`; memory for the cache is held only while the iterator lives."""
        rows = self.max_batch if more else min(self.max_batch, len(requests))
        decoder: Decoder = FusedDecoder(self.fused, rows) if self.fused else CachedDecoder(self.model, rows)
        yield from decode(decoder, requests, self.max_length, self.eos_ids, more)

    @torch.no_grad()
    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.sync`; copies in place."""
        own = dict(self.model.named_parameters(remove_duplicate=False))
        stale = {parameter: name for name, parameter in own.items()}
        for name, tensor in weights:
            if name not in own or own[name].shape != tensor.shape:
                expected = tuple(own[name].shape) if name in own else "no weight of that name"
                raise ValueError(f"sync got {name} of shape {tuple(tensor.shape)}, the engine has {expected}")
            own[name].copy_(tensor)
            stale.pop(own[name], None)
        if stale:
            raise ValueError(f"sync left {len(stale)} weights unchanged, the first is {next(iter(stale.values()))}")

    def sleep(self) -> None:
        """Nothing to free: see `generate`."""

    def close(self) -> None:
        """Nothing to release but the object itself."""
