"""Our own training pass through the body of the Llama family (Llama, Qwen2, Qwen3): the same function, less work.

- Sequences lie in one packed row without padding. Each is one causal attention call of its own, where Hugging Face's
  `sdpa` would build a mask over all pairs of tokens of the row.
- After keys, values and queries, the last layer sees only the rows whose hidden states are wanted.
- Norm, rotation and gated unit are autograd functions that keep few tensors and take few passes; torch.compile can
  fuse them further.

Layers stay the modules they are, so that sharding, checkpointing and names do not change. Other families, and attention
that is not `sdpa`, keep the forward pass of Hugging Face. Not covered: dropout, which these models are trained without.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from resd.engine.fused import supports
from resd.model.pack import Rows

MASKED = {"cpu"}  # a GPU has no kernel for a mask and shared key heads but one that holds all scores
FRUGAL = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
Rope = tuple[Float[Tensor, "N 1 d"], Float[Tensor, "N 1 d"]]


class Stages(NamedTuple):
    """The work of a layer before and after its attention."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    after: Callable[..., Tensor]


def adopt(lm: Any, compiled: bool = False) -> bool:
    """Give the layers of `lm` this forward pass, if it computes the same; `hidden` then runs it.

    `compiled` has torch.compile fuse what lies between matrix products and attention: once for all layers and lengths.
    """
    if lm.config._attn_implementation != "sdpa" or not supports(lm):
        return False
    stages = Stages(_before, _after)
    if compiled:
        stages = Stages(torch.compile(_before, dynamic=True), torch.compile(_after, dynamic=True))
    for layer in lm.model.layers:
        layer.forward = partial(_layer, stages, layer)
    return True


def hidden(body: Any, rows: Rows) -> Float[Tensor, "T D"]:
    """Hidden states of the response rows of packed rows."""
    x_N_D = body.embed_tokens(rows.input_ids[0])
    rope = _rope(body, x_N_D, rows)
    for layer in body.layers[:-1]:
        x_N_D = layer(x_N_D, rope, rows, False)
    return _norm(body.layers[-1](x_N_D, rope, rows, True), body.norm)


def _rope(body: Any, x_N_D: Float[Tensor, "N D"], rows: Rows) -> Rope:
    cos_1_N_d, sin_1_N_d = body.rotary_emb(x_N_D, rows.position_ids)
    # rotate_half(x) * sin is roll(x, d / 2) * sin with the first half of sin negated
    sin_1_N_d[..., : sin_1_N_d.shape[-1] // 2].neg_()
    return cos_1_N_d[0, :, None], sin_1_N_d[0, :, None]


def _layer(
    stages: Stages, layer: Any, x_N_D: Float[Tensor, "N D"], rope: Rope, rows: Rows, last: bool
) -> Float[Tensor, "M D"]:
    attention = layer.self_attn
    queries, keys, values = stages.before(x_N_D, layer.input_layernorm, attention, rope)
    counts = rows.lengths
    if last:
        x_N_D, queries, counts = x_N_D[rows.predict_T], queries[rows.predict_T], rows.counts
    mixed = _attend(queries, keys, values, counts, rows.lengths, attention.scaling)
    return stages.after(x_N_D, mixed, attention, layer.post_attention_layernorm, layer.mlp)


def _before(
    x_N_D: Float[Tensor, "N D"], norm: Any, attention: Any, rope: Rope
) -> tuple[Float[Tensor, "N H d"], Float[Tensor, "N K d"], Float[Tensor, "N K d"]]:
    """Queries, keys and values."""
    h_N_D = _norm(x_N_D, norm)
    values = attention.v_proj(h_N_D).unflatten(-1, (-1, attention.head_dim))
    return _heads(h_N_D, attention, "q", rope), _heads(h_N_D, attention, "k", rope), values


def _after(
    x_M_D: Float[Tensor, "M D"], mixed: Float[Tensor, "M H d"], attention: Any, norm: Any, mlp: Any
) -> Float[Tensor, "M D"]:
    x_M_D = x_M_D + attention.o_proj(mixed.flatten(1))
    h_M_D = _norm(x_M_D, norm)
    return x_M_D + mlp.down_proj(_Gate.apply(mlp.gate_proj(h_M_D), mlp.up_proj(h_M_D)))


def _heads(h_N_D: Float[Tensor, "N D"], attention: Any, name: str, rope: Rope) -> Float[Tensor, "N H d"]:
    heads = getattr(attention, f"{name}_proj")(h_N_D).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    return _Rotate.apply(heads if norm is None else _norm(heads, norm), *rope)


def _attend(
    queries: Float[Tensor, "M H d"],
    keys: Float[Tensor, "N K d"],
    values: Float[Tensor, "N K d"],
    counts: list[int],
    lengths: list[int],
    scale: float,
) -> Float[Tensor, "M H d"]:
    """Causal attention of the last `counts[i]` tokens of each sequence of `lengths[i]`."""
    parts = zip(queries.split(counts), keys.split(lengths), values.split(lengths), strict=True)
    return torch.cat([_attend_one(q, k, v, scale) for q, k, v in parts])


def _attend_one(
    query: Float[Tensor, "n H d"], key: Float[Tensor, "l K d"], value: Float[Tensor, "l K d"], scale: float
) -> Float[Tensor, "n H d"]:
    count, length = len(query), len(key)
    if count < length and query.device.type not in MASKED:  # ask for the tokens before, too, and drop their answers
        query = F.pad(query, (0, 0, 0, 0, length - count, 0))
        return _attend_one(query, key, value, scale)[length - count :]
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
    whole = count == length
    seen = None if whole else torch.ones(count, length, dtype=torch.bool, device=key.device).tril(length - count)
    with _frugal(query):
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=whole, scale=scale, enable_gqa=True
        )
    return out[0].transpose(0, 1)


def _frugal(query: Tensor) -> Any:
    """On a GPU none but kernels that never hold all scores: without one that fits, an error and no other kernel."""
    return sdpa_kernel(FRUGAL) if query.is_cuda else nullcontext()


def _norm(x: Float[Tensor, "... D"], module: Any) -> Float[Tensor, "... D"]:
    return _RMSNorm.apply(x, module.weight, module.variance_epsilon)


class _RMSNorm(torch.autograd.Function):
    """weight * x / rms(x), with the division in float32 as Hugging Face has it."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "... D"], weight_D: Float[Tensor, " D"], eps: float) -> Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = (wide * scale).to(x.dtype)
        ctx.save_for_backward(unit, scale, weight_D)
        return unit * weight_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, weight_D = ctx.saved_tensors
        both = d_out.float() * unit.float()
        d_weight_D = both.flatten(0, -2).sum(0).to(weight_D.dtype)
        # the part of the gradient along x vanishes, as the length of x does not matter
        along = (both @ weight_D.float())[..., None].div_(unit.shape[-1])
        d_unit = (d_out * weight_D).float()
        return d_unit.addcmul_(unit.float(), along, value=-1).mul_(scale).to(unit.dtype), d_weight_D, None


class _Rotate(torch.autograd.Function):
    """Rotary position embedding; cos and sin [N, 1, d] as `_rope` makes them."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "N H d"], cos: Float[Tensor, "N 1 d"], sin: Float[Tensor, "N 1 d"]
    ) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return (d_out * cos).add_((d_out * sin).roll(d_out.shape[-1] // 2, -1)), None, None


class _Gate(torch.autograd.Function):
    """silu(gate) * up, of which silu(gate) is not kept."""

    @staticmethod
    def forward(ctx: Any, gate: Float[Tensor, "N I"], up: Float[Tensor, "N I"]) -> Float[Tensor, "N I"]:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Float[Tensor, "N I"]) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_up = F.silu(gate) * d_out
        return torch.ops.aten.silu_backward(d_out * up, gate), d_up
