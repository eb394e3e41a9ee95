"""A task of your own without a class: prompts in a JSONL file, and a function that judges a response.

    python -m resd.train task=local task.options.source=words.jsonl task.options.verifier=words:check

A row has a `prompt` (a text, or a list of chat messages) and whatever else the function wants to know, such as the
right answer; `id` and `family` are optional. `source` is a folder with `train.jsonl` and `test.jsonl`, or one file
whose rows say `"split": "train"` or `"split": "test"`. The function is called with the row and the response,

    def check(row, response):
        return response.strip() == row["answer"]

and gives True or False, a reward from 0 to 1, a pair of either and a feedback, or a `resd.types.Verdict`. A response
passes with a reward of 1. Feedback is what the method learns from: say what went wrong, not only that it did. There may
be several functions with weights: `resd.envs.judges`. The column that the option `privileged` names is a text that only
a teacher may read (`algorithm=opsd`).

Functions run in a worker process with a deadline, which is no sandbox; when one raises, that response is lost and
counted. Not covered: prompts with images.
"""

import math
from pathlib import Path
from typing import Any

from resd.envs import rows
from resd.envs.judges import Judges
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict


class Local:
    """Implements `resd.task.Task`. Raises UserError when file or function cannot be used.

    source: as above
    verifier: who judges, `package.module:function` or `file.py:function`, or several (`resd.envs.judges`)
    noun: what the trainer's prompts call a response ("answer", "program", …)
    privileged: a column of texts, which may be empty in some rows
    passes: the reward from which a response passes; None: full marks
    """

    def __init__(
        self,
        source: str,
        verifier: Any,
        noun: str = "answer",
        privileged: str | None = None,
        passes: float | None = None,
    ) -> None:
        self.source = rows.check_source(source)
        self.judges = Judges(verifier, passes)
        self.noun, self.privileged = noun, privileged

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
                problem = self._problem(row, place, f"{split}-{number}")
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
        """What the judges say. Raises what they raise, and UserError when one gives something else than it should."""
        return self.judges(problem.cases[0], response, self.noun)

    def _problem(self, row: dict[str, Any], place: str, default_id: str) -> Problem:
        match row.get("prompt"):
            case str(asked) if asked.strip():
                statement = asked
            case [*messages] if messages and all(map(_is_message, messages)):
                statement = messages[-1]["content"]
            case asked:
                raise UserError(
                    f"{place}: prompt must be a text, or a list of messages with role and content, not {asked!r:.40}"
                )
        told = _text(row, self.privileged, place) if self.privileged else ""
        return Problem(
            _text(row, "id", place) or default_id,
            statement,
            _text(row, "family", place),
            [row] * self.judges.cases,
            told,
        )


load = Local


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
