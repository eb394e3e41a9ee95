"""One file per paper. A module has `Settings` (what its configuration may say) and `Algorithm` (what an update does).

Adding a baseline: one file here and one in `conf/algorithm/`; nothing else names it. An algorithm that works on top of
another one has the other's settings as its `context`.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from resd.settings import AlgorithmSettings

if TYPE_CHECKING:
    from resd.algorithms.base import Algorithm
    from resd.observe.run import Run


def module(name: str) -> Any:
    """The module called `name`. ValueError if there is none."""
    known = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py") if file.stem != "base")
    if name not in known:
        raise ValueError(f"algorithm.name={name} does not exist: choose one of {', '.join(known)}")
    return importlib.import_module(f"resd.algorithms.{name}")


def settings(values: AlgorithmSettings | Mapping[str, Any]) -> AlgorithmSettings:
    """Plain values as the settings of the algorithm that they name."""
    if isinstance(values, AlgorithmSettings):
        return values
    if not isinstance(values, Mapping):
        raise ValueError(f"algorithm={values} does not say one: write algorithm=NAME")
    return module(str(values.get("name"))).Settings(**values)


Inner = Annotated[SerializeAsAny[AlgorithmSettings], BeforeValidator(settings)]  # those of an algorithm inside another


def learns(settings: AlgorithmSettings) -> bool:
    """Whether it trains the student (`base.Algorithm.learns`)."""
    return bool(module(settings.name).Algorithm.learns)


def build(run: "Run", settings: AlgorithmSettings) -> "Algorithm[Any]":
    """The algorithm of these settings."""
    return module(settings.name).Algorithm(run, settings)
