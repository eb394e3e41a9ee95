"""Our own body against the model as Hugging Face has it."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from resd.model.body import _Gate
from resd.model.hidden import Policy
from resd.model.pack import Rows, pack

SMALL = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
}
PROMPTS, RESPONSES = [[1, 2, 3], [4], [5, 6, 7, 8, 9]], [[7, 8], [9, 10, 11, 12], [13]]


def model(family: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    lm = FAMILIES[family]().eval()
    lm.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))  # norms of ones would hide a forgotten weight
    return lm


def alone(lm: Any) -> Tensor:
    """Hidden states that predict the responses, one sequence at a time."""
    parts = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        hidden = lm.model(input_ids=torch.tensor([[*prompt, *response[:-1]]]), use_cache=False).last_hidden_state
        parts.append(hidden[0, len(prompt) - 1 :])
    return torch.cat(parts)


def gradients(lm: Any, hidden_T_D: Tensor) -> dict[str, Tensor]:
    weight = torch.randn(hidden_T_D.shape, generator=torch.Generator().manual_seed(1))
    (hidden_T_D * weight).sum().backward()
    return {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_gradients_are_the_models(family: str, attention: str) -> None:
    lm = model(family, attention)
    expected_T_D = alone(lm)
    expected = gradients(lm, expected_T_D)
    policy = Policy(model(family, attention))
    assert policy.adopted == policy.packed == (attention == "sdpa")
    found_T_D = policy(pack(PROMPTS, RESPONSES, pad_id=0, packed=policy.packed))
    torch.testing.assert_close(found_T_D, expected_T_D, rtol=1e-5, atol=1e-5)
    found = gradients(policy.lm, found_T_D)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])  # with and without biases, without and with norms of heads
def test_compilation_changes_nothing(family: str) -> None:
    plain, fused = Policy(model(family)), Policy(model(family), compiled=True)
    for end in (2, 3):  # lengths of another batch
        rows = pack(PROMPTS[:end], RESPONSES[:end], pad_id=0, packed=True)
        expected_T_D, found_T_D = plain(rows), fused(rows)
        torch.testing.assert_close(found_T_D, expected_T_D, rtol=1e-5, atol=1e-5)
        expected, found = (gradients(p.lm, hidden) for p, hidden in ((plain, expected_T_D), (fused, found_T_D)))
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_activation_checkpointing_changes_nothing() -> None:
    rows = pack(PROMPTS, RESPONSES, pad_id=0, packed=True)
    plain, thrifty = Policy(model("qwen3")), Policy(model("qwen3"), recomputed=True)
    seen: list[int] = []
    for policy in (plain, thrifty):
        gate = policy.lm.model.layers[1].mlp.gate_proj
        gate.register_forward_pre_hook(lambda *_, policy=policy: seen.append(policy is thrifty))
    expected, found = (gradients(policy.lm, policy(rows)) for policy in (plain, thrifty))
    assert seen == [False, True, True]
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_another_model_keeps_its_body() -> None:
    """Sliding windows are not full attention."""
    config = Qwen3Config(
        **SMALL, head_dim=8, use_sliding_window=True, sliding_window=3, max_window_layers=1, attn_implementation="sdpa"
    )
    assert "sliding_attention" in config.layer_types
    lm = Qwen3ForCausalLM(config).eval()
    forwards = [module.forward for module in lm.modules()]
    policy = Policy(lm)
    assert (policy.adopted, policy.packed) == (False, False)
    assert [module.forward for module in lm.modules()] == forwards
    found = policy(pack(PROMPTS, RESPONSES, pad_id=0, packed=False))
    torch.testing.assert_close(found, alone(lm), rtol=1e-5, atol=1e-5)


def test_the_last_mlp_sees_only_response_rows_and_no_token_is_padding() -> None:
    policy = Policy(model("qwen3"))
    seen: list[int] = []
    for layer in policy.lm.model.layers:
        layer.mlp.gate_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:-1].numel()))
    policy(pack(PROMPTS, RESPONSES, pad_id=0, packed=True))
    tokens, predicted = sum(map(len, PROMPTS + RESPONSES)) - len(RESPONSES), sum(map(len, RESPONSES))
    assert seen == [tokens, tokens, predicted]


def test_no_rows_to_predict_still_have_a_gradient() -> None:
    """What an empty micro-batch does while other ranks compute."""
    policy = Policy(model("qwen3"))
    hidden_T_D = policy(pack([], [], pad_id=0, packed=True))
    assert hidden_T_D.shape == (0, 16)
    hidden_T_D.sum().backward()
    missing = [name for name, p in policy.lm.model.named_parameters() if p.grad is None]
    assert missing == []
    assert all((p.grad == 0).all() for p in policy.lm.model.parameters())


def test_bfloat16_is_as_close_to_float32_as_hugging_faces() -> None:
    exact_T_D = alone(model("qwen3")).detach()
    rows = pack(PROMPTS, RESPONSES, pad_id=0, packed=True)
    theirs, ours = alone(model("qwen3").bfloat16()), Policy(model("qwen3").bfloat16())(rows)
    assert ours.dtype == torch.bfloat16
    error, theirs_error = ((found - exact_T_D).norm().item() for found in (ours, theirs))
    assert error < 1.2 * theirs_error
    assert sum(p.grad.dtype != torch.bfloat16 for p in gradients_of_bfloat16(rows)) == 0


def gradients_of_bfloat16(rows: Rows) -> list[torch.nn.Parameter]:
    policy = Policy(model("qwen3").bfloat16())
    gradients(policy.lm, policy(rows).float())
    return [p for p in policy.lm.model.parameters() if p.grad is not None]


def test_a_sequence_without_response_is_only_read() -> None:
    policy = Policy(model("qwen3"))
    found_T_D = policy(pack([*PROMPTS, [3, 4]], [*RESPONSES, []], pad_id=0, packed=True))
    torch.testing.assert_close(found_T_D, alone(model("qwen3")), rtol=1e-5, atol=1e-5)


def test_without_masks_attention_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    rows = pack([*PROMPTS, [3, 4]], [*RESPONSES, []], pad_id=0, packed=True)
    policies = Policy(model("qwen3")), Policy(model("qwen3"))
    expected_T_D = policies[0](rows)
    calls: list[bool] = []
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention",
        lambda *x, **more: (calls.append(more["is_causal"]), attention(*x, **more))[1],
    )
    monkeypatch.setattr("resd.model.body.MASKED", set())
    found_T_D = policies[1](rows)
    assert all(calls)
    torch.testing.assert_close(found_T_D, expected_T_D, rtol=1e-5, atol=1e-5)
    expected, found = (
        gradients(policy.lm, hidden) for policy, hidden in zip(policies, (expected_T_D, found_T_D), strict=True)
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


class Writes(TorchDispatchMode):
    """Notes every operation that writes into a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += [str(func)] * func._schema.is_mutable
        return func(*args, **(kwargs or {}))


def test_the_gate_writes_into_no_tensor() -> None:
    """torch 2.11 compiles silu(gate).mul_(up) into wrong gradients; here it would compile it right."""
    gate, up, d_out = (torch.randn(3, 4, requires_grad=i < 2) for i in range(3))
    with Writes() as writes:
        assert torch.empty(1).zero_() == 0
        out = _Gate.apply(gate, up)
        found = torch.autograd.grad(out, (gate, up), d_out)
    assert writes.found == ["aten.zero_.default"]
    expected = torch.autograd.grad(torch.nn.functional.silu(gate) * up, (gate, up), d_out)
    torch.testing.assert_close(found, expected)
