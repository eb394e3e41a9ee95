"""The streaming protocol (paper section 4.1): one pass over the problems, `inner_updates` updates on each batch.

Which problems an update sees is a pure function of its number, so a resumed run needs no cursor. The last, incomplete
batch of a pass is dropped.
"""

import random
from collections.abc import Sequence

from resd import seeds
from resd.types import Problem, UserError


class Stream:
    """Batches of problems by update number, which starts at 1."""

    def __init__(
        self,
        problems: Sequence[Problem],
        batch_size: int,
        inner_updates: int,
        *,
        epochs: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        if len(problems) < batch_size:
            raise UserError(
                f"batch_size={batch_size} is larger than the {len(problems)} training problems: lower batch_size"
            )
        self.problems = problems
        self.batch_size = batch_size
        self.inner_updates = inner_updates
        self.epochs = epochs
        self.shuffle = shuffle
        self.seed = seed
        self.batches_per_epoch = len(problems) // batch_size

    def __len__(self) -> int:
        """Updates in the whole stream."""
        return self.epochs * self.batches_per_epoch * self.inner_updates

    def batch(self, step: int) -> list[Problem]:
        """The problems of update `step`; the same for all inner updates of a batch."""
        if not 1 <= step <= len(self):
            raise IndexError(f"update {step} is outside the stream of {len(self)}")
        epoch, index = divmod((step - 1) // self.inner_updates, self.batches_per_epoch)
        order = list(range(len(self.problems)))
        if self.shuffle:
            random.Random(seeds.derive(self.seed, "stream", epoch)).shuffle(order)
        return [self.problems[i] for i in order[index * self.batch_size : (index + 1) * self.batch_size]]
