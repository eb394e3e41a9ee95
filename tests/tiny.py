"""A model small enough to build in a test: random Qwen3 weights and a tokenizer of single bytes."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the three of the chat template."""
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate([*specials, *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    wrapped.chat_template = TEMPLATE
    return wrapped


def model(seed: int = 0, *, tied: bool = True, layers: int = 2) -> Qwen3ForCausalLM:
    """About 20 k parameters; weights wide enough that greedy output is not one token for ever."""
    config = Qwen3Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        eos_token_id=2,
        pad_token_id=0,
    )
    lm = Qwen3ForCausalLM(config).eval()
    widen(lm, seed)
    return lm


@torch.no_grad()
def widen(lm: PreTrainedModel, seed: int = 0) -> None:
    """Random matrices, the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)


def save(folder: Path, seed: int = 0, *, tied: bool = True) -> Path:
    """A Hugging Face folder."""
    return write(model(seed, tied=tied), folder)


def write(lm: PreTrainedModel, folder: Path) -> Path:
    """A Hugging Face folder of any model with this vocabulary."""
    lm.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
