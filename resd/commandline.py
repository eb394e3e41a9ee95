"""The words of the command line, before Hydra reads them: what Hydra would say about them in its own way is said here
in one sentence, and a text that its grammar has no place for is put into quotes.

One job is composed here, once. Hydra does sweeps, of which every value is tried first beside the first ones of the
other lists (what several values do together a job says itself), and all that its own options and settings ask. Not
covered: `--info`, `--hydra-help` and the like, which it answers alone.
"""

import argparse
import difflib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from resd import advice
from resd.advice import QUOTES, quoted
from resd.compose import compose, composing, without_hydra
from resd.config import rank, validate
from resd.manual import manual
from resd.types import UserError
from resd.word import key_value

_JINJA = ("{{", "{%", "{#")  # what no list and no mapping of Hydra begins with
_HYDRAS_FOLDERS = ("hydra.sweep.dir", "hydra.run.dir")  # the one kind of path that Hydra uses itself


class Job(NamedTuple):
    """The settings of one job, and the words that say them."""

    composed: DictConfig
    words: list[str]


def job(config_name: str) -> Job | None:
    """The one job that the arguments of this process make, or None where they want Hydra, which then can read them.

    Answers `--help` and ends. Raises UserError with one sentence.
    """
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(help_text(sys.argv[1:], config_name))
        sys.exit(0)
    sys.argv[1:], found = _read(sys.argv[1:], config_name)
    return found


def help_text(arguments: Sequence[str], config_name: str) -> str:
    """What the settings mean, and what they are with these arguments. Raises UserError."""
    options = _options(arguments, config_name)
    with composing(options):
        name = options.config_name or config_name
        composed, _ = compose(_lines(_overrides(options.overrides, False, name)), name)
        return manual("train" if config_name == "config" else config_name, composed)


def readable(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments, options first, with quotes where Hydra wants them. Raises UserError with one sentence."""
    return _read(arguments, config_name)[0]


def _read(arguments: Sequence[str], config_name: str) -> tuple[list[str], Job | None]:
    options = _options(arguments, config_name)
    if options.hydra_help or options.info or options.shell_completion or options.experimental_rerun:
        return list(arguments), None
    flags = list(arguments)
    for word in options.overrides:
        flags.remove(word)
    with composing(options):
        name = options.config_name or config_name
        overrides = _overrides(options.overrides, options.multirun, name)
        if options.multirun:
            composed, note = _try_sweep(overrides, name), None
            if config_name == "config" and "Torchrun" not in composed.hydra.launcher._target_:
                _check_run_dirs(overrides)
        else:
            composed, note = compose(_lines(overrides), name)
    if note and not options.cfg and rank() == 0:  # each job of a sweep says it
        print(note, flush=True)
    words = _lines(overrides)
    wants_hydra = flags or composed.hydra.mode == RunMode.MULTIRUN or any("hydra" in word for word in words)
    return [_home(flag) for flag in flags] + words, None if wants_hydra else Job(without_hydra(composed), words)


def composed(words: Sequence[str], config_name: str) -> DictConfig:
    """What these words make, in a process that goes on: nothing of Hydra is left in it. Raises UserError."""
    with composing(_options([], config_name)):
        found, note = compose(_lines(_overrides(words, False, config_name)), config_name)
    if note and rank() == 0:
        print(note, flush=True)
    return without_hydra(found)


def _home(flag: str) -> str:
    """`--config-dir=~/x` and `~/x` with the user's home in place of `~`, as shells write it."""
    name, separator, path = flag.rpartition("=")
    return name + separator + os.path.expanduser(path)


def _options(arguments: Sequence[str], config_name: str) -> argparse.Namespace:
    """What Hydra's parser makes of the arguments. Raises UserError for an option that it does not have."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()
        if "unrecognized" not in message:
            raise UserError(message)
        place = next(i for i, word in enumerate(arguments) if word.startswith(unknown[0]))  # it may have blanks
        word, after = arguments[place], "".join(arguments[place + 1 : place + 2])
        flag, separator, value = word.partition("=")
        key, said = flag.lstrip("-"), word
        if not separator and after and "=" not in after and not after.startswith("-"):
            value, said = after, f"{flag} {after}"
        near = difflib.get_close_matches(flag, parser._option_string_actions, n=1, cutoff=0.8)
        with composing(parser.parse_args([])):
            instead = f"did you mean {near[0]}?" if near else advice.instead(key, value or None, [], config_name)
        raise UserError(f"{said} is not an option: {'' if near else 'settings have no dashes, '}{instead}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(arguments))


def _overrides(words: Sequence[str], multirun: bool, config_name: str) -> list[Override]:
    return [_override(words, place, multirun, config_name) for place in range(len(words))]


def _lines(overrides: Sequence[Override]) -> list[str]:
    return [str(override.input_line) for override in overrides]


def _override(words: Sequence[str], place: int, multirun: bool, config_name: str) -> Override:
    """A word as Hydra reads it, or with its value as a quoted text. Raises UserError if neither can be."""
    word = words[place]
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(f"{word!r} is not UTF-8: write it in UTF-8") from None
    parser = OverridesParser.create()
    word = re.sub(r"(?<!\\)\$(?=\{\{)", r"\\$", word)  # a sign of money before Jinja, and no interpolation
    key, separator, value = word.partition("=")
    if key in _HYDRAS_FOLDERS and value.strip(QUOTES).startswith("~"):
        word = f"{key}={quoted(os.path.expanduser(value.strip(QUOTES)))}"
    try:
        read = parser.parse_overrides([word])[0]
        if read.key_or_group and (name := _twice(value)):
            raise UserError(f"{key} has {name} twice: give each a name of its own")
        if read.key_or_group:
            return read
        reason = "it has no name"
    except OverrideParseException as error:
        reason = str(error)
    if not separator or not key:
        raise UserError(_without_equals(words, place, config_name))
    text = f"{key}={quoted(value)}"
    try:
        read = parser.parse_overrides([text])[0]
    except OverrideParseException:
        if key.startswith("-"):
            instead = advice.instead(key.lstrip("-"), value, [], config_name)
            raise UserError(f"{word} is not an option: settings have no dashes, {instead}") from None
        raise UserError(f"{key!r} in {word!r} is not the name of a setting: write KEY=VALUE") from None
    begun = value.startswith(("[", "{", *QUOTES)) and not value.startswith(_JINJA)
    if begun or (multirun and "," in value) or "Unknown function" in reason:
        listed = shlex.quote(f'{key}=["one text",2]')
        raise UserError(
            f"{word} cannot be read: write {shlex.quote(text)} if the value is a text, or {listed} if it is a list"
        )
    return read


def _twice(value: str) -> str | None:
    """A key that a mapping in this value has twice, of which Hydra would take the last one and say nothing."""
    try:
        nodes = [yaml.compose(value)] if value.startswith(("{", "[")) else []
    except yaml.YAMLError:  # what is not YAML as well
        return None
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                return twice
            nodes += [inner for _, inner in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return None


def _without_equals(words: Sequence[str], place: int, config_name: str) -> str:
    """The sentence for a word that is no KEY=VALUE, perhaps one of several that were to be one."""
    word = words[place]
    before = words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    name, _, value = word.partition(":")
    said = f"{word} is not a setting with a value"
    if (word.startswith("=") and place == 0) or "/" in name:
        if config_name == "evaluate" and "checkpoint" not in {key_value(each)[0] for each in words}:
            return f"{said}: write {shlex.quote(f'checkpoint={word}')}"
        return f"{said}: write KEY=VALUE"
    if before.endswith("=") and "=" in before:
        return f"{said}: write {shlex.quote(before + word)}, without blanks around ="
    if after.startswith("="):
        value = after[1:] or "".join(words[place + 2 : place + 3])
        return f"{said}: write {shlex.quote(f'{word}={value}')}, without blanks around ="
    if not value:
        value = "" if "=" in after else after
    for group in advice.GROUPS:
        if word in advice.options(group):
            return f"{said}: write {group}={word}"
    if config_name == "evaluate" and os.path.exists(word):
        return f"{said}: write {shlex.quote(f'checkpoint={word}')}"
    return f"{said}: {advice.instead(name, value or None, [], config_name)}, without blanks around ="


def _check_run_dirs(overrides: list[Override]) -> None:
    """Other launchers than ours give every job the same run directory. Raises UserError unless the user tells it."""
    mine = [override for override in overrides if override.key_or_group == "run_dir"]
    if not any(override.is_sweep_override() or "${" in str(override.input_line) for override in mine):
        raise UserError(
            "the jobs of this sweep would share one run directory: write hydra/launcher=torchrun, which gives each "
            "its own, or name in it what differs, as in 'run_dir=runs/mine/${hydra:job.num}'"
        )


def _try_sweep(overrides: Sequence[Override], config_name: str) -> DictConfig:
    """The first job of a sweep, once every value of it was tried beside the first ones of the others.

    Raises UserError for a value that is wrong, and where there is nothing to try.
    """
    points = [_points(override) for override in overrides]
    first = [each[0] for each in points]
    composed = None
    for place, values in enumerate(points):
        for value in values[composed is not None :]:
            tried = [*first[:place], value, *first[place + 1 :]]
            job, _ = compose(tried, config_name)
            composed = job if composed is None else composed
            if config_name == "config":
                _validate_job(job)
    if composed is None:
        composed, _ = compose(first, config_name)
    sweeper = composed.hydra.sweeper
    if max(map(len, points), default=1) == 1 and "Basic" in sweeper._target_ and not sweeper.get("params"):
        raise UserError("--multirun has nothing to try: write KEY=A,B for the values, or leave --multirun out")
    return composed


def _validate_job(composed: DictConfig) -> None:
    with open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = "0", 0
    HydraConfig.instance().set_config(composed)
    try:
        validate(without_hydra(composed.copy()))
    finally:
        HydraConfig.instance().cfg = None


def _points(override: Override) -> list[str]:
    """The override, or one for every value of its sweep (of a range, the first and the last)."""
    if not override.is_choice_sweep() and not override.is_range_sweep():
        return [str(override.input_line)]
    key = override.get_key_element()
    found = [f"{key}={value}" for value in override.sweep_string_iterator()]
    return found if override.is_choice_sweep() else [found[0], found[-1]]
