"""The clipped objective where it is flat and where it is not, and advantages within groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resd.objectives.policy_gradient import group_advantages, policy_gradient
from resd.types import UserError

property_test = settings(deadline=None, max_examples=50)


def gradient(ratio: float, advantage: float, **clips: float | None) -> tuple[float, float, dict[str, Tensor]]:
    """Loss, its derivative in log pi, and the statistics of one token whose ratio to the old policy is `ratio`."""
    logprob_C = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    old_C = logprob_C.detach() - math.log(ratio)
    loss_C, stats = policy_gradient(logprob_C, old_C, torch.tensor([advantage], dtype=torch.float64), **clips)  # type: ignore[arg-type]
    loss_C.sum().backward()
    assert logprob_C.grad is not None
    return loss_C.item(), logprob_C.grad.item(), stats


@property_test
@given(advantages=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8), dual_clip=st.sampled_from([None, 3.0]))
def test_on_policy_gradient_is_minus_advantage_times_the_score(
    advantages: list[float], dual_clip: float | None
) -> None:
    advantage_C = torch.tensor(advantages, dtype=torch.float64)
    logprobs_C = -torch.rand(len(advantages)).double()
    for old_C in (None, logprobs_C):
        current_C = logprobs_C.clone().requires_grad_()
        loss_C, stats = policy_gradient(current_C, old_C, advantage_C, dual_clip=dual_clip)
        loss_C.sum().backward()
        assert torch.equal(current_C.grad, -advantage_C)
        assert torch.equal(loss_C.detach(), -advantage_C)
        assert stats["policy_clipped"].sum() == 0
        assert stats["policy_kl"].abs().max() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the clips the slope is -ratio x advantage
        (1.3, 2.0, -2.56, 0.0),  # good token, already 1.28 times as likely
        (0.5, 2.0, -1.0, -1.0),  # good token that became rarer is never clipped
        (0.7, -2.0, 1.6, 0.0),  # bad token, already 0.8 times as likely
        (1.3, -2.0, 2.6, 2.6),  # bad token that became likelier is not clipped …
        (10.0, -2.0, 20.0, 20.0),  # … however likely, without a dual clip
    ],
)
def test_clips(ratio: float, advantage: float, loss: float, slope: float) -> None:
    actual_loss, actual_slope, stats = gradient(ratio, advantage)
    assert actual_loss == pytest.approx(loss)
    assert actual_slope == pytest.approx(slope)
    assert stats["policy_clipped"].item() == (slope == 0)


def test_dual_clip_bounds_bad_tokens_only() -> None:
    for ratio in (3.5, 10.0):
        loss, slope, stats = gradient(ratio, -2.0, dual_clip=3.0)
        assert (loss, slope, stats["policy_clipped"].item()) == (pytest.approx(6.0), 0.0, 1.0)
    assert gradient(2.9, -2.0, dual_clip=3.0)[:2] == gradient(2.9, -2.0)[:2]
    assert gradient(10.0, 2.0, dual_clip=3.0)[:2] == gradient(10.0, 2.0)[:2]
    assert gradient(0.1, 2.0, dual_clip=3.0)[:2] == gradient(0.1, 2.0)[:2]


@property_test
@given(ratio=st.floats(0.01, 50), advantage=st.floats(-3, 3), dual_clip=st.sampled_from([None, 3.0]))
def test_statistics_tell_where_the_gradient_stops(ratio: float, advantage: float, dual_clip: float | None) -> None:
    loss, slope, stats = gradient(ratio, advantage, dual_clip=dual_clip)
    if abs(advantage) > 1e-6 and min(abs(ratio - edge) for edge in (0.8, 1.28, 3.0)) > 1e-6:
        assert bool(stats["policy_clipped"]) == (slope == 0)
    assert stats["policy_kl"].item() >= 0
    if dual_clip is None:
        assert loss >= -ratio * advantage - 1e-9  # pessimistic
    else:
        assert loss <= dual_clip * abs(advantage) + 1e-9


def test_a_wild_ratio_stays_finite() -> None:
    logprobs_C = torch.tensor([0.0, -3000.0], requires_grad=True)
    loss_C, stats = policy_gradient(logprobs_C, torch.tensor([-3000.0, 0.0]), torch.tensor([-1.0, 1.0]))
    loss_C.sum().backward()
    assert loss_C.isfinite().all()
    assert logprobs_C.grad is not None
    assert logprobs_C.grad.isfinite().all()
    assert all(not value_C.requires_grad for value_C in stats.values())


@property_test
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 1000))
def test_group_advantages(groups: int, size: int, seed: int) -> None:
    rewards_P_G = torch.rand(groups, size, generator=torch.Generator().manual_seed(seed)).double()
    centred_P_G = group_advantages(rewards_P_G, normalise_std=False)
    torch.testing.assert_close(centred_P_G, rewards_P_G - rewards_P_G.sum(1, keepdim=True) / size)
    deviation_P_1 = (centred_P_G.square().sum(1, keepdim=True) / (size - 1)).sqrt()
    torch.testing.assert_close(group_advantages(rewards_P_G), centred_P_G / (deviation_P_1 + 1e-6))


@property_test
@given(reward=st.floats(0, 1, width=32), size=st.integers(2, 9), normalise_std=st.booleans())
def test_equal_rewards_give_exactly_nothing(reward: float, size: int, normalise_std: bool) -> None:
    """In float32 the mean of equal rewards can differ from them, which 1 / (0 + 1e-6) would blow up."""
    rewards_P_G = torch.stack([torch.full((size,), reward), torch.arange(size).float()])
    advantages_P_G = group_advantages(rewards_P_G, normalise_std)
    assert torch.equal(advantages_P_G[0], torch.zeros(size))
    assert advantages_P_G[1, 0] < 0 < advantages_P_G[1, -1]


def test_a_binary_group_of_eight() -> None:
    advantages_P_G = group_advantages(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]]))
    assert advantages_P_G[0, 0].item() == pytest.approx(0.875 / (math.sqrt(0.125) + 1e-6))
    assert advantages_P_G.sum().item() == pytest.approx(0, abs=1e-6)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        group_advantages(torch.ones(3, 1))
