"""The words of the command line, before Hydra reads them: what Hydra would say about them in its own way is said here
in one sentence, and a text that its grammar has no place for is put into quotes.

Composes once, as Hydra will. Of a sweep only the first value of each list is tried: a job says itself what is wrong
with the others. Not covered: `--help`, `--info` and the like, which Hydra answers alone.
"""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from hydra import compose
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from resd.config import CONF, rank
from resd.types import UserError

QUOTES = "'\""
_HYDRAS_FOLDERS = ("hydra.sweep.dir", "hydra.run.dir")  # the one kind of path that Hydra uses itself


def prepare(config_name: str) -> None:
    """Make the arguments of this process such as Hydra can read. Raises UserError with one sentence."""
    sys.argv[1:] = readable(sys.argv[1:], config_name)


def readable(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments, options first, with quotes where Hydra wants them. Raises UserError with one sentence."""
    options = _options(arguments)
    if options.help or options.hydra_help or options.info or options.shell_completion or options.experimental_rerun:
        return list(arguments)
    flags = list(arguments)
    for word in options.overrides:
        flags.remove(word)
    overrides = [_override(word, options.multirun) for word in options.overrides]
    tried = [_first(override) if options.multirun else str(override.input_line) for override in overrides]
    composed, note = _try(options, tried, options.config_name or config_name)
    if options.multirun and config_name == "config" and "Torchrun" not in composed.hydra.launcher._target_:
        _check_run_dirs(overrides)
    if note and not options.multirun and not options.cfg and rank() == 0:  # each job of a sweep says it
        print(note, flush=True)
    return [_home(flag) for flag in flags] + [str(override.input_line) for override in overrides]


def composed(words: Sequence[str], config_name: str) -> DictConfig:
    """What these words make, in a process that goes on: nothing of Hydra is left in it. Raises UserError."""
    overrides = [str(_override(word, multirun=False).input_line) for word in words]
    found, note = _try(_options([]), overrides, config_name)
    if note and rank() == 0:
        print(note, flush=True)
    with open_dict(found):
        del found["hydra"]
    return found


def quoted(text: str) -> str:
    """`text` as a value that Hydra reads as it stands, but for `${…}`."""
    return QuotedString(text, Quote.double).with_quotes()


def _home(flag: str) -> str:
    """`--config-dir=~/x` and `~/x` with the user's home in place of `~`, as shells write it."""
    name, separator, path = flag.rpartition("=")
    return name + separator + os.path.expanduser(path)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            key = unknown.split()[0].lstrip("-").partition("=")[0]
            message = f"{unknown} is not an option: settings have no dashes, write {key}=VALUE"
        raise UserError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(arguments))


def _override(word: str, multirun: bool) -> Override:
    """`word` as Hydra reads it, or with its value as a quoted text. Raises UserError if neither can be."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(f"{word!r} is not UTF-8: write it in UTF-8") from None
    parser = OverridesParser.create()
    key, separator, value = word.partition("=")
    if key in _HYDRAS_FOLDERS and value.strip(QUOTES).startswith("~"):
        word = f"{key}={quoted(os.path.expanduser(value.strip(QUOTES)))}"
    try:
        read = parser.parse_overrides([word])[0]
        if read.key_or_group:
            return read
        reason = "it has no name"
    except OverrideParseException as error:
        reason = str(error)
    if not separator or not key:
        raise UserError(f"{word} is not a setting with a value: write KEY=VALUE, without blanks around =")
    text = f"{key}={quoted(value)}"
    try:
        read = parser.parse_overrides([text])[0]
    except OverrideParseException:
        raise UserError(f"{key!r} in {word!r} is not the name of a setting: write KEY=VALUE") from None
    if value.startswith(("[", "{", *QUOTES)) or (multirun and "," in value) or "Unknown function" in reason:
        listed = shlex.quote(f'{key}=["one text",2]')
        raise UserError(
            f"{word} cannot be read: write {shlex.quote(text)} if the value is a text, or {listed} if it is a list"
        )
    return read


def _first(override: Override) -> str:
    """The override, or the first point of its sweep."""
    if not override.is_choice_sweep() and not override.is_range_sweep():
        return str(override.input_line)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _check_run_dirs(overrides: list[Override]) -> None:
    """Other launchers than ours give every job the same run directory. Raises UserError unless the user tells it."""
    mine = [override for override in overrides if override.key_or_group == "run_dir"]
    if not any(override.is_sweep_override() or "${" in str(override.input_line) for override in mine):
        raise UserError(
            "the jobs of this sweep would share one run directory: write hydra/launcher=torchrun, which gives each "
            "its own, or name in it what differs, as in 'run_dir=runs/mine/${hydra:job.num}'"
        )


def _try(options: argparse.Namespace, overrides: list[str], config_name: str) -> tuple[DictConfig, str | None]:
    """What Hydra will compose, and what is to be said about it. Raises UserError."""
    path = create_automatic_config_search_path(__file__, None, options.config_path or str(CONF))
    if options.config_dir is not None:
        folder = os.path.abspath(os.path.expanduser(options.config_dir))
        if not os.path.isdir(folder):
            raise UserError(f"--config-dir {options.config_dir} is not a folder")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    before = GlobalHydra.instance().hydra
    Hydra.create_main_hydra2("resd", path)
    try:
        composed = compose(config_name, overrides, return_hydra_config=True)
        return composed, _without_table(composed.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, AssertionError) as error:
        raise UserError(_sentence(error, overrides, config_name)) from None
    finally:
        GlobalHydra.instance().clear()
        if before:
            GlobalHydra.instance().initialize(before)


def _without_table(choices: Any) -> str | None:
    """A preset that has nothing of its own for a task and an algorithm says so."""
    preset, table = choices.get("preset"), choices.get("preset/table")
    if preset in (None, "default") or table in _options_of("preset/table"):
        return None
    return (
        f"preset={preset} has no values of its own for task={choices.get('task')} with "
        f"algorithm={choices.get('algorithm')}: those that it has for all tasks are used"
    )


def _options_of(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group)


def _sentence(error: Exception, overrides: list[str], config_name: str) -> str:
    message = str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip() and "hydra.cc" not in line]
    if message.startswith("Could not override '"):
        key, inner = message.split("'")[1], str(getattr(error.__cause__, "full_key", ""))
        key = inner if inner.startswith(f"{key}.") else key  # of a dictionary, a name in it
        return f"{key} is not a setting{_hint(key, config_name)}"
    if "Could not find '" in message:
        missing = message.split("Could not find '")[1].split("'")[0]
        for key, group, value in _groups(overrides):
            if missing == f"{group}/{value}":
                beside = " (a folder with a model is model.path=…)" if group == "model" else ""
                return f"{key}={value} does not exist: choose one of {', '.join(_options_of(group))}{beside}"
        return f"{missing} does not exist in the folders of configuration files"
    for key, group, value in _groups(overrides):
        if value == "null" or value.startswith("["):
            return f"{key}={value} is not a name: write one of {', '.join(_options_of(group))}"
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


def _groups(overrides: list[str]) -> Iterator[tuple[str, str, str]]:
    """What is written, the group and the name, of every override that chooses from a group."""
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if _options_of(group):
            yield key, group, value.strip(QUOTES)


def _hint(key: str, config_name: str) -> str:
    """What may have been meant instead of `key`."""
    known = _keys(OmegaConf.to_container(compose(config_name, [])))
    inside = [name for name in known if name.endswith(f".{key}")]
    near = inside[:3] or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else "; see conf/config.yaml for what there is"


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    return [key for k, v in tree.items() for key in (f"{prefix}{k}", *_keys(v, f"{prefix}{k}."))]
