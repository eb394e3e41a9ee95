"""What the page's scripts draw from: metrics, playbooks, traces, and as many attempts as there is room for.

It is JSON, compressed, for prompts and programs repeat themselves: all 12,800 attempts of a long run are a few MB.
"""

import base64
import gzip
from collections.abc import Sequence
from typing import Any

from resd.report.embed import Lines, embedded, plain_json, short
from resd.report.groups import T_95, Z_95, Group
from resd.report.read import RunRecord
from resd.report.rewards import graded
from resd.report.trace import traces

TRACES = 24


class Grid:
    """Of every test problem, for each evaluation, how many of its answers passed and how many were judged; null where a
    problem was not asked."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        self.cells: dict[str, list[list[int] | None]] = {}

    def note(self, step: int, answer: dict[str, Any]) -> None:
        row = self.cells.setdefault(str(answer.get("problem")), [None] * len(self.steps))
        place = self.steps.index(step)
        cell = row[place] = row[place] or [0, 0]
        verdict = answer.get("verdict")
        cell[0] += bool(verdict and verdict.get("passed"))
        cell[1] += verdict is not None


def payload(groups: Sequence[Group], attempts_bytes: int, answers_bytes: int) -> dict[str, Any]:
    """Runs are numbered through the groups in order; texts of attempts are lists of numbers in `lines`."""
    runs = [(group.label, run) for group in groups for run in group.runs]
    number = {id(run): i for i, (_, run) in enumerate(runs)}
    lines = Lines()
    attempts, totals = embedded([run for _, run in runs], "attempts", lines, attempts_bytes)
    grids = [Grid(run.kept_steps("evaluations")) for _, run in runs]
    answers, _ = embedded(
        [run for _, run in runs], "evaluations", lines, answers_bytes, lambda i, *answer: grids[i].note(*answer)
    )
    return {
        "t95": T_95,
        "z95": Z_95,
        "graded": any(graded(row) for _, run in runs for row in run.rows),
        "groups": [{"label": group.label, "runs": [number[id(run)] for run in group.runs]} for group in groups],
        "runs": [
            {
                "name": run.named(label),
                "timeline": _timeline(run),
                "playbook": run.playbook,
                "turns": run.turns,
                "traces": traces(run, max(1, TRACES // len(runs))),
                "attempts": attempts[i],
                "attempts_total": totals[i],
                "tests": {"steps": grids[i].steps, "cells": grids[i].cells, "answers": answers[i]},
            }
            for i, (label, run) in enumerate(runs)
        ],
        "lines": lines.table,
    }


def packed(data: Any) -> str:
    """JSON, compressed, in letters that cannot end a script element. The same data give the same text."""
    return base64.b64encode(gzip.compress(plain_json(data).encode(), mtime=0)).decode()


def _timeline(run: RunRecord) -> dict[str, Any]:
    timeline = run.timeline
    return {
        "steps": timeline.steps,
        "interactions": timeline.interactions,
        "tokens": timeline.tokens and [round(tokens) for tokens in timeline.tokens],
        "seconds": [round(s, 2) for s in timeline.seconds],
        "columns": {name: [short(v, 6) for v in column] for name, column in timeline.columns.items()},
    }
