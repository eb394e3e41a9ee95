"""The protocol a task implements, three methods (design section 3). Layer 0: no torch, no engine.

A task may also have `self_test()`, which raises UserError when its judge fails a known-good answer or passes a
known-bad one; a run calls it before a model is read. It, `verify` and the `follow` of a task that answers are called
in another process, with a deadline, so that the task and its problems must be what cloudpickle can send: no open
files, no locks.

A task is one file in `envs/` with a `load(**options)` function and one file in `conf/task/`; or any package that
registers an entry point in the group `resd.envs`; or a path
`package.module:callable` or `file.py:callable`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

from resd.types import Messages, Problem, UserError, Verdict

Split = Literal["train", "test"]
OWN_SCORES = ("per_task", "per_case", "reward")  # of every evaluation: a verdict has none of these names
ROUNDING = 1e-6  # what a sum of float32 may be off by


@runtime_checkable
class Task(Protocol):
    """Problems, how they are asked, and how answers are judged.

    `noun` names what a response should contain ("program", "answer"); prompts of the trainer use it. `verify` may start
    processes, which end with its own; what it prints is shown with the first answer that is lost.
    """

    noun: str

    def problems(self, split: Split) -> Sequence[Problem]: ...

    def prompt(self, problem: Problem) -> Messages: ...

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict: ...


@runtime_checkable
class SelfTesting(Protocol):
    """A task that can test its own judge. A text that it returns is shown when a run starts."""

    def self_test(self) -> str | None: ...


class Following(Task, Protocol):
    """A task that answers: an attempt at it has several turns.

    `follow` gives what the environment says after these replies, messages of the role user or tool, none when it is
    over. It is a function of problem and replies alone, of which it is asked in any process and more than once: no
    process holds a conversation. `verify` gets the list of replies in the place of the response.
    """

    def follow(self, problem: Problem, replies: Sequence[str]) -> Messages: ...

    def verify(self, problem: Problem, response: Sequence[str], truncated: bool = False) -> Verdict: ...


def follows(task: Task) -> TypeGuard[Following]:
    """Whether it answers; a `follow` that is None is none."""
    return callable(getattr(task, "follow", None))


@runtime_checkable
class Sequential(Protocol):
    """A task of parts that are trained one after another (`envs/sequence.py`); `Problem.part` says whose a problem is.

    `training_blocks` are names of parts in the order of training, each with how many updates it has there (None: passes
    over its training problems). A part may have several.
    """

    training_blocks: Sequence[tuple[str, int | None]]


@runtime_checkable
class Proposing(Protocol):
    """A task that a model can propose problems for.

    levels: how many degrees of difficulty can be asked for, from 0 on; 1 where they cannot be told apart
    """

    levels: int

    def propose_prompt(self, seed: int, level: int) -> Messages:
        """Asks for one problem of a level. What else is asked for follows from the seed."""
        ...

    def proposed(self, response: str, id: str) -> Problem:
        """The problem that a response states, which `verify` can judge; those that are alike have one statement.

        Raises ValueError, with a line that says why, where there is none. Called in the run's own process.
        """
        ...

    def held_out(self, problem: Problem) -> bool:
        """Whether a proposal is, or may become, a test problem."""
        ...


def proposing(task: Task, algorithm: str) -> Proposing:
    """The task itself. Raises UserError, for what `algorithm` does, unless a model can propose problems for it."""
    if not isinstance(task, Proposing):
        raise UserError(
            f"{algorithm} tries problems that the model proposes, and {type(task).__name__} cannot ask for any: write "
            "task=countdown, or give the task what resd.task.Proposing has"
        )
    return task


def check(task: Any, said: str) -> None:
    """Raises UserError, which begins with how a user `said` it, unless it has what a task needs."""
    if lacks := [name for name in ("noun", "problems", "prompt", "verify") if not hasattr(task, name)]:
        raise UserError(
            f"{said} is no task (it has no {', '.join(lacks)}): write a name, resd.Task(problems, judge), or an object "
            "as docs/tasks.md describes"
        )


def problems_of(task: Task, split: Split) -> list[Problem]:
    """The problems of one split, at least one, each with an id of its own and a prompt.

    Raises UserError, which names the task, where there is something else: they may be a user's own.
    """
    given: Any = task.problems(split)
    gave = f"{type(task).__name__}.problems({split!r}) gave"
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise UserError(f"{gave} {given!r:.40}: let it give a list of resd.types.Problem")
    found: dict[str, Problem] = {}
    for problem in given:
        if not isinstance(problem, Problem):
            raise UserError(f"{gave} {problem!r:.40} as a problem: let it give resd.types.Problem(id, statement)")
        if not isinstance(problem.id, str) or not isinstance(problem.statement, str):
            raise UserError(f"{gave} {problem!r:.60}: id and statement must be texts")
        if problem.id in found:
            raise UserError(f"{gave} two problems with the id {problem.id!r}: every problem needs its own")
        _check_prompt(task, problem)
        found[problem.id] = problem
    if not found:
        raise UserError(f"{gave} no problem: let it give one or more")
    return list(found.values())


def _check_prompt(task: Task, problem: Problem) -> None:
    asked: Any = task.prompt(problem)
    if not isinstance(asked, Sequence) or not asked or not all(map(is_message, asked)):
        raise UserError(
            f"{type(task).__name__}.prompt gave {asked!r:.60} for the problem {problem.id!r}: let it give a list of "
            'messages whose role and content are texts, such as [{"role": "user", "content": …}]'
        )


def is_message(given: Any) -> TypeGuard[Mapping[str, str]]:
    """Whether it is a mapping of texts to texts, role and content among them."""
    return (
        isinstance(given, Mapping)
        and {"role", "content"} <= given.keys()
        and all(isinstance(each, str) for pair in given.items() for each in pair)
    )


def share(given: Any) -> float | None:
    """A number from 0 to 1, or True or False, as such a number; None for anything else.

    What is as near to 1 as a sum of float32 may be is 1: 0.7 + 0.2 + 0.1 is not, and is meant to be.
    """
    value = scalar(given)
    if not isinstance(value, (bool, int, float)) or not -ROUNDING <= value <= 1 + ROUNDING:
        return None
    return 1.0 if value >= 1 - ROUNDING else max(0.0, float(value))


def scalar(given: Any) -> Any:
    """Python's own number for one of numpy or torch, or for an array that holds just one; anything else as it is."""
    if isinstance(given, (bool, int, str)) or type(given) is float or not callable(getattr(given, "item", None)):
        return given
    try:
        return given.item()
    except (TypeError, ValueError, RuntimeError):  # several numbers, or something else altogether
        return given
