"""What may have been meant by a word of the command line that means nothing, and what Hydra says, in one sentence.

A name is looked for among the settings of the choices that were made, by its last part too (`lr` is `optimizer.lr`),
then among those of other choices (`tensor_parallel` is one of `engine=vllm`). Needs a composing Hydra.
"""

import difflib
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resd.word import key_value

QUOTES = "'\""
GROUPS = ("task", "algorithm", "model", "engine", "hardware", "preset", "sweep")
# what other trainers call it
ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "max_grad_norm": "optimizer.grad_clip",
    "warmup_steps": "optimizer.warmup",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "num_generations": "algorithm.group",
    "max_new_tokens": "rollout.max_response",
    "max_completion_length": "rollout.max_response",
    "model_name_or_path": "model.path",
    "dataset": "task",
    "gpus": "hardware",
    "output_dir": "run_dir",
    "save_steps": "checkpoints.every",
    "eval_steps": "evaluation.every",
}


def quoted(text: str) -> str:
    """`text` as a value that Hydra reads as it stands, but for `${…}`."""
    return QuotedString(text, Quote.double).with_quotes()


def known_settings(overrides: Sequence[str], config_name: str) -> list[str]:
    """The keys of all settings under the choices among these overrides, as far as these can be had."""
    tree = OmegaConf.to_container(_chosen(overrides, config_name))
    assert isinstance(tree, dict)
    return [*_keys({key: tree[key] for key in tree if key != "hydra"}), *(group for group in GROUPS if options(group))]


def _chosen(overrides: Sequence[str], config_name: str) -> DictConfig:
    words = [f"{key}={value}" for key, group, value in choices(overrides) if value in options(group)]
    try:
        return compose(config_name, words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return compose(config_name, [], return_hydra_config=True)


def meant(key: str, known: Sequence[str]) -> list[str]:
    """The settings that may have been meant: with the same last part, else the nearest name."""
    folded = _fold(key)
    same = [name for name in known if _fold(name) == folded or _fold(name).endswith(f".{folded}")]
    if same or key in ELSEWHERE:
        return list(dict.fromkeys(same)) or [ELSEWHERE[key]]
    inside, _, last = folded.rpartition(".")
    beside = _inside(inside, known)
    if beside:
        return [f"{inside}.{name}" for name in difflib.get_close_matches(last, beside, n=1, cutoff=0.6)]
    by_fold = {_fold(name): name for name in reversed(known)}
    if near := difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.6):
        return [by_fold[near[0]]]
    lasts = {name.rpartition(".")[2] for name in by_fold}
    if near := difflib.get_close_matches(last, lasts, n=1, cutoff=0.6):
        return [by_fold[name] for name in by_fold if name.rpartition(".")[2] == near[0]][::-1]
    return []


def hint(key: str, overrides: Sequence[str], config_name: str) -> str:
    """The end of a sentence about `key`, which is not a setting."""
    known = known_settings(overrides, config_name)
    if not any(name == key or name.endswith(f".{key}") for name in known):
        other = _of_other_choices(key)
        if other:
            full, places = other
            group = full.partition(".")[0]
            now = _chosen(overrides, config_name).hydra.runtime.choices.get(group)
            return f" of {group}={now}, but {full} is one of {' and '.join(places)}"
    near = meant(key, known)
    if near:
        return f": did you mean {' or '.join(near)}?"
    inside = key.rpartition(".")[0]
    there = _inside(inside, known)
    return f": {inside} has {', '.join(there)}" if there else "; see conf/config.yaml for what there is"


def instead(word: str, value: str | None, overrides: Sequence[str], config_name: str) -> str:
    """What to write for a name and a value that were not written as KEY=VALUE."""
    known = known_settings(overrides, config_name)
    keys = [word] if word in known else meant(word, known) or [word]
    text = "VALUE" if value is None else value
    return f"write {' or '.join(shlex.quote(f'{key}={text}') if value else f'{key}={text}' for key in keys)}"


def options(group: str) -> list[str]:
    """The choices of a group, those in a user's own folders included."""
    found: list[str] = GlobalHydra.instance().config_loader().repository.get_group_options(group)  # type: ignore[attr-defined]
    return found


def choices(overrides: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """What is written, the group and the name, of every override that chooses from a group."""
    for word in overrides:
        key, value = key_value(word)
        group = key.partition("@")[0]
        if options(group) and not word.startswith("~"):
            yield key, group, value.strip(QUOTES)


def sentence(error: Exception, overrides: Sequence[str], config_name: str) -> str:
    """What Hydra or OmegaConf refuses about these overrides."""
    message = str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip() and "hydra.cc" not in line]
    removed = [word for word in overrides if word.startswith("~")]
    if message.startswith("Could not override '"):
        key, inner = message.split("'")[1], str(getattr(error.__cause__, "full_key", ""))
        key = inner if inner.startswith(f"{key}.") else key  # of a dictionary, a name in it
        return f"{key} is not a setting{hint(key, overrides, config_name)}"
    if message.startswith("Could not append to config"):
        key = message.split("'")[1]
        return f"{key} is there already: write {key}=VALUE without +"
    if removed and ("delete" in message or "Error resolving interpolation" in message):
        name, _ = key_value(removed[0])
        if name not in known_settings([], config_name):
            return f"{name} is not a setting{hint(name, [], config_name)}"
        return f"{removed[0]} would take away what a run needs: write {name}=VALUE"
    if "Could not find '" in message:
        missing = message.split("Could not find '")[1].split("'")[0]
        for key, group, value in choices(overrides):
            if missing == f"{group}/{value}":
                return f"{key}={value} does not exist{_choose(group, value)}"
        return f"{missing} does not exist in the folders of configuration files"
    if message.startswith("Cannot find primary config"):
        name = message.split("'")[1]
        return f"--config-name {name}: there is no {name}.yaml in conf/ or in the folder of --config-dir"
    for key, group, value in choices(overrides):
        if value == "null" or value.startswith("["):
            return f"{key}={value} is not a name: write one of {', '.join(options(group))}"
    if message.startswith("Ambiguous value"):
        word = message.split("'")[1]
        key, _, value = word.partition("=")
        text = shlex.quote(f"{key}={quoted(value)}")
        return f"{word} names several values: add --multirun to try each, or write {text} if it is one text"
    if message.startswith("Error merging override ") and error.__cause__:
        return (
            f"{lines[0].removeprefix('Error merging override ')} cannot be set: {str(error.__cause__).splitlines()[0]}"
        )
    return " ".join(lines) if "Config search path" not in message else lines[0]


def _choose(group: str, value: str) -> str:
    """The end of a sentence about a name that a group does not have."""
    there = options(group)
    folded = {_fold(name): name for name in there}
    begun = [name for name in there if value and _fold(name).startswith(_fold(value))]
    near = (
        [folded[_fold(value)]]
        if _fold(value) in folded
        else begun or [folded[name] for name in difflib.get_close_matches(_fold(value), folded, n=2, cutoff=0.6)]
    )
    beside = " (a folder with a model is model.path=…)" if group == "model" else ""
    asked = f"; did you mean {' or '.join(near)}?" if near else ""
    return f": choose one of {', '.join(there)}{beside}{asked}"


def _of_other_choices(key: str) -> tuple[str, list[str]] | None:
    """A setting that only other choices of its group have, and which: `key` itself, or one with it as last part."""
    elsewhere = _elsewhere(GlobalHydra.instance())
    full = next((name for name in elsewhere if name == key or name.endswith(f".{key}")), None)
    return (full, elsewhere[full]) if full else None


@cache
def _elsewhere(hydra: Any) -> dict[str, list[str]]:
    """Of every setting in a file of `algorithm`, `engine` or `task`: the choices that have it."""
    repository = hydra.config_loader().repository
    found: dict[str, list[str]] = {}
    for group in ("algorithm", "engine", "task"):
        for option in options(group):
            loaded = repository.load_config(f"{group}/{option}")
            tree = OmegaConf.to_container(loaded.config) if loaded else {}
            package = loaded.header.get("package") if loaded else None
            for name in _keys(tree if package == "_global_" else {group: tree}):
                found.setdefault(name, []).append(f"{group}={option}")
    return found


def _inside(section: str, known: Sequence[str]) -> list[str]:
    """The names in a section; none outside of any."""
    return [name.removeprefix(f"{section}.") for name in known if section and name.rpartition(".")[0] == section]


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    return [key for k, v in tree.items() for key in (f"{prefix}{k}", *_keys(v, f"{prefix}{k}."))]
