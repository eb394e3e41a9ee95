"""Reflection-Enhanced Self-Distillation (arXiv 2605.12741): train a language model from its own failures.

    result = resd.train(task="manufactoria", steps=4)
    resd.evaluate(result.best, task="manufactoria")

`resd.api` says more. Everything but the version is imported when it is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resd.api import Result, evaluate, train
    from resd.envs.functions import Task
    from resd.types import Problem, UserError, Verdict

__version__ = "0.1.0"
__all__ = ["Problem", "Result", "Task", "UserError", "Verdict", "evaluate", "train"]

_HOMES = {
    "Problem": "resd.types",
    "Result": "resd.api",
    "Task": "resd.envs.functions",
    "UserError": "resd.types",
    "Verdict": "resd.types",
}
_PROGRAMS = ("evaluate", "train")  # modules that can be called


def __getattr__(name: str) -> Any:
    if name in _PROGRAMS:
        return importlib.import_module(f"resd.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
