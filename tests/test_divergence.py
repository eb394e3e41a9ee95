"""Divergences against closed forms written in probabilities, and the gradients they send to the student."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.objectives import divergence as module
from resd.objectives.divergence import divergence, register
from resd.types import UserError

float64 = partial(torch.tensor, dtype=torch.float64)
property_test = settings(deadline=None, max_examples=40)
logits_K = st.lists(st.floats(-8, 8), min_size=2, max_size=9).map(float64)
ratios = st.floats(1e-6, 1e6)

ALPHAS = {"jsd": [0.1, 0.5, 0.9]}
CASES = [(name, alpha) for name in sorted(module._FORMULAS) for alpha in ALPHAS.get(name, [0.5])]
every_case = pytest.mark.parametrize(("name", "alpha"), CASES)


def generator(name: str, t: float, alpha: float) -> float:
    """f of D = sum p f(q / p), written independently of logarithms of p and q."""
    n = 1 - alpha + alpha * t
    return {
        "forward_kl": lambda: t * math.log(t),
        "reverse_kl": lambda: -math.log(t),
        "jsd": lambda: alpha * t * math.log(t) - n * math.log(n),
        "jeffreys": lambda: (t - 1) * math.log(t),
        "squared_hellinger": lambda: (1 - math.sqrt(t)) ** 2 / 2,
        "total_variation": lambda: abs(t - 1) / 2,
    }[name]()


def total(name: str, alpha: float, p_K: torch.Tensor, q_K: torch.Tensor) -> float:
    return divergence(name, alpha)(p_K.log()[None], q_K.log()[None]).sum().item()


def logits_gradient(name: str, alpha: float, student_K: torch.Tensor, log_q_K: torch.Tensor) -> torch.Tensor:
    student_K = student_K.clone().requires_grad_()
    divergence(name, alpha)(student_K.log_softmax(-1)[None], log_q_K[None]).sum().backward()
    assert student_K.grad is not None
    return student_K.grad


def chain_through_softmax(p_K: torch.Tensor, push_K: torch.Tensor) -> torch.Tensor:
    """sum_v grad p_v push_v in the logits."""
    return p_K * (push_K - (p_K * push_K).sum())


@every_case
@property_test
@given(t=ratios, p=st.floats(1e-9, 1.0))
def test_value_is_p_times_the_generator(name: str, alpha: float, t: float, p: float) -> None:
    value = divergence(name, alpha)(float64([[math.log(p)]]), float64([[math.log(p * t)]]))
    # near t = 1 both sides cancel; what is left is the rounding of terms of size p (1 + t)
    assert value.item() == pytest.approx(p * generator(name, t, alpha), rel=1e-9, abs=1e-13 * p * (1 + t))


def test_equal_weights_give_the_paper_s_jsd() -> None:
    for t in (0.01, 0.2, 1.0, 3.0):
        paper = t / 2 * math.log(t) - (t + 1) / 2 * math.log((t + 1) / 2)
        assert generator("jsd", t, 0.5) == pytest.approx(paper, abs=1e-15)


@every_case
@property_test
@given(left=ratios, right=ratios, share=st.floats(0, 1))
def test_generator_is_convex_and_vanishes_at_one(
    name: str, alpha: float, left: float, right: float, share: float
) -> None:
    def f(t: float) -> float:
        return divergence(name, alpha)(float64([[0.0]]), float64([[t]]).log()).item()

    assert f(1.0) == pytest.approx(0, abs=1e-15)
    chord = share * f(left) + (1 - share) * f(right)
    assert f(share * left + (1 - share) * right) <= chord + 1e-9 * (1 + abs(chord))


@every_case
@property_test
@given(student_K=logits_K, seed=st.integers(0, 1000))
def test_nonnegative_and_zero_with_zero_gradient_at_equality(
    name: str, alpha: float, student_K: torch.Tensor, seed: int
) -> None:
    p_K = student_K.softmax(-1)
    q_K = torch.randn(len(p_K), generator=torch.Generator().manual_seed(seed)).double().softmax(-1)
    assert total(name, alpha, p_K, q_K) >= 0
    assert abs(total(name, alpha, p_K, p_K)) < 1e-14
    assert logits_gradient(name, alpha, student_K, student_K.log_softmax(-1)).abs().max() < 1e-14


@every_case
def test_gradient_agrees_with_finite_differences(name: str, alpha: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    log_q = teacher.log_softmax(-1)
    loss = lambda logits: divergence(name, alpha)(logits.log_softmax(-1), log_q).sum(-1)  # noqa: E731
    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@property_test
@given(student_K=logits_K, seed=st.integers(0, 1000), alpha=st.floats(0.05, 0.95))
def test_gradients_have_the_closed_forms_also_for_an_unnormalised_teacher(
    student_K: torch.Tensor, seed: int, alpha: float
) -> None:
    p_K = student_K.softmax(-1)
    log_q_K = torch.randn(len(p_K), generator=torch.Generator().manual_seed(seed)).double() * 3
    q_K, log_p_K = log_q_K.exp(), student_K.log_softmax(-1)
    m_K = (1 - alpha) * p_K + alpha * q_K
    expected = {
        "reverse_kl": chain_through_softmax(p_K, log_p_K - log_q_K),
        "jsd": chain_through_softmax(p_K, (1 - alpha) * (p_K / m_K).log()),
        "forward_kl": -q_K + p_K * q_K.sum(),
    }
    for name, gradient_K in expected.items():
        torch.testing.assert_close(logits_gradient(name, alpha, student_K, log_q_K), gradient_K, rtol=1e-10, atol=1e-10)


@property_test
@given(p_K=logits_K, seed=st.integers(0, 1000))
def test_known_relations_and_bounds(p_K: torch.Tensor, seed: int) -> None:
    p_K = p_K.softmax(-1)
    q_K = (5 * torch.randn(len(p_K), generator=torch.Generator().manual_seed(seed)).double()).softmax(-1)
    forward, reverse = total("forward_kl", 0.5, p_K, q_K), total("reverse_kl", 0.5, p_K, q_K)
    assert forward == pytest.approx(total("reverse_kl", 0.5, q_K, p_K))
    assert total("jeffreys", 0.5, p_K, q_K) == pytest.approx(forward + reverse)
    assert total("jsd", 0.3, p_K, q_K) == pytest.approx(total("jsd", 0.7, q_K, p_K), abs=1e-15)
    assert total("jsd", 0.5, p_K, q_K) <= math.log(2)
    variation, hellinger = total("total_variation", 0.5, p_K, q_K), total("squared_hellinger", 0.5, p_K, q_K)
    assert hellinger <= variation + 1e-15
    assert variation <= math.sqrt(hellinger * (2 - hellinger)) + 1e-12
    assert variation**2 <= reverse / 2 + 1e-15  # Pinsker


def test_skewed_jsd_tends_to_the_kl_divergences() -> None:
    p_K, q_K = float64([0.7, 0.2, 0.1]), float64([0.1, 0.3, 0.6])
    assert total("jsd", 1e-6, p_K, q_K) / 1e-6 == pytest.approx(total("forward_kl", 0, p_K, q_K), rel=1e-4)
    assert total("jsd", 1 - 1e-6, p_K, q_K) / 1e-6 == pytest.approx(total("reverse_kl", 0, p_K, q_K), rel=1e-4)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_probabilities_stay_finite(name: str, alpha: float, dtype: torch.dtype) -> None:
    extremes = torch.tensor([0.0, -1e-7, -20.0, -200.0, -1e4], dtype=dtype)
    log_p, log_q = torch.meshgrid(extremes, extremes, indexing="ij")
    log_p = log_p.clone().requires_grad_()
    value = divergence(name, alpha)(log_p, log_q)
    value.sum().backward()
    assert log_p.grad is not None
    assert value.isfinite().all()
    assert log_p.grad.isfinite().all()
    assert value.diagonal().abs().max() < 1e-6


def test_unknown_names_and_impossible_alphas_are_refused() -> None:
    with pytest.raises(UserError, match="forward_kl, jeffreys, jsd, reverse_kl"):
        divergence("kl", 0.5)
    for alpha in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(UserError, match="strictly between 0 and 1"):
            divergence("jsd", alpha)
        assert divergence("reverse_kl", alpha)


def test_a_new_divergence_is_one_registered_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FORMULAS", dict(module._FORMULAS))

    @register("pearson")
    def pearson(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
        return (log_q.exp() - log_p.exp()).square() / log_p.exp()

    assert total("pearson", 0.5, torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="already"):
        register("pearson")(pearson)
