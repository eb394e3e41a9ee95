"""Read a causal language model from a Hugging Face folder or id."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from resd.model import files
from resd.model.family import check_attention, check_config, check_described, check_modules
from resd.settings import ModelSettings
from resd.types import UserError

WRAPPER = re.compile(r"^((_orig_mod|module)\.)+")  # what goes before the names of a wrapped model

transformers_logging.disable_progress_bar()


def read_config(settings: ModelSettings) -> dict[str, Any]:
    """What config.json says about the language model; no weights are read."""
    return _config(settings).to_dict()


def check_context(settings: ModelSettings, longest: int) -> None:
    """Raises UserError if the model cannot hold `longest` tokens, or turns them otherwise in long texts."""
    config = _config(settings)
    limit = getattr(config, "max_position_embeddings", None) or longest
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(part for part in ropes.values() if isinstance(part, dict))):
        short = rope.get("original_max_position_embeddings") or limit
        if rope.get("rope_type") == "longrope" and longest > short:
            raise UserError(
                f"model.path={settings.path} has rope_type=longrope, which turns all tokens of a batch otherwise once "
                f"one text is longer than {short} tokens, and prompts and responses may have {longest}: "
                "lower model.max_prompt, rollout.max_prompt or rollout.max_response"
            )
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
        lm, found = read(
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
    wrapped = [name for name in found["unexpected_keys"] if WRAPPER.sub("", name) in found["missing_keys"]]
    sizes = f"correct the sizes in config.json, or {right}"
    kinds: list[tuple[Iterable[str], str, str]] = [
        (
            wrapped,
            "has weights that were saved with a wrapper around the model, as that of torch.compile or "
            "DistributedDataParallel:",
            "save the model inside it (model._orig_mod or model.module) with save_pretrained",
        ),
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
    lm.generation_config = generation_config(settings.path) or lm.generation_config
    return lm


def _config(settings: ModelSettings) -> Any:
    """The configuration of a model that can be trained as far as it tells. Raises UserError for any other."""
    path = settings.path
    if Path(path).is_dir() and (problem := files.problem(Path(path))):
        raise UserError(f"model.path={path} {problem}")
    check_described(path, _described(path))
    config = read(AutoConfig, path, return_dict=True)  # what a forward pass returns is the caller's to say
    check_config(path, config, settings.attention)
    return config


def generation_config(path: str) -> GenerationConfig | None:
    """How the model likes to be sampled and where a turn ends, if it says so. Raises UserError for a file that is there
    and cannot be read."""

    def found() -> GenerationConfig | None:
        try:
            with _quiet():
                return GenerationConfig.from_pretrained(path)
        except OSError:
            if Path(path, "generation_config.json").is_file():
                raise
            return None

    return _guarded(found, path)


def end_of_turn(path: str) -> Any:
    """What generation_config.json says ends a response or, where there is none, as in transformers, config.json."""
    found = generation_config(path)
    if found is not None or (Path(path).is_dir() and not Path(path, "config.json").is_file()):
        return getattr(found, "eos_token_id", None)
    return _described(path).get("eos_token_id")


def _described(path: str) -> dict[str, Any]:
    """config.json as it stands. Raises UserError if it cannot be read."""
    return dict(_guarded(lambda: PreTrainedConfig.get_config_dict(path), path)[0])


def read(kind: Any, path: str, **options: Any) -> Any:
    """`kind.from_pretrained` of a user's folder or id. Raises UserError if it cannot be read."""
    return _guarded(lambda: kind.from_pretrained(path, trust_remote_code=False, **options), path)


def _guarded(work: Callable[[], Any], path: str) -> Any:
    """What `work` returns; whatever transformers raises about the files of a user is one sentence."""
    try:
        return work()
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
