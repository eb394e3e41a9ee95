"""The learner against plain autograd over whole logits."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
import yaml
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from resd.config import CONF
from resd.learn.learner import Learner, Objective
from resd.model.hidden import Policy
from resd.model.shard import full_tensors, shard
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.settings import HardwareSettings, LossSettings, OptimizerSettings, PolicyGradientSettings
from resd.types import Sample

CPU = yaml.safe_load((CONF / "hardware" / "cpu.yaml").read_text())
HARDWARE = HardwareSettings(**CPU | {"micro_batch_tokens": 64, "head_chunk": 5})
OPTIMIZER = OptimizerSettings(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, warmup=0, grad_clip=1.0, mini_batches=1)
LOSS = LossSettings(importance_cap=2.0, reduction="sequence_mean")
CLIP = PolicyGradientSettings(clip_low=0.2, clip_high=0.28, dual_clip=3.0)
DISTIL = Distillation(divergence="jsd", alpha=0.3, top_k=7, ratio_min=0.2, ratio_max=5.0)


def samples(count: int = 6, *, teacher: bool = True, advantage: bool = False) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 250, (length,), generator=generator).tolist()

    return [
        Sample(
            ids(3 + i),
            response := ids(2 + 3 * i),
            [-5.0 - 0.1 * t for t in range(len(response))],
            ids(9 - i) if teacher else None,
            advantage=0.5 * (-1) ** i if advantage else None,
            weight=0.5 + 0.25 * i,
        )
        for i in range(count)
    ]


def make(
    mesh: DeviceMesh,
    *,
    kind: Any = "ema",
    rate: float = 0.25,
    objective: Objective | None = None,
    tied: bool = True,
    **changes: Any,
) -> Learner:
    hardware = HARDWARE.model_copy(update={k: v for k, v in changes.items() if k in HardwareSettings.model_fields})
    optimizer = OPTIMIZER.model_copy(update={k: v for k, v in changes.items() if k in OptimizerSettings.model_fields})
    student = shard(Policy(tiny.model(0, tied=tied)), mesh, torch.float32)
    weights = student if kind == "live" else shard(Policy(tiny.model(1, tied=tied)), mesh, torch.float32)
    objective = objective or Objective(LOSS, 1.0, DISTIL, None)
    return Learner(student, Teacher(weights, kind, rate), objective, optimizer, hardware, pad_id=0)


def logits(lm: Any, prompt: Any, response: Any) -> Tensor:
    whole = torch.tensor([[*prompt, *response]])
    return lm(whole).logits[0, len(prompt) - 1 : -1]


def oracle(batch: list[Sample], objective: Objective, tied: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, one sample at a time, whole logits, plain autograd."""
    student, teacher = tiny.model(0, tied=tied), tiny.model(1, tied=tied)
    total = torch.zeros(())
    tokens = sum(len(s.response_ids) for s in batch)
    for sample in batch:
        z_T_V = logits(student, sample.prompt_ids, sample.response_ids)
        ids_T = torch.tensor(sample.response_ids)
        logp_T = (z_T_V / objective.temperature).log_softmax(-1).gather(-1, ids_T[:, None])[:, 0]
        weight_T = (logp_T.detach() - torch.tensor(sample.sampled_logprobs)).exp().clamp(max=2.0)
        loss_T = torch.zeros(len(ids_T))
        if sample.teacher_prompt_ids is not None and objective.distillation is not None:
            with torch.no_grad():
                q_T_V = logits(teacher, sample.teacher_prompt_ids, sample.response_ids)
            loss_T = loss_T + objective.distillation(z_T_V, q_T_V)[0]
        if sample.advantage is not None:
            loss_T = loss_T - (logp_T - logp_T.detach()).exp() * sample.advantage
        mean = objective.loss.reduction == "sequence_mean"
        total = total + sample.weight * (weight_T * loss_T).sum() / (len(batch) * len(ids_T) if mean else tokens)
    total.backward()
    return total.detach(), {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def gradients(learner: Learner, batch: list[Sample]) -> tuple[float, dict[str, Tensor]]:
    """The learner's loss and gradients, caught before the optimizer sees them."""
    caught: dict[str, Tensor] = {}

    def catch(*_: Any) -> None:
        for name, p in learner.policy.lm.named_parameters():
            caught[name] = p.grad.full_tensor().clone()

    learner.settings = learner.settings.model_copy(update={"grad_clip": 1e9})
    learner.optimizer.register_step_pre_hook(catch)
    return learner.update(batch, 1)["loss"], caught


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize("parts", ["distil", "gradient", "both"])
def test_equals_plain_autograd(mesh: DeviceMesh, reduction: Any, parts: str, tied: bool) -> None:
    objective = Objective(
        LossSettings(importance_cap=2.0, reduction=reduction),
        0.7,
        replace(DISTIL, temperature=0.7) if parts != "gradient" else None,
        CLIP if parts != "distil" else None,
    )
    batch = samples(teacher=parts != "gradient", advantage=parts != "distil")
    loss, found = gradients(make(mesh, objective=objective, tied=tied), batch)
    expected_loss, expected = oracle(batch, objective, tied)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_micro_batches_and_chunks_change_nothing(mesh: DeviceMesh) -> None:
    batch = samples()
    loss, found = gradients(make(mesh, micro_batch_tokens=10_000, head_chunk=10_000), batch)
    for changes in ({"micro_batch_tokens": 1}, {"micro_batch_tokens": 50, "head_chunk": 1}):
        other_loss, other = gradients(make(mesh, **changes), batch)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in found.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_sample_without_signal_only_dilutes(mesh: DeviceMesh) -> None:
    """SDPO's skipped successes stay in the denominator, as in the released loss."""
    batch = samples(3)
    silent = replace(batch[0], teacher_prompt_ids=None)
    alone, _ = gradients(make(mesh), batch)
    diluted, _ = gradients(make(mesh), [*batch, silent, silent, silent])
    assert diluted == pytest.approx(alone / 2, rel=1e-5)


def test_nothing_to_learn_is_not_a_step(mesh: DeviceMesh) -> None:
    learner = make(mesh)
    before = weights(learner.policy)
    metrics = learner.update([replace(s, teacher_prompt_ids=None) for s in samples()], 1)
    assert (metrics["loss"], metrics["skipped_steps"]) == (0.0, 1.0)
    assert all(torch.equal(before[name], w) for name, w in weights(learner.policy).items())
    assert learner.update([], 2)["loss"] == 0.0


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_token_losses_add_up_to_the_loss(mesh: DeviceMesh, mini_batches: int) -> None:
    objective = Objective(LossSettings(importance_cap=None, reduction="sequence_mean"), 1.0, DISTIL, None)
    batch = [*samples(), *(replace(s, teacher_prompt_ids=None) for s in samples(2))]
    loss = make(mesh, objective=objective, mini_batches=mini_batches, lr=0.05).update(batch, 1)["loss"]
    assert [len(s.token_loss or ()) for s in batch] == [len(s.response_ids) for s in batch[:-2]] + [0, 0]
    means = [s.weight * sum(s.token_loss) / len(s.token_loss) for s in batch if s.token_loss is not None]
    assert loss == pytest.approx(sum(means) / len(batch), rel=1e-5)
    assert batch[-1].token_loss is None


def test_a_mask_silences_tokens(mesh: DeviceMesh) -> None:
    batch = samples(2)
    half = [replace(s, mask=[t % 2 == 0 for t in range(len(s.response_ids))]) for s in batch]
    everything = [replace(s, mask=[True] * len(s.response_ids)) for s in batch]
    assert gradients(make(mesh), everything)[0] == pytest.approx(gradients(make(mesh), batch)[0])
    assert gradients(make(mesh), half)[0] != pytest.approx(gradients(make(mesh), batch)[0])
    nothing = [replace(s, mask=[False] * len(s.response_ids)) for s in batch]
    assert gradients(make(mesh), nothing)[0] == 0.0


def test_warm_up(mesh: DeviceMesh) -> None:
    learner = make(mesh, warmup=4)
    rates = [learner.update(samples(2), step)["lr"] for step in range(1, 7)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_a_non_finite_gradient_skips_the_step(mesh: DeviceMesh) -> None:
    learner = make(mesh)
    before = weights(learner.policy)
    metrics = learner.update([replace(s, weight=float("inf")) for s in samples()], 1)
    assert metrics["skipped_steps"] == 1.0
    assert all(torch.equal(before[name], w) for name, w in weights(learner.policy).items())


def test_several_optimizer_steps_clip_against_the_old_policy(mesh: DeviceMesh) -> None:
    objective = Objective(LossSettings(importance_cap=None, reduction="sequence_mean"), 1.0, None, CLIP)
    learner = make(mesh, objective=objective, mini_batches=3, lr=0.05)
    metrics = learner.update(samples(6, teacher=False, advantage=True), 1)
    assert metrics["skipped_steps"] == 0.0
    assert metrics["policy_kl"] > 1e-4  # later steps see a policy that has moved from the old one
    assert make(mesh, objective=objective, lr=0.05).update(samples(6, teacher=False, advantage=True), 1)[
        "policy_kl"
    ] == pytest.approx(0.0, abs=1e-6)


def test_more_mini_batches_than_samples_are_steps_that_are_not_made(mesh: DeviceMesh) -> None:
    metrics = make(mesh, mini_batches=4).update(samples(2), 1)
    assert (metrics["skipped_steps"], metrics["loss"] > 0) == (2.0, True)


def test_a_divergence_counts_by_how_likely_its_token_still_is(mesh: DeviceMesh) -> None:
    """After the first of several optimizer steps; somebody else's token, which nobody sampled, counts as ever."""
    learner, batch = make(mesh, mini_batches=2, lr=0.02, grad_clip=1e9), samples(6)
    batch[3] = replace(batch[3], sampled_logprobs=None)
    steps: list[list[dict[str, Tensor]]] = []

    def catch(*_: Any) -> None:
        named = list(learner.policy.lm.named_parameters())
        steps.append(
            [{name: t.full_tensor().clone() for name, t in each} for each in (named, [(n, p.grad) for n, p in named])]
        )

    learner.optimizer.register_step_pre_hook(catch)
    learner.update(batch, 1)
    now, found = steps[1]
    old, student, teacher = tiny.model(0), tiny.model(0), tiny.model(1)
    student.load_state_dict(now, strict=False)
    total, moves = torch.zeros(()), []
    for s in batch[1::2]:
        ids_T = torch.tensor(s.response_ids)[:, None]
        z_T_V = logits(student, s.prompt_ids, s.response_ids)
        with torch.no_grad():
            before_T = logits(old, s.prompt_ids, s.response_ids).log_softmax(-1).gather(-1, ids_T)[:, 0]
            now_T = z_T_V.log_softmax(-1).gather(-1, ids_T)[:, 0]
            q_T_V = logits(teacher, s.teacher_prompt_ids, s.response_ids)
        weight_T = torch.ones(len(ids_T))
        if s.sampled_logprobs is not None:
            engine_T = (before_T - torch.tensor(s.sampled_logprobs)).exp().clamp(max=2.0)
            moves.append((now_T - before_T).exp())
            weight_T = engine_T * moves[-1].clamp(max=2.0)
        total = total + s.weight * (weight_T * DISTIL(z_T_V, q_T_V)[0]).mean() / 3
    total.backward()
    assert torch.cat(moves).max() > 2
    assert torch.cat(moves).min() < 0.5
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_logprobs_are_the_models(mesh: DeviceMesh) -> None:
    batch = samples()
    for sample, found in zip(batch, make(mesh).logprobs(batch), strict=True):
        expected = logits(tiny.model(0), sample.prompt_ids, sample.response_ids).log_softmax(-1)
        expected_T = expected.gather(-1, torch.tensor(sample.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found), expected_T, rtol=1e-4, atol=1e-5)


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: copy.deepcopy(w) for name, w in full_tensors(policy)}


def test_ema_moves_toward_the_student_by_its_rate(mesh: DeviceMesh) -> None:
    learner = make(mesh, kind="ema", rate=0.25)
    assert learner.teacher is not None
    before = weights(learner.teacher.policy)
    learner.update(samples(), 1)
    student, after = weights(learner.policy), weights(learner.teacher.policy)
    for name, old in before.items():
        torch.testing.assert_close(after[name], 0.75 * old + 0.25 * student[name])
        if old.ndim > 1:
            assert not torch.equal(after[name], old), name
            assert (after[name] - student[name]).norm() < (old - student[name]).norm()


def test_ema_moves_at_the_papers_rate(mesh: DeviceMesh) -> None:
    """In bfloat16 a step of 1e-4 would round to nothing."""
    learner = make(mesh, kind="ema", rate=1e-4)
    assert learner.teacher is not None
    before = weights(learner.teacher.policy)
    learner.update(samples(), 1)
    moved = [not torch.equal(w, before[n]) for n, w in weights(learner.teacher.policy).items() if w.ndim > 1]
    assert all(moved)


def test_frozen_stays_and_live_is_the_student(mesh: DeviceMesh) -> None:
    frozen = make(mesh, kind="frozen")
    assert frozen.teacher is not None
    before = weights(frozen.teacher.policy)
    frozen.update(samples(), 1)
    assert all(torch.equal(w, before[n]) for n, w in weights(frozen.teacher.policy).items())
    live = make(mesh, kind="live")
    live.update(samples(), 1)
    assert live.teacher is not None
    assert live.teacher.policy is live.policy


def test_live_teacher_in_the_same_context_has_nothing_to_teach(mesh: DeviceMesh) -> None:
    same = [replace(s, teacher_prompt_ids=s.prompt_ids) for s in samples()]
    metrics = make(mesh, kind="live").update(same, 1)
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(0.0, abs=1e-5)


def test_learning_brings_the_student_to_the_teacher(mesh: DeviceMesh) -> None:
    learner = make(mesh, kind="frozen", lr=3e-3, objective=Objective(LOSS, 1.0, Distillation(ratio_min=None), None))
    losses = [learner.update(samples(), step)["loss"] for step in range(1, 31)]
    assert losses[-1] < 0.5 * losses[0]
