"""Read a causal language model and its tokenizer from a Hugging Face folder or id."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from resd.settings import ModelSettings
from resd.types import Messages, UserError

transformers_logging.disable_progress_bar()

MAX_BYTES = 4  # of a character in UTF-8; tokens that do not make one by then are not text


class Chat:
    """A tokenizer and its chat template: messages to text to ids and back."""

    def __init__(self, settings: ModelSettings) -> None:
        self.tokenizer = _read(AutoTokenizer, settings.path)
        self.enable_thinking = settings.enable_thinking
        if self.tokenizer.chat_template is None:
            raise UserError(f"model.path={settings.path} has no chat template: add chat_template.jinja to the folder")
        self.eos_ids = self._end_of_turn(settings.path)
        self.pad_id: int = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_ids[0]

        self.thinking_opened = self.render([{"role": "user", "content": ""}]).rstrip().endswith("<think>")

    def _end_of_turn(self, path: str) -> list[int]:
        generation = _generation_config(path)
        declared = None if generation is None else generation.eos_token_id
        ids = declared if declared is not None else self.tokenizer.eos_token_id
        if ids is None:
            raise UserError(f"model.path={path} names no end-of-turn token: set eos_token_id in generation_config.json")
        return list(ids) if isinstance(ids, Sequence) else [ids]

    def render(self, messages: Messages) -> str:
        """The prompt as text, ending with the generation header."""
        return self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.enable_thinking,
        )

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text; nothing is added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, without the end-of-turn token."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. A character of several tokens is the last one's, the others have no text."""
        texts: list[str] = []
        start = 0
        for end in range(1, len(ids) + 1):
            text = self.decode(ids[start:end])
            whole = not text.endswith("\N{REPLACEMENT CHARACTER}") or end - start == MAX_BYTES
            texts.append(text if whole or end == len(ids) else "")
            start = end if whole else start
        return texts


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
