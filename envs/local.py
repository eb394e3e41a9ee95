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

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from resd.envs import rows
from resd.envs.functions import from_row, verdict
from resd.task import Split
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
                found = from_row(row, place, f"{split}-{number}", self.privileged)
                if found.id in problems:
                    raise UserError(f"{place}: the id {found.id!r} occurs twice; every problem needs its own")
                problems[found.id] = found
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
        return verdict(given, response, self.noun, f"verifier={self.verifier}")


load = Local


@cache
def _function(path: str) -> Callable[[dict[str, Any], str], Any]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        inspect.signature(function).bind({}, "")
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"verifier={path!r} cannot be imported ({error}): write package.module:function") from None
    except TypeError as error:
        raise UserError(f"verifier={path!r} must be a function of a row and a response ({error})") from None
    return function
