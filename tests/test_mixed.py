"""One batch with every kind of sample, against plain autograd in float64; and what each algorithm makes of attempts."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from test_learner import CLIP, HARDWARE, LOSS, OPTIMIZER, gradients, logits
from test_train import environment
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from resd.learn.learner import Learner, Objective
from resd.model.hidden import Policy
from resd.model.shard import shard
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.types import Sample

DISTIL = Distillation(divergence="forward_kl", top_k=9, ratio_min=None)
OBJECTIVE = Objective(LOSS, 1.0, DISTIL, CLIP)


def double(mesh: DeviceMesh) -> Learner:
    student, teacher = (shard(Policy(tiny.model(seed).double()), mesh, torch.float64) for seed in (0, 1))
    return Learner(student, Teacher(teacher, "frozen"), OBJECTIVE, OPTIMIZER, HARDWARE, pad_id=0)


def batch() -> list[Sample]:
    """Divergence, weighted by token; advantages by token; a demonstration, plain and with a teacher; plain ones."""
    said = [list(range(20 + 7 * i, 24 + 8 * i)) for i in range(7)]
    prompts = [[5, 6, 7 + i] for i in range(7)]
    sampled = [[-5.0 - 0.1 * t for t in range(len(ids))] for ids in said]
    several = [Sample(*each) for each in zip(prompts, said, sampled, strict=True)]
    several[0] = replace(several[0], teacher_prompt_ids=[9, 8], pull=[0.5 * t for t in range(len(said[0]))])
    several[1] = replace(several[1], advantage=[(-1.0) ** t * 0.3 * t for t in range(len(said[1]))])
    several[2] = replace(several[2], sampled_logprobs=None, weight=0.7)
    several[3] = replace(several[3], sampled_logprobs=None, teacher_prompt_ids=[11, 12, 13], pull=0.2)
    several[4] = replace(
        several[4], teacher_prompt_ids=[14], advantage=-0.8, mask=[t != 1 for t in range(len(said[4]))]
    )
    several[5] = replace(several[5], advantage=0.0)
    return several


def spread(value: object, tokens: int) -> Tensor:
    return torch.tensor(value if isinstance(value, list) else [value] * tokens, dtype=torch.float64)


def oracle(samples: list[Sample]) -> tuple[float, dict[str, Tensor]]:
    """The definition in `types.Sample`, one sample at a time."""
    student, teacher = tiny.model(0).double(), tiny.model(1).double()
    total = torch.zeros((), dtype=torch.float64)
    for s in samples:
        z_T_V, ids_T = logits(student, s.prompt_ids, s.response_ids), torch.tensor(s.response_ids)
        logp_T = z_T_V.log_softmax(-1).gather(-1, ids_T[:, None])[:, 0]
        mask_T = spread(list(s.mask or [True] * len(ids_T)), len(ids_T)).double()
        weight_T = torch.ones_like(logp_T)
        if s.sampled_logprobs is not None:
            weight_T = (logp_T.detach() - torch.tensor(s.sampled_logprobs)).exp().clamp(max=2.0)
        loss_T = torch.zeros_like(logp_T)
        if s.teacher_prompt_ids is not None:
            with torch.no_grad():
                q_T_V = logits(teacher, s.teacher_prompt_ids, s.response_ids)
            loss_T = loss_T + spread(s.pull, len(ids_T)) * DISTIL(z_T_V, q_T_V)[0]
        if s.advantage is not None:
            loss_T = loss_T - (logp_T - logp_T.detach()).exp() * spread(s.advantage, len(ids_T))
        if s.teacher_prompt_ids is None and s.advantage is None and s.sampled_logprobs is None:
            loss_T = loss_T - logp_T
        total = total + s.weight * (mask_T * weight_T * loss_T).sum() / (len(samples) * mask_T.sum())
    total.backward()
    return total.item(), {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def test_a_mixed_batch_is_plain_autograd(mesh: DeviceMesh) -> None:
    same_as_oracle(*gradients(double(mesh), batch()))


def test_two_processes_share_a_mixed_batch(tmp_path: Path) -> None:
    file = tmp_path / "found.pt"
    command = [sys.executable, str(Path(__file__).parent / "mixed_ranks.py"), "2", str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.load(file)
    first, second = found["shares"].values()
    assert sorted(first + second) == [0, 1, 2, 3, 4]  # the others have no gradient
    assert first
    assert second
    same_as_oracle(found["loss"], found["gradients"])


def same_as_oracle(loss: float, found: dict[str, Tensor]) -> None:
    expected_loss, expected = oracle(batch())
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize("changed", [{"pull": 1.0}, {"teacher_prompt_ids": None}])
def test_each_ingredient_counts(mesh: DeviceMesh, changed: dict[str, object]) -> None:
    other = batch()
    other[0] = replace(other[0], **changed)  # type: ignore[arg-type]
    assert gradients(double(mesh), other)[0] != pytest.approx(gradients(double(mesh), batch())[0], rel=1e-4)


def test_advantages_of_zero_cost_no_forward_pass(mesh: DeviceMesh) -> None:
    learner = double(mesh)
    passes = []
    learner.policy.register_forward_hook(lambda *_: passes.append(1))
    silent = [replace(s, advantage=0.0, teacher_prompt_ids=None) for s in batch() if s.sampled_logprobs is not None]
    silent[0].advantage = [0.0] * len(silent[0].response_ids)
    metrics = learner.update(silent, 1)
    assert (passes, metrics["loss"], metrics["skipped_steps"]) == ([], 0.0, 1.0)


def test_mismatch_is_that_of_sampled_tokens(mesh: DeviceMesh) -> None:
    """Who demonstrates was not sampled: such tokens enter neither the sum nor its denominator."""
    both = [batch()[1], batch()[2]]
    alone = double(mesh).update(both[:1], 1)["mismatch_kl"]
    assert double(mesh).update(both, 1)["mismatch_kl"] == pytest.approx(alone, rel=1e-6)


def test_scores_are_the_teachers(mesh: DeviceMesh) -> None:
    learner, samples = double(mesh), batch()
    for sample, found in zip(samples, learner.score(samples), strict=True):
        prompt = sample.teacher_prompt_ids or sample.prompt_ids
        log_q_T_V = logits(tiny.model(1).double(), prompt, sample.response_ids).log_softmax(-1)
        ids_T = torch.tensor(sample.response_ids)
        logprobs_T = log_q_T_V.gather(-1, ids_T[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found.logprobs, dtype=torch.float64), logprobs_T)
        entropy_T = -(log_q_T_V.exp() * log_q_T_V).sum(-1)
        torch.testing.assert_close(torch.tensor(found.entropies, dtype=torch.float64), entropy_T)


def test_a_number_a_token_has_one_for_each(mesh: DeviceMesh) -> None:
    wrong = replace(batch()[1], advantage=[1.0])
    with pytest.raises(ValueError, match="1 numbers for a response of"):
        double(mesh).update([wrong], 1)


def test_an_ingredient_needs_its_part_of_the_objective(mesh: DeviceMesh) -> None:
    learner = double(mesh)
    learner.objective = replace(OBJECTIVE, policy_gradient=None)
    with pytest.raises(ValueError, match="no policy_gradient"):
        learner.update(batch(), 1)
