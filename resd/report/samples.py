"""`attempts/step_000001.jsonl`: every attempt of an update, what it was asked, what it wrote and what became of it.

`evaluations/step_000004.jsonl` are those at the test problems after an update.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from resd import files
from resd.turns import begins, between
from resd.types import Attempt

Pieces = Callable[[Sequence[int]], list[str]]

SCORED_TOKENS = 16_384  # of an update, whose losses are written: some 300 kB


def write_attempts(
    run_dir: Path, step: int, attempts: Iterable[Attempt], pieces: Pieces | None = None, folder: str = "attempts"
) -> None:
    """One JSON object a line. `prompt` and `teacher_prompt` are the rendered texts that were tokenised.

    Attempts with a teacher have `token_loss`, the divergence at each response token (nats, 4 digits), and `token_text`,
    its text by `pieces`, unless these do not join to the response; both as long as `SCORED_TOKENS` has room for them.
    """
    (run_dir / folder).mkdir(exist_ok=True)
    room = SCORED_TOKENS
    lines = []
    for attempt in attempts:
        record = _record(step, attempt)
        if attempt.sample is not None and attempt.sample.token_loss is not None and len(attempt.response_ids) <= room:
            room -= len(attempt.response_ids)
            record |= _scored(attempt, attempt.sample.token_loss, pieces)
        lines.append(json.dumps(record) + "\n")
    files.replace(run_dir / folder / f"step_{step:06d}.jsonl", "".join(lines))


def _scored(attempt: Attempt, token_loss: Sequence[float], pieces: Pieces | None) -> dict[str, Any]:
    mask = attempt.mask or [True] * len(token_loss)
    scored = [own and math.isfinite(loss) for own, loss in zip(mask, token_loss, strict=True)]
    losses = [float(f"{loss:.4g}") if known else None for known, loss in zip(scored, token_loss, strict=True)]
    texts = _texts(attempt, pieces) if pieces else None
    return {"token_loss": losses} | ({"token_text": texts} if texts and "".join(texts) == attempt.response else {})


def _texts(attempt: Attempt, pieces: Pieces) -> list[str]:
    """The text of each token; the first of those that an environment said has all that stands between two replies."""
    if len(attempt.turns) < 2:
        return pieces(attempt.response_ids)
    texts: list[str] = []
    turns = iter(attempt.turns)
    for own, run in groupby(zip(attempt.response_ids, attempt.mask or [], strict=True), itemgetter(1)):
        ids = [id for id, _ in run]
        texts += pieces(ids) if own else [between(next(turns), attempt.opened), *[""] * (len(ids) - 1)]
    texts[0] = begins(attempt.opened) + texts[0]
    return texts


def _record(step: int, attempt: Attempt) -> dict[str, Any]:
    verdict, reflection = attempt.verdict, attempt.reflection
    turns = [{"reply": turn.reply, "heard": list(turn.heard)} for turn in attempt.turns]
    return {
        "step": step,
        "id": attempt.id,
        "problem": attempt.problem.id,
        "parent": attempt.parent.id if attempt.parent else None,
        "prompt": attempt.prompt_text,
        "response": attempt.response,
        "truncated": attempt.truncated,
        "tokens": len(attempt.own(attempt.response_ids)),
        "verdict": None
        if verdict is None
        else {
            "reward": verdict.reward,
            "passed": verdict.passed,
            "cases_passed": verdict.cases_passed,
            "cases_total": verdict.cases_total,
            "answer": verdict.answer,
            "error": verdict.error,
            "feedback": verdict.feedback,
            "scores": dict(verdict.scores),
        },
        "reflection": None if reflection is None else {"text": reflection.text, "tags": dict(reflection.tags)},
        "teacher_prompt": attempt.teacher_prompt,
        **({"turns": turns} if turns else {}),
    }
