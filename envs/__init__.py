"""Tasks. `resd.envs.load("manufactoria", **options)` gives one; `resd.task.Task` says what it can do.

The repository has this package at its top level, beside `conf`; `resd/envs` and `resd/conf` are links to them, and what
is installed are folders of `resd`. So neither is in the way of a user's own `envs` or `conf`. In a checkout the name
`envs` leads here too, for scripts from before; this project's own code says `resd.envs`.

A name is looked up as a module of this package, then among the entry points of group `resd.envs`, then as a path
`package.module:callable` or `file.py:callable`. Each gives a callable that takes the options and returns a task.
"""

import difflib
import importlib
import importlib.util
import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from resd.named import named
from resd.task import Task, check
from resd.types import UserError


def load(name: str, **options: Any) -> Task:
    """The task `name`. Raises UserError, in one sentence, for an unknown name or a wrong option."""
    factory = _factory(name)
    parameters = inspect.signature(factory).parameters
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UserError(f"task {name!r}: {error}; it takes {', '.join(parameters)}") from None
    for key, value in options.items():
        wants = parameters[key].annotation if key in parameters else Any
        if wants in (str, str | None) and isinstance(value, list | dict):
            raise UserError(f"{key}={value!r:.80} is no text: write one, in quotes if need be")
    task = factory(**options)
    check(task, f"task {name!r}: {task!r:.80}")
    return task


def _factory(name: str) -> Any:
    if ":" in name:
        return named("task", name, "callable")
    if name.isidentifier() and importlib.util.find_spec(f"resd.envs.{name}"):
        module = importlib.import_module(f"resd.envs.{name}")
        if hasattr(module, "load"):
            return module.load
    for point in entry_points(group="resd.envs"):
        if point.name == name:
            return named("task", f"{point.module}:{point.attr}", advice="mend its entry point")
    here = [file.stem for file in Path(__file__).parent.glob("[a-z]*") if file.suffix in ("", ".py")]
    near = difflib.get_close_matches(name, here, n=1)
    asked = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(
        f"no task named {name!r}{asked}: write the name of a file in envs/, an entry point of group resd.envs, "
        "or package.module:callable"
    )
