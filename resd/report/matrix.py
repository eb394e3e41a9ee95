"""The forgetting matrix of a sequence of tasks: what every part's test problems give after each block.

Rows are the evaluations at the ends of blocks, columns the parts. It is read from the metrics of evaluations alone
(`part/NAME/…`, `transfer/…`), so that a run's end and a report show the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Change = tuple[float, float, float]  # and the ends of its 95 % interval
_SOLVED = re.compile(r"part/[^/]+/per_task/mean@\d+")
_ENDED = re.compile(r"part/([^/]+)/ended")


@dataclass(frozen=True)
class Cell:
    """`accuracy` is the share of tasks solved (mean@n); `change` is that since the end of the part's own block, None
    where there was none before; `own` says that its block ends here."""

    accuracy: float
    change: Change | None
    own: bool


@dataclass(frozen=True)
class Row:
    """The evaluation after update `step`, with which the block of `part` ends (empty: before the first)."""

    step: int
    part: str
    cells: list[Cell]


@dataclass(frozen=True)
class Matrix:
    """`transfer` is the mean change over the parts whose block was over at the last row, if there was any."""

    samples: int
    parts: list[str]
    rows: list[Row]
    transfer: Change | None

    @classmethod
    def of(cls, evaluations: Mapping[int, Mapping[str, Any]]) -> "Matrix | None":
        """That of a run with these evaluations (update to metrics); None if no block of a sequence has ended."""
        ends = {step: part for step in sorted(evaluations) if (part := _ended(evaluations[step]))}
        if not ends:
            return None
        last = evaluations[max(ends)]
        marks = [name for name in last if _SOLVED.fullmatch(name)]
        parts = [name.split("/")[1] for name in marks]
        samples = int(marks[0].rpartition("@")[2])
        steps = [step for step in evaluations if step == 0] + list(ends)
        rows = [
            Row(step, ends.get(step, ""), [_cell(evaluations[step], part, ends.get(step)) for part in parts])
            for step in steps
        ]
        return cls(samples, parts, rows, _change(last, "transfer/backward", ""))


def _ended(metrics: Mapping[str, Any]) -> str:
    return next((found[1] for name in metrics if (found := _ENDED.fullmatch(name))), "")


def _cell(metrics: Mapping[str, Any], part: str, ended: str | None) -> Cell:
    mean = next(value for name, value in metrics.items() if name.startswith(f"part/{part}/per_task/mean@"))
    return Cell(mean, _change(metrics, f"part/{part}/per_task", "/change"), part == ended)


def _change(metrics: Mapping[str, Any], name: str, kind: str) -> Change | None:
    mean, low, high = (metrics.get(f"{name}{kind}{end}") for end in ("", "_low", "_high"))
    return None if mean is None or low is None or high is None else (mean, low, high)


def parts(metrics: Mapping[str, Any]) -> str:
    """Tasks solved of each part in one line; empty for what is no sequence."""
    found = {name.split("/")[1]: value for name, value in metrics.items() if _SOLVED.fullmatch(name)}
    return "  ".join(f"{part} {100 * value:.1f}%" for part, value in found.items())


def told(change: Change) -> str:
    """`-12.5 (-20.1 to -4.9)`, in points."""
    mean, low, high = (100 * value for value in change)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def shown(cell: Cell) -> str:
    """A cell in percent, with its change where there is one."""
    return f"{100 * cell.accuracy:.1f}" + (f"  {told(cell.change)}" if cell.change else "")


def title(row: Row) -> str:
    """What the row is called."""
    return f"after {row.part}" if row.part else "before"
