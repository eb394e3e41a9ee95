"""Problems from rows in the published columns: of a JSONL file, or of the data sets on Hugging Face.

A row has `id`, `problem_family`, `ground_truth`, and `messages`, whose last line is the criteria; a column `criteria`
may take the place of `messages`. Other columns are ignored. The first row that cannot be used stops the reading with a
UserError that names the place and the mistake.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resd.envs import rows
from resd.task import Split
from resd.types import Problem, UserError

_CASE_FIELDS = {"input": str, "expected_output": str, "expected_accepted": bool, "check_output": bool}


def read_file(path: Path, split: Split) -> list[Problem]:
    """The problems in the file `path`, or in `train.jsonl` or `test.jsonl` when `path` is a folder."""
    problems: dict[str, Problem] = {}
    for place, row in rows.read_file(str(path), split):
        _add(problems, row, place)
    return list(problems.values())


def read_hub(split: Split, sets: Sequence[str] = ("has",)) -> list[Problem]:
    """The published problems of some sets; each half is a data set of its own, with one split called `train`."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("source=hf needs the package datasets: run pip install datasets") from None
    problems: dict[str, Problem] = {}
    for name in (f"manufactoria/{set_}_{split}" for set_ in sets):
        try:
            found = list(load_dataset(name, split="train"))
        except Exception as error:  # offline, renamed, not permitted: the library has an exception for each
            raise UserError(
                f"the data set {name} cannot be loaded: {error}; source=generated needs no download"
            ) from None
        for number, row in enumerate(found, 1):
            _add(problems, row, f"{name}, row {number}")
    return list(problems.values())


def _add(problems: dict[str, Problem], row: Any, place: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected an object with the columns of a problem, not {row!r:.40}")
    id_, cases = _text(row, "id", place), row.get("ground_truth")
    if id_ in problems:
        raise UserError(f"{place}: the id {id_!r} occurs twice; every problem needs its own")
    if not isinstance(cases, list) or not cases:
        raise UserError(f"{place}: ground_truth must be a list of at least one test case")
    for number, case in enumerate(cases, 1):
        _check_case(case, f"{place}, test case {number}")
    problems[id_] = Problem(id_, _criteria(row, place), _text(row, "problem_family", place), cases)


def _check_case(case: Any, place: str) -> None:
    if not isinstance(case, dict):
        raise UserError(f"{place}: expected an object with the fields {', '.join(_CASE_FIELDS)}")
    for field, type_ in _CASE_FIELDS.items():
        if not isinstance(case.get(field), type_):
            wanted = "a text" if type_ is str else "true or false"
            raise UserError(f"{place}: {field} must be {wanted}, not {case.get(field)!r:.40}")


def _criteria(row: dict[str, Any], place: str) -> str:
    if "criteria" in row:
        return _text(row, "criteria", place)
    match row.get("messages"):
        case [*_, {"content": str(content)}] if content.strip():
            return content.strip().split("\n")[-1].strip()
    raise UserError(f"{place}: messages must be a list whose last item has a text under content")


def _text(row: dict[str, Any], column: str, place: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {column} must be a text, not {value!r:.40}")
    return value
