"""The tuned body against the model as Hugging Face has it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from resd.model.fast import tune
from resd.model.hidden import Policy
from resd.model.pack import pack

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
    assert (policy.tuned, policy.packed) == (True, attention == "sdpa")
    found_T_D = policy(pack(PROMPTS, RESPONSES, pad_id=0, packed=policy.packed))
    torch.testing.assert_close(found_T_D, expected_T_D, rtol=1e-5, atol=1e-5)
    found = gradients(policy.lm, found_T_D)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_activation_checkpointing_changes_nothing() -> None:
    rows = pack(PROMPTS, RESPONSES, pad_id=0, packed=True)
    plain, thrifty = Policy(model("qwen3")), Policy(model("qwen3"))
    thrifty.lm.train().gradient_checkpointing_enable({"use_reentrant": False})
    expected, found = (gradients(policy.lm, policy(rows)) for policy in (plain, thrifty))
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
    assert (policy.tuned, policy.packed) == (False, False)
    assert [module.forward for module in lm.modules()] == forwards
    found = policy(pack(PROMPTS, RESPONSES, pad_id=0, packed=False))
    torch.testing.assert_close(found, alone(lm), rtol=1e-5, atol=1e-5)


def test_the_last_mlp_sees_only_response_rows_and_no_token_is_padding() -> None:
    policy = Policy(model("qwen3"))
    seen: list[int] = []
    for layer in policy.lm.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:-1].numel()))
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_hugging_faces(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = Qwen3RMSNorm(24)
    norm.weight.data.normal_()
    lm = tiny.model()
    lm.model.norm = copy.deepcopy(norm)
    assert tune(lm)
    x = (3 * torch.randn(2, 5, 24)).to(dtype)
    d_out = torch.randn(2, 5, 24).to(dtype)
    results = []
    for module in (norm, lm.model.norm):
        leaf = x.clone().requires_grad_()
        out = module.to(dtype)(leaf)
        out.backward(d_out)
        results.append((out.detach(), leaf.grad, module.weight.grad))
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.03}
    torch.testing.assert_close(results[1], results[0], **close)
