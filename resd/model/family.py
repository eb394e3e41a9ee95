"""Which models can be trained: no list of names, but what the trainer needs of one.

The configuration says what a model is, its modules how it is built, and one forward pass on two tokens what its output
head does: the fused head knows logits = scale * hidden states times output embedding, and nothing else. What does not
fit ends in one sentence. Not covered: whether the cache of a family works; the self-test of a run finds that.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from resd.types import UserError

CAP = re.compile(r"logits?_\w*cap")
LOUD = 100.0  # the largest logit of the probe: caps of published models are 30 to 50


def check_described(path: str, raw: Mapping[str, Any]) -> None:
    """Raises UserError for what transformers would not read as plain weights of a model that it knows."""
    method = raw.get("quantization_config") or raw.get("compression_config")
    if method:
        name = method.get("quant_method", "quantization_config") if isinstance(method, dict) else method
        raise UserError(f"model.path={path} is quantised ({name}), and training needs whole weights: give those")
    family, version = raw.get("model_type"), transformers.__version__
    if family in CONFIG_MAPPING:
        return
    if "auto_map" in raw:
        raise UserError(
            f"model.path={path} brings code of its own (auto_map, trust_remote_code), which is not run here: "
            f"choose a model that transformers {version} knows"
        )
    raise UserError(
        f"model.path={path} has model_type={family} in config.json, which transformers {version} does not know: "
        "choose another model, or correct it"
    )


def check_config(path: str, config: Any, attention: str) -> None:
    """Raises UserError for what is no causal language model of text, or lacks this attention."""
    named = getattr(config, "architectures", None) or []
    what = f"model.path={path} is {named[0] if named else config.model_type}"
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{what}, an encoder and a decoder: choose a causal language model")
    if config.get_text_config() is not config:
        raise UserError(f"{what}, which also reads other things than text: choose a model of text alone")
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if causal is None:
        raise UserError(f"{what}, of which transformers has no causal language model: choose another")
    if named and causal.__name__.lower() not in {name.lower() for name in named}:
        raise UserError(
            f"{what}, no causal language model: choose one whose config.json names {causal.__name__} in architectures"
        )
    if attention == "sdpa" and not causal._supports_sdpa:
        raise UserError(f"{what}, which has no model.attention=sdpa in transformers: write model.attention=eager")
    if getattr(config, "use_bidirectional_attention", False):
        raise UserError(f"{what} with use_bidirectional_attention: choose a causal language model")


def check_attention(path: str, lm: Any) -> None:
    """Raises UserError where the chosen attention would leave out a cap on scores."""
    for name, value in _caps(lm.config).items():
        if name.startswith("att") and lm.config._attn_implementation != "eager":
            raise UserError(
                f"model.path={path}: {name}={value} is ignored by model.attention={lm.config._attn_implementation}: "
                "write model.attention=eager"
            )


def _caps(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if value and CAP.search(name)}


def layers(lm: Any) -> nn.ModuleList:
    """The decoder's layers: the outermost list of as many modules as the configuration says. LookupError if none is."""
    count = getattr(lm.config, "num_hidden_layers", None)
    for module in lm.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise LookupError("no list of layers")


def check_modules(path: str, lm: Any) -> None:
    """Raises UserError for a model that cannot be trained: one not built of a body, its layers, and a linear head."""
    for cap, value in _caps(lm.config).items():
        if not cap.startswith("att"):
            raise UserError(
                f"model.path={path}: {cap}={value} is not supported by the fused head: choose a model without it"
            )
    name, head = type(lm).__name__, lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError(
            f"model.path={path}: the output head of {name} has a bias, which the fused head does not support: "
            "choose a model without it"
        )
    try:
        found = lm.base_model is not lm and len(layers(lm)) > 0 and isinstance(head, nn.Linear)
    except LookupError:
        found = False
    if not found:
        raise UserError(
            f"model.path={path} is {name}, which is built otherwise than the trainer needs: a body with all layers in "
            "one list, and a linear output head beside it; choose a model like Llama, Qwen, Mistral, Gemma or GPT-2"
        )


@torch.no_grad()
def logit_scale(path: str, lm: Any) -> float:
    """The factor between hidden states times output embedding and the logits of a model that has its weights.

    Measured on loud hidden states in place of the model's own. Raises UserError if there is no such factor, and for a
    model whose tokens see later ones.
    """
    weight_V_D = lm.get_output_embeddings().weight.float()
    hidden_N_D = torch.randn(2, weight_V_D.shape[1], generator=torch.Generator().manual_seed(0))
    plain_N_V = hidden_N_D @ weight_V_D.T
    loudness = LOUD / plain_N_V.abs().max().clamp_min(1e-30)
    hidden_N_D, plain_N_V = hidden_N_D * loudness, plain_N_V * loudness
    own: list[Tensor] = []

    def substitute(_: nn.Module, __: Any, output: Any) -> Any:
        own.append(output.last_hidden_state.float())
        output.last_hidden_state = hidden_N_D.expand(2, 2, -1).to(output.last_hidden_state.dtype)
        return output

    hook = lm.get_decoder().register_forward_hook(substitute)
    try:
        logits_N_V = lm(input_ids=torch.tensor([[0, 1], [0, 2]]), use_cache=False, return_dict=True).logits[0].float()
    finally:
        hook.remove()
    if not torch.allclose(own[0][0, 0], own[0][1, 0], rtol=1e-3, atol=1e-4):
        raise UserError(
            f"model.path={path} is {type(lm).__name__}, in which a token sees later ones: "
            "choose a causal language model"
        )
    scale = float((logits_N_V.double() * plain_N_V).sum() / plain_N_V.double().square().sum().clamp_min(1e-30))
    if not torch.allclose(logits_N_V, scale * plain_N_V, rtol=1e-3, atol=1e-3 * abs(scale) * LOUD):
        features = [f"{k}={v}" for k, v in lm.config.to_dict().items() if "logit" in k and v not in (None, 0)]
        raise UserError(
            f"model.path={path}: the logits of {type(lm).__name__} are not hidden states times output embedding "
            f"({', '.join(features) or 'nothing in config.json says why'}), which the fused head does not support: "
            "choose another model"
        )
    return float(f"{scale:.6g}")  # exactly 1, or what the configuration says, without rounding of the measurement
