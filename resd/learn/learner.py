"""The learner: samples in, one optimizer step and one step of the teacher out. Blind to the algorithm.

The loss is one sum over all ranks and micro-batches, `sum_t weight_t * (divergence_t + policy_gradient_t)`, or minus
the log-probability of a demonstration, whose normaliser is known before the first backward pass. Every rank holds all
samples and computes its share (`batch`). The teacher is scored here, from hidden states of the response rows; logits
exist for one chunk of rows at a time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from resd import dist
from resd.clock import Clock
from resd.learn.batch import Batcher, MicroBatch
from resd.learn.schedule import rate
from resd.model.hidden import Policy
from resd.model.shard import reshard
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.objectives.head import DistantTeacher, TeacherHead, chunked_logprobs, chunked_scores, fused_head_loss
from resd.objectives.policy_gradient import policy_gradient
from resd.objectives.weighting import truncated_importance
from resd.settings import HardwareSettings, LossSettings, OptimizerSettings, PolicyGradientSettings
from resd.types import Sample

Stats = dict[str, Tensor]
Sums = dict[str, Tensor]  # [2]: the sum of a statistic over tokens, and over how many


@dataclass(frozen=True, slots=True)
class Objective:
    """What the loss is made of; each part acts on the samples that carry its ingredients."""

    loss: LossSettings
    temperature: float
    distillation: Distillation | None = None
    policy_gradient: PolicyGradientSettings | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model thinks of a response, a number for each of its tokens, in nats: log p of the token, and entropy.

    A teacher elsewhere tells no entropies.
    """

    logprobs: Sequence[float]
    entropies: Sequence[float]


class Learner:
    """Owns the student, the optimizer and the teacher. `steps` are the updates of the run, for its schedule."""

    def __init__(
        self,
        policy: Policy,
        teacher: Teacher | None,
        objective: Objective,
        optimizer: OptimizerSettings,
        hardware: HardwareSettings,
        *,
        pad_id: int,
        steps: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self.policy = policy
        self.teacher = teacher
        self.objective = objective
        self.settings = optimizer
        self.hardware = hardware
        self.steps = steps
        self.clock = clock or Clock()
        self.batcher = Batcher(
            budget=hardware.micro_batch_tokens,
            packed=policy.packed,
            teacher_packed=policy.packed if teacher is None else teacher.policy.packed,
            pad_id=pad_id,
            device=torch.device(hardware.device),
        )
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in policy.parameters() if parameter.requires_grad],
            lr=optimizer.lr,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )

    def update(self, samples: Sequence[Sample], step: int) -> dict[str, float]:
        """Learn from `samples` (the same list on every rank) and leave their `token_loss`.

        `step` starts at 1 and sets the learning rate. ValueError for a sample that needs a part which the objective
        lacks.
        """
        self._check(samples)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * rate(self.settings, step, self.steps)
        parts = self.settings.mini_batches
        scored = samples
        if parts > 1:
            scored = [replace(s, old_logprobs=old) for s, old in zip(samples, self.logprobs(samples), strict=True)]
        totals: Sums = defaultdict(_nothing)
        for part in range(parts):
            for name, value in self._step(scored[part::parts]).items():
                totals[name] += value
        for sample, same in zip(samples, scored, strict=True):
            sample.token_loss = same.token_loss
        if self.teacher is not None:
            self.teacher.update(self.policy)
        return self._metrics(totals, parts)

    def _step(self, samples: Sequence[Sample]) -> Sums:
        """One optimizer step; sums of statistics over all ranks, each with the number of tokens that have it."""
        sums: Sums = defaultdict(_nothing)
        losses: dict[int, list[float] | None] = {i: None for i, s in enumerate(samples) if s.teacher_prompt_ids is None}
        for batch in self.batcher.batches(samples, self.objective.loss.reduction):
            loss, stats = self._loss(batch)
            (loss * dist.world()).backward()  # FSDP2 averages gradients over ranks; the loss is a global sum
            tokens = {"loss": 0, "mismatch_kl": int((~batch.sampled_T.isnan()).sum())}
            spoken = len(batch.ids_T) if batch.spoken_T is None else int(batch.spoken_T.sum())
            for name, value in {"loss": loss.detach(), **stats}.items():
                sums[name] += torch.tensor([float(value), tokens.get(name, spoken)], dtype=torch.float64)
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
        return {**sums, "grad_norm": _sum(norm), "optimizer_steps": _sum(finite)}

    def _loss(self, batch: MicroBatch) -> tuple[Tensor, Stats]:
        objective = self.objective

        def token_loss(rows: slice, logprobs_C: Tensor, divergence_C: Tensor | None) -> tuple[Tensor, Stats]:
            now_C = logprobs_C.detach()
            old_C, sampled_C = _known(batch.old_T[rows], now_C), batch.sampled_T[rows]
            known_C = ~sampled_C.isnan()
            sampled_C = _known(sampled_C, old_C)
            importance_C = still_C = torch.ones_like(old_C)
            if (cap := objective.loss.importance_cap) is not None:
                importance_C = truncated_importance(old_C, sampled_C, cap)
                still_C = truncated_importance(now_C, old_C, cap)  # after earlier optimizer steps
            drift_C = (old_C - sampled_C) * known_C
            stats: Stats = {"mismatch_kl": (drift_C.expm1() - drift_C).sum()}
            loss = logprobs_C.new_zeros(())
            if divergence_C is not None:
                batch.divergence_T[rows] = divergence_C.detach()
                loss = loss + (divergence_C * importance_C * still_C * batch.divergence_weight_T[rows]).sum()
            if objective.policy_gradient is not None:
                surrogate_C, more = policy_gradient(
                    logprobs_C, old_C, batch.advantage_T[rows], **objective.policy_gradient.model_dump()
                )
                loss = loss + (surrogate_C * importance_C * batch.gradient_weight_T[rows]).sum()
                spoken_C = slice(None) if batch.spoken_T is None else batch.spoken_T[rows]
                stats |= {name: value_C[spoken_C].sum() for name, value_C in more.items()}
            if batch.demonstrated:
                loss = loss - (logprobs_C * batch.demonstration_weight_T[rows]).sum()
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

    def _teacher_head(self, batch: MicroBatch) -> TeacherHead | DistantTeacher | None:
        if batch.told is not None and self.objective.distillation is not None:
            return DistantTeacher(batch.told, self.objective.distillation, batch.spoken_T)
        if batch.teacher_rows is None or self.objective.distillation is None:
            return None
        assert self.teacher is not None
        with self.clock("teacher"):
            hidden_T_D = self.teacher.hidden(batch.teacher_rows)
            weight_V_D = self.teacher.output_embedding().to(hidden_T_D.dtype)
        return TeacherHead(hidden_T_D, weight_V_D, self.objective.distillation, batch.spoken_T)

    @torch.no_grad()
    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """log p of every response token under the student at the rollout temperature, on every rank."""
        found: dict[int, list[float]] = {}
        for indices in self.batcher.shares(samples):
            responses = [samples[i].response_ids for i in indices]
            hidden_T_D = self.policy(self.batcher.rows([samples[i].prompt_ids for i in indices], responses))
            logprobs_T = chunked_logprobs(
                hidden_T_D,
                self.policy.output_embedding,
                self.batcher.ids(responses),
                self.objective.temperature,
                self.hardware.head_chunk,
            )
            found |= zip(indices, [part.tolist() for part in logprobs_T.split(list(map(len, responses)))], strict=True)
        reshard(self.policy)
        return dist.merge(found, len(samples))

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> list[Scores]:
        """What the teacher thinks of the responses after `teacher_prompt_ids` (`prompt_ids` where there are none)."""
        assert self.teacher is not None, "this algorithm has no teacher"
        found: dict[int, Scores] = {}
        asked = [replace(s, prompt_ids=s.teacher_prompt_ids or s.prompt_ids, teacher_prompt_ids=None) for s in samples]
        for indices in self.batcher.shares(asked):
            responses = [asked[i].response_ids for i in indices]
            prompts = [asked[i].prompt_ids for i in indices]
            hidden_T_D = self.teacher.hidden(self.batcher.rows(prompts, responses, teacher=True))
            scores = chunked_scores(
                hidden_T_D,
                self.teacher.output_embedding().to(hidden_T_D.dtype),
                self.batcher.ids(responses),
                self.objective.temperature,
                self.hardware.head_chunk,
            )
            parts = (values_T.split(list(map(len, responses))) for values_T in scores)
            for i, logprobs_T, entropies_T in zip(indices, *parts, strict=True):
                found[i] = Scores(logprobs_T.tolist(), entropies_T.tolist())
        reshard(self.teacher.policy)
        return dist.merge(found, len(samples))

    def _check(self, samples: Sequence[Sample]) -> None:
        if self.objective.distillation is None and any(s.teacher_prompt_ids is not None for s in samples):
            raise ValueError("a sample has a teacher's prompt, but the algorithm has no objective")
        if self.objective.policy_gradient is None and any(s.advantage is not None for s in samples):
            raise ValueError("a sample has an advantage, but the algorithm has no policy_gradient")

    def _metrics(self, totals: Sums, steps: int) -> dict[str, float]:
        """Means: loss and norm over the optimizer steps, every other statistic over its tokens."""
        sums = {name: float(totals.pop(name, _nothing())[0]) for name in ("loss", "grad_norm", "optimizer_steps")}
        return {
            "loss": sums["loss"] / steps,
            "grad_norm": sums["grad_norm"] / steps,
            "skipped_steps": steps - sums["optimizer_steps"],
            "lr": self.optimizer.param_groups[0]["lr"],
            **{name: float(value) / max(1.0, float(tokens)) for name, (value, tokens) in totals.items()},
        }


def _known(values_C: Tensor, otherwise_C: Tensor) -> Tensor:
    return torch.where(values_C.isnan(), otherwise_C, values_C)


def _nothing() -> Tensor:
    return torch.zeros(2, dtype=torch.float64)


def _sum(value: Tensor | float) -> Tensor:
    return torch.tensor([float(value), 0.0], dtype=torch.float64)
