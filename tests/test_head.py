"""The chunked head against plain autograd over all logits at once, and what it allocates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resd.objectives.distill import Distillation
from resd.objectives.head import TokenLoss, chunked_head_loss, chunked_logprobs, head_logits, token_logprobs
from resd.objectives.policy_gradient import policy_gradient
from resd.types import UserError

V, D = 11, 5
DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "jeffreys", "squared_hellinger", "total_variation"]
Case = tuple[Tensor, Tensor, TokenLoss]


def distil(rule: Distillation, tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Hidden states, head and a distillation loss with token weights, some of them zero."""
    random = torch.Generator().manual_seed(seed)
    hidden_T_D, teacher_T_D = torch.randn(2, tokens, D, generator=random, dtype=torch.float64).to(dtype)
    weight_V_D, teacher_V_D = torch.randn(2, V, D, generator=random, dtype=torch.float64).to(dtype)
    weight_T = torch.rand(tokens, generator=random, dtype=torch.float64) - 0.2
    weight_T = weight_T.clamp(min=0).to(torch.promote_types(dtype, torch.float32))

    def token_loss(logits_C_V: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        loss_C, stats = rule(logits_C_V, head_logits(teacher_T_D[rows], teacher_V_D))
        return (weight_T[rows] * loss_C).sum(), {name: value_C.sum() for name, value_C in stats.items()}

    return hidden_T_D.requires_grad_(), weight_V_D.requires_grad_(), token_loss


def unchunked(hidden_T_D: Tensor, weight_V_D: Tensor, token_loss: TokenLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """The oracle: every logit at once, differentiated by autograd throughout."""
    return token_loss(hidden_T_D @ weight_V_D.T, slice(0, len(hidden_T_D)))


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def assert_equal_to_oracle(case: Case, chunk_tokens: int) -> None:
    hidden_T_D, weight_V_D, token_loss = case
    loss, stats = chunked_head_loss(hidden_T_D, weight_V_D, token_loss, chunk_tokens)
    expected, expected_stats = unchunked(*case)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(stats, {name: value.detach() for name, value in expected_stats.items()})
    actual, wanted = gradients(loss, hidden_T_D, weight_V_D), gradients(expected, hidden_T_D, weight_V_D)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("support", ["tail", "renormalise", "full"])
@pytest.mark.parametrize("top_k", [3, V, V + 5])
def test_equal_to_the_unchunked_head(divergence: str, support: Any, top_k: int) -> None:
    rule = Distillation(divergence, support=support, top_k=top_k)
    for tokens, chunk_tokens in [(0, 4), (1, 4), (8, 4), (9, 4), (3, 1), (5, 100)]:
        assert_equal_to_oracle(distil(rule, tokens), chunk_tokens)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(0, 20),
    chunk_tokens=st.integers(1, 24),
    seed=st.integers(0, 1000),
    ratio_max=st.sampled_from([None, 1.5]),
)
def test_equal_to_the_unchunked_head_for_any_chunk(
    tokens: int, chunk_tokens: int, seed: int, ratio_max: float | None
) -> None:
    rule = Distillation("jsd", alpha=0.3, top_k=4, select="teacher", ratio_max=ratio_max, temperature=0.7)
    assert_equal_to_oracle(distil(rule, tokens, seed), chunk_tokens)


def test_equal_to_the_unchunked_head_for_a_policy_gradient() -> None:
    hidden_T_D, weight_V_D, _ = distil(Distillation(), tokens=9)
    ids_T, advantage_T = torch.arange(9) % V, torch.linspace(-1, 1, 9, dtype=torch.float64)
    old_T = chunked_logprobs(hidden_T_D, weight_V_D, ids_T, chunk_tokens=4) + 0.3 * advantage_T.flip(0)

    def token_loss(logits_C_V: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs_C = token_logprobs(logits_C_V, ids_T[rows])
        loss_C, stats = policy_gradient(logprobs_C, old_T[rows], advantage_T[rows])
        return loss_C.sum(), {name: value_C.sum() for name, value_C in stats.items()}

    assert_equal_to_oracle((hidden_T_D, weight_V_D, token_loss), 4)


def test_gradient_agrees_with_finite_differences() -> None:
    hidden_T_D, weight_V_D, token_loss = distil(Distillation(support="full", ratio_min=None), tokens=3)
    assert torch.autograd.gradcheck(
        lambda hidden, weight: chunked_head_loss(hidden, weight, token_loss, 2)[0], (hidden_T_D, weight_V_D)
    )


def test_no_token_gives_zero_loss_and_zero_gradients_of_the_right_shape() -> None:
    hidden_T_D, weight_V_D, token_loss = distil(Distillation(top_k=3), tokens=0)
    loss, stats = chunked_head_loss(hidden_T_D, weight_V_D, token_loss, 4)
    d_hidden_T_D, d_weight_V_D = gradients(loss, hidden_T_D, weight_V_D)
    assert loss.item() == 0
    assert d_hidden_T_D.shape == (0, D)
    assert torch.equal(d_weight_V_D, torch.zeros(V, D).double())
    with_tokens = chunked_head_loss(*distil(Distillation(top_k=3), tokens=2))[1]
    assert stats.keys() == with_tokens.keys()
    assert all(value.item() == 0 for value in stats.values())


def test_several_calls_before_one_backward_add_up_and_the_outer_gradient_scales() -> None:
    hidden_T_D, weight_V_D, token_loss = distil(Distillation(top_k=3), tokens=7)
    first, _ = chunked_head_loss(hidden_T_D[:3], weight_V_D, lambda x, rows: token_loss(x, rows), 2)
    second, _ = chunked_head_loss(
        hidden_T_D[3:], weight_V_D, lambda x, rows: token_loss(x, slice(rows.start + 3, rows.stop + 3)), 2
    )
    (3 * first + 3 * second).backward()
    expected = gradients(3 * unchunked(hidden_T_D, weight_V_D, token_loss)[0], hidden_T_D, weight_V_D)
    torch.testing.assert_close((hidden_T_D.grad, weight_V_D.grad), expected, rtol=0, atol=1e-8)


def test_backward_twice_over_a_kept_graph() -> None:
    hidden_T_D, weight_V_D, token_loss = distil(Distillation(top_k=3), tokens=5)
    loss, _ = chunked_head_loss(hidden_T_D, weight_V_D, token_loss, 2)
    once = torch.autograd.grad(loss, (hidden_T_D, weight_V_D), retain_graph=True)
    torch.testing.assert_close(gradients(2 * loss, hidden_T_D, weight_V_D), tuple(2 * grad for grad in once))


def test_a_tied_head_that_is_no_leaf() -> None:
    """The embedding gets its gradient through the body and through the head; a shard's full weight is never a leaf."""
    _, parameter_V_D, token_loss = distil(Distillation(top_k=3), tokens=6)
    ids_T = torch.tensor([0, 3, 3, 1, 10, 4])

    def gradient(head: Callable[..., tuple[Tensor, dict[str, Tensor]]]) -> Tensor:
        weight_V_D = parameter_V_D * 2
        return gradients(head(weight_V_D[ids_T].tanh(), weight_V_D, token_loss)[0], parameter_V_D)[0]

    actual = gradient(lambda *case: chunked_head_loss(*case, chunk_tokens=4))
    torch.testing.assert_close(actual, gradient(unchunked), rtol=0, atol=1e-8)


def test_bfloat16_inputs_have_float32_logits_and_bfloat16_gradients() -> None:
    rule = Distillation(top_k=3)
    hidden_T_D, weight_V_D, token_loss = distil(rule, tokens=9, dtype=torch.bfloat16)
    seen = set()

    def spy(logits_C_V: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        seen.add(logits_C_V.dtype)
        return token_loss(logits_C_V, rows)

    loss, _ = chunked_head_loss(hidden_T_D, weight_V_D, spy, 4)
    actual = gradients(loss, hidden_T_D, weight_V_D)
    assert seen == {loss.dtype} == {torch.float32}
    assert {grad.dtype for grad in actual} == {torch.bfloat16}
    exact = (hidden_T_D.detach().float().requires_grad_(), weight_V_D.detach().float().requires_grad_())
    expected, _ = unchunked(*exact, token_loss)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    wanted = gradients(expected, *exact)
    for grad, want in zip(actual, wanted, strict=True):
        torch.testing.assert_close(grad.float(), want, rtol=0.02, atol=0.01 * want.abs().max().item())


def test_the_gradient_of_the_head_is_accumulated_in_float32() -> None:
    """512 chunks of the same token: a running bfloat16 sum would stop growing at 256."""
    hidden_T_D = torch.ones(512, 1, dtype=torch.bfloat16)
    weight_V_D = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = chunked_head_loss(hidden_T_D, weight_V_D, lambda logits_C_V, rows: (logits_C_V[:, 0].sum(), {}), 1)
    assert gradients(loss, weight_V_D)[0].tolist() == [[512], [0]]


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both", "no_grad"])
def test_what_needs_no_gradient_costs_none(frozen: str) -> None:
    hidden_T_D, weight_V_D, token_loss = distil(Distillation(top_k=3), tokens=6)
    expected = gradients(unchunked(hidden_T_D, weight_V_D, token_loss)[0], hidden_T_D, weight_V_D)
    hidden_T_D.requires_grad_(frozen not in ("hidden", "both"))
    weight_V_D.requires_grad_(frozen not in ("weight", "both"))
    seen = set()

    def spy(logits_C_V: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        seen.add(logits_C_V.requires_grad)
        return token_loss(logits_C_V, rows)

    with torch.set_grad_enabled(frozen != "no_grad"), Allocations() as allocations:
        loss, _ = chunked_head_loss(hidden_T_D, weight_V_D, spy, 4)
    torch.testing.assert_close(loss.detach(), unchunked(hidden_T_D, weight_V_D, token_loss)[0].detach())
    differentiated = frozen in ("hidden", "weight")
    assert loss.requires_grad == differentiated
    assert seen == {differentiated}
    assert ((V, D) in allocations.shapes) == (frozen == "hidden")
    if differentiated:
        loss.backward()
        torch.testing.assert_close((hidden_T_D.grad, weight_V_D.grad)[frozen == "hidden"], expected[frozen == "hidden"])


def test_a_constant_loss_has_zero_gradients() -> None:
    hidden_T_D, weight_V_D, _ = distil(Distillation(), tokens=3)
    loss, _ = chunked_head_loss(hidden_T_D, weight_V_D, lambda logits_C_V, rows: (torch.tensor(2.0), {}), 2)
    assert loss.item() == 4
    assert all(grad.abs().max() == 0 for grad in gradients(loss, hidden_T_D, weight_V_D))


class Allocations(TorchDispatchMode):
    """Records the shape of every tensor that any operation below autograd returns, views of inputs excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in known:
                self.shapes.append(tuple(leaf.shape))
        return result

    @property
    def largest(self) -> int:
        return max(torch.Size(shape).numel() for shape in self.shapes)


@pytest.mark.parametrize("support", ["tail", "full"])
def test_logits_of_all_tokens_never_exist(support: Any) -> None:
    chunk_tokens = 4
    largest = []
    for tokens in (64, 128):
        hidden_T_D, weight_V_D, token_loss = distil(Distillation(top_k=3, support=support), tokens)
        with Allocations() as allocations:
            chunked_head_loss(hidden_T_D, weight_V_D, token_loss, chunk_tokens)[0].backward()
            chunked_logprobs(hidden_T_D, weight_V_D, torch.zeros(tokens, dtype=torch.long), chunk_tokens=chunk_tokens)
        grows_with_tokens = {shape for shape in allocations.shapes if tokens in shape}
        assert grows_with_tokens == {(tokens, D), (tokens,)}
        largest.append(max(torch.Size(shape).numel() for shape in allocations.shapes if tokens not in shape))
    assert largest == [max(V * D, chunk_tokens * V)] * 2
    with Allocations() as allocations:
        unchunked(hidden_T_D, weight_V_D, token_loss)
    assert allocations.largest == 128 * V  # the recorder does see the oracle's logits


def test_logprobs_equal_log_softmax() -> None:
    hidden_T_D, weight_V_D, _ = distil(Distillation(), tokens=9)
    ids_T = torch.arange(9) % V
    expected_T_V = (hidden_T_D @ weight_V_D.T / 0.6).log_softmax(-1).detach()
    for chunk_tokens in (1, 4, 9, 50):
        logprobs_T = chunked_logprobs(hidden_T_D, weight_V_D, ids_T, temperature=0.6, chunk_tokens=chunk_tokens)
        torch.testing.assert_close(logprobs_T, expected_T_V[torch.arange(9), ids_T], rtol=0, atol=1e-12)
        assert not logprobs_T.requires_grad
    assert chunked_logprobs(hidden_T_D[:0], weight_V_D, ids_T[:0]).shape == (0,)
    half = chunked_logprobs(hidden_T_D.bfloat16(), weight_V_D.bfloat16(), ids_T)
    assert half.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_on_a_gpu_agrees_with_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    hidden_T_D, weight_V_D = (torch.randn(size, 64, generator=random).bfloat16() for size in (48, 256))
    results = []
    for device in ("cpu", "cuda"):
        hidden, weight = hidden_T_D.to(device).requires_grad_(), weight_V_D.to(device).requires_grad_()
        loss, _ = chunked_head_loss(
            hidden, weight, lambda logits_C_V, rows: (logits_C_V.log_softmax(-1)[:, 0].sum(), {}), 16
        )
        results.append([loss.detach().cpu(), *(grad.float().cpu() for grad in gradients(loss, hidden, weight))])
    torch.testing.assert_close(results[1], results[0], rtol=0.02, atol=0.02)


def test_a_chunk_of_no_token_is_refused() -> None:
    for chunk_tokens in (0, -1):
        with pytest.raises(UserError, match="at least 1"):
            chunked_head_loss(*distil(Distillation(), tokens=3), chunk_tokens)
