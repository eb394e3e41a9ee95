"""Families of models: what learner, engine and checkpoint make of one is what Hugging Face computes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from command import train
from test_learner import DISTIL, HARDWARE, LOSS, OPTIMIZER
from test_shard import settings
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoConfig, AutoModelForCausalLM

from resd.engine.transformers import TransformersEngine
from resd.learn.learner import Learner, Objective
from resd.model.build import blank, build_copy, build_student
from resd.model.shard import full_tensors
from resd.model.teacher import Teacher
from resd.settings import ModelSettings
from resd.storage.checkpoint import write_model
from resd.types import Request, Sample

SIZES = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 2, "pad_token_id": 0,
    "bos_token_id": None,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
# what a family needs besides the sizes; windows are shorter than the sequences
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, **EXPERTS},
    "mistral": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": None, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 4},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "head_dim": 8, "sliding_window": 4},
    "smollm3": {"no_rope_layers": [1, 0]},
    "stablelm": {},
    "starcoder2": {"sliding_window": 4},
    "glm4": {"head_dim": 8},
    "gpt2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "gpt_neox": {},
    "falcon": {"new_decoder_architecture": True, "alibi": False},
    "bloom": {},
}
EAGER = {"gemma2", "bloom"}
RARE = {"mixtral", "gemma2", "olmo3", "cohere2", "stablelm", "starcoder2", "glm4", "opt", "gpt_neox", "falcon", "bloom"}


def folder(path: Path, family: str, **changes: Any) -> ModelSettings:
    """A random model whose vectors, as norms and biases, are random too."""
    config = AutoConfig.for_model(family, **SIZES | FAMILIES.get(family, {}) | changes)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tiny.widen(lm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    attention = "eager" if family in EAGER else "sdpa"
    return settings(tiny.write(lm, path)).model_copy(update={"attention": attention})


def make(model: ModelSettings, mesh: DeviceMesh, **changes: Any) -> Learner:
    hardware = HARDWARE.model_copy(update=changes)
    student = build_student(model, hardware, mesh)
    teacher = Teacher(build_copy(model, hardware, mesh, student), "ema", 0.25)
    return Learner(student, teacher, Objective(LOSS, 1.0, DISTIL, None), OPTIMIZER, hardware, pad_id=0)


def theirs(path: str | Path, samples: list[Sample], dtype: torch.dtype = torch.float32) -> list[list[float]]:
    """Log-probabilities by Hugging Face's whole forward pass, one sequence at a time."""
    lm = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager", return_dict=True).eval()
    found = []
    for sample in samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.response_ids]])
        with torch.no_grad():
            logprobs = lm(input_ids=ids).logits[0].double().log_softmax(-1)
        start = len(sample.prompt_ids)
        found.append([logprobs[start + t - 1, token].item() for t, token in enumerate(sample.response_ids)])
    return found


def close(found: list[list[float]], expected: list[list[float]], within: float) -> bool:
    pairs = [(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)]
    return max(abs(a - b) for a, b in pairs) < within


def generated(model: ModelSettings, learner: Learner) -> list[Sample]:
    """Samples of the built-in engine, which has the student's weights."""
    engine = TransformersEngine(
        blank(model, learner.policy, "cpu", torch.float32), eos_ids=[2], max_batch=3, max_length=64
    )
    engine.sync(full_tensors(learner.policy))
    prompts = [[5, 6, 7, 8, 9, 10, 11], [50, 51], [101, 102, 103, 104]]
    requests = [Request(prompt, 8, 1.0, 1.0, seed) for seed, prompt in enumerate(prompts)]
    done = dict(engine.generate(requests))
    return [
        Sample(prompt, done[i].ids, done[i].logprobs, [9 - i, *prompt[::-1]], weight=1.0)
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in RARE else ()) for name in FAMILIES]
)
def test_learner_engine_and_checkpoint_agree_with_hugging_face(family: str, mesh: DeviceMesh, tmp_path: Path) -> None:
    model = folder(tmp_path / "model", family)
    learner = make(model, mesh)
    samples = generated(model, learner)
    assert max(len(sample.response_ids) for sample in samples) > 4
    exact = theirs(model.path, samples)
    assert close(learner.logprobs(samples), exact, 1e-4)
    assert close([sample.sampled_logprobs for sample in samples], exact, 1e-4)

    before = {name: weight.clone() for name, weight in full_tensors(learner.policy)}
    metrics = learner.update(samples, 1)
    assert metrics["skipped_steps"] == 0
    assert metrics["loss"] > 0
    assert metrics["mismatch_kl"] < 1e-6
    after = {name: weight.clone() for name, weight in full_tensors(learner.policy)}
    assert [name for name in before if torch.equal(before[name], after[name])] == []

    write_model(tmp_path / "saved", after, learner.policy.lm, SimpleNamespace(tokenizer=tiny.tokenizer()))  # type: ignore[arg-type]
    assert close(learner.logprobs(samples), theirs(tmp_path / "saved", samples), 1e-4)
    assert not close(learner.logprobs(samples), exact, 1e-4)


def test_a_model_of_ones_own_trains_and_a_path_alone_is_announced(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")  # its files name another end of turn than its template
    (other / "generation_config.json").write_text('{"eos_token_id": 70}')
    told = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(told | {"eos_token": "<|pad|>"}))
    words = ["task=custom", "task.name=verifier_tasks:Echo", "steps=1", "on_empty=warn"]
    chosen = ["model=custom", f"model.path={other}", "model.max_prompt=3500"]
    own = train(capfd, *words, *chosen, f"run_dir={tmp_path / 'own'}")
    assert own.status == 0, own.err
    assert "add 2 to eos_token_id in generation_config.json" in " ".join(own.out.split())
    assert "update 1/1" in own.out
    assert "warning: model.path" not in own.out
    alone = train(capfd, *words, f"model.path={tiny_model}", f"run_dir={tmp_path / 'alone'}")
    assert f"write model=custom model.path={tiny_model}" in alone.out
