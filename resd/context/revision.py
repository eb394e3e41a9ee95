"""What changes do to a library, within its bounds.

An update or a merge is a removal and an addition that names its parents, so that the log of events is the lineage.
Refused whole: a change of an entry that is not there, one that only repeats an entry, one beyond the cap, one that
would leave fewer old entries than the floor.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from resd.context.parts import Change
from resd.context.playbook import UNNAMED, Playbook, same_words


@dataclass(frozen=True, slots=True)
class Revision:
    """Ids added and still there, former ids removed, changes refused by reason, the share of former entries removed."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    refused: Counter[str]
    churn: float


def revise(
    library: Playbook, changes: Iterable[Change], step: int, *, cap: int | None = None, floor: float = 0.0
) -> Revision:
    """Makes the changes in order. `floor`: the share of the entries that are there now and must still be afterwards."""
    before = {entry.id for entry in library.entries}
    spare = len(before) - math.ceil(floor * len(before))
    refused: Counter[str] = Counter()
    added: list[str] = []
    gone: list[str] = []
    for change in changes:
        if reason := _refused(library, change, cap, spare - len(before & {*gone, *change.replaces})):
            refused[reason] += 1
            continue
        for id in change.replaces:
            library.remove(id, change.kind, step)
        gone += change.replaces
        entry = library.add(UNNAMED, change.text, step, change.replaces) if change.text else None
        added += [entry.id] if entry else []
    return Revision(
        tuple(id for id in added if id in library),
        tuple(id for id in gone if id in before),
        refused,
        len(before & set(gone)) / max(1, len(before)),
    )


def _refused(library: Playbook, change: Change, cap: int | None, spare: int) -> str:
    """Why a change cannot be made, or nothing. `spare`: how many more of the former entries could go after it."""
    if not all(id in library for id in change.replaces):
        return "unknown"
    rewritten_alone = len(change.replaces) == 1
    others = [entry for entry in library.entries if rewritten_alone or entry.id not in change.replaces]
    if any(same_words(change.text, entry.text) for entry in others):
        return "duplicate"
    if spare < 0 and change.replaces:
        return "floor"
    if cap is not None and len(library) - len(change.replaces) + bool(change.text) > cap:
        return "cap"
    return ""
