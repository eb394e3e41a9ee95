"""A task of your own without a class: prompts in a file or a data set, and a function that judges a response.

    python -m resd.train task=local task.options.source=words.jsonl task.options.verifier=words:check

A row has a `prompt` (a text, or a list of chat messages) and whatever else the function wants to know, such as the
right answer; `id` and `family` are optional. `source` is what `resd.envs.sets` reads: JSONL, JSON, CSV, TSV or Parquet,
a folder with a file a split, or a data set of Hugging Face. `columns` names columns that are called otherwise, and
`template` makes the prompt of several. Cells stay what they are: texts in a CSV file, numbers, lists and nested
messages elsewhere; NaN becomes None.

Where rows of one file say `"split": "train"` or `"split": "test"`, that is their split. A set without splits is divided
by a hash of each row's id, or of its prompt where it has none: a share of `test_share` is for testing, and at least one
row. A row stays on its side when others are added, and equal prompts are on one side.

The function is called with the row and the response,

    def check(row, response):
        return response.strip() == row["answer"]

and gives True or False, a reward from 0 to 1, a pair of either and a feedback, or a `resd.types.Verdict`. A response
passes with a reward of 1. Feedback is what the method learns from: say what went wrong, not only that it did. There may
be several functions with weights: `resd.envs.judges`. The column that the option `privileged` names is a text that only
a teacher may read (`algorithm=opsd`).

Functions run in a worker process with a deadline, which is no sandbox; when one raises, that response is lost and
counted. Not covered: prompts with images.
"""

from collections.abc import Mapping
from typing import Any

from resd.envs.columns import Columns
from resd.envs.divided import Divided, names
from resd.envs.functions import from_row
from resd.envs.judges import Judges
from resd.envs.rows import distinct
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict


class Local:
    """Implements `resd.task.Task`. Raises UserError when file or function cannot be used.

    source: as above
    verifier: who judges, `package.module:function` or `file.py:function`, or several (`resd.envs.judges`)
    noun: what the trainer's prompts call a response ("answer", "program", …)
    privileged: a column of texts, which may be empty in some rows
    passes: the reward from which a response passes; None: full marks
    columns: the set's names of `prompt`, `answer`, `id`, `family`, `split`, or of any other that the function reads
    template: Jinja that makes the prompt of a row's columns
    splits: the set's names of `train` and `test`; one name for both divides that split
    subset: of a data set of the hub
    test_share: of a set without splits, above 0 and below 1; None: a fifth
    """

    def __init__(
        self,
        source: str,
        verifier: Any,
        noun: str = "answer",
        privileged: str | None = None,
        passes: float | None = None,
        columns: Mapping[str, str | None] | None = None,
        template: str | None = None,
        splits: Mapping[str, str | None] | None = None,
        subset: str | None = None,
        test_share: float | None = None,
    ) -> None:
        self.rows = Divided(source, Columns(names("columns", columns), template), splits, subset, test_share)
        self.judges = Judges(verifier, passes)
        self.noun, self.privileged = noun, privileged

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one, in the order of the file."""
        problems = distinct((place, self._problem(row, place, own)) for own, place, row in self.rows(split))
        told = self.privileged is None or any(self.privileged in problem.cases[0] for problem in problems)
        if split == "train" and not told:
            raise UserError(
                f"source={self.rows.source!r}: no row has a column {self.privileged!r}, which `privileged` names"
            )
        return problems

    def prompt(self, problem: Problem) -> Messages:
        """The row's own messages, or one of the user."""
        asked = problem.cases[0]["prompt"]
        return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked

    def verify(self, problem: Problem, response: str, truncated: bool = False) -> Verdict:
        """What the judges say. Raises what they raise, and UserError when one gives something else than it should."""
        return self.judges(problem.cases[0], response, self.noun)

    def _problem(self, row: dict[str, Any], place: str, default_id: str) -> Problem:
        columns = f"; its columns are {', '.join(row)}: write task.options.columns.prompt=NAME for one of them"
        advice = "" if "prompt" in row else columns
        return from_row(row, place, default_id, self.privileged, cases=self.judges.cases, advice=advice)


load = Local
