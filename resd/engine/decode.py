"""The decode loop: continuous batching over any decoder.

Each turn is either a prefill of waiting requests or one token for every running row. A finished row leaves the batch at
once, so it never costs another step, and waiting requests take free places as soon as a prefill is worthwhile.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resd.engine.base import More
from resd.engine.sampling import sample
from resd.types import Completion, Request


class Decoder(Protocol):
    """A model with the state of a running batch. Rows are numbered from 0 in the order they came."""

    @property
    def room(self) -> int:
        """How many more rows it takes now."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Append a row for each prompt; the logits after each prompt's last token."""
        ...

    def step(self, ids_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Append one token to every row; the logits after it."""
        ...

    def keep(self, order: Sequence[int]) -> None:
        """Make `order` the rows: old row `order[i]` becomes row i, and rows that are not in it are forgotten.

        A row that moves comes from behind the new end, `order[i] == i or order[i] >= len(order)`.
        """
        ...


@dataclass(slots=True)
class _Row:
    index: int
    request: Request
    limit: int
    noise: random.Random
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def decode(
    decoder: Decoder,
    requests: Sequence[Request],
    max_length: int,
    eos_ids: Collection[int],
    more: More | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Yield `(index, completion)` as rows finish; `max_length` bounds prompt plus completion, in tokens.

    A request ends with a token of `eos_ids`, or truncated at its `max_tokens` or at `max_length`. `more`: see `Engine`.
    """
    waiting: list[_Row] = []
    running: list[_Row] = []
    quorum, count = max(1, decoder.room // 8), 0

    while True:
        arrived = []
        for index, request in enumerate(requests, count):
            limit = min(request.max_tokens, max_length - len(request.prompt_ids))
            if limit > 0 and len(request.prompt_ids):
                arrived.append(_Row(index, request, limit, random.Random(request.seed)))
            else:
                yield index, Completion(ids=[], logprobs=[], truncated=True)
        # longest prompts first: a prefill has little padding, equal prompts meet, and memory runs out early or never
        arrived.sort(key=lambda row: (len(row.request.prompt_ids), tuple(row.request.prompt_ids)), reverse=True)
        waiting, count = waiting + arrived, count + len(requests)
        if not waiting and not running:
            requests = more(True) if more else ()
            if not requests:
                return
            continue

        if waiting and decoder.room >= min(quorum, len(waiting)):
            rows, waiting = waiting[: decoder.room], waiting[decoder.room :]
            running += rows
            logits_B_V = decoder.prefill([row.request.prompt_ids for row in rows])
        else:
            rows = running
            logits_B_V = decoder.step(torch.tensor([row.ids[-1] for row in rows], device=logits_B_V.device))
        _extend(rows, logits_B_V)

        finished = [i for i, row in enumerate(running) if row.ids[-1] in eos_ids or len(row.ids) == row.limit]
        if finished:
            order = _fill_holes(len(running), finished)
            decoder.keep(order)
            done, running = [running[i] for i in finished], [running[i] for i in order]
            for row in done:
                yield row.index, Completion(row.ids, row.logprobs, truncated=row.ids[-1] not in eos_ids)
        requests = more(False) if more else ()


def _extend(rows: Sequence[_Row], logits_B_V: Float[Tensor, "B V"]) -> None:
    """Sample the next token of each row."""
    parameters = [[row.request.temperature, row.request.top_p, row.noise.random()] for row in rows]
    temperature_B, top_p_B, uniform_B = torch.tensor(parameters, dtype=torch.float64, device=logits_B_V.device).T
    ids_B, logprobs_B = sample(logits_B_V, temperature_B, top_p_B, uniform_B)
    for row, token, logprob in zip(rows, ids_B.tolist(), logprobs_B.tolist(), strict=True):
        row.ids.append(token)
        row.logprobs.append(logprob)


def _fill_holes(count: int, holes: Sequence[int]) -> list[int]:
    """The rows that stay when `holes` (ascending) go: the last rows move into the holes, so as few as possible move."""
    order = list(range(count))
    for hole in reversed(holes):
        order[hole] = order[-1]
        order.pop()
    return order
