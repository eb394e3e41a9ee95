"""What the log of a library's or a playbook's events (`playbook.jsonl`) says about the lives of its entries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def half_life(events: Sequence[Mapping[str, Any]]) -> float | None:
    """Updates after which half of the entries are gone (Kaplan and Meier over all that ever were); None if not yet."""
    born: dict[str, int] = {}
    lives: list[tuple[int, bool]] = []
    last = max((event["step"] for event in events), default=0)
    for event in events:
        if event["event"] == "add":
            born[event["id"]] = event["step"]
        elif event["event"] == "remove":
            lives.append((event["step"] - born.pop(event["id"]), True))
    lives += [(last - step, False) for step in born.values()]
    surviving = 1.0
    for age in sorted({age for age, died in lives if died}):
        at_risk = sum(other >= age for other, _ in lives)
        surviving *= 1 - sum(died and other == age for other, died in lives) / at_risk
        if surviving <= 0.5:
            return float(age)
    return None


def rewritten(events: Iterable[Mapping[str, Any]]) -> float:
    """The share of all entries ever added that were made from other entries."""
    added = [event for event in events if event["event"] == "add"]
    return sum(bool(event["parents"]) for event in added) / max(1, len(added))


def drift(events: Iterable[Mapping[str, Any]], step: int, window: int = 3) -> float | None:
    """The share of the entries of `window` updates before `step` that are gone after it; None if there were none."""
    then: set[str] = set()
    gone: set[str] = set()
    for event in events:
        if event["step"] > step - window:
            gone |= {event["id"]} if event["event"] == "remove" else set()
        elif event["event"] == "add":
            then.add(event["id"])
        elif event["event"] == "remove":
            then.discard(event["id"])
    return len(then & gone) / len(then) if then else None
