"""The teacher's weights (paper section 2): frozen, an exponential moving average, live, or another model's.

The average is kept in float32 shards: at the paper's rate of 1e-4 a bfloat16 average would never move. It moves after
each update, `teacher <- (1 - rate) * teacher + rate * student`, so update t is scored by weights that have seen the
student through update t - 1. Unlike the released systems, it is part of every checkpoint.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from resd.model import lora
from resd.model.hidden import Policy
from resd.model.pack import Rows
from resd.model.shard import local_tensors, reshard, whole_or_local

Kind = Literal["frozen", "ema", "live", "external"]


class Teacher:
    """Scores responses. `policy` are its own sharded weights, or the student's when `kind` is `live`.

    An adapted student's policy holds the adapters of both. `vocabulary` cuts off what an external teacher has more
    words than the student: the rows that fill up a table.
    """

    def __init__(self, policy: Policy, kind: Kind, rate: float = 0.0, vocabulary: int | None = None) -> None:
        self.policy = policy
        self.kind = kind
        self.rate = rate
        self.vocabulary = vocabulary
        self.owner: lora.Owner = "student" if kind == "live" else "teacher"
        if kind != "live" and not lora.is_adapted(policy):
            policy.requires_grad_(False)

    @torch.no_grad()
    def hidden(self, rows: Rows) -> Float[Tensor, "T D"]:
        """Hidden states of the response rows in the teacher's context."""
        with lora.speaking(self.policy.lm, self.owner):
            return self.policy(rows)

    @property
    def kept(self) -> bool:
        """Whether a checkpoint has to keep its weights."""
        return self.kind in ("frozen", "ema")

    def weights(self) -> dict[str, Tensor]:
        """What it has besides the student, by name: its parameters, or its adapter's; nothing that need not be kept."""
        return dict(lora.weights(self.policy, "teacher")) if self.kept else {}

    @torch.no_grad()
    def output_embedding(self) -> Float[Tensor, "V D"]:
        """The whole output embedding; collective."""
        return whole_or_local(self.policy.output_embedding, whole=True)[: self.vocabulary]

    @torch.no_grad()
    def update(self, student: Policy) -> None:
        """One step of the average; nothing for other teachers."""
        reshard(self.policy)
        if self.kind == "ema":
            reshard(student)
            own = local_tensors(self.weights().values())
            theirs = local_tensors(lora.weights(student, "student").values())
            torch._foreach_lerp_(own, [new.to(old.device) for old, new in zip(own, theirs, strict=True)], self.rate)
