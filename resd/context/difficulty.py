"""How hard the next problems are to be: a level that follows what passes, so that a share of it lies in a band."""

from collections.abc import Mapping
from typing import Any


class Difficulty:
    """A level from 0, the easiest, to `levels` - 1, which moves by one."""

    def __init__(self, levels: int, low: float, high: float) -> None:
        self.levels, self.low, self.high = levels, low, high
        self.level = 0

    def note(self, passed: float) -> None:
        """`passed` is the share of attempts at this level that did: above the band it gets harder, below it easier."""
        move = (passed > self.high) - (passed < self.low)
        self.level = min(max(self.level + move, 0), self.levels - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A task that has fewer levels than it had begins with its hardest."""
        self.level = min(int(state["level"]), self.levels - 1)
