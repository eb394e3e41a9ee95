"""The body of a Llama-like Hugging Face model with less work: the same function, of fewer and smaller operations.

- Sequences lie in one packed row without padding, and each is one causal attention call of its own, where Hugging
  Face's `sdpa` would build a mask over all pairs of tokens of the row.
- The MLP of the last layer, and the last norm, see only the rows whose hidden states are wanted.
- A norm is one autograd function, which keeps one tensor and takes half the passes of its parts.

Not covered: other families, and attention that is not full; those stay as they are. See `tests/test_fast.py`.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface

from resd.engine.fused import FAMILIES

PACKED = "packed_sdpa"


def tune(lm: Any) -> bool:
    """Change `lm` in place; whether its body now takes `lengths` and `predict_T` and gives hidden states [T, D]."""
    config = lm.config
    if config.model_type not in FAMILIES or set(getattr(config, "layer_types", None) or ["full_attention"]) != {
        "full_attention"
    }:
        return False
    if config._attn_implementation == "sdpa":
        lm.set_attn_implementation(PACKED)
    for module in lm.model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(_norm, module)
    last = lm.model.layers[-1]
    last.forward = MethodType(_last_layer, last)
    return True


def _attend(
    module: nn.Module,
    query: Float[Tensor, "1 H N d"],
    key: Float[Tensor, "1 K N d"],
    value: Float[Tensor, "1 K N d"],
    attention_mask: None,
    *,
    lengths: list[int],
    scaling: float,
    **_: Any,
) -> tuple[Float[Tensor, "1 N H d"], None]:
    """Causal attention within each of the sequences that lie one after the other in the row."""
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    out = [F.scaled_dot_product_attention(*qkv, is_causal=True, scale=scaling, enable_gqa=True) for qkv in parts]
    return torch.cat([part.transpose(1, 2) for part in out], dim=1), None


AttentionInterface.register(PACKED, _attend)
AttentionMaskInterface.register(PACKED, lambda *_, **__: None)


def _last_layer(
    layer: Any, hidden_states: Float[Tensor, "R L D"], *, predict_T: Int[Tensor, " T"], **more: Any
) -> Float[Tensor, "T D"]:
    mixed, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **more)
    hidden_T_D = (hidden_states + mixed).flatten(0, 1)[predict_T]
    return hidden_T_D + layer.mlp(layer.post_attention_layernorm(hidden_T_D))


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    return _RMSNorm.apply(hidden_states, module.weight, module.variance_epsilon)


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
        # along unit the gradient vanishes, as the length of x does not matter
        along = (both @ weight_D.float())[..., None].div_(unit.shape[-1])
        d_unit = (d_out * weight_D).float()
        return d_unit.addcmul_(unit.float(), along, value=-1).mul_(scale).to(unit.dtype), d_weight_D, None
