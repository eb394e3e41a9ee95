"""The learner: samples in, one optimizer step and one step of the teacher out. Blind to the algorithm.

The loss is one sum over all ranks and micro-batches, `sum_t weight_t * (divergence_t + policy_gradient_t)`, whose
normaliser is known before the first backward pass. Every rank holds all samples and computes its share. The teacher is
scored here, from hidden states of the response rows; logits exist for one chunk of rows at a time.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.tensor import DTensor

from resd import dist
from resd.clock import Clock
from resd.model.hidden import Policy
from resd.model.pack import Rows, pack, plan
from resd.model.shard import reshard
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.objectives.head import TeacherHead, chunked_logprobs, fused_head_loss
from resd.objectives.policy_gradient import policy_gradient
from resd.objectives.weighting import token_weights, truncated_importance
from resd.settings import HardwareSettings, LossSettings, OptimizerSettings, PolicyGradientSettings
from resd.types import Sample

Stats = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """What the loss is made of; each part acts on the samples that carry its ingredients."""

    loss: LossSettings
    temperature: float
    distillation: Distillation | None = None
    policy_gradient: PolicyGradientSettings | None = None


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass of this rank, over the samples `indices`.

    `divergence_weight_T` and `gradient_weight_T` are globally normalised; the forward pass fills in `divergence_T`.
    """

    indices: list[int]
    rows: Rows
    teacher_rows: Rows | None
    ids_T: Int[Tensor, " T"]
    sampled_T: Float[Tensor, " T"]
    old_T: Float[Tensor, " T"] | None
    advantage_T: Float[Tensor, " T"]
    divergence_weight_T: Float[Tensor, " T"]
    gradient_weight_T: Float[Tensor, " T"]
    divergence_T: Float[Tensor, " T"]


class Learner:
    """Owns the student, the optimizer and the teacher."""

    def __init__(
        self,
        policy: Policy,
        teacher: Teacher | None,
        objective: Objective,
        optimizer: OptimizerSettings,
        hardware: HardwareSettings,
        *,
        pad_id: int,
        clock: Clock | None = None,
    ) -> None:
        self.policy = policy
        self.teacher = teacher
        self.objective = objective
        self.settings = optimizer
        self.hardware = hardware
        self.pad_id = pad_id
        self.clock = clock or Clock()
        self.device = torch.device(hardware.device)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in policy.parameters() if parameter.requires_grad],
            lr=optimizer.lr,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )

    def update(self, samples: Sequence[Sample], step: int) -> dict[str, float]:
        """Learn from `samples` (the same list on every rank) and leave their `token_loss`.

        `step` starts at 1 and sets the learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * min(1.0, step / max(1, self.settings.warmup))
        parts = self.settings.mini_batches
        scored = samples
        if parts > 1:
            scored = [replace(s, old_logprobs=old) for s, old in zip(samples, self.logprobs(samples), strict=True)]
        totals: Stats = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
        for part in range(parts):
            for name, value in self._step(scored[part::parts]).items():
                totals[name] += value
        for sample, same in zip(samples, scored, strict=True):
            sample.token_loss = same.token_loss
        if self.teacher is not None:
            self.teacher.update(self.policy)
        return self._metrics(totals, parts)

    def _step(self, samples: Sequence[Sample]) -> Stats:
        """One optimizer step; sums of statistics over all ranks."""
        sums: Stats = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
        losses: dict[int, list[float] | None] = {i: None for i, s in enumerate(samples) if s.teacher_prompt_ids is None}
        for batch in self._micro_batches(samples):
            loss, stats = self._loss(batch)
            (loss * dist.world()).backward()  # FSDP2 averages gradients over ranks; the loss is a global sum
            for name, value in {"loss": loss.detach(), **stats}.items():
                sums[name] += value.double().cpu()
            counts = [len(samples[i].response_ids) for i in batch.indices]
            found = zip(batch.indices, batch.divergence_T.split(counts), strict=True)
            losses |= {i: loss_T.tolist() for i, loss_T in found if i not in losses}
        if not sums:
            return sums
        for sample, token_loss in zip(samples, dist.merge(losses, len(samples)), strict=True):
            sample.token_loss = token_loss
        names = sorted(sums)
        sums = dict(zip(names, dist.total(torch.stack([sums[name] for name in names])), strict=True))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.grad_clip)
        norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).double().cpu()
        finite = bool(norm.isfinite())
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return {**sums, "grad_norm": norm, "optimizer_steps": torch.tensor(float(finite)).double()}

    def _loss(self, batch: MicroBatch) -> tuple[Tensor, Stats]:
        objective = self.objective

        def token_loss(rows: slice, logprobs_C: Tensor, divergence_C: Tensor | None) -> tuple[Tensor, Stats]:
            old_C = logprobs_C.detach() if batch.old_T is None else batch.old_T[rows]
            importance_C = torch.ones_like(old_C)
            if objective.loss.importance_cap is not None:
                importance_C = truncated_importance(old_C, batch.sampled_T[rows], objective.loss.importance_cap)
            drift_C = logprobs_C.detach() - batch.sampled_T[rows]
            stats: Stats = {"tokens": torch.tensor(float(len(old_C))), "mismatch_kl": (drift_C.expm1() - drift_C).sum()}
            loss = logprobs_C.new_zeros(())
            if divergence_C is not None:
                batch.divergence_T[rows] = divergence_C.detach()
                loss = loss + (divergence_C * importance_C * batch.divergence_weight_T[rows]).sum()
            if objective.policy_gradient is not None:
                surrogate_C, more = policy_gradient(
                    logprobs_C, old_C, batch.advantage_T[rows], **objective.policy_gradient.model_dump()
                )
                loss = loss + (surrogate_C * importance_C * batch.gradient_weight_T[rows]).sum()
                stats |= {name: value.sum() for name, value in more.items()}
            return loss, stats

        teacher = self._teacher_head(batch)
        return self.policy(
            batch.rows,
            head=lambda hidden_T_D, weight_V_D: fused_head_loss(
                hidden_T_D,
                weight_V_D,
                batch.ids_T,
                token_loss,
                teacher,
                objective.temperature,
                self.hardware.head_chunk,
            ),
        )

    def _teacher_head(self, batch: MicroBatch) -> TeacherHead | None:
        if batch.teacher_rows is None or self.objective.distillation is None:
            return None
        assert self.teacher is not None
        with self.clock("teacher"):
            hidden_T_D = self.teacher.hidden(batch.teacher_rows)
            weight_V_D = self.teacher.output_embedding().to(hidden_T_D.dtype)
        return TeacherHead(hidden_T_D, weight_V_D, self.objective.distillation)

    def _micro_batches(self, samples: Sequence[Sample]) -> Iterator[MicroBatch]:
        """This rank's micro-batches. Samples without any signal are not computed, but count in the normaliser."""
        masks = [torch.tensor(s.mask if s.mask is not None else [True] * len(s.response_ids)) for s in samples]
        weights = token_weights(
            masks,
            [s.weight for s in samples],
            self.objective.loss.reduction,
            total_samples=len(samples),
            total_tokens=sum(int(mask_T.sum()) for mask_T in masks),
        )
        active = [i for i, s in enumerate(samples) if s.teacher_prompt_ids is not None or s.advantage is not None]
        if not active:
            return
        with_teacher = any(samples[i].teacher_prompt_ids is not None for i in active)
        lengths = [_length(samples[i]) for i in active]
        for indices in self._plan(lengths):
            yield self._micro_batch([active[i] for i in indices], samples, weights, with_teacher)

    def _plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """This rank's micro-batches of samples of these lengths."""
        budget, packed = self.hardware.micro_batch_tokens, self.policy.packed
        return plan(lengths, ranks=dist.world(), budget=budget, packed=packed)[dist.rank()]

    def _rows(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Rows:
        return pack(prompts, responses, pad_id=self.pad_id, packed=self.policy.packed).to(self.device)

    def _micro_batch(
        self, indices: list[int], every: Sequence[Sample], weights: list[Tensor], with_teacher: bool
    ) -> MicroBatch:
        samples = [every[i] for i in indices]
        responses = [s.response_ids for s in samples]
        counts = torch.tensor([len(r) for r in responses], dtype=torch.long)

        def flat(values: Sequence[Sequence[float]]) -> Tensor:
            return torch.tensor([x for row in values for x in row], dtype=torch.float32, device=self.device)

        def spread(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).repeat_interleave(counts).to(self.device)

        weight_T = torch.cat([torch.zeros(0), *(weights[i] for i in indices)]).to(self.device, torch.float32)
        old = [s.old_logprobs for s in samples if s.old_logprobs is not None]
        teacher_prompts = [s.teacher_prompt_ids or s.prompt_ids for s in samples]
        return MicroBatch(
            indices=indices,
            rows=self._rows([s.prompt_ids for s in samples], responses),
            teacher_rows=self._rows(teacher_prompts, responses) if with_teacher else None,
            ids_T=torch.tensor([token for r in responses for token in r], dtype=torch.long, device=self.device),
            sampled_T=flat([s.sampled_logprobs for s in samples]),
            old_T=flat(old) if len(old) == len(samples) and old else None,
            advantage_T=spread([s.advantage or 0.0 for s in samples]),
            divergence_weight_T=weight_T * spread([float(s.teacher_prompt_ids is not None) for s in samples]),
            gradient_weight_T=weight_T * spread([float(s.advantage is not None) for s in samples]),
            divergence_T=torch.zeros_like(weight_T),
        )

    @torch.no_grad()
    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """log p of every response token under the student at the rollout temperature, on every rank."""
        found: dict[int, list[float]] = {}
        for indices in self._plan([_length(s) for s in samples]):
            responses = [samples[i].response_ids for i in indices]
            ids_T = torch.tensor([token for r in responses for token in r], dtype=torch.long, device=self.device)
            hidden_T_D = self.policy(self._rows([samples[i].prompt_ids for i in indices], responses))
            weight_V_D = self.policy.output_embedding
            logprobs_T = chunked_logprobs(
                hidden_T_D, weight_V_D, ids_T, self.objective.temperature, self.hardware.head_chunk
            )
            for i, values in zip(indices, logprobs_T.split([len(r) for r in responses]), strict=True):
                found[i] = values.tolist()
        reshard(self.policy)
        return dist.merge(found, len(samples))

    def _metrics(self, totals: Stats, parts: int) -> dict[str, float]:
        tokens = max(1.0, float(totals.pop("tokens", torch.tensor(0.0))))
        over_steps = {name: float(totals.pop(name, torch.tensor(0.0))) / parts for name in ("loss", "grad_norm")}
        steps = float(totals.pop("optimizer_steps", torch.tensor(0.0)))
        skipped = {"skipped_steps": parts - steps, "lr": self.optimizer.param_groups[0]["lr"]}
        return over_steps | skipped | {name: float(value) / tokens for name, value in totals.items()}


def _length(sample: Sample) -> int:
    return max(len(sample.prompt_ids), len(sample.teacher_prompt_ids or ())) + len(sample.response_ids)
