"""Votes among answers to one problem: what they are worth to somebody without a judge."""

from collections.abc import Sequence

from resd.types import Attempt


def ballot(attempt: Attempt) -> str:
    """What it votes for; empty where it has no verdict, no answer, or none that can be read."""
    verdict = attempt.verdict
    if verdict is None:
        return ""
    return (verdict.answer if verdict.ballot is None else verdict.ballot) or ""


def elected(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those that gave the commonest answer, of equally common ones the first given; none where nobody votes."""
    parties: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if name := ballot(attempt):
            parties.setdefault(name, []).append(attempt)
    return max(parties.values(), key=len, default=[])
