"""From a model's response to a verdict: find the program, run it in the sandbox, measure how far off it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import dist
from typing import Any, Literal

from resd.envs import sandbox
from resd.envs.bouncingsim.simulator import Facts
from resd.envs.sandbox import Outcome

RewardKind = Literal["sparse", "dense"]
FUNCTION = "predict_position"
TOLERANCE = 50.0
_FENCED = re.compile(r"```(?:python)?(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """A test: at `time` (s) the mean distance from `positions` (m, one a body) must not exceed `tolerance` (m).

    `facts` are those of the scene, where they are known.
    """

    time: float
    positions: Sequence[Sequence[float]]
    tolerance: float = TOLERANCE
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a program did in one test: one distance for each body, or none and why (`error` as of an `Outcome`)."""

    case: Case
    value: Any
    distances: Sequence[float] = ()
    error: str | None = None
    detail: str = ""

    @property
    def mean(self) -> float:
        """The mean distance in metres, to 3 decimals."""
        return round(sum(self.distances) / len(self.distances), 3)

    @property
    def passed(self) -> bool:
        return not self.error and self.mean <= self.case.tolerance


def extract(response: str) -> str | None:
    """The last block between two fences in the whole response, thinking included, or None without one.

    Fences are paired from the left; the word python after the opening one is dropped.
    """
    blocks = _FENCED.findall(response)
    return blocks[-1].strip() if blocks else None


def run(program: str, cases: Sequence[Case], seconds: float, allow_unsafe: bool = False) -> list[Result]:
    """What `program` gives for each case. The sandbox learns the times and nothing else of the cases."""
    times = [case.time for case in cases]
    outcomes = sandbox.call(program, FUNCTION, times, seconds, allow_unsafe=allow_unsafe)
    return [_compare(case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]


def _compare(case: Case, outcome: Outcome) -> Result:
    if outcome.error:
        return Result(case, None, error=outcome.error, detail=outcome.detail)
    if mistake := _misshapen(outcome.value, len(case.positions)):
        return Result(case, outcome.value, error="bad_value", detail=mistake)
    distances = [dist(found[:2], true) for found, true in zip(outcome.value, case.positions, strict=True)]
    return Result(case, outcome.value, distances)


def _misshapen(value: Any, bodies: int) -> str | None:
    """What keeps a value from being one [x, y] for each body. Coordinates after the second are ignored."""
    if type(value) is not list or len(value) != bodies:
        return f"the function must return a list of {bodies} positions [x, y]"
    for position in value:
        if type(position) is not list or len(position) < 2 or any(type(number) is list for number in position[:2]):
            return "every position must be a list of two numbers [x, y]"
    return None
