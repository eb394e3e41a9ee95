"""`attempts/step_000001.jsonl`: every attempt of an update, what it was asked, what it wrote and what became of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resd.types import Attempt


def write_attempts(run_dir: Path, step: int, attempts: Iterable[Attempt]) -> None:
    """One JSON object a line. `prompt` and `teacher_prompt` are the rendered texts that were tokenised."""
    folder = run_dir / "attempts"
    folder.mkdir(exist_ok=True)
    lines = (json.dumps(_record(step, attempt)) + "\n" for attempt in attempts)
    (folder / f"step_{step:06d}.jsonl").write_text("".join(lines))


def _record(step: int, attempt: Attempt) -> dict[str, Any]:
    verdict, reflection = attempt.verdict, attempt.reflection
    return {
        "step": step,
        "id": attempt.id,
        "problem": attempt.problem.id,
        "prompt": attempt.prompt_text,
        "response": attempt.response,
        "truncated": attempt.truncated,
        "tokens": len(attempt.response_ids),
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
        },
        "reflection": None if reflection is None else {"text": reflection.text, "tags": dict(reflection.tags)},
        "teacher_prompt": attempt.teacher_prompt,
    }
