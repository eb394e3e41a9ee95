"""Attempts inside the page: texts as numbers of lines, and as many attempts as there is room for."""

import json
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from resd.report.read import RunRecord
from resd.report.trace import shorten

TEXT_CHARACTERS = 40_000


class Lines:
    """Texts as lists of line numbers: prompts, playbooks and programs repeat most of their lines."""

    def __init__(self) -> None:
        self.table: list[str] = []
        self._number: dict[str, int] = {}

    def code(self, text: str | None) -> list[int] | None:
        """Numbers of the lines of `text`, shortened to TEXT_CHARACTERS."""
        return None if text is None else [self._of(line) for line in shorten(text, TEXT_CHARACTERS).split("\n")]

    def _of(self, line: str) -> int:
        if line not in self._number:
            self._number[line] = len(self.table)
            self.table.append(line)
        return self._number[line]


class Room:
    """How many bytes texts take that are compressed one after the other."""

    def __init__(self) -> None:
        self.used = 0
        self._stream = zlib.compressobj()

    def take(self, text: str) -> None:
        self.used += len(self._stream.compress(text.encode()) + self._stream.flush(zlib.Z_SYNC_FLUSH))


def embedded(
    runs: Sequence[RunRecord],
    folder: str,
    lines: Lines,
    budget: int,
    note: Callable[[int, int, dict[str, Any]], None] = lambda run, step, attempt: None,
) -> tuple[list[list[dict[str, Any]]], list[int]]:
    """For each run the attempts in `folder` that fit into `budget` bytes, compressed, by step, and how many there are.

    Runs take turns, update by update; `note` is given every attempt with the run's place and the update.
    """
    kept: list[list[dict[str, Any]]] = [[] for _ in runs]
    totals = [0 for _ in runs]
    room = Room()
    orders = [spread(run.kept_steps(folder)) for run in runs]
    for turn in range(max(map(len, orders), default=0)):
        for i, run in enumerate(runs):
            if turn >= len(orders[i]):
                continue
            for attempt in run.kept(folder, orders[i][turn]):
                totals[i] += 1
                note(i, orders[i][turn], attempt)
                if room.used < budget:
                    known = len(lines.table)
                    kept[i].append(_attempt(orders[i][turn], attempt, lines))
                    room.take(plain_json([kept[i][-1], lines.table[known:]]))
    for attempts in kept:
        attempts.sort(key=lambda attempt: attempt["step"])
    return kept, totals


def _attempt(step: int, attempt: dict[str, Any], lines: Lines) -> dict[str, Any]:
    verdict, reflection = attempt.get("verdict"), attempt.get("reflection")
    coded: dict[str, Any] = {
        "step": step,
        **{name: attempt.get(name) for name in ("id", "problem", "tokens", "truncated")},
        **{name: lines.code(attempt.get(name)) for name in ("prompt", "response", "teacher_prompt")},
    }
    if verdict is not None:
        facts = {name: verdict.get(name) for name in ("reward", "passed", "cases_passed", "cases_total", "error")}
        if verdict.get("scores"):
            facts["scores"] = verdict["scores"]
        coded["verdict"] = facts | {"feedback": lines.code(verdict.get("feedback"))}
    if reflection is not None:
        coded["reflection"] = {"text": lines.code(reflection.get("text")), "tags": reflection.get("tags")}
    if attempt.get("token_loss") is not None:
        # Optional: the divergence of each response token, and beside it the tokens' texts, which join to the response.
        coded |= {"token_loss": [short(v, 3) for v in attempt["token_loss"]], "token_text": attempt.get("token_text")}
    return coded


def spread(steps: Sequence[int]) -> list[int]:
    """The same steps in an order of which every beginning is spread over the whole: last, first, then halves."""
    order: dict[int, None] = {}
    gap = max(1, len(steps) - 1)
    while len(order) < len({*steps}):
        order |= dict.fromkeys(steps[::-gap])
        gap = max(1, gap // 2)
    return list(order)


def plain_json(data: Any) -> str:
    """With null for numbers that JSON does not have."""
    return json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: float | None, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
