"""Our own forward pass for the Llama family (Llama, Qwen2, Qwen3): few operations, one KV cache that stays in place.

Query, key and value projections are one matrix, gate and up projections another. The parameters of the Hugging Face
model become views of them, so its own forward pass, `state_dict` and an in-place copy into a parameter keep working and
no weight is held twice. Prompts are padded on the right: with causal attention a padding token is never looked at, and
what it leaves in the cache is masked until a real token overwrites it. Query heads that share a key head are folded
into one attention call, so keys and values are never repeated.

Covers dense models with full attention and a rope that does not depend on the sequence length; see `supports`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

FAMILIES = {"llama", "qwen2", "qwen3"}
STATIC_ROPES = {"default", "linear", "llama3", "yarn"}
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def supports(model: nn.Module) -> bool:
    """Whether this forward pass computes the same function as `model`, a Hugging Face causal language model."""
    config: Any = model.config
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and config.rope_parameters.get("rope_type", "default") in STATIC_ROPES
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not getattr(config, "mlp_bias", False)
        and all(layer.self_attn.o_proj.bias is None for layer in model.model.layers)  # type: ignore[union-attr]
        and all(type(module) is nn.Linear for module in model.modules() if isinstance(module, nn.Linear))
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_1: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    qk_norm: tuple[Tensor, Tensor] | None
    out: Tensor
    norm_2: Tensor
    gate_up: Tensor
    down: Tensor


class FusedModel:
    """Fused weights of a supported model; they share memory with `model`'s parameters."""

    def __init__(self, model: nn.Module, max_length: int) -> None:
        config: Any = model.config
        body: Any = model.model
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.eps = body.layers[0].self_attn.head_dim, config.rms_norm_eps
        self.max_length = max_length
        self.embedding, self.norm, self.head = body.embed_tokens.weight, body.norm.weight, model.lm_head.weight  # type: ignore[union-attr]
        self.layers = [_fuse_layer(layer) for layer in body.layers]
        cos_1_T_D, sin_1_T_D = body.rotary_emb(
            self.embedding[:1], torch.arange(max_length, device=self.embedding.device)[None]
        )
        half = self.head_dim // 2
        # rotate_half(x) * sin is roll(x, half) * sin with the first half of sin negated
        self.cos_T_1_D = cos_1_T_D[0, :, None]
        self.sin_T_1_D = torch.cat([-sin_1_T_D[0, :, None, :half], sin_1_T_D[0, :, None, half:]], -1)


def _fuse_layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    biased = attention.q_proj.bias is not None
    return _Layer(
        norm_1=layer.input_layernorm.weight,
        qkv=_share(*[linear.weight for linear in projections]),
        qkv_bias=_share(*[linear.bias for linear in projections]) if biased else None,
        qk_norm=(attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else None,
        out=_share(attention.o_proj.weight),
        norm_2=layer.post_attention_layernorm.weight,
        gate_up=_share(mlp.gate_proj.weight, mlp.up_proj.weight),
        down=_share(mlp.down_proj.weight),
    )


def _share(*parameters: nn.Parameter) -> Tensor:
    """Stack the outputs of linear layers and make each parameter a view of the stack.

    Weights are stored with the inputs first, which the matrix products of small batches on a CPU read a third faster.
    """
    fused = torch.cat([parameter.data.t() for parameter in parameters], -1).contiguous()
    for parameter, view in zip(parameters, fused.split([len(parameter) for parameter in parameters], -1), strict=True):
        parameter.data = view.t()
    return fused


class FusedDecoder:
    """The KV cache of up to `rows` running rows, and the forward pass that fills it (see `decode.Decoder`).

    Takes 2 x layers x rows x columns x key width elements; columns grow by half when the longest row needs more.
    """

    def __init__(self, model: FusedModel, rows: int) -> None:
        self.model = model
        self.rows = rows
        self.lengths: list[int] = []
        weight = model.embedding
        shape = (2, rows, model.kv_heads, 0, model.head_dim)
        self.cache = [weight.new_zeros(shape) for _ in model.layers]
        self.mask = weight.new_zeros((rows, 1, 1, 0))
        self.qk_norms = [
            layer.qk_norm
            and torch.cat([w.expand(n, -1) for w, n in zip(layer.qk_norm, (model.heads, model.kv_heads), strict=True)])
            for layer in model.layers
        ]

    @property
    def room(self) -> int:
        return self.rows - len(self.lengths)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Equal prompts are computed once."""
        unique = {tuple(prompt): i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        lengths = [len(prompt) for prompt in unique]
        width, first = max(lengths), len(self.lengths)
        self._reserve(width)
        device, kv_heads = self.mask.device, self.model.kv_heads
        ids_N = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in unique], device=device).flatten()
        source = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
        new = slice(first, first + len(prompts))

        def attend(layer: int, q_N_H_D: Tensor, k_N_K_D: Tensor, v_N_K_D: Tensor) -> Tensor:
            q, k, v = (x.unflatten(0, (len(unique), width)).transpose(1, 2) for x in (q_N_H_D, k_N_K_D, v_N_K_D))
            self.cache[layer][0, new, :, :width] = k[source]
            self.cache[layer][1, new, :, :width] = v[source]
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != kv_heads)
            return out.transpose(1, 2).flatten(0, 1).flatten(1)

        positions_N = torch.arange(width, device=device).repeat(len(unique))
        hidden_N_D = self._forward(ids_N, positions_N, attend)
        self.lengths += [len(prompt) for prompt in prompts]
        self.mask[new] = float("-inf")
        for row in range(new.start, new.stop):
            self.mask[row, ..., : self.lengths[row]] = 0
        last = torch.tensor([i * width + length - 1 for i, length in enumerate(lengths)], device=device)
        return self._logits(hidden_N_D[last])[source]

    def step(self, ids_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        count, width = len(ids_B), max(self.lengths) + 1
        self._reserve(width)
        width = min(-(-width // 8) * 8, self.mask.shape[-1])  # kernels like a multiple of 8, and the rest is masked
        rows_B = torch.arange(count, device=ids_B.device)
        positions_B = torch.tensor(self.lengths, device=ids_B.device)
        self.mask[rows_B, 0, 0, positions_B] = 0
        mask = self.mask[:count, ..., :width]

        def attend(layer: int, q_B_H_D: Tensor, k_B_K_D: Tensor, v_B_K_D: Tensor) -> Tensor:
            keys, values = self.cache[layer]
            keys[rows_B, :, positions_B] = k_B_K_D
            values[rows_B, :, positions_B] = v_B_K_D
            q = q_B_H_D.unflatten(1, (self.model.kv_heads, -1))
            out = F.scaled_dot_product_attention(q, keys[:count, :, :width], values[:count, :, :width], attn_mask=mask)
            return out.flatten(1)

        hidden_B_D = self._forward(ids_B, positions_B, attend)
        self.lengths = [length + 1 for length in self.lengths]
        return self._logits(hidden_B_D)

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
            grown = -(-max(columns + 64, have * 3 // 2) // 64) * 64
            # zeros, not garbage: a masked column weighs zero, but zero times NaN is NaN
            self.cache = [F.pad(self.cache[i], (0, 0, 0, grown - have)) for i in range(len(self.cache))]
            self.mask = F.pad(self.mask, (0, grown - have), value=float("-inf"))

    def _forward(self, ids_N: Int[Tensor, " N"], positions_N: Int[Tensor, " N"], attend: Attend) -> Tensor:
        """Final hidden states, before the last norm, of N tokens; `attend` mixes them and keeps their keys and values."""
        model = self.model
        heads, kv_heads, width = model.heads, model.kv_heads, (len(model.norm),)
        cos_N_1_D, sin_N_1_D = model.cos_T_1_D[positions_N], model.sin_T_1_D[positions_N]
        x = F.embedding(ids_N, model.embedding)
        for i, (layer, qk_norm) in enumerate(zip(model.layers, self.qk_norms, strict=True)):
            h = F.rms_norm(x, width, layer.norm_1, model.eps)
            qkv = (h @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, h, layer.qkv)).unflatten(1, (-1, model.head_dim))
            qk, v = qkv.split([heads + kv_heads, kv_heads], 1)
            if qk_norm is not None:
                qk = F.rms_norm(qk, (model.head_dim,), eps=model.eps) * qk_norm
            qk = torch.addcmul(qk * cos_N_1_D, qk.roll(model.head_dim // 2, -1), sin_N_1_D)
            q, k = qk.split([heads, kv_heads], 1)
            x = torch.addmm(x, attend(i, q, k, v), layer.out)
            h = F.rms_norm(x, width, layer.norm_2, model.eps)
            gate, up = (h @ layer.gate_up).chunk(2, -1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        return x

    def _logits(self, hidden_B_D: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        return F.linear(
            F.rms_norm(hidden_B_D, (len(self.model.norm),), self.model.norm, self.model.eps), self.model.head
        )
