"""Samples to micro-batches: which rank computes what, and how sequences lie in one forward pass.

Only the hidden states that predict response tokens are wanted, so the last response token is never fed in. Two layouts:
one packed row whose `position_ids` restart at each sequence (`body`), and padded
rows (right-padded, so that causal attention needs no mask) for any other model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """Input of one forward pass; `predict_T` are flat positions whose hidden states predict the response tokens.

    `lengths` are those of the sequences, of which each ends in its `counts` tokens that predict.
    """

    input_ids: Int[Tensor, "R L"]
    position_ids: Int[Tensor, "R L"] | None
    predict_T: Int[Tensor, " T"]
    lengths: list[int]
    counts: list[int]

    def to(self, device: torch.device) -> "Rows":
        positions = None if self.position_ids is None else self.position_ids.to(device)
        return Rows(self.input_ids.to(device), positions, self.predict_T.to(device), self.lengths, self.counts)


def pack(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, pad_id: int, packed: bool = False
) -> Rows:
    """Lay out prompt + response pairs. T = total response tokens, in the order given. No pairs: one row, T = 0."""
    sequences = [[*prompt, *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)] or [[pad_id]]
    lengths = [len(sequence) for sequence in sequences]
    width = max(lengths)
    starts = [sum(lengths[:i]) if packed else i * width for i in range(len(sequences))]
    predict = [
        start + len(prompt) - 1 + t
        for start, prompt, response in zip(starts, prompts, responses, strict=False)
        for t in range(len(response))
    ]
    if packed:
        input_ids = torch.tensor([[token for sequence in sequences for token in sequence]])
        positions = torch.cat([torch.arange(n) for n in lengths])[None]
    else:
        input_ids = torch.tensor([[*sequence, *[pad_id] * (width - len(sequence))] for sequence in sequences])
        positions = None
    counts = [len(response) for response in responses] or [0]
    return Rows(input_ids, positions, torch.tensor(predict, dtype=torch.long), lengths, counts)


def plan(lengths: Sequence[int], *, ranks: int, budget: int, packed: bool = False) -> list[list[list[int]]]:
    """Indices of samples by rank and micro-batch.

    Tokens are balanced over ranks (longest first, to the least loaded rank); samples of like length share a micro-batch
    of at most `budget` tokens, padding included (or a single longer sample). Every rank gets the same number of
    micro-batches, empty ones at the end, because sharded forward passes are collective.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = load.index(min(load))
        shares[rank].append(index)
        load[rank] += lengths[index]
    batches = [_fill(share, lengths, budget, packed) for share in shares]
    most = max(len(of_rank) for of_rank in batches)
    return [of_rank + [[]] * (most - len(of_rank)) for of_rank in batches]


def _fill(share: Sequence[int], lengths: Sequence[int], budget: int, packed: bool) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0
    for index in share:  # longest first, so the first of a micro-batch is its width
        place = lengths[index] if packed or not batches else lengths[batches[-1][0]]
        if place <= room:
            batches[-1].append(index)
            room -= place
        else:
            batches.append([index])
            room = budget - lengths[index]
    return batches
