"""How single problems went from failing to passing over the updates that saw them (paper Table 4).

One attempt an update is shown: with several rollouts a prompt, the one that passed most cases.
"""

import difflib
from typing import Any

from resd.report.read import RunRecord

ADDED_SHOWN = 12
CHARACTERS = 8_000


def traces(run: RunRecord, limit: int) -> dict[str, list[dict[str, Any]]]:
    """The most telling problems of a run, each with one item an update that saw it."""
    chosen = choose_problems(run, limit)
    found: dict[str, list[dict[str, Any]]] = {problem: [] for problem in chosen}
    before: dict[str, list[str]] = {}
    for step in run.attempt_steps if chosen else []:
        for problem, attempts in _by_problem(run.attempts(step)).items():
            if problem in found:
                best = max(attempts, key=_score)
                item = _item(run, step, attempts, best)
                lines = shorten(best.get("response") or "", CHARACTERS).splitlines()
                item["diff"] = difference(before.get(problem), lines)
                before[problem] = lines
                found[problem].append(item)
    return found


def choose_problems(run: RunRecord, limit: int) -> list[str]:
    """Problems that failed at their first update and passed later, those that pass in the end and took longest first.

    Falls back to those that passed more cases later than at first; empty if nothing got better.
    """
    history: dict[str, list[tuple[bool, float]]] = {}
    for step in run.attempt_steps:
        for problem, attempts in _by_problem(run.attempts(step)).items():
            history.setdefault(problem, []).append(max(map(_score, attempts)))
    failed_first = {problem: scores for problem, scores in history.items() if not scores[0][0]}
    learned = {
        problem: (scores[-1], [passed for passed, _ in scores].index(True))
        for problem, scores in failed_first.items()
        if any(passed for passed, _ in scores)
    }
    if learned:
        return sorted(learned, key=lambda problem: learned[problem], reverse=True)[:limit]
    gains = {problem: max(scores)[1] - scores[0][1] for problem, scores in failed_first.items()}
    return sorted((p for p in gains if gains[p] > 0), key=lambda problem: gains[problem], reverse=True)[:limit]


def _item(run: RunRecord, step: int, attempts: list[dict[str, Any]], best: dict[str, Any]) -> dict[str, Any]:
    verdict, reflection = best.get("verdict") or {}, best.get("reflection") or {}
    added = [entry for entry in run.playbook if entry["born"] == step]
    return {
        "step": step,
        "prompt": shorten(best.get("prompt") or "", CHARACTERS),
        "verdict": {name: verdict.get(name) for name in ("passed", "cases_passed", "cases_total", "error")},
        "feedback": shorten(verdict.get("feedback") or "", CHARACTERS),
        "reflection": shorten(reflection.get("text") or "", CHARACTERS),
        "passed": sum(_score(attempt)[0] for attempt in attempts),
        "group": len(attempts),
        "added": [{"id": entry["id"], "text": entry["text"]} for entry in added[:ADDED_SHOWN]],
        "more": max(0, len(added) - ADDED_SHOWN),
    }


def difference(before: list[str] | None, after: list[str]) -> list[tuple[str, str]]:
    """Lines of `after` with those of `before` that are gone: (' ' | '+' | '-', line)."""
    if before is None:
        return [(" ", line) for line in after]
    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            found += [(" ", line) for line in after[c:d]]
        else:
            found += [("-", line) for line in before[a:b]] + [("+", line) for line in after[c:d]]
    return found


def shorten(text: str, characters: int) -> str:
    """`text`, or its two ends with a note between them."""
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _by_problem(attempts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for attempt in attempts:
        if attempt.get("parent") is None:  # what follows from an attempt is no attempt at the problem alone
            found.setdefault(str(attempt.get("problem")), []).append(attempt)
    return found


def _score(attempt: dict[str, Any]) -> tuple[bool, float]:
    verdict = attempt.get("verdict") or {}
    total = verdict.get("cases_total") or 0
    return bool(verdict.get("passed")), ((verdict.get("cases_passed") or 0) / total if total else 0.0)
