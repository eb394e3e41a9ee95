"""Who judges the responses of `task=local`: a function, or several with weights.

A function is called with the row and the response,

    def check(row, response):
        return response.strip() == row["answer"]

and gives True or False, a reward from 0 to 1, a pair of either and a feedback, or a `resd.types.Verdict`. `verifier` is
its path, or several: a list of paths, or a mapping of names to a path or to `{function: PATH, weight: NUMBER}`
(otherwise 1). With rewards r_i and weights w_i the reward of a response is the weighted mean

    reward = sum_i w_i r_i / sum_i w_i

and each r_i is kept as the score `reward/NAME`. A judge of weight 0 is kept and counts for nothing. A response passes
when every judge that counts gives full marks, or from the reward `passes` on, if that is given; each judge is a case,
with `passes` the whole is one. The feedback of a response that does not pass is that of the judges without full marks,
each after its name.

Numbers of numpy are taken as Python's. Not covered: judges that see other responses, or keep state.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from resd.envs.functions import RETURN, verdict
from resd.named import named
from resd.task import ROUNDING, scalar, share
from resd.types import UserError, Verdict

Function = Callable[[dict[str, Any], str], Any]

_WRITE = "write package.module:function, a list of such, or {NAME: {function: package.module:function, weight: 1}}"


@dataclass(frozen=True)
class Judge:
    """One function; `name` is empty where it is the only one, `key` the setting that names it."""

    key: str
    path: str
    name: str = ""
    weight: float = 1.0

    def __call__(self, row: dict[str, Any], response: str, wrong: str = "") -> Verdict:
        """What the function says, as a verdict; `wrong` is the feedback where it has none.

        Raises what the function raises, and UserError for what is no verdict.
        """
        said = verdict(_function(self.key, self.path)(row, response), response, wrong, f"{self.key}={self.path}")
        if not self.name:
            return said
        reward = share(said.reward)  # it is weighed, before a guard looks at the whole
        if reward is None or not isinstance(said.feedback, str):
            raise UserError(f"{self.key}={self.path} gave {said!r:.80}: {RETURN}")
        return replace(said, reward=reward, passed=bool(scalar(said.passed)))


class Judges:
    """All judges of a task. Raises UserError for a function, a name, a weight or a threshold that cannot be."""

    def __init__(self, verifier: Any, passes: float | None) -> None:
        self.all = tuple(_judges(verifier))
        self.passes = passes
        self._import()
        if passes is not None and (isinstance(passes, bool) or not share(passes)):
            raise UserError(f"passes={passes!r} is no reward: write a number above 0, up to 1")

    def _import(self) -> None:
        for judge in self.all:
            _function(judge.key, judge.path)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process that begins to judge: what judges import takes no time of the first answer's."""
        self.__dict__.update(state)
        self._import()

    @property
    def cases(self) -> int:
        """In how many cases they judge a response, those of a Verdict aside."""
        return 1 if self.passes is not None else sum(judge.weight > 0 for judge in self.all)

    def __call__(self, row: dict[str, Any], response: str, noun: str) -> Verdict:
        """The verdict of all of them on a response, which should contain a `noun`."""
        wrong = f"The {noun} is wrong."
        said = self._together(row, response) if self.all[0].name else self.all[0](row, response, wrong)
        if self.passes is None:
            return said
        passed = said.reward >= self.passes - ROUNDING
        feedback = "" if passed else said.feedback or wrong
        return replace(said, passed=passed, cases_passed=int(passed), cases_total=1, feedback=feedback)

    def _together(self, row: dict[str, Any], response: str) -> Verdict:
        each = [(judge, judge(row, response)) for judge in self.all]
        counting = [(judge, said) for judge, said in each if judge.weight]
        total = math.fsum(judge.weight for judge, _ in counting)
        reward = math.fsum(judge.weight * said.reward for judge, said in counting) / total
        scores = {f"reward/{judge.name}": said.reward for judge, said in each}
        scores |= {f"{judge.name}/{name}": value for judge, said in each for name, value in said.scores.items()}
        passed = sum(said.passed for _, said in counting)
        short = [(judge.name, said) for judge, said in counting if said.reward < 1 or not said.passed]
        told = [f"{name}: {said.feedback or f'{said.reward:.2f} of 1'}" for name, said in short]
        return Verdict(
            reward=share(reward) or 0.0,
            passed=passed == len(counting),
            cases_passed=passed,
            cases_total=len(counting),
            feedback="\n".join(told) if passed < len(counting) or self.passes else "",
            answer=response,
            error=next((said.error for _, said in counting if said.error), None),
            scores=scores,
        )


def _judges(verifier: Any) -> list[Judge]:
    match verifier:
        case str():
            return [Judge("verifier", verifier)]
        case Mapping() if verifier:
            found = [_judge(f"verifier.{name}", name, told) for name, told in verifier.items()]
        case [*paths] if paths and all(isinstance(path, str) for path in paths):
            found = [_judge("verifier", path.rpartition(":")[2], path) for path in paths]
        case _:
            raise UserError(f"verifier={verifier!r:.80} names no judge: {_WRITE}")
    names = [judge.name for judge in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two judges of verifier are called {twice!r}: write {_WRITE.partition(', or ')[2]}")
    if not any(judge.weight for judge in found):
        raise UserError("verifier has weights of 0 alone: write one above 0")
    return found


def _judge(key: str, name: Any, told: Any) -> Judge:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{key}: {name!r:.40} is no name of a judge: write letters, digits, _ and - alone")
    if isinstance(told, Mapping) and isinstance(told.get("function"), str) and told.keys() <= {"function", "weight"}:
        path, weight = told["function"], scalar(told.get("weight", 1.0))
    elif isinstance(told, str):
        path, weight = told, 1.0
    else:
        raise UserError(f"{key}={told!r:.80} names no judge: {_WRITE}")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise UserError(f"{key}.weight={weight!r} is no weight: write a number, 0 or above")
    return Judge(key, path, name, float(weight))


@cache
def _function(key: str, path: str) -> Function:
    function = named(key, path)
    try:
        inspect.signature(function).bind({}, "")
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}={path!r} must be a function of a row and a response ({error})") from None
    return function
