"""Problems from rows: of a file, or of the published data sets on Hugging Face.

A row in the published columns has `id`, `messages`, whose last item is the prompt, and `ground_truth`, a list of Python
assertions. These are taken apart as syntax and never executed. A row may instead have `facts`, of which the prompt is
made, and optionally `times` with `expected_positions`, which are computed otherwise. `level` (easy, medium) or
`difficulty` (1, 2) is optional; other columns are ignored. The first row that cannot be used stops the reading with a
UserError that names the place and the mistake.
"""

import ast
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

from resd.envs import rows
from resd.envs.bouncingsim.grade import FUNCTION, TOLERANCE, Case
from resd.envs.bouncingsim.scenes import TIMES
from resd.envs.bouncingsim.simulator import Facts, simulate
from resd.task import Split
from resd.types import Problem, UserError

Ask = Callable[[Facts], str]
_DIFFICULTIES = {"1": "easy", "2": "medium"}


def from_file(path: str, split: Split, ask: Ask) -> list[Problem]:
    """The problems in the file `path`, or in `train.jsonl` or `test.jsonl` when `path` is a folder."""
    return _problems(rows.read_file(path, split), ask)


def from_hub(level: str, split: Split, ask: Ask) -> list[Problem]:
    """The published problems of one level."""
    name = f"bouncingsim/bouncingsim-MULTIOBJ-{level}"
    found = rows.read_hub(name, split)
    return _problems(((f"{name}, row {number}", row) for number, row in enumerate(found, 1)), ask)


def from_facts(id_: str, facts: Facts, level: str, ask: Ask) -> Problem:
    """The problem of a scene, with true positions computed here and rounded as the published ones are."""
    positions = [[[round(c, 2) for c in body] for body in bodies] for bodies in simulate(facts, TIMES)]
    cases = [Case(time, bodies, facts=facts) for time, bodies in zip(TIMES, positions, strict=True)]
    return Problem(id_, ask(facts), level, cases)


def _problems(found: Iterable[tuple[str, rows.Row]], ask: Ask) -> list[Problem]:
    return rows.distinct((place, _at(place, row, ask)) for place, row in found)


def _at(place: str, row: rows.Row, ask: Ask) -> Problem:
    try:
        return _problem(row, ask)
    except (ValueError, TypeError, UserError) as mistake:
        raise UserError(f"{place}: {mistake}") from None


def _problem(row: rows.Row, ask: Ask) -> Problem:
    if not isinstance(row.get("id"), str):
        raise ValueError("expected a text under id, and messages and ground_truth, or facts")
    level = str(row.get("level") or _DIFFICULTIES.get(str(row.get("difficulty")), ""))
    if "facts" not in row:
        cases = [parse_assertion(text) for text in _list(row, "ground_truth")]
        return Problem(row["id"], _prompt(row), level, sorted(cases, key=lambda case: case.time))
    problem = from_facts(row["id"], row["facts"], level, ask)
    if "expected_positions" not in row:
        return problem
    times, positions = _list(row, "times"), _list(row, "expected_positions")
    if len(times) != len(positions) or any(len(bodies) != len(row["facts"]["objects"]) for bodies in positions):
        raise ValueError("expected_positions must have one list for each of times, with one [x, y] for each object")
    cases = [_case(time, bodies, TOLERANCE, row["facts"]) for time, bodies in zip(times, positions, strict=True)]
    return Problem(problem.id, problem.statement, level, cases)


def _list(row: rows.Row, column: str) -> list[Any]:
    value = row.get(column)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} must be a list with at least one item, not {value!r:.40}")
    return value


def _prompt(row: rows.Row) -> str:
    match row.get("messages"):
        case [*_, {"content": str(content)}] if content.strip():
            return content
    raise ValueError("messages must be a list whose last item has a text under content")


def parse_assertion(text: Any) -> Case:
    """The test in `assert check_distance(predict_position(T), [[x, y], ...]) <= D`. Raises ValueError for another text.

    The text is parsed, compared with this form, and never executed.
    """
    wrong = ValueError(
        f"a test must read assert check_distance({FUNCTION}(TIME), [[x, y], ...]) <= DISTANCE, not {text!r:.60}"
    )
    try:
        match ast.parse(text).body:
            case [
                ast.Assert(
                    test=ast.Compare(
                        left=ast.Call(
                            func=ast.Name(id="check_distance"),
                            args=[
                                ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=time)], keywords=[]),
                                positions,
                            ],
                            keywords=[],
                        ),
                        ops=[ast.LtE()],
                        comparators=[ast.Constant(value=tolerance)],
                    )
                )
            ] if name == FUNCTION:
                return _case(time, ast.literal_eval(positions), tolerance)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise wrong from None
    raise wrong


def _case(time: Any, positions: Any, tolerance: Any, facts: Facts | None = None) -> Case:
    numbers = [time, tolerance, *(coordinate for position in positions for coordinate in position)]
    if not all(type(number) in (int, float) and isfinite(number) for number in numbers):
        raise ValueError("times, distances and coordinates must be finite numbers")
    if not positions or any(len(position) != 2 for position in positions):
        raise ValueError("expected positions must be pairs [x, y]")
    return Case(float(time), [list(map(float, position)) for position in positions], float(tolerance), facts)
