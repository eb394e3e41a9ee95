"""The tables of a report as Markdown, for a document or a terminal: scores, accuracy against interactions, and what
the entries of a playbook are worth where that was measured.

Methods are runs that differ only in their seed; a cell is the mean over seeds ± Student's 95 % interval, in percent.
"""

import re
from collections.abc import Sequence

from resd.report.groups import Checkpoint, Estimate, Group, checkpoints, estimate, score_names
from resd.report.matrix import shown, title
from resd.report.ranking import METRICS
from resd.report.ranking import samples as count
from resd.report.read import RunRecord
from resd.report.rewards import REWARD
from resd.report.worth import honesty, points, summary


def scores(groups: Sequence[Group]) -> str:
    """One line a method and checkpoint: the base, the best by rank sum, the last."""
    names = score_names(groups)
    samples = next((group.samples for group in groups if group.samples), None)
    shown = [cell(name.format(n=samples).removeprefix("eval/")) for name in names] if samples else []
    header = ["method", "seeds", "checkpoint", "interactions", *shown]
    lines = [
        [cell(group.label), str(len(group.runs)), _named(found), _interactions(found), *map(_percent, found.scores)]
        for group in groups
        for found in checkpoints(group, names)
    ]
    return table(header, lines)


def curves(groups: Sequence[Group]) -> str:
    """One line a method and evaluated update: interactions, seconds of training, mean@n of tasks and graded rewards."""
    metrics = {"per task": METRICS[0]} | ({"reward": REWARD[0]} if REWARD[0] in score_names(groups) else {})
    lines = []
    for group in groups:
        for step in sorted(set.intersection(*(set(run.evaluations) for run in group.runs))):
            rows = [run.evaluations[step] for run in group.runs]
            scored = [[row.get(metric.format(n=count(row))) for row in rows] for metric in metrics.values()]
            values = [[score for score in each if score is not None] for each in scored]
            if len(values[0]) == len(rows):
                seconds = _mean([_at(run, step, run.timeline.seconds) for run in group.runs])
                seen = _mean([_at(run, step, run.timeline.interactions) for run in group.runs])
                told = [_percent(estimate(each) if len(each) == len(rows) else None) for each in values]
                lines.append([cell(group.label), str(step), f"{seen:,.0f}", f"{seconds:,.0f}", *told])
    return table(["method", "update", "interactions", "seconds", *(f"{name}, mean@n" for name in metrics)], lines)


def worths(groups: Sequence[Group]) -> str:
    """A table for each run whose `worth.json` is there, best entry first."""
    found = []
    for group in groups:
        for run in group.runs:
            if run.worth is not None:
                lines = [
                    [f"`{e['id']}`", cell(e["text"]), str(e["helpful"]), str(e["harmful"]), *points(e)]
                    for e in run.worth["entries"]
                ]
                header = ["entry", "text", "helpful", "harmful", "worth", "95 % interval"]
                told = "\n".join([summary(run.worth), honesty(run.worth), *run.worth["notes"]])
                found.append(f"{table(header, lines)}\n{run.path}: {told}\n")
    return "\n".join(found)


def matrices(groups: Sequence[Group]) -> str:
    """A table a run of a sequence of tasks: what its parts give after each block, and the change since their own."""
    told = []
    for group in groups:
        for run in group.runs:
            if matrix := run.matrix:
                lines = [[cell(title(row)), str(row.step), *map(shown, row.cells)] for row in matrix.rows]
                told.append(table([cell(group.label), "update", *map(cell, matrix.parts)], lines))
    return "\n".join(told)


def _at(run: RunRecord, step: int, column: Sequence[float]) -> float:
    return column[run.timeline.steps.index(step)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cell(text: str) -> str:
    """What is not ours as text of one line, whatever signs of Markdown are in it."""
    return re.sub(r"[\\`|<*]", r"\\\g<0>", " ".join(text.split()))


def _named(found: Checkpoint) -> str:
    return found.name if found.alike else f"{found.name}, asked otherwise"


def _interactions(found: Checkpoint) -> str:
    low, high = min(found.interactions), max(found.interactions)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _percent(value: Estimate | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.mean:.1f}" + ("" if value.half is None else f" ± {100 * value.half:.1f}")


def table(header: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Lines below a header; `numbers` in all columns but the first stand at the right."""
    rule = ["---"] + ["---:" if numbers else "---"] * (len(header) - 1)
    rows = [header, rule, *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
