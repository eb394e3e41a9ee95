"""One file per paper. A module has `Settings` (what its configuration may say) and `Algorithm` (what an update does).

Adding a baseline: one file here and one in `conf/algorithm/`; nothing else names it. Or none here: with
`algorithm.name=package.module:Class` (or `file.py:Class`) the class is a user's own, a subclass of `base.Algorithm` or
of one of these; the settings are those of its type parameter. An algorithm that works on top of another one has the
other's settings as its `context`.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, SerializeAsAny, create_model

from resd.named import named
from resd.settings import AlgorithmSettings
from resd.types import UserError

if TYPE_CHECKING:
    from resd.algorithms.base import Algorithm
    from resd.observe.run import Run


def module(name: str) -> Any:
    """The module called `name`, or what is in it for a class of a user's own. ValueError if there is none."""
    if ":" in name:
        return _own(name)
    known = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py") if file.stem != "base")
    if name not in known:
        raise ValueError(
            f"algorithm.name={name} does not exist: choose one of {', '.join(known)}, or package.module:Class"
        )
    return importlib.import_module(f"resd.algorithms.{name}")


@cache
def _own(path: str) -> SimpleNamespace:
    """`Algorithm` and `Settings` of the class at `path`. Raises UserError if it is no algorithm."""
    from resd.algorithms import base

    found = named("algorithm.name", path, "Class")
    if not (isinstance(found, type) and issubclass(found, base.Algorithm)):
        raise UserError(f"algorithm.name={path} is no algorithm: write a subclass of resd.algorithms.base.Algorithm")
    told = (get_args(each) for kind in found.__mro__ for each in vars(kind).get("__orig_bases__", ()))
    types = (each for several in told for each in several if isinstance(each, type))
    settings = next((each for each in types if issubclass(each, AlgorithmSettings)), AlgorithmSettings)
    name: Any = Literal[path]
    called_so = create_model(settings.__name__, __base__=settings, name=(name, ...))
    return SimpleNamespace(Algorithm=found, Settings=called_so)


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


def papers(values: Mapping[str, Any]) -> list[str]:
    """The arXiv numbers of an algorithm and of those inside it, of plain values as a run keeps them; a user's own has
    none, for its code is not run to learn that.
    """
    try:
        name = str(values.get("name"))
        own = () if ":" in name else module(name).Algorithm.papers
    except ValueError:  # it had this name in another version
        own = ()
    inner = (papers(value) for value in values.values() if isinstance(value, Mapping) and "name" in value)
    return list(dict.fromkeys([*own, *chain.from_iterable(inner)]))


def build(run: "Run", settings: AlgorithmSettings) -> "Algorithm[Any]":
    """The algorithm of these settings."""
    return module(settings.name).Algorithm(run, settings)
