"""When a library has stopped getting better, as far as its own run can tell; `scripts/stopping.py` says what it costs.

Each rule reads what every update so far has shown, oldest first. Drift is `resd.context.lineage.drift`.
"""

from collections.abc import Sequence

IN_A_ROW = 2


def exhausted(passed: Sequence[float], patience: int) -> bool:
    """Whether `patience` updates have brought no larger share of passes than the best before them."""
    if not passed:
        return False
    best = passed.index(max(passed))
    return len(passed) - 1 - best >= patience


def restless(shares: Sequence[float | None], limit: float) -> bool:
    """Whether the last `IN_A_ROW` updates all lie above the limit. None is unknown, which is not above."""
    last = shares[-IN_A_ROW:]
    return len(last) == IN_A_ROW and all(share is not None and share > limit for share in last)
