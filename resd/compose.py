"""What Hydra composes of the words of one job, and where it finds the files for it."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from resd import advice
from resd.config import CONF
from resd.types import UserError


@contextmanager
def composing(options: argparse.Namespace) -> Iterator[None]:
    """A Hydra that finds files where that of these options will. Raises UserError."""
    path = create_automatic_config_search_path(__file__, None, options.config_path or str(CONF))
    if options.config_dir is not None:
        folder = os.path.abspath(os.path.expanduser(options.config_dir))
        if not os.path.isdir(folder):
            raise UserError(f"--config-dir {options.config_dir} is not a folder")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    before = GlobalHydra.instance().hydra
    Hydra.create_main_hydra2("resd", path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if before:
            GlobalHydra.instance().initialize(before)


def compose(overrides: list[str], config_name: str) -> tuple[DictConfig, str | None]:
    """What Hydra will compose, and what is to be said about it. Raises UserError."""
    try:
        composed = hydra.compose(config_name, overrides, return_hydra_config=True)
        return composed, _without_table(composed.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, AssertionError) as error:
        raise UserError(advice.sentence(error, overrides, config_name)) from None


def without_hydra(composed: DictConfig) -> DictConfig:
    """The same object, without the part that is Hydra's own."""
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _without_table(choices: Any) -> str | None:
    """A preset that has nothing of its own for a task and an algorithm says so."""
    preset, table = choices.get("preset"), choices.get("preset/table")
    if preset in (None, "default") or table in advice.options("preset/table"):
        return None
    return (
        f"preset={preset} has no values of its own for task={choices.get('task')} with "
        f"algorithm={choices.get('algorithm')}: those that it has for all tasks are used"
    )
