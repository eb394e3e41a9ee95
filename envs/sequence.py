"""A task of tasks: its parts are trained in blocks, one after another, and all of them are tested.

    python -m resd.train task=sequence task.options.updates=8 \\
        +task@task.options.parts.numbers=countdown +task@task.options.parts.calls=function_calling

`parts` maps a name to a task with its options, as `task=` has them, and to the length of its block:

    parts:
      numbers: {name: countdown, options: {largest: 20}, updates: 8}
      calls: {name: function_calling, problems: 64}

A part's problems have its name before their id, and as `Problem.part`; asking and judging are its own. The blocks come
in the order of the parts, `rounds` times over. A block has `updates` updates; without them it is a pass over the
part's training problems, of which `problems` takes the first so many.

Not covered: a word of its own for what each part wants to hear (`noun`); parts that are sequences, or
that answer.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resd import envs
from resd.envs.options import whole
from resd.task import SelfTesting, Sequential, Split, Task, follows, problems_of
from resd.types import Messages, Problem, UserError, Verdict

MOST = 1_000_000
_KEYS = ("name", "options", "updates", "problems")
_WRITE = "write {NAME: {name: TASK, options: {…}, updates: N}, …}"


class TaskSequence:
    """Implements `resd.task.Task`, `SelfTesting` and `Sequential`. Raises UserError for parts that cannot be.

    parts: as above, at least two
    updates: of a block whose part does not say; None: passes over the part's problems
    rounds: how often the blocks are gone through
    """

    def __init__(self, parts: Any, updates: int | None = None, rounds: int = 1) -> None:
        if not isinstance(parts, Mapping) or len(parts) < 2:
            raise UserError(f"parts={parts!r:.80} is no sequence of two or more tasks: {_WRITE}")
        if updates is not None:
            whole("updates", updates, 1, MOST)
        whole("rounds", rounds, 1, 1000)
        self.tasks = {name: _task(name, told) for name, told in parts.items()}
        self.first: dict[str, int | None] = {name: told.get("problems") for name, told in parts.items()}
        lengths: dict[str, int | None] = {name: told.get("updates") or updates for name, told in parts.items()}
        self.training_blocks = [*lengths.items()] * rounds
        nouns = {task.noun for task in self.tasks.values()}
        self.noun = nouns.pop() if len(nouns) == 1 else "answer"

    def problems(self, split: Split) -> list[Problem]:
        """Those of all parts, in their order."""
        return [problem for name in self.tasks for problem in self._problems(name, split)]

    def _problems(self, name: str, split: Split) -> list[Problem]:
        try:
            found = problems_of(self.tasks[name], split)
        except UserError as error:
            raise UserError(f"parts.{name}: {error}") from None
        if split == "train":
            found = found[: self.first[name]]
        return [replace(problem, id=f"{name}/{problem.id}", part=name) for problem in found]

    def prompt(self, problem: Problem) -> Messages:
        """As the part asks it."""
        return self.tasks[problem.part].prompt(_own(problem))

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """What the part says."""
        return self.tasks[problem.part].verify(_own(problem), response, truncated)

    def self_test(self) -> str:
        """What the parts' own tests tell. Raises UserError for the first that fails."""
        told = []
        for name, task in self.tasks.items():
            if isinstance(task, SelfTesting):
                try:
                    said = task.self_test()
                except UserError as error:
                    raise UserError(f"parts.{name}: {error}") from None
                told += [f"parts.{name}: {said}"] if said else []
        return "\n".join(told)


def _own(problem: Problem) -> Problem:
    """The problem as its part knows it."""
    return replace(problem, id=problem.id.removeprefix(f"{problem.part}/"), part="")


def _task(name: Any, told: Any) -> Task:
    """The task of one part. Raises UserError, with the part's name, if there is none."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"parts: {name!r:.40} is no name of a part: write letters, digits, _ and - alone")
    if not isinstance(told, Mapping) or not isinstance(told.get("name"), str):
        raise UserError(f"parts.{name}={told!r:.80} names no task: {_WRITE}")
    if unknown := next((key for key in told if key not in _KEYS), None):
        near = difflib.get_close_matches(str(unknown), _KEYS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"write {', '.join(_KEYS)} alone"
        raise UserError(f"parts.{name}.{unknown} is not known: {advice}")
    for key in ("updates", "problems"):
        if told.get(key) is not None:
            whole(f"parts.{name}.{key}", told[key], 1, MOST)
    try:
        task = envs.load(told["name"], **(told.get("options") or {}))
    except UserError as error:
        raise UserError(f"parts.{name}: {error}") from None
    if isinstance(task, Sequential):
        raise UserError(f"parts.{name} is a sequence itself: name its parts here")
    if follows(task):
        raise UserError(f"parts.{name} answers, and a sequence has tasks of one response alone: train it by itself")
    return task


load = TaskSequence
