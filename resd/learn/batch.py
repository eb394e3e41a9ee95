"""Samples to tensors: the micro-batches of one optimizer step, as one rank computes them.

Every rank holds all samples, and the weights of all tokens are normalised before the first of them is computed, so a
rank can take its share (`model.pack.plan`) without talking to the others. Samples with a teacher and samples without
one lie in different micro-batches: a teacher reads only what it has to score, and nothing of what was scored elsewhere,
which is the case of all samples or of none. Samples that cannot have a gradient are
not computed, but count in the normaliser.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from resd import dist
from resd.model.pack import Rows, pack, plan
from resd.objectives.chunk import Likeliest
from resd.objectives.weighting import Reduction, token_weights
from resd.types import Sample, Told

UNKNOWN = float("nan")  # the log-probability of a token whose sampler is not known


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass of this rank, over the samples `indices`; T counts their response tokens.

    The weights are globally normalised and zero where a sample lacks the ingredient. `sampled_T` and `old_T` are NaN
    where nobody knows. `spoken_T` is false at what an environment said, which no statistic counts; None: nothing was.
    The forward pass fills in `divergence_T`.
    """

    indices: list[int]
    rows: Rows
    teacher_rows: Rows | None
    ids_T: Int[Tensor, " T"]
    sampled_T: Float[Tensor, " T"]
    old_T: Float[Tensor, " T"]
    advantage_T: Float[Tensor, " T"]
    divergence_weight_T: Float[Tensor, " T"]
    gradient_weight_T: Float[Tensor, " T"]
    demonstration_weight_T: Float[Tensor, " T"]
    divergence_T: Float[Tensor, " T"]
    demonstrated: bool
    told: Likeliest | None = None
    spoken_T: Bool[Tensor, " T"] | None = None


class Batcher:
    """Lays out samples. `budget` bounds the tokens of a forward pass; `packed` is the layout of the student's rows,
    and `teacher_packed` that of the teacher's."""

    def __init__(self, *, budget: int, packed: bool, teacher_packed: bool, pad_id: int, device: torch.device) -> None:
        self.budget, self.pad_id, self.device = budget, pad_id, device
        self.packed, self.teacher_packed = packed, teacher_packed

    def batches(self, samples: Sequence[Sample], reduction: Reduction) -> Iterator[MicroBatch]:
        """This rank's micro-batches, as many as every other rank has."""
        masks = [torch.tensor(s.mask if s.mask is not None else [True] * len(s.response_ids)) for s in samples]
        weights = token_weights(
            masks,
            [s.weight for s in samples],
            reduction,
            total_samples=len(samples),
            total_tokens=sum(int(mask_T.sum()) for mask_T in masks),
        )
        taught = [i for i, s in enumerate(samples) if s.teacher_prompt_ids is not None]
        alone = [i for i, s in enumerate(samples) if s.teacher_prompt_ids is None and s.speaks]
        for chosen in (taught, alone):
            for indices in self.shares([samples[i] for i in chosen]):
                part = [chosen[i] for i in indices]
                yield self._batch(part, [samples[i] for i in part], [weights[i] for i in part], chosen is taught)

    def shares(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Indices of the samples of each of this rank's micro-batches."""
        if not samples:
            return []
        lengths = [_length(sample) for sample in samples]
        packed = self.packed and self.teacher_packed
        return plan(lengths, ranks=dist.world(), budget=self.budget, packed=packed)[dist.rank()]

    def rows(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, teacher: bool = False
    ) -> Rows:
        """The pairs as the student, or the teacher, reads them."""
        packed = self.teacher_packed if teacher else self.packed
        return pack(prompts, responses, pad_id=self.pad_id, packed=packed).to(self.device)

    def ids(self, responses: Sequence[Sequence[int]]) -> Int[Tensor, " T"]:
        return torch.tensor([token for r in responses for token in r], dtype=torch.long, device=self.device)

    def _batch(
        self, indices: list[int], samples: Sequence[Sample], weights: Sequence[Tensor], taught: bool
    ) -> MicroBatch:
        def each(value: Callable[[Sample], float | Sequence[float] | None], missing: float) -> Float[Tensor, " T"]:
            """A number of each sample, or one of each of its tokens, for every token."""
            parts = [_spread(value(sample), len(sample.response_ids), missing) for sample in samples]
            return torch.cat([torch.zeros(0), *parts]).to(self.device)

        responses = [s.response_ids for s in samples]
        told = [s.told for s in samples if s.told is not None] if taught else []
        heard_T = each(lambda s: s.sampled_logprobs, 0.0).isnan()
        weight_T = torch.cat([torch.zeros(0), *weights]).to(self.device, torch.float32)
        return MicroBatch(
            indices=indices,
            rows=self.rows([s.prompt_ids for s in samples], responses),
            teacher_rows=self.rows([s.teacher_prompt_ids or [] for s in samples], responses, teacher=True)
            if taught and not told
            else None,
            ids_T=self.ids(responses),
            sampled_T=each(lambda s: s.sampled_logprobs, UNKNOWN),
            old_T=each(lambda s: None if s.sampled_logprobs is None else s.old_logprobs, UNKNOWN),
            advantage_T=each(lambda s: s.advantage, 0.0),
            divergence_weight_T=weight_T * each(lambda s: s.pull if s.teacher_prompt_ids is not None else 0.0, 0.0),
            gradient_weight_T=weight_T * each(lambda s: float(s.advantage is not None), 0.0),
            demonstration_weight_T=weight_T * each(lambda s: float(s.demonstrates), 0.0),
            divergence_T=torch.zeros_like(weight_T),
            demonstrated=any(s.demonstrates for s in samples),
            told=_likeliest(told, self.device) if told else None,
            spoken_T=~heard_T if bool(heard_T.any()) else None,
        )


def _likeliest(told: Sequence[Told], device: torch.device) -> Likeliest:
    ids = [torch.tensor(t.top_ids, dtype=torch.long).view(len(t.logprobs), -1) for t in told]
    logprobs = [torch.tensor(t.top_logprobs, dtype=torch.float32).view(len(t.logprobs), -1) for t in told]
    return Likeliest(torch.cat(ids).to(device), torch.cat(logprobs).to(device))


def _spread(value: float | Sequence[float] | None, tokens: int, missing: float) -> Float[Tensor, " T"]:
    if value is None:
        return torch.full((tokens,), missing)
    if isinstance(value, Sequence):
        if len(value) != tokens:
            raise ValueError(f"{len(value)} numbers for a response of {tokens} tokens")
        return torch.tensor(value, dtype=torch.float32)
    return torch.full((tokens,), value)


def _length(sample: Sample) -> int:
    return max(len(sample.prompt_ids), len(sample.teacher_prompt_ids or ())) + len(sample.response_ids)
