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

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from resd.envs import sets
from resd.envs.columns import Columns
from resd.envs.functions import from_row, text
from resd.envs.judges import Judges
from resd.envs.rows import Placed, distinct
from resd.task import Split
from resd.types import Messages, Problem, UserError, Verdict

TEST_SHARE = 0.2


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
        self.source = sets.check(source)
        self.judges = Judges(verifier, passes)
        self.columns = Columns(_names("columns", columns), template)
        self.splits = _names("splits", splits)
        if wrong := self.splits.keys() - {"train", "test"}:
            raise UserError(f"splits has train and test, and no {min(wrong)}: write splits.train or splits.test")
        test_share = TEST_SHARE if test_share is None else test_share
        if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 < test_share < 1:
            raise UserError(f"test_share={test_share!r} is no share: write a number above 0 and below 1")
        self.noun, self.privileged, self.subset, self.test_share = noun, privileged, subset, test_share

    def problems(self, split: Split) -> list[Problem]:
        """The problems of one split, at least one, in the order of the file."""
        placed, whole = sets.read(self.source, split, self.splits, self.subset)
        if not placed:
            raise UserError(f"source={self.source!r} has no rows: add some, a problem each")
        rows = [(place, self.columns(row, place)) for place, row in placed]
        numbered = [(f"{split}-{number}", place, row) for number, (place, row) in enumerate(rows, 1)]
        sides = self._sides(rows) if whole else [split] * len(rows)
        mine = (each for each, side in zip(numbered, sides, strict=True) if side == split)
        problems = distinct((place, self._problem(row, place, default_id)) for default_id, place, row in mine)
        told = self.privileged is None or any(self.privileged in problem.cases[0] for problem in problems)
        if problems and split == "train" and not told:
            raise UserError(
                f"source={self.source!r}: no row has a column {self.privileged!r}, which `privileged` names"
            )
        if not problems:
            raise UserError(f'source={self.source!r} has no {split} problem: add rows with "split": "{split}"')
        return problems

    def _sides(self, rows: list[Placed]) -> list[str]:
        """For each row of a set that is not divided, "train", "test", or "" if it is neither."""
        names = {"train": "train", "test": "test", **self.splits}
        if all(row.get("split") in (None, "") for _, row in rows):
            return self._divided(rows)
        said = [text(row, "split", place) for place, row in rows]
        for (place, row), name in zip(rows, said, strict=True):
            if not self.splits and name not in names.values():
                raise UserError(
                    f'{place}: split must be "train" or "test", not {row.get("split")!r}; '
                    "or give a folder with a file for each, or say which are which: task.options.splits.test=NAME"
                )
        if unknown := [name for name in self.splits.values() if name not in said]:
            others = ", ".join(dict.fromkeys(filter(None, said)))
            raise UserError(f"source={self.source!r} has no row of the split {unknown[0]}: it has {others}")
        if names["train"] == names["test"]:
            sides = iter(self._divided([row for row, name in zip(rows, said, strict=True) if name == names["train"]]))
            return [next(sides) if name == names["train"] else "" for name in said]
        side = {name: key for key, name in names.items()}
        return [side.get(name, "") for name in said]

    def _divided(self, rows: list[Placed]) -> list[str]:
        """Sides by a hash of each row, neither of them empty if two rows differ."""
        keys = [text(row, "id", place) or json.dumps(row.get("prompt"), default=str) for place, row in rows]
        places = [_place_of(key) for key in keys]
        first, last = min(places), max(places)
        limit = min(max(self.test_share, math.nextafter(first, 1)), last)
        return ["test" if place < limit else "train" for place in places]

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


def _names(key: str, names: Any) -> dict[str, str]:
    """Those that are given."""
    if names is not None and not isinstance(names, Mapping):
        raise UserError(f"{key}={names!r:.80} has no names: write {key}.NAME=VALUE")
    given = {str(name): value for name, value in (names or {}).items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UserError(f"{key}.{name}={value!r:.80} is no name: write a text")
    return {name: str(value) for name, value in given.items()}


def _place_of(key: str) -> float:
    """A number from 0 to 1 that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
