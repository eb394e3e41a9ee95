"""The fused head against plain autograd over all logits at once, and what it computes and allocates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resd.objectives.distill import Distillation, Stats
from resd.objectives.head import TeacherHead, TokenLoss, chunked_logprobs, fused_head_loss
from resd.objectives.logits import LARGE
from resd.objectives.policy_gradient import policy_gradient
from resd.objectives.weighting import truncated_importance
from resd.types import UserError

V, D = 11, 5
DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "jeffreys", "squared_hellinger", "total_variation"]
SUPPORTS = ["tail", "renormalise", "full"]
RULE = Distillation(top_k=3)


@dataclass(frozen=True)
class Case:
    """Arguments of the head."""

    hidden_T_D: Tensor
    weight_V_D: Tensor
    ids_T: Tensor
    token_loss: TokenLoss
    teacher: TeacherHead | None
    temperature: float

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        return self.hidden_T_D, self.weight_V_D

    def fused(self, chunk_tokens: int = 4) -> tuple[Tensor, Stats]:
        arguments = (self.ids_T, self.token_loss, self.teacher, self.temperature, chunk_tokens)
        return fused_head_loss(*self.inputs, *arguments)

    def unfused(self) -> tuple[Tensor, Stats]:
        """The oracle: every logit at once, differentiated by autograd throughout."""
        logits_T_V = self.hidden_T_D @ self.weight_V_D.T
        logprobs_T = (logits_T_V / self.temperature).log_softmax(-1).gather(-1, self.ids_T[:, None]).squeeze(-1)
        divergence_T, stats = None, {}
        if self.teacher is not None:
            teacher_logits_T_V = self.teacher.hidden_T_D @ self.teacher.weight_V_D.T
            divergence_T, stats = self.teacher.distillation(logits_T_V, teacher_logits_T_V)
        loss, more = self.token_loss(slice(0, len(logits_T_V)), logprobs_T, divergence_T)
        return loss, {name: value_T.sum() for name, value_T in stats.items()} | more


def case(
    rule: Distillation | None = RULE,
    tokens: int = 9,
    seed: int = 0,
    *,
    scale: float = 1.0,
    vocabulary: int = V,
    dtype: torch.dtype = torch.float64,
    gradient: bool = False,
) -> Case:
    """A divergence with token weights, some of them zero, and importance weights; a clipped policy `gradient` too."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    hidden_T_D, teacher_T_D = (scale * normal(2, tokens, D)).to(dtype)
    weight_V_D, teacher_V_D = normal(2, vocabulary, D).to(dtype)
    ids_T = torch.randint(vocabulary, (tokens,), generator=random)
    precision = torch.promote_types(dtype, torch.float32)
    advantage_T, noise_T = normal(2, tokens).to(precision)
    weight_T = (torch.rand(tokens, generator=random, dtype=torch.float64) - 0.2).clamp(min=0).to(precision)

    def token_loss(rows: slice, logprobs_C: Tensor, divergence_C: Tensor | None) -> tuple[Tensor, Stats]:
        old_C = logprobs_C.detach() + 0.2 * noise_T[rows]
        weight_C = weight_T[rows] * truncated_importance(old_C, logprobs_C.detach(), cap=1.1)
        loss = 0 if divergence_C is None else (weight_C * divergence_C).sum()
        stats = {"logprob": logprobs_C.detach().sum()}
        if gradient:
            surrogate_C, more = policy_gradient(logprobs_C, old_C, advantage_T[rows])
            loss = loss + (weight_C * surrogate_C).sum()
            stats |= {name: value_C.sum() for name, value_C in more.items()}
        return loss, stats

    teacher = TeacherHead(teacher_T_D, teacher_V_D, rule) if rule else None
    temperature = rule.temperature if rule else 0.7
    return Case(hidden_T_D.requires_grad_(), weight_V_D.requires_grad_(), ids_T, token_loss, teacher, temperature)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def assert_equal_to_oracle(case: Case, chunk_tokens: int, rtol: float = 1e-10) -> None:
    (loss, stats), (expected, expected_stats) = case.fused(chunk_tokens), case.unfused()
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-12)
    expected_stats = {name: value.detach() for name, value in expected_stats.items()}
    torch.testing.assert_close(stats, expected_stats, rtol=rtol, atol=1e-12)
    wanted = gradients(expected, *case.inputs)
    torch.testing.assert_close(gradients(loss, *case.inputs), wanted, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("top_k", [1, 3, V, V + 5])
def test_equal_to_the_unfused_head(divergence: str, support: Any, top_k: int) -> None:
    for select, gradient in [("student", False), ("teacher", True)]:
        rule = Distillation(divergence, support=support, top_k=top_k, select=select)  # type: ignore[arg-type]
        for tokens, chunk_tokens in [(0, 4), (1, 4), (8, 4), (9, 4), (3, 1), (5, 100), (19, 10)]:
            assert_equal_to_oracle(case(rule, tokens, gradient=gradient), chunk_tokens)


@settings(deadline=None, max_examples=100)
@given(
    rule=st.builds(
        Distillation,
        divergence=st.sampled_from(DIVERGENCES),
        alpha=st.sampled_from([0.3, 0.5]),
        top_k=st.integers(1, V + 1),
        select=st.sampled_from(["student", "teacher"]),
        support=st.sampled_from(SUPPORTS),
        ratio_min=st.sampled_from([None, 0.2, 0.9]),
        ratio_max=st.sampled_from([None, 1.1, 5.0]),
        temperature=st.sampled_from([1.0, 0.6]),
    ),
    tokens=st.integers(0, 20),
    chunk_tokens=st.integers(1, 24),
    seed=st.integers(0, 1000),
    gradient=st.booleans(),
)
def test_equal_to_the_unfused_head_for_any_rule(
    rule: Distillation, tokens: int, chunk_tokens: int, seed: int, gradient: bool
) -> None:
    """A tail of 1e-7 is a difference of numbers near 1: what float64 knows of it, and so of its gradient, is 1e-9."""
    assert_equal_to_oracle(case(rule, tokens, seed, gradient=gradient), chunk_tokens, rtol=3e-8)


@pytest.mark.parametrize("support", SUPPORTS)
def test_equal_to_the_unfused_head_where_every_bucket_is_clipped(support: Any) -> None:
    same = case(replace(RULE, support=support, ratio_min=1.0, ratio_max=1.0), tokens=6)
    assert_equal_to_oracle(same, 4)
    assert max(gradient.abs().max() for gradient in gradients(same.fused()[0], *same.inputs)) < 1e-14


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_equal_to_the_unfused_head_where_the_tail_is_saturated(divergence: str) -> None:
    certain = case(Distillation(divergence, top_k=4, ratio_min=None), tokens=12, scale=15)
    assert certain.unfused()[1]["topk_mass"] > 12 - 1e-4
    assert_equal_to_oracle(certain, 5, rtol=3e-8)


@pytest.mark.parametrize("select", ["student", "teacher"])
def test_equal_to_the_unfused_head_over_a_long_vocabulary(select: Any) -> None:
    assert_equal_to_oracle(case(replace(RULE, select=select), vocabulary=700, gradient=True), 4)


@pytest.mark.parametrize("select", ["student", "teacher"])
def test_equal_to_the_unfused_head_in_large_pages(select: Any) -> None:
    large = case(replace(RULE, select=select), tokens=70, vocabulary=9000, gradient=True)
    assert LARGE < 60 * 9000 * 8
    assert_equal_to_oracle(large, 60)


def test_equal_to_the_unfused_head_without_a_teacher() -> None:
    for tokens in (0, 1, 9):
        assert_equal_to_oracle(case(None, tokens, gradient=True), 4)


@pytest.mark.parametrize("support", SUPPORTS)
def test_gradient_agrees_with_finite_differences(support: Any) -> None:
    small = case(replace(RULE, support=support, ratio_min=None), tokens=3)
    weight_T = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)

    def loss(hidden_T_D: Tensor, weight_V_D: Tensor) -> Tensor:
        smooth = replace(
            small,
            hidden_T_D=hidden_T_D,
            weight_V_D=weight_V_D,
            token_loss=lambda rows, _, divergence_C: ((weight_T[rows] * divergence_C).sum(), {}),
        )
        return smooth.fused(2)[0]

    assert torch.autograd.gradcheck(loss, small.inputs)


@pytest.mark.parametrize("support", SUPPORTS)
def test_no_token_gives_zero_loss_and_zero_gradients_of_the_right_shape(support: Any) -> None:
    empty = case(replace(RULE, support=support), tokens=0, gradient=True)
    loss, stats = empty.fused()
    d_hidden_T_D, d_weight_V_D = gradients(loss, *empty.inputs)
    assert loss.item() == 0
    assert d_hidden_T_D.shape == (0, D)
    assert torch.equal(d_weight_V_D, torch.zeros(V, D).double())
    assert stats.keys() == case(replace(RULE, support=support), tokens=2, gradient=True).fused()[1].keys()
    assert all(value.item() == 0 for value in stats.values())


def test_several_calls_before_one_backward_add_up_and_the_outer_gradient_scales() -> None:
    parts = [case(seed=seed) for seed in range(2)]
    shared_V_D = parts[0].weight_V_D
    parts = [replace(part, weight_V_D=shared_V_D) for part in parts]
    sum(3 * part.fused()[0] for part in parts).backward()
    expected = gradients(sum(3 * part.unfused()[0] for part in parts), shared_V_D, *(part.hidden_T_D for part in parts))
    actual = (shared_V_D.grad, *(part.hidden_T_D.grad for part in parts))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_gradients_are_handed_out_once() -> None:
    """They are scaled in place; a second backward pass must not scale them again."""
    loss, _ = case().fused()
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * loss).backward()


def test_a_tied_head_that_is_no_leaf() -> None:
    """The embedding gets its gradient through the body and through the head; a shard's full weight is never a leaf."""
    tied = case(tokens=6)
    ids_T = torch.tensor([0, 3, 3, 1, 10, 4])

    def gradient(head: Callable[[Case], tuple[Tensor, Stats]]) -> Tensor:
        weight_V_D = tied.weight_V_D * 2
        whole = replace(tied, hidden_T_D=weight_V_D[ids_T].tanh(), weight_V_D=weight_V_D)
        return gradients(head(whole)[0], tied.weight_V_D)[0]

    torch.testing.assert_close(gradient(Case.fused), gradient(Case.unfused), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
def test_bfloat16_inputs_have_float32_losses_and_bfloat16_gradients(support: Any) -> None:
    half = case(replace(RULE, support=support), dtype=torch.bfloat16, gradient=True)
    loss, stats = half.fused()
    actual = gradients(loss, *half.inputs)
    assert {loss.dtype} == {value.dtype for value in stats.values()} == {torch.float32}
    assert {grad.dtype for grad in actual} == {torch.bfloat16}
    assert half.teacher is not None
    exact = replace(
        half,
        hidden_T_D=half.hidden_T_D.detach().float().requires_grad_(),
        weight_V_D=half.weight_V_D.detach().float().requires_grad_(),
        teacher=TeacherHead(
            half.teacher.hidden_T_D.float(), half.teacher.weight_V_D.float(), half.teacher.distillation
        ),
    )
    expected, _ = exact.unfused()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for grad, want in zip(actual, gradients(expected, *exact.inputs), strict=True):
        torch.testing.assert_close(grad.float(), want, rtol=0.005, atol=0.005 * want.abs().max().item())


def test_the_gradient_of_the_head_is_accumulated_in_float32() -> None:
    """512 chunks of the same token: a running bfloat16 sum would stop growing at 256."""
    hidden_T_D = torch.ones(512, 1, dtype=torch.bfloat16)
    weight_V_D = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    ids_T = torch.zeros(512, dtype=torch.long)
    loss, _ = fused_head_loss(hidden_T_D, weight_V_D, ids_T, lambda rows, x_C, _: (x_C.sum(), {}), chunk_tokens=1)
    assert gradients(loss, weight_V_D)[0].tolist() == [[256], [-256]]


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both", "no_grad"])
@pytest.mark.parametrize("support", SUPPORTS)
def test_what_needs_no_gradient_costs_none(support: Any, frozen: str) -> None:
    part = case(replace(RULE, support=support), tokens=6)
    hidden_T_D, weight_V_D = part.inputs
    expected = gradients(part.unfused()[0], *part.inputs)
    hidden_T_D.requires_grad_(frozen not in ("hidden", "both"))
    weight_V_D.requires_grad_(frozen not in ("weight", "both"))
    seen = set()

    def spy(rows: slice, logprobs_C: Tensor, divergence_C: Tensor | None) -> tuple[Tensor, Stats]:
        seen.add(logprobs_C.requires_grad)
        return part.token_loss(rows, logprobs_C, divergence_C)

    with torch.set_grad_enabled(frozen != "no_grad"), Operations() as operations:
        loss, _ = replace(part, token_loss=spy).fused()
    torch.testing.assert_close(loss.detach(), part.unfused()[0].detach())
    differentiated = frozen in ("hidden", "weight")
    assert loss.requires_grad == differentiated
    assert seen == {differentiated}
    assert ((V, D) in operations.shapes) == (frozen == "hidden")
    if differentiated:
        loss.backward()
        torch.testing.assert_close((hidden_T_D.grad, weight_V_D.grad)[frozen == "hidden"], expected[frozen == "hidden"])


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_constant_loss_has_zero_gradients(support: Any) -> None:
    constant = replace(case(replace(RULE, support=support), 3), token_loss=lambda *_: (torch.tensor(2.0), {}))
    loss, _ = constant.fused(2)
    assert loss.item() == 4
    assert all(grad.abs().max() == 0 for grad in gradients(loss, *constant.inputs))


class Operations(TorchDispatchMode):
    """Records matrix products below autograd, and the shape of every result that does not lie in an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[int, int, int]] = []
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::mm", "aten::addmm", "aten::addmm_"):
            left, right = args[-2:]
            self.products.append((*left.shape, right.shape[1]))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in known:
                self.shapes.append(tuple(leaf.shape))
        return result


@pytest.mark.parametrize("support", SUPPORTS)
def test_logits_of_all_tokens_never_exist(support: Any) -> None:
    chunk_tokens, vocabulary = 4, 400
    largest = []
    for tokens in (64, 128):
        long = case(replace(RULE, support=support), tokens, vocabulary=vocabulary, gradient=True)
        with Operations() as operations:
            long.fused(chunk_tokens)[0].backward()
            chunked_logprobs(*long.inputs, long.ids_T, chunk_tokens=chunk_tokens)
        grows_with_tokens = {shape for shape in operations.shapes if tokens in shape}
        assert grows_with_tokens == {(tokens, D), (tokens, 1)}
        largest.append(max(torch.Size(shape).numel() for shape in operations.shapes if tokens not in shape))
    assert largest == [vocabulary * D] * 2
    with Operations() as operations:
        long.unfused()
    assert (128, vocabulary) in operations.shapes  # the recorder does see the oracle's logits


@pytest.mark.parametrize(
    ("support", "gradient"), [("tail", False), ("tail", True), ("full", True), ("renormalise", True)]
)
def test_four_products_and_two_buffers_of_logits(support: Any, gradient: bool) -> None:
    part = case(replace(RULE, support=support), tokens=8, vocabulary=400, gradient=gradient)
    with Operations() as operations:
        part.fused(8)[0].backward()
    assert operations.products == [(8, D, 400), (8, D, 400), (8, 400, D), (400, 8, D)]
    assert support == "full" or operations.shapes.count((8, 400)) == 2


def test_a_renormalised_divergence_has_two_products() -> None:
    part = case(replace(RULE, support="renormalise"), tokens=20, vocabulary=400)
    with Operations() as operations:
        loss, _ = part.fused(20)
    assert operations.products == [(20, D, 400), (20, D, 400)]
    d_weight_V_D = gradients(loss, part.weight_V_D)[0]
    assert 3 <= (d_weight_V_D != 0).any(-1).sum() <= 20 * 3


def test_logprobs_equal_log_softmax() -> None:
    some = case()
    expected_T_V = (some.hidden_T_D @ some.weight_V_D.T / 0.6).log_softmax(-1).detach()
    for chunk_tokens in (1, 4, 9, 50):
        logprobs_T = chunked_logprobs(*some.inputs, some.ids_T, temperature=0.6, chunk_tokens=chunk_tokens)
        torch.testing.assert_close(logprobs_T, expected_T_V[torch.arange(9), some.ids_T], rtol=0, atol=1e-12)
        assert not logprobs_T.requires_grad
    assert chunked_logprobs(some.hidden_T_D[:0], some.weight_V_D, some.ids_T[:0]).shape == (0,)
    half = chunked_logprobs(some.hidden_T_D.bfloat16(), some.weight_V_D.bfloat16(), some.ids_T)
    assert half.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("support", SUPPORTS)
def test_bfloat16_on_a_gpu_agrees_with_the_cpu(support: Any) -> None:
    results = []
    for device in ("cpu", "cuda"):
        torch.set_default_device("cpu")
        part = case(replace(RULE, support=support), tokens=48, vocabulary=1000, dtype=torch.bfloat16)
        assert part.teacher is not None
        hidden, weight = (x.detach().to(device).requires_grad_() for x in part.inputs)
        teacher = TeacherHead(part.teacher.hidden_T_D.to(device), part.teacher.weight_V_D.to(device), replace(RULE))
        loss, _ = fused_head_loss(
            hidden, weight, part.ids_T.to(device), lambda rows, x_C, d_C: ((x_C + d_C).sum(), {}), teacher, 1.0, 16
        )
        results.append([loss.detach().cpu(), *(grad.float().cpu() for grad in gradients(loss, hidden, weight))])
    torch.testing.assert_close(results[1], results[0], rtol=0.02, atol=0.02)


def test_wrong_arguments_are_refused() -> None:
    for chunk_tokens in (0, -1):
        with pytest.raises(UserError, match="at least 1"):
            case().fused(chunk_tokens)
    with pytest.raises(UserError, match="same value for both"):
        replace(case(), temperature=0.5).fused()
