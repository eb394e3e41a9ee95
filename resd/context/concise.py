"""Which entries leave the playbook, and when (paper appendix D), as pure functions over entries.

The paper prunes before each context update. Trimming once more after curation follows the released scripts, with one
change: entries added in that same step could not have been tagged yet, so they do not count as unused there; they
compete with the others only for the budget. As the paper has it, the limit trigger fires between scheduled prunings: a
scheduled one leaves the budget alone even if the playbook exceeds it (the released scripts enforce it then).
"""

import random
from collections.abc import Collection, Sequence
from typing import Literal

from resd.context.playbook import Entry

Category = Literal["unused", "harmful", "helpful"]
Method = Literal["prioritized", "staleness", "reset"]
Trigger = Literal["frequency", "limit"]
Removals = list[tuple[str, str]]


def category(entry: Entry) -> Category:
    """Unused: h + d = 0; harmful: d >= h and d > 0; helpful otherwise."""
    if entry.helpful + entry.harmful == 0:
        return "unused"
    return "harmful" if entry.harmful >= entry.helpful else "helpful"


def tally(entries: Collection[Entry]) -> dict[Category, int]:
    """How many entries there are of each category."""
    found = [category(entry) for entry in entries]
    return {"helpful": found.count("helpful"), "harmful": found.count("harmful"), "unused": found.count("unused")}


def trigger(size: int, updates: int, every: int, budget: int) -> Trigger | None:
    """What calls for pruning before a context update, after `updates` earlier ones; the schedule comes first."""
    if updates > 0 and updates % every == 0:
        return "frequency"
    return "limit" if size > budget else None


def prune(entries: Sequence[Entry], method: Method, step: int, *, every: int, budget: int, seed: int) -> Removals:
    """Removals (id, reason) before the context update `step`, counted from 1; nothing between triggers."""
    cause = trigger(len(entries), step - 1, every, budget)
    if cause is None:
        return []
    return select(entries, method, step, budget if cause == "limit" else None, seed)


def trim(entries: Sequence[Entry], method: Method, step: int, *, budget: int, seed: int) -> Removals:
    """Removals (id, reason) after the curation of `step`; nothing while the playbook is within its budget."""
    if len(entries) <= budget:
        return []
    return select(entries, method, step, budget, seed, spare_fresh=True)


def select(
    entries: Sequence[Entry], method: Method, step: int, budget: int | None, seed: int, spare_fresh: bool = False
) -> Removals:
    """Removals (id, reason) by `method`; at most `budget` entries remain, unless it is None.

    `prioritized` removes harmful and all unused entries, then a random choice. `staleness` removes harmful entries and
    those unused for more than one step, then the longest untagged, ties in random order. `reset` removes everything.
    `spare_fresh`: entries created at `step` are not unused. Reasons: harmful, unused, stale, budget, reset.
    """
    if method == "reset":
        return [(entry.id, "reset") for entry in entries]
    removals: Removals = []
    kept: list[Entry] = []
    for entry in entries:
        reason = _fault(entry, method, step, spare_fresh)
        if reason:
            removals.append((entry.id, reason))
        else:
            kept.append(entry)
    if budget is not None and len(kept) > budget:
        random.Random(f"{seed}/{step}").shuffle(kept)
        if method == "staleness":
            kept.sort(key=lambda entry: entry.last_tagged)
        removals += [(entry.id, "budget") for entry in kept[: len(kept) - budget]]
    return removals


def _fault(entry: Entry, method: Method, step: int, spare_fresh: bool) -> str | None:
    kind = category(entry)
    if kind == "harmful":
        return "harmful"
    if kind == "unused" and not (spare_fresh and entry.created == step):
        if method == "prioritized":
            return "unused"
        if step - entry.last_tagged > 1:
            return "stale"
    return None
