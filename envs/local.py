"""A task of your own without a class: prompts in a JSONL file, and a function that judges a response.

    python -m resd.train task=local task.options.source=words.jsonl task.options.verifier=words:check

A row has a `prompt` (a text, or a list of chat messages) and whatever else the function wants to know, such as the
right answer; `id` and `family` are optional. `source` is a folder with `train.jsonl` and `test.jsonl`, or one file
whose rows say `"split": "train"` or `"split": "test"`. The function is called with the row and the response,

    def check(row, response):
        return response.strip() == row["answer"]

and gives True or False, a reward from 0 to 1, a pair of either and a feedback, or a `resd.types.Verdict`. A response
passes with a reward of 1. Feedback is what the method learns from: say what went wrong, not only that it did. The
column that the option `privileged` names is a text that only a teacher may read (`algorithm=opsd`).

The function runs in a worker process with a deadline, which is no sandbox; when it raises, that response is lost and
counted. Numbers of numpy are taken as Python's. Not covered: prompts with images, functions that must keep state.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from resd.envs import imported, rows
from resd.task import Split, scalar
from resd.types import Messages, Problem, UserError, Verdict


class Local:
    """Implements `resd.task.Task`. Raises UserError when file or function cannot be used.

    source: as above
    verifier: `package.module:function`, found where Python is started or installed
    noun: what the trainer's prompts call a response ("answer", "program", …)
    privileged: a column of texts, which may be empty in some rows
    """

    def __init__(self, source: str, verifier: str, noun: str = "answer", privileged: str | None = None) -> None:
        self.source = rows.check_source(source)
        _function(verifier)
        self.verifier, self.noun, self.privileged = verifier, noun, privileged

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one, in the order of the file."""
        problems: dict[str, Problem] = {}
        for number, (place, row) in enumerate(rows.read_file(self.source, split), 1):
            belongs = split if Path(self.source).is_dir() else row.get("split")
            if belongs not in ("train", "test"):
                raise UserError(
                    f'{place}: split must be "train" or "test", not {belongs!r}; or give a folder with a file for each'
                )
            if belongs == split:
                problem = _problem(row, place, f"{split}-{number}", self.privileged)
                if problem.id in problems:
                    raise UserError(f"{place}: the id {problem.id!r} occurs twice; every problem needs its own")
                problems[problem.id] = problem
        told = self.privileged is None or any(self.privileged in problem.cases[0] for problem in problems.values())
        if problems and split == "train" and not told:
            raise UserError(
                f"source={self.source!r}: no row has a column {self.privileged!r}, which `privileged` names"
            )
        if not problems:
            raise UserError(f'source={self.source!r} has no {split} problem: add rows with "split": "{split}"')
        return list(problems.values())

    def prompt(self, problem: Problem) -> Messages:
        """The row's own messages, or one of the user."""
        asked = problem.cases[0]["prompt"]
        return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """What the function says. Raises what it raises, and UserError when it gives something else than it should."""
        given = _function(self.verifier)(problem.cases[0], response)
        if isinstance(given, Verdict):
            return given
        reward, feedback = given if isinstance(given, tuple) and len(given) == 2 else (given, "")
        reward = scalar(reward)
        if not isinstance(reward, (bool, int, float)) or not 0 <= reward <= 1 or not isinstance(feedback, str):
            raise UserError(
                f"verifier={self.verifier} gave {given!r:.80}: return True or False, a reward from 0 to 1, "
                "a pair of either and a feedback, or a Verdict"
            )
        passed = reward == 1
        feedback = "" if passed else feedback or f"The {self.noun} is wrong."
        return Verdict(float(reward), passed, int(passed), 1, feedback, response)


load = Local


@cache
def _function(path: str) -> Callable[[dict[str, Any], str], Any]:
    function: Any = imported(f"verifier={path!r}", path, "write package.module:function")
    try:
        inspect.signature(function).bind({}, "")
    except (TypeError, ValueError) as error:
        raise UserError(f"verifier={path!r} must be a function of a row and a response ({error})") from None
    return function


def _problem(row: dict[str, Any], place: str, default_id: str, privileged: str | None) -> Problem:
    match row.get("prompt"):
        case str(asked) if asked.strip():
            statement = asked
        case [*messages] if messages and all(map(_is_message, messages)):
            statement = messages[-1]["content"]
        case asked:
            raise UserError(
                f"{place}: prompt must be a text, or a list of messages with role and content, not {asked!r:.40}"
            )
    told = _text(row, privileged, place) if privileged else ""
    return Problem(_text(row, "id", place) or default_id, statement, _text(row, "family", place), [row], told)


def _text(row: dict[str, Any], key: str, place: str) -> str:
    """A text or a number, as a text; "" where it is left out, which spreadsheets write as null or NaN."""
    match row.get(key):
        case None:
            return ""
        case float(value) if math.isnan(value):
            return ""
        case str(value) | int(value) | float(value) if not isinstance(value, bool):
            return str(value)
        case other:
            raise UserError(f"{place}: {key} must be a text or a number, not {other!r:.40}")


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
