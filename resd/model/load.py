"""Read a causal language model from a Hugging Face folder or id."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from resd.settings import ModelSettings
from resd.types import UserError

transformers_logging.disable_progress_bar()


def read_config(settings: ModelSettings) -> dict[str, Any]:
    """What config.json says about the language model; no weights are read."""
    return _read(AutoConfig, settings.path).get_text_config().to_dict()


def check_context(settings: ModelSettings, longest: int) -> None:
    """Raises UserError if the model cannot hold `longest` tokens."""
    limit = read_config(settings).get("max_position_embeddings", longest)
    if longest > limit:
        raise UserError(
            f"prompts and responses of {longest} tokens do not fit into the {limit} of model.path={settings.path}: "
            "lower model.max_prompt, rollout.max_prompt or rollout.max_response"
        )


def load_model(settings: ModelSettings) -> Any:
    """The model in float32 on the CPU, in evaluation mode (Qwen3 has no dropout; the objective wants none)."""
    return _read(
        AutoModelForCausalLM, settings.path, dtype=torch.float32, attn_implementation=settings.attention
    ).eval()


def outline(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Any:
    """The model without values, in evaluation mode: its parameters and buffers are on the meta device."""
    config = _read(AutoConfig, settings.path)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=settings.attention).eval()
    lm.generation_config = _generation_config(settings.path) or lm.generation_config
    return lm


def _generation_config(path: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:
        return None


def _read(kind: Any, path: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"model.path={path} cannot be read ({first}): give a model folder or a reachable id") from None
