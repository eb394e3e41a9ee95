"""From a response to what its program gives: find the block, run it in the sandbox, compare value by value.

A value is right if it is the same as ours and of the same type: `True` is not 1, and 2.0 is not 2. Where a float is
wanted an int will do, and it may be off by a billionth. A tuple is a list. What is wanted stays on this side of the
sandbox, whose border lets numbers, texts, lists, True, False and None through and nothing that could behave like them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from resd.envs import sandbox
from resd.envs.sandbox import Outcome
from resd.thinking import strip_thinking

MAX_CHARS = 20_000  # of a program
_PRECISION = 1e-9
_FENCE = re.compile(r"\s{0,3}```(.*)")


@dataclass(frozen=True, slots=True)
class Case:
    """One call; `shown` says whether the statement tells what it gives."""

    arguments: tuple[Any, ...]
    expected: Any
    shown: bool


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    outcome: Outcome

    @property
    def passed(self) -> bool:
        return not self.outcome.error and same(self.outcome.value, self.case.expected)


def extract(response: str) -> str | None:
    """The last code block outside thinking that has an end, whole; None without one.

    A fence with a word after it begins a block, also where another one has no end; a bare one ends a block, or begins
    one where there is none.
    """
    found = begin = None
    lines = strip_thinking(response).split("\n")
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line.rstrip())
        if fence is None:
            continue
        if begin is None or fence[1].strip():
            begin = number + 1
        else:
            found, begin = "\n".join(lines[begin:number]), None
    return found


def run(program: str, function: str, cases: Sequence[Case], seconds: float, allow_unsafe: bool) -> list[Result]:
    """What each call gives. The sandbox learns the arguments and nothing else of the cases."""
    arguments = [case.arguments for case in cases]
    outcomes = sandbox.call(program, function, arguments, seconds, allow_unsafe=allow_unsafe, spread=True, texts=True)
    return [Result(case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]


def same(value: Any, expected: Any) -> bool:
    """Whether a value that came out of the sandbox is right."""
    if type(expected) is float:
        return type(value) in (int, float) and isclose(value, expected, rel_tol=_PRECISION, abs_tol=_PRECISION)
    if isinstance(expected, (list, tuple)):
        alike = type(value) is list and len(value) == len(expected)
        return alike and all(map(same, value, expected))
    return type(value) is type(expected) and value == expected
