"""The streaming protocol (paper section 4.1): one pass over the problems, `inner_updates` updates on each batch.

Which problems an update sees is a pure function of its number, so a resumed run needs no cursor. The last, incomplete
batch of a pass is dropped. That holds for the same problems in the same order, which fingerprints check: between the
ranks, and between a run and its checkpoints.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence

from resd import seeds
from resd.task import Task
from resd.types import Problem, UserError

Fingerprint = Mapping[str, int | str]


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

    @property
    def ends(self) -> dict[int, str]:
        """Updates after which a block of a sequence is over, and its part (`blocks`)."""
        return {}

    @property
    def told(self) -> str:
        """What there is to say of it: the blocks of a sequence."""
        return ""

    def updates(self, wanted: int | None) -> int:
        """How many a run makes; None wants all. Raises UserError if there are not so many."""
        if wanted is not None and wanted > len(self):
            raise UserError(
                f"steps={wanted} exceeds the stream of {len(self)} updates: lower steps, or raise epochs or "
                "inner_updates"
            )
        return wanted or len(self)

    def batch(self, step: int) -> list[Problem]:
        """The problems of update `step`; the same for all inner updates of a batch."""
        if not 1 <= step <= len(self):
            raise IndexError(f"update {step} is outside the stream of {len(self)}")
        epoch, index = divmod((step - 1) // self.inner_updates, self.batches_per_epoch)
        order = list(range(len(self.problems)))
        if self.shuffle:
            random.Random(seeds.derive(self.seed, "stream", epoch)).shuffle(order)
        return [self.problems[i] for i in order[index * self.batch_size : (index + 1) * self.batch_size]]


def fingerprint(task: Task, problems: Iterable[Problem]) -> Fingerprint:
    """What a run says of its problems: how many, and a hash of their ids, prompts and order. Not of what is private."""
    count, digest = 0, hashlib.sha256()
    for problem in problems:
        told = [problem.id, problem.statement, problem.family, [dict(m) for m in task.prompt(problem)]]
        digest.update(json.dumps(told, default=str).encode() + b"\n")
        count += 1
    return {"count": count, "sha256": digest.hexdigest()}


def check_same_problems(run: str, old: Mapping[str, Fingerprint], new: Mapping[str, Fingerprint]) -> None:
    """Raises UserError if a split that both know is another one now. `run` names the run for people."""
    for split in old.keys() & new.keys():
        before, now = old[split], new[split]
        if before != now:
            how = "in their order or texts" if before["count"] == now["count"] else f"{now['count']} now"
            raise UserError(
                f"{run} was made with {before['count']} other {split} problems ({how}): "
                "give the same ones in the same order, or choose another run_dir"
            )
