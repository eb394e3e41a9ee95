"""Distillation against an oracle in plain probabilities, the gradients of the clip, and the tail bucket."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from resd.objectives.distill import MAX_LOG_MASS, Distillation
from resd.types import UserError

float64 = partial(torch.tensor, dtype=torch.float64)
property_test = settings(deadline=None, max_examples=60)
UNCLIPPED = Distillation(ratio_min=None)

generators = {
    "forward_kl": lambda t, n: t * t.log(),
    "reverse_kl": lambda t, n: -t.log(),
    "jsd": lambda t, n: (t * t.log() - 2 * n * n.log()) / 2,
    "jeffreys": lambda t, n: (t - 1) * t.log(),
    "squared_hellinger": lambda t, n: (1 - t.sqrt()) ** 2 / 2,
    "total_variation": lambda t, n: (t - 1).abs() / 2,
}
distillations = st.builds(
    Distillation,
    divergence=st.sampled_from(sorted(generators)),
    top_k=st.integers(1, 9),
    select=st.sampled_from(["student", "teacher"]),
    support=st.sampled_from(["tail", "renormalise", "full"]),
    ratio_min=st.sampled_from([None, 0.2, 0.9]),
    ratio_max=st.sampled_from([None, 1.1, 5.0]),
    temperature=st.sampled_from([1.0, 0.6]),
)


def pair(seed: int, tokens: int = 4, vocabulary: int = 7, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, tokens, vocabulary, generator=random, dtype=torch.float64)
    return student.requires_grad_(), teacher


def oracle(rule: Distillation, student_V: Tensor, teacher_V: Tensor) -> Tensor:
    """One token, as the definition reads: p f(clip(q / p)) summed over buckets of probability."""
    p_V, q_V = (student_V / rule.temperature).softmax(0), (teacher_V / rule.temperature).softmax(0)
    if rule.support == "full" or rule.top_k >= len(p_V):
        p_K, q_K = p_V, q_V
    else:
        ids_K = (p_V if rule.select == "student" else q_V).argsort(descending=True)[: rule.top_k]
        p_K, q_K = p_V[ids_K], q_V[ids_K]
        if rule.support == "tail":
            p_K, q_K = (torch.cat([x_K, 1 - x_K.sum(0, keepdim=True)]) for x_K in (p_K, q_K))
        else:
            p_K, q_K = p_K / p_K.sum(), q_K / q_K.sum()
    constant_K = p_K.detach()
    q_K = q_K.clamp((rule.ratio_min or 0) * constant_K, (rule.ratio_max or math.inf) * constant_K)
    ratio_K = q_K / p_K
    return (p_K * generators[rule.divergence](ratio_K, (1 + ratio_K) / 2)).sum()


def loss_and_gradient(rule: Any, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    loss_C, _ = rule(student, teacher)
    return loss_C.detach(), torch.autograd.grad(loss_C.sum(), student)[0]


def clipped_gradient(divergence: str, p_K: Tensor, q_K: Tensor, alpha: float = 0.5) -> Tensor:
    rule = Distillation(divergence, alpha=alpha, support="full")
    return loss_and_gradient(rule, p_K.log()[None], q_K.log()[None])[1][0]


def chain_through_softmax(p_K: Tensor, push_K: Tensor) -> Tensor:
    """sum_v grad p_v push_v in the logits."""
    return p_K * (push_K - (p_K * push_K).sum())


@property_test
@given(rule=distillations, seed=st.integers(0, 10_000))
def test_loss_and_gradient_are_the_oracle_s(rule: Distillation, seed: int) -> None:
    student, teacher = pair(seed, scale=1.0)  # keeps tails above the 1e-7 at which they are clamped
    loss_C, gradient = loss_and_gradient(rule, student, teacher)
    expected_C = torch.stack([oracle(rule, *rows) for rows in zip(student, teacher, strict=True)])
    torch.testing.assert_close(loss_C, expected_C.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected_C.sum(), student)[0], rtol=1e-8, atol=1e-9)


@property_test
@given(rule=distillations, seed=st.integers(0, 10_000))
def test_a_support_beyond_the_vocabulary_is_the_full_one(rule: Distillation, seed: int) -> None:
    student, teacher = pair(seed)
    full = loss_and_gradient(replace(rule, support="full"), student, teacher)
    for support in ("tail", "renormalise"):
        for top_k in (7, 8, 10_000):
            other = loss_and_gradient(replace(rule, support=support, top_k=top_k), student, teacher)
            torch.testing.assert_close(other, full, rtol=1e-12, atol=1e-14)


@property_test
@given(rule=distillations, seed=st.integers(0, 10_000))
@example(Distillation(divergence="forward_kl", top_k=6, ratio_min=None, temperature=0.6), 2118)  # a saturated tail
def test_a_teacher_that_agrees_teaches_nothing(rule: Distillation, seed: int) -> None:
    student, _ = pair(seed)
    loss_C, gradient = loss_and_gradient(rule, student, student.detach())
    assert loss_C.abs().max() < 1e-12
    saturated = rule(student, student)[1]["topk_mass"].max() > math.exp(MAX_LOG_MASS)  # then the tail is a constant
    assert gradient.abs().max() < (-MAX_LOG_MASS / rule.temperature if saturated else 1e-12)


P, Q = float64([0.5, 0.3, 0.15, 0.05]), float64([1e-9, 0.25, 0.05, 0.7 - 1e-9])  # ratios ~0, 0.83, 0.33, 14


def test_reverse_kl_push_saturates_at_log_5() -> None:
    push_K = (P / torch.maximum(Q, 0.2 * P)).log()
    assert push_K[0].item() == pytest.approx(math.log(5), abs=1e-12)
    assert push_K[3].item() == pytest.approx(math.log(0.05 / 0.7), abs=1e-7)  # what the teacher prefers is not clipped
    expected_K = chain_through_softmax(P, push_K)
    torch.testing.assert_close(clipped_gradient("reverse_kl", P, Q), expected_K, rtol=0, atol=1e-10)


def test_jsd_push_at_the_floor() -> None:
    q_K = torch.maximum(Q, 0.2 * P)
    push_K = 0.5 * (2 * P / (P + q_K)).log()
    assert push_K[0].item() == pytest.approx(0.255, abs=5e-4)
    torch.testing.assert_close(clipped_gradient("jsd", P, Q), chain_through_softmax(P, push_K), rtol=0, atol=1e-10)
    skewed_K = chain_through_softmax(P, 0.7 * (P / (0.7 * P + 0.3 * q_K)).log())
    torch.testing.assert_close(clipped_gradient("jsd", P, Q, alpha=0.3), skewed_K, rtol=0, atol=1e-10)


def test_forward_kl_gradient_weighs_the_score_by_the_clipped_teacher() -> None:
    q_K = torch.maximum(Q, 0.2 * P)
    scores_K_V = torch.eye(4, dtype=torch.float64) - P  # grad log p_v in the logits
    torch.testing.assert_close(clipped_gradient("forward_kl", P, Q), -q_K @ scores_K_V, rtol=0, atol=1e-10)


def test_detached_clip_differs_from_a_literal_one_by_the_missing_one() -> None:
    """Differentiating p f(clip(q / p)) through p gives a clipped token grad p f(eps), not grad p (f(eps) + 1)."""
    logits_K = P.log().requires_grad_()
    p_K = logits_K.softmax(0)
    (p_K * -(Q / p_K).clamp(min=0.2).log()).sum().backward()
    clipped_K = (P * 0.2 > Q).double()
    assert clipped_K.tolist() == [1, 0, 0, 0]
    difference_K = clipped_gradient("reverse_kl", P, Q) - logits_K.grad
    torch.testing.assert_close(difference_K, chain_through_softmax(P, clipped_K), rtol=0, atol=1e-10)
    assert difference_K.abs().max() > 0.1


def test_every_bucket_clipped() -> None:
    """A teacher that is everywhere clipped to a multiple of the student leaves no preference, hence no gradient."""
    student, teacher = pair(0)
    rule = Distillation(ratio_min=1.0, ratio_max=1.0)
    loss_C, gradient = loss_and_gradient(rule, student, teacher)
    assert loss_C.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12
    stats = rule(student, teacher)[1]
    torch.testing.assert_close(stats["ratio_floored"] + stats["ratio_capped"], torch.ones(4, dtype=torch.float64))


@property_test
@given(seed=st.integers(0, 10_000), select=st.sampled_from(["student", "teacher"]), top_k=st.integers(1, 6))
def test_the_tail_bucket_makes_a_true_divergence(seed: int, select: str, top_k: int) -> None:
    student, teacher = pair(seed, tokens=8)
    rule = replace(UNCLIPPED, select=select, top_k=top_k)
    loss_C, _ = rule(student, teacher)
    full_C, _ = replace(rule, support="full")(student, teacher)
    assert (loss_C >= -1e-9).all()
    assert (loss_C <= full_C + 1e-9).all()  # merging buckets can only lose information


def test_without_the_tail_the_truncated_sum_is_no_divergence() -> None:
    p, q = float64([[0.6, 0.2, 0.1, 0.1]]), float64([[0.8, 0.15, 0.04, 0.01]])
    truncated = (p * (p / q).log())[:, :2].sum()
    assert truncated < -0.1
    for support in ("tail", "renormalise", "full"):
        loss_C, _ = replace(UNCLIPPED, top_k=2, support=support)(p.log(), q.log())
        assert loss_C.item() > 0


def test_the_floor_also_holds_the_tail_and_nothing_is_renormalised() -> None:
    p, q = float64([[0.5, 0.1, 0.2, 0.2]]), float64([[0.9, 0.09, 0.005, 0.005]])
    loss_C, stats = Distillation("forward_kl", top_k=1)(p.log(), q.log())
    assert loss_C.item() == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    assert stats["ratio_floored"].item() == 0  # 0.1 / 0.5 is exactly the floor
    q = float64([[0.99, 0.004, 0.003, 0.003]])
    loss_C, stats = Distillation("forward_kl", top_k=1)(p.log(), q.log())
    assert loss_C.item() == pytest.approx(0.99 * math.log(0.99 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    assert stats["ratio_floored"].item() == 0.5


def test_a_saturated_tail_counts_1e_7_and_sends_no_gradient() -> None:
    student = torch.tensor([[40.0, 39.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[39.0, 40.0, 0.0, 0.0]])
    loss_C, stats = Distillation(top_k=2)(student, teacher)
    loss_C.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 2:].abs().max() < 1e-15
    assert stats["topk_mass"].item() == pytest.approx(1, abs=1e-7)  # float32 logits near 40 are known to 4e-6 alone
    even = torch.zeros(1, 4)
    loss_C, _ = Distillation("forward_kl", top_k=2, ratio_min=None)(student, even)
    masses = zip((0.25, 0.25, 0.5), (1 / (1 + math.exp(-1)), 1 / (1 + math.e), 1e-7), strict=True)
    assert loss_C.item() == pytest.approx(sum(q * math.log(q / p) for q, p in masses), rel=1e-5)


@pytest.mark.parametrize("divergence", sorted(generators))
@pytest.mark.parametrize("support", ["tail", "renormalise", "full"])
def test_masked_and_extreme_logits_stay_finite(divergence: str, support: Any) -> None:
    """Logits of -inf (a masked or padded vocabulary) on either side, and near-certain tokens, in float32."""
    inf = math.inf
    student = torch.tensor([[0.0, 1, -inf, -inf], [200, 0, 0, 0], [0, 1, 2, 3]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1, 2, -inf], [0, 200, -200, 0], [0, -inf, 2, 3]])
    for ratio_min in (0.2, None):
        for top_k in (1, 3):
            rule = Distillation(divergence, support=support, top_k=top_k, ratio_min=ratio_min)
            loss_C, stats = rule(student, teacher)
            (gradient,) = torch.autograd.grad(loss_C.sum(), student)
            assert loss_C.isfinite().all()
            assert gradient.isfinite().all()
            assert all(value_C.isfinite().all() for value_C in stats.values())


def test_float32_agrees_with_float64() -> None:
    student, teacher = pair(1, tokens=64, vocabulary=1000, scale=4.0)
    for divergence in generators:
        rule = Distillation(divergence, top_k=50)
        loss_C, gradient = loss_and_gradient(rule, student, teacher)
        loss32_C, gradient32 = loss_and_gradient(rule, student.float(), teacher.float())
        torch.testing.assert_close(loss32_C.double(), loss_C, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gradient32.double(), gradient, rtol=1e-3, atol=1e-6)


def test_statistics_by_hand() -> None:
    p, q = float64([[0.5, 0.3, 0.1, 0.1]]), float64([[0.05, 0.15, 0.4, 0.4]])
    student = p.log().requires_grad_()
    loss_C, stats = Distillation(top_k=2, ratio_max=3.0)(student, q.log())
    entropy = {name: -sum(x * math.log(x) for x in buckets) for name, buckets in
               {"student_entropy": (0.5, 0.3, 0.2), "teacher_entropy": (0.05, 0.15, 0.8)}.items()}  # fmt: skip
    expected = {"topk_mass": 0.8, "teacher_topk_mass": 0.2, "ratio_floored": 1 / 3, "ratio_capped": 1 / 3, **entropy}
    assert {name: value_C.item() for name, value_C in stats.items()} == pytest.approx(expected)
    assert loss_C.requires_grad
    assert not any(value_C.requires_grad for value_C in stats.values())
    full = replace(UNCLIPPED, support="full")(student, q.log())[1]
    assert full["topk_mass"].item() == full["teacher_topk_mass"].item() == 1


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = pair(2)
    loss_C, _ = Distillation(top_k=3)(student, teacher.requires_grad_())
    loss_C.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_no_token_gives_no_loss() -> None:
    for support in ("tail", "renormalise", "full"):
        loss_C, stats = Distillation(support=support, top_k=3)(torch.zeros(0, 7), torch.zeros(0, 7))
        assert loss_C.shape == (0,)
        assert {value_C.shape for value_C in stats.values()} == {(0,)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"divergence": "kl"}, "reverse_kl"),
        ({"divergence": "jsd", "alpha": 1.0}, "reverse_kl"),
        ({"select": "both"}, "student, teacher"),
        ({"support": "top_p"}, "tail, renormalise, full"),
        ({"top_k": 0}, "at least 1"),
        ({"ratio_min": 0.0}, "null"),
        ({"ratio_min": 1.5}, "null"),
        ({"ratio_max": 0.5}, "null"),
        ({"temperature": 0.0}, "positive"),
    ],
)
def test_values_that_cannot_work_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Distillation(**wrong)
