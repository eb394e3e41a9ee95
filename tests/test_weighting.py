"""The paper's rebalancing, the importance cap, and token weights that do not depend on batching."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.objectives.weighting import Reduction, success_weights, token_weights, truncated_importance

property_test = settings(deadline=None, max_examples=60)
outcomes = st.lists(st.booleans(), min_size=1, max_size=40).map(torch.tensor)
exponents = st.floats(0, 3)
reductions: list[Reduction] = ["sequence_mean", "token_mean"]


@property_test
@given(passed_A=outcomes, a=exponents, b=exponents)
def test_success_weights_have_mean_one_and_two_values(passed_A: torch.Tensor, a: float, b: float) -> None:
    weights_A = success_weights(passed_A, a, b)
    assert weights_A.mean().item() == pytest.approx(1, abs=1e-12)
    assert (weights_A > 0).all()
    for outcome in (True, False):
        assert weights_A[passed_A == outcome].unique().numel() <= 1


@property_test
@given(passed_A=outcomes)
def test_each_outcome_gets_half_of_the_mass(passed_A: torch.Tensor) -> None:
    weights_A, rate = success_weights(passed_A), passed_A.double().mean().item()
    if 0 < rate < 1:
        assert weights_A[passed_A].sum().item() == pytest.approx(len(passed_A) / 2)
        assert weights_A[passed_A][0].item() == pytest.approx(1 / (2 * rate))
        assert weights_A[~passed_A][0].item() == pytest.approx(1 / (2 * (1 - rate)))
    else:
        assert torch.equal(weights_A, torch.ones(len(passed_A)).double())


def test_success_weights_follow_equation_2_with_other_exponents() -> None:
    raw_A = torch.tensor([0.75**2, 0.25**0.5, 0.25**0.5, 0.25**0.5]).double()
    weights_A = success_weights(torch.tensor([True, False, False, False]), a=2, b=0.5)
    torch.testing.assert_close(weights_A, raw_A / raw_A.mean())


def test_success_weights_of_degenerate_batches() -> None:
    assert success_weights(torch.zeros(0, dtype=torch.bool)).shape == (0,)
    assert success_weights(torch.tensor([True])).tolist() == [1]
    assert success_weights(torch.tensor([False])).tolist() == [1]
    assert success_weights(torch.tensor([False] * 32), b=20).tolist() == [1] * 32  # (1/32)^20 underflows the guard


def test_importance_is_truncated_above_only_and_detached() -> None:
    log_ratio_T = torch.tensor([0.0, 0.5, 0.7, 5.0, 1e4, -3.0, -1e4])
    sampled_T = torch.full_like(log_ratio_T, -1.0)
    weights_T = truncated_importance((sampled_T + log_ratio_T).requires_grad_(), sampled_T)
    torch.testing.assert_close(weights_T, torch.tensor([0.0, 0.5, 0.7, 5, 20, -3, -20]).exp().clamp(max=2.0))
    assert not weights_T.requires_grad
    assert truncated_importance(sampled_T + 9, sampled_T, cap=5.0).tolist() == [5.0] * 7


def test_token_weights_by_hand() -> None:
    masks = [torch.tensor([True, True, False]), torch.tensor([False]), torch.tensor([True] * 4)]
    by_sequence = token_weights(masks, [1.0, 5.0, 2.0], "sequence_mean", total_samples=3, total_tokens=6)
    assert torch.cat(by_sequence).tolist() == pytest.approx([1 / 6, 1 / 6, 0, 0] + [2 / 12] * 4)
    by_token = token_weights(masks, [1.0, 5.0, 2.0], "token_mean", total_samples=3, total_tokens=6)
    assert torch.cat(by_token).tolist() == pytest.approx([1 / 6, 1 / 6, 0, 0] + [2 / 6] * 4)


def test_an_update_without_any_token_is_worth_nothing() -> None:
    for reduction in reductions:
        assert token_weights([torch.zeros(2, dtype=torch.bool)], [1.0], reduction, 1, 0)[0].tolist() == [0, 0]
        assert token_weights([], [], reduction, 0, 0) == []


@property_test
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, 7)),
    seed=st.integers(0, 1000),
    reduction=st.sampled_from(reductions),
)
def test_gradient_does_not_depend_on_micro_batches(
    lengths: list[int], cuts: set[int], seed: int, reduction: Reduction
) -> None:
    random = torch.Generator().manual_seed(seed)
    inputs = [torch.rand(length, 3, generator=random) for length in lengths]
    masks = [torch.rand(length, generator=random) < 0.7 for length in lengths]
    weights_A = torch.rand(len(lengths), generator=random)
    tokens = sum(int(mask_T.sum()) for mask_T in masks)
    parameter = torch.rand(3, generator=random).requires_grad_()

    edges = [0, *sorted(cut for cut in cuts if cut < len(lengths)), len(lengths)]
    for start, stop in pairwise(edges):
        batch = slice(start, stop)
        weights = token_weights(masks[batch], weights_A[batch], reduction, len(lengths), tokens)
        loss_T = (torch.cat(inputs[batch]) @ parameter).exp()
        (torch.cat(weights) * loss_T).sum().backward()
    accumulated, parameter.grad = parameter.grad, None

    averages = []
    for input_T_3, mask_T, weight in zip(inputs, masks, weights_A, strict=True):
        loss = (input_T_3 @ parameter).exp()[mask_T].sum() * weight
        averages.append(loss / max(1, int(mask_T.sum())) if reduction == "sequence_mean" else loss)
    (torch.stack(averages).sum() / (len(lengths) if reduction == "sequence_mean" else max(1, tokens))).backward()
    torch.testing.assert_close(accumulated, parameter.grad)
