"""Read a causal language model and its tokenizer from a Hugging Face folder or id."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from resd.model import files
from resd.model.family import check_attention, check_config, check_described, check_modules
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
    return _config(settings).to_dict()


def check_context(settings: ModelSettings, longest: int) -> None:
    """Raises UserError if the model cannot hold `longest` tokens."""
    limit = getattr(_config(settings), "max_position_embeddings", None) or longest
    if longest > limit:
        raise UserError(
            f"prompts and responses of {longest} tokens do not fit into the {limit} of model.path={settings.path}: "
            "lower model.max_prompt, rollout.max_prompt or rollout.max_response"
        )


def load_model(settings: ModelSettings) -> Any:
    """The model in float32 on the CPU, in evaluation mode: without dropout, which the objective does not want.

    Raises UserError for weights that are not those that the configuration describes, all of them and no others.
    """
    config = _config(settings)
    if Path(settings.path).is_dir() and (problem := files.problem_of_weights(Path(settings.path))):
        raise UserError(f"model.path={settings.path} {problem}")
    with _quiet():
        lm, found = _read(
            AutoModelForCausalLM,
            settings.path,
            config=config,
            dtype=torch.float32,
            attn_implementation=settings.attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be listed
        )
    check_attention(settings.path, lm)
    _check_weights(settings.path, lm, found)
    return lm.eval()


def _check_weights(path: str, lm: Any, found: Mapping[str, Any]) -> None:
    """Raises UserError that names the first tensor, and says how many there are, of the first kind that there is."""
    named = dict(lm.named_parameters())
    other_shape = {name: (file, model) for name, file, model in found["mismatched_keys"]}
    not_finite = (name for name, p in named.items() if not all(x.isfinite() for x in p.detach().aminmax()))
    right = "give the folder that has the right weights"
    sizes = f"correct the sizes in config.json, or {right}"
    kinds: list[tuple[Iterable[str], str, str]] = [
        (found["missing_keys"], "has no weights for", f"correct tie_word_embeddings or the sizes, or {right}"),
        (other_shape, "has weights of another shape for", sizes),
        (found["unexpected_keys"], "has weights that its config.json does not describe:", sizes),
        (not_finite, "has weights that are no numbers (NaN or infinity) in", right),
    ]
    for names, problem, advice in kinds:
        if ordered := sorted(names, key=_natural):
            first, shape = ordered[0], ""
            if first in other_shape:
                in_file, described = map(list, other_shape[first])
                shape = f" ({in_file}, not {described})"
            more = f" and {len(ordered) - 1} more" if len(ordered) > 1 else ""
            raise UserError(f"model.path={path} {problem} {first}{shape}{more}: {advice}")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def outline(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Any:
    """The model without values, in evaluation mode: its parameters and buffers are on the meta device.

    Raises UserError for a model that cannot be trained.
    """
    config = _config(settings)

    def build() -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=settings.attention)

    lm = _guarded(build, settings.path).eval()
    check_modules(settings.path, lm)
    check_attention(settings.path, lm)
    lm.generation_config = _generation_config(settings.path) or lm.generation_config
    return lm


def _config(settings: ModelSettings) -> Any:
    """The configuration of a model that can be trained as far as it tells. Raises UserError for any other."""
    path = settings.path
    if Path(path).is_dir() and (problem := files.problem(Path(path))):
        raise UserError(f"model.path={path} {problem}")
    raw, _ = _guarded(lambda: PreTrainedConfig.get_config_dict(path), path)
    check_described(path, raw)
    config = _read(AutoConfig, path)
    check_config(path, config, settings.attention)
    return config


def _generation_config(path: str) -> GenerationConfig | None:
    try:
        with _quiet():
            return GenerationConfig.from_pretrained(path)
    except OSError:
        return None


def _read(kind: Any, path: str, **options: Any) -> Any:
    return _guarded(lambda: kind.from_pretrained(path, trust_remote_code=False, **options), path)


def _guarded(read: Callable[[], Any], path: str) -> Any:
    """What `read` returns; whatever transformers raises about the files of a user is one sentence."""
    try:
        return read()
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"model.path={path} cannot be read ({first}): give a model folder or a reachable id") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tables and warnings of transformers, for what they say is checked."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
