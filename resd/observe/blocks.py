"""The stream of a sequence of tasks: blocks of updates, each on the problems of one part.

Every part has a stream of its own (`stream`), in which each of its blocks goes on where the one before has ended, pass
after pass. So an update's problems are a function of its number here too.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from resd.observe.stream import Stream
from resd.types import Problem, UserError


class Blocks:
    """Batches of problems by update number, which starts at 1; like a Stream, with whose order of each part's problems.

    `blocks` are (part, updates), None for `epochs` passes. Raises UserError if a part has too few problems.
    """

    def __init__(
        self, problems: Sequence[Problem], blocks: Sequence[tuple[str, int | None]], *, epochs: int, **order: Any
    ) -> None:
        self.problems = problems
        self.batch_size: int = order["batch_size"]
        passes = {part: self._stream(part, epochs=epochs, **order) for part, _ in blocks}
        self.blocks = [(part, updates or len(passes[part])) for part, updates in blocks]
        self.streams: dict[str, Stream] = {}
        for part, one in passes.items():
            wanted = sum(updates for name, updates in self.blocks if name == part)
            self.streams[part] = self._stream(part, epochs=epochs * math.ceil(wanted / len(one)), **order)
        self.lasts = [*accumulate(updates for _, updates in self.blocks)]

    def _stream(self, part: str, **order: Any) -> Stream:
        try:
            return Stream([problem for problem in self.problems if problem.part == part], **order)
        except UserError as error:
            raise UserError(f"part {part}: {error}") from None

    def __len__(self) -> int:
        """Updates in all blocks."""
        return self.lasts[-1]

    @property
    def ends(self) -> dict[int, str]:
        """Updates after which a block is over, and its part."""
        return {last: part for last, (part, _) in zip(self.lasts, self.blocks, strict=True)}

    @property
    def told(self) -> str:
        """The blocks for people."""
        return "blocks of updates: " + ", ".join(f"{part} {updates}" for part, updates in self.blocks)

    def updates(self, wanted: int | None) -> int:
        """How many a run makes. Raises UserError unless that is all of them."""
        if wanted not in (None, len(self)):
            raise UserError(
                f"steps={wanted} is not the sum of the blocks of updates, {len(self)}: leave steps out, or write "
                "task.options.updates, or that of a part"
            )
        return len(self)

    def batch(self, step: int) -> list[Problem]:
        """The problems of update `step`."""
        if not 1 <= step <= len(self):
            raise IndexError(f"update {step} is outside the stream of {len(self)}")
        place = next(place for place, last in enumerate(self.lasts) if step <= last)
        part, updates = self.blocks[place]
        earlier = sum(count for name, count in self.blocks[:place] if name == part)
        return self.streams[part].batch(earlier + step - (self.lasts[place] - updates))
