"""Our own forward pass for the Llama family (Llama, Qwen2, Qwen3): few operations, and a KV cache that stays in place.

Query, key and value projections are one matrix, gate and up projections another. The parameters of the Hugging Face
model become views of them, so that copying into a parameter is all it takes to change the weights, and none is held
twice. Prompts are padded on the right: with causal attention a padding token is never looked at, and what it leaves in
the cache stays masked until a real token overwrites it. Query heads that share a key head are the rows of one attention
call, so that a decode step never repeats keys and values.

Covers dense models with full attention and a rope that does not depend on the sequence length; see `supports`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

FAMILIES = {"llama", "qwen2", "qwen3"}
STATIC_ROPES = {"default", "linear", "llama3", "yarn"}
PREFILL_TOKENS = 2048  # padded tokens of one forward pass: enough to be efficient, and more only takes more memory

SHARED_FLOP = 2e10  # that reading a common beginning once must save; below, runs of small models stay what they were

Attend = Callable[[int, Float[Tensor, "N H D"], Float[Tensor, "N K D"], Float[Tensor, "N K D"]], Float[Tensor, "N H*D"]]


def supports(model: PreTrainedModel) -> bool:
    """Whether this forward pass computes the same function as `model`."""
    config: Any = model.config
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and config.rope_parameters.get("rope_type", "default") in STATIC_ROPES
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "quantization_config", None) is None
        and model.get_submodule("model.layers.0.self_attn.o_proj").bias is None
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_1: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    qk_norms: tuple[Tensor, Tensor] | None
    out: Tensor
    norm_2: Tensor
    gate_up: Tensor
    down: Tensor


class FusedModel:
    """Fused weights of a supported model, in the memory of its parameters, and rope tables up to `max_length`."""

    def __init__(self, model: PreTrainedModel, max_length: int) -> None:
        config: Any = model.config
        body: Any = model.base_model
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.eps: float = config.rms_norm_eps
        self.head_dim: int = body.layers[0].self_attn.head_dim
        self.embedding, self.norm = body.embed_tokens.weight, body.norm.weight
        self.head = model.get_output_embeddings().weight
        self.layers = [_fuse(layer) for layer in body.layers]
        self.size = sum(w.numel() for layer in self.layers for w in (layer.qkv, layer.out, layer.gate_up, layer.down))
        # a fresh rotary module, since casting a model also rounds the frequencies of its own
        rotary = type(body.rotary_emb)(config)
        cos_1_T_D, sin_1_T_D = rotary(torch.ones(1), torch.arange(max_length)[None])
        # rotate_half(x) * sin is roll(x, D / 2) * sin with the first half of sin negated
        sin_1_T_D[..., : self.head_dim // 2].neg_()
        self.cos_T_1_D = cos_1_T_D[0, :, None].to(self.embedding)
        self.sin_T_1_D = sin_1_T_D[0, :, None].to(self.embedding)


def _fuse(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    return _Layer(
        norm_1=layer.input_layernorm.weight,
        qkv=_stack([linear.weight for linear in projections]),
        qkv_bias=None if attention.q_proj.bias is None else _stack([linear.bias for linear in projections]),
        qk_norms=(attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else None,
        out=_stack([attention.o_proj.weight]),
        norm_2=layer.post_attention_layernorm.weight,
        gate_up=_stack([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=_stack([mlp.down_proj.weight]),
    )


def _stack(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Stack linear layers along their outputs, which come last, and make each parameter a view of the stack.

    With the inputs first, matrix products of a small batch on a CPU run half as fast again.
    """
    stack = torch.cat([parameter.data.t() for parameter in parameters], -1).contiguous()
    for parameter, view in zip(parameters, stack.split([len(parameter) for parameter in parameters], -1), strict=True):
        parameter.data = view.t()
    return stack


class FusedDecoder:
    """The KV cache of up to `rows` running rows, and the forward pass that fills it (see `decode.Decoder`).

    The cache holds, for every row, as many columns as the longest row so far needed, rounded up by at most a half.
    """

    def __init__(self, model: FusedModel, rows: int) -> None:
        self.model = model
        self.rows = rows
        self.lengths: list[int] = []
        weight = model.embedding
        self.device = weight.device
        self.cache = [weight.new_zeros((2, rows, model.kv_heads, 0, model.head_dim)) for _ in model.layers]
        self.mask = weight.new_zeros((rows, 1, 1, 0))
        self.qk_norms = [self._spread(*layer.qk_norms) if layer.qk_norms else None for layer in model.layers]

    @property
    def room(self) -> int:
        return self.rows - len(self.lengths)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Prompts in passes of at most `PREFILL_TOKENS`. Equal prompts of one pass are computed once, and so is a
        beginning that all of them share, where that saves enough."""
        shared = self._shared(prompts)
        begun: list[Tensor] = []
        if shared:
            self._read([prompts[0][:shared]], [], lambda layer, kv: begun.append(kv))
        count = max(1, PREFILL_TOKENS // (max(map(len, prompts)) - shared))
        return torch.cat([self._prefill(prompts[i : i + count], begun) for i in range(0, len(prompts), count)])

    def _shared(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many tokens all prompts begin with, or 0 if to read them once is not worth a pass of its own."""
        different = {tuple(prompt) for prompt in prompts}
        shortest = min(map(len, different)) - 1
        length = min(
            shortest, next((i for i, ids in enumerate(zip(*different, strict=False)) if len({*ids}) > 1), shortest)
        )
        saved = 2 * self.model.size * length * (len(different) - 1)
        return length if saved >= SHARED_FLOP else 0

    def _prefill(self, prompts: Sequence[Sequence[int]], begun: Sequence[Tensor]) -> Float[Tensor, "B V"]:
        """New rows for `prompts`; `begun` holds keys and values of their common beginning, by layer, if it is read."""
        shared = begun[0].shape[-2] if begun else 0
        numbers: dict[tuple[int, ...], int] = {}
        source = torch.tensor(
            [numbers.setdefault(tuple(prompt[shared:]), len(numbers)) for prompt in prompts], device=self.device
        )
        width = shared + max(map(len, numbers))
        self._reserve(width)
        new = slice(len(self.lengths), len(self.lengths) + len(prompts))
        self.lengths += map(len, prompts)
        self.mask[new] = float("-inf")
        for row in range(new.start, new.stop):
            self.mask[row, ..., : self.lengths[row]] = 0

        def remember(layer: int, kv: Tensor) -> None:
            self.cache[layer][:, new, :, :width] = kv[:, source]

        return self._logits(self._read(list(numbers), begun, remember))[source]

    def _read(
        self, prompts: Sequence[Sequence[int]], begun: Sequence[Tensor], remember: Callable[[int, Tensor], None]
    ) -> Float[Tensor, "N D"]:
        """The last hidden state of each prompt, which follows what `begun` holds.

        `remember(layer, kv)` is given keys and values (2 x N x K x T x D) of all tokens so far.
        """
        shared, width = begun[0].shape[-2] if begun else 0, max(map(len, prompts))
        seen = torch.ones(width, shared + width, dtype=torch.bool, device=self.device).tril(shared) if begun else None

        def attend(layer: int, *qkv_N: Tensor) -> Tensor:
            q, k, v = (x_N.unflatten(0, (len(prompts), width)).transpose(1, 2) for x_N in qkv_N)
            kv = torch.stack([k, v])
            if begun:
                kv = torch.cat([begun[layer].expand(-1, len(prompts), -1, -1, -1), kv], -2)
            remember(layer, kv)
            out = F.scaled_dot_product_attention(
                q, kv[0], kv[1], attn_mask=seen, is_causal=seen is None, enable_gqa=True
            )
            return out.transpose(1, 2).flatten(0, 1).flatten(1)

        ids_N = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in prompts], device=self.device).flatten()
        positions_N = torch.arange(shared, shared + width, device=self.device).repeat(len(prompts))
        hidden_N_D = self._forward(ids_N, positions_N, attend)
        last = torch.tensor([i * width + len(ids) - 1 for i, ids in enumerate(prompts)], device=self.device)
        return hidden_N_D[last]

    def step(self, ids_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        count, width = len(ids_B), max(self.lengths) + 1
        self._reserve(width)
        width = -(-width // 8) * 8  # attention kernels like multiples of 8, and the columns beyond are masked
        rows_B = torch.arange(count, device=self.device)
        positions_B = torch.tensor(self.lengths, device=self.device)
        self.lengths = [length + 1 for length in self.lengths]
        self.mask[rows_B, 0, 0, positions_B] = 0

        def attend(layer: int, q_B_H_D: Tensor, k_B_K_D: Tensor, v_B_K_D: Tensor) -> Tensor:
            keys, values = self.cache[layer]
            keys[rows_B, :, positions_B] = k_B_K_D
            values[rows_B, :, positions_B] = v_B_K_D
            grouped = q_B_H_D.unflatten(1, (self.model.kv_heads, -1))
            live = (slice(count), slice(None), slice(width))
            mask = self.mask[:count, ..., :width]
            return F.scaled_dot_product_attention(grouped, keys[live], values[live], attn_mask=mask).flatten(1)

        return self._logits(self._forward(ids_B, positions_B, attend))

    def keep(self, order: Sequence[int]) -> None:
        for row, old in enumerate(order):
            if row != old:
                for cache in self.cache:
                    cache[:, row, :, : self.lengths[old]] = cache[:, old, :, : self.lengths[old]]
                self.mask[row] = self.mask[old]
        self.lengths = [self.lengths[old] for old in order]

    def _reserve(self, columns: int) -> None:
        have = self.mask.shape[-1]
        if columns > have:
            extra = -(-max(columns, have * 3 // 2) // 64) * 64 - have
            for layer, cache in enumerate(self.cache):
                # zeros, not garbage: a masked column weighs zero, but zero times NaN is NaN
                self.cache[layer] = F.pad(cache, (0, 0, 0, extra))
            self.mask = F.pad(self.mask, (0, extra), value=float("-inf"))

    def _spread(self, q_norm: Float[Tensor, " D"], k_norm: Float[Tensor, " D"]) -> Float[Tensor, "H+K D"]:
        """One row for each query and key head, so that both are scaled at once."""
        return torch.cat([q_norm.expand(self.model.heads, -1), k_norm.expand(self.model.kv_heads, -1)])

    def _forward(self, ids_N: Int[Tensor, " N"], positions_N: Int[Tensor, " N"], attend: Attend) -> Tensor:
        """Hidden states (N x D) of N tokens before the last norm; `attend` mixes tokens, and keeps keys and values."""
        model, width = self.model, self.model.norm.shape
        heads = [model.heads + model.kv_heads, model.kv_heads]
        cos_N_1_D, sin_N_1_D = model.cos_T_1_D[positions_N], model.sin_T_1_D[positions_N]
        x = F.embedding(ids_N, model.embedding)
        for i, (layer, qk_norm) in enumerate(zip(model.layers, self.qk_norms, strict=True)):
            h = F.rms_norm(x, width, layer.norm_1, model.eps)
            qkv = h @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, h, layer.qkv)
            qk, v = qkv.unflatten(1, (-1, model.head_dim)).split(heads, 1)
            if qk_norm is not None:
                qk = F.rms_norm(qk, (model.head_dim,), eps=model.eps) * qk_norm
            qk = torch.addcmul(qk * cos_N_1_D, qk.roll(model.head_dim // 2, -1), sin_N_1_D)
            q, k = qk.split([model.heads, model.kv_heads], 1)
            x = torch.addmm(x, attend(i, q, k, v), layer.out)
            h = F.rms_norm(x, width, layer.norm_2, model.eps)
            gate, up = (h @ layer.gate_up).chunk(2, -1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        return x

    def _logits(self, hidden_B_D: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        return F.linear(F.rms_norm(hidden_B_D, self.model.norm.shape, self.model.norm, self.model.eps), self.model.head)
