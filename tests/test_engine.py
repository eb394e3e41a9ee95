import os
import random
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from test_vllm import SETTINGS
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from resd import dist
from resd.engine.base import Engine
from resd.engine.decode import decode
from resd.engine.fused import FusedDecoder, supports
from resd.engine.transformers import TransformersEngine
from resd.engine.vllm import VllmEngine
from resd.types import Completion, Request

VOCABULARY = 260
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 512}


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    """Weights wide enough that greedy output does not repeat itself; biases and norms are not left at 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    return model.eval()


FUSED = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "qwen3_tied": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
    "llama_yarn": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=YARN)),
}
OTHERS = {
    "qwen3_biased": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, attention_bias=True)),
    "qwen3_sliding": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SHAPE, use_sliding_window=True, sliding_window=16, max_window_layers=1)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, sliding_window=16, tie_word_embeddings=False, attn_implementation="eager")
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=2048, bos_token_id=0, eos_token_id=0
        )
    ),
}


def engine(model: PreTrainedModel, **options: Any) -> TransformersEngine:
    return TransformersEngine(model, **{"eos_ids": [], "max_batch": 8, "max_length": 1024, **options})


def prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def generated(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """Completions in the order of the requests, each exactly once."""
    found = list(engine.generate(requests))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [completion for _, completion in sorted(found, key=lambda pair: pair[0])]


def hugging_face(model: PreTrainedModel, prompt: list[int], tokens: int, eos: list[int] | None = None) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": eos, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()


@torch.no_grad()
def forward_logprobs(model: PreTrainedModel, prompt: list[int], completion: Completion, temperature: float) -> Tensor:
    logits_T_V = model(torch.tensor([prompt + completion.ids])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits_T_V / temperature, -1)[range(len(completion.ids)), completion.ids]


@pytest.mark.parametrize("name", FUSED)
def test_the_fused_forward_pass_covers_the_llama_family(name: str) -> None:
    assert supports(FUSED[name]())


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_declined(name: str) -> None:
    assert not supports(OTHERS[name]())


@pytest.mark.parametrize("name", FUSED | OTHERS)
def test_greedy_tokens_and_logprobs_equal_hugging_face(name: str) -> None:
    model = randomised((FUSED | OTHERS)[name]())
    asked = prompts([3, 70, 1, 24, 24])
    expected = [hugging_face(model, prompt, 12) for prompt in asked]
    assert len({token for ids in expected for token in ids}) > 12  # otherwise equality says little
    ours = engine(model)
    together = generated(ours, [Request(prompt, 12, temperature=0.0) for prompt in asked])
    assert [completion.ids for completion in together] == expected
    for prompt, completion in zip(asked, together, strict=True):
        alone = generated(ours, [Request(prompt, 12, temperature=0.0)])
        assert alone[0].ids == completion.ids
        logprobs_T = torch.tensor(completion.logprobs)
        torch.testing.assert_close(logprobs_T, forward_logprobs(model, prompt, completion, 1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen3_tied", "gemma2"])
def test_logprobs_are_at_the_temperature_and_before_top_p(name: str) -> None:
    model = randomised((FUSED | OTHERS)[name]())
    asked = prompts([5, 40, 9])
    requests = [Request(prompt, 20, temperature=0.7, top_p=0.8, seed=i) for i, prompt in enumerate(asked)]
    for prompt, completion in zip(asked, generated(engine(model), requests), strict=True):
        logprobs_T = torch.tensor(completion.logprobs)
        torch.testing.assert_close(logprobs_T, forward_logprobs(model, prompt, completion, 0.7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_a_request_does_not_depend_on_the_others(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch size, order and neighbours leave seeded samples as they are, over refills, passes and equal prompts."""
    monkeypatch.setattr("resd.engine.fused.PREFILL_TOKENS", 50)
    ours = engine(randomised(FUSED["qwen3"]()), max_batch=3, fused=fused)
    asked = prompts([2, 620, 17, 40, 5, 33, 8])
    asked += [asked[2], asked[2]]
    requests = [
        Request(prompt, 4 + 5 * (i % 4), temperature=(1.0, 0.0, 0.6)[i % 3], top_p=(1.0, 0.9)[i % 2], seed=i)
        for i, prompt in enumerate(asked)
    ]
    alone = [generated(ours, [request])[0] for request in requests]
    assert [len(completion.ids) for completion in alone] == [request.max_tokens for request in requests]
    assert len({tuple(completion.ids[:4]) for completion in alone}) == len(alone)
    order = list(range(len(requests)))
    for seed in range(3):
        together = generated(ours, [requests[i] for i in order])
        assert [completion.ids for completion in together] == [alone[i].ids for i in order]
        random.Random(seed).shuffle(order)


@pytest.mark.parametrize("name", FUSED)
def test_a_shared_beginning_is_read_once_and_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over refills and passes, with equal prompts, and one prompt that is the beginning of the others."""
    ours = engine(randomised(FUSED[name]()), max_batch=5)
    beginning, *rests = prompts([70, 1, 12, 30, 5, 9, 20])
    asked = [beginning + rest for rest in rests] + [beginning, beginning + rests[2]]
    requests = [Request(p, 3 + i % 4, temperature=(0.0, 0.7)[i % 2], seed=i) for i, p in enumerate(asked)]
    alone = [generated(ours, [request])[0] for request in requests]
    read, forward = [0], FusedDecoder._forward

    def counted(self: FusedDecoder, ids_N: Tensor, *rest: Any) -> Tensor:
        read[0] += len(ids_N)
        return forward(self, ids_N, *rest)

    def tokens(requests: Sequence[Request], worth: float) -> int:
        monkeypatch.setattr("resd.engine.fused.SHARED_FLOP", worth)
        read[0] = 0
        for one, other in zip([alone[requests_of[id(r)]] for r in requests], generated(ours, requests), strict=True):
            assert one.ids == other.ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        return read[0]

    requests_of = {id(request): i for i, request in enumerate(requests)}
    monkeypatch.setattr("resd.engine.fused.PREFILL_TOKENS", 50)
    monkeypatch.setattr(FusedDecoder, "_forward", counted)
    assert tokens(requests, 1) < tokens(requests, 1e30) - 5 * 60
    one_saved = 2 * ours.fused.size * 70  # type: ignore[union-attr]
    pair = [requests[0], requests[1]]
    assert tokens(pair, one_saved) < tokens(pair, one_saved + 1)
    same = [requests[6], requests[6]]
    assert tokens(same, 1) == tokens(same, 1e30)


def test_seeds_decide_and_repeat() -> None:
    ours = engine(randomised(FUSED["qwen3"]()))
    [prompt] = prompts([10])
    first = generated(ours, [Request(prompt, 10, seed=seed) for seed in (1, 2, 2**62 + 1, 1)])
    assert first[0].ids == first[3].ids
    assert len({tuple(completion.ids) for completion in first}) == 3
    assert first == generated(ours, [Request(prompt, 10, seed=seed) for seed in (1, 2, 2**62 + 1, 1)])


def test_the_fused_pass_and_the_models_own_agree() -> None:
    requests = [Request(prompt, 16, top_p=0.9, seed=i) for i, prompt in enumerate(prompts([4, 90, 30]))]
    ours, theirs = (generated(engine(randomised(FUSED["qwen3"]()), fused=fused), requests) for fused in (True, False))
    assert [completion.ids for completion in ours] == [completion.ids for completion in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_generation_ends_with_any_end_of_turn_token(fused: bool) -> None:
    model = randomised(FUSED["qwen3"]())
    asked = prompts([6, 15, 30, 4])
    free = [hugging_face(model, prompt, 20) for prompt in asked]
    eos = [free[0][7], free[1][3]]
    expected = [hugging_face(model, prompt, 20, eos) for prompt in asked]
    found = generated(engine(model, eos_ids=eos, fused=fused), [Request(p, 20, temperature=0.0) for p in asked])
    assert [completion.ids for completion in found] == expected
    assert len(found[0].ids) <= 8
    assert len(found[1].ids) <= 4
    for completion in found:
        assert completion.truncated == (completion.ids[-1] not in eos)
        assert len(completion.logprobs) == len(completion.ids)


def test_an_end_of_turn_token_at_the_cap_is_not_truncated() -> None:
    model = randomised(FUSED["qwen3"]())
    [prompt] = prompts([6])
    ids = hugging_face(model, prompt, 12)
    cap = next(length for length in range(4, 12) if ids[length - 1] not in ids[: length - 1])
    request = Request(prompt, cap, temperature=0.0)
    assert generated(engine(model), [request])[0].truncated
    [completion] = generated(engine(model, eos_ids=[ids[cap - 1]]), [request])
    assert (completion.ids, completion.truncated) == (ids[:cap], False)


@pytest.mark.parametrize("fused", [True, False])
def test_caps_and_the_context_limit_hold(fused: bool) -> None:
    ours = engine(randomised(FUSED["qwen3"]()), max_length=40, fused=fused)
    requests = [Request(prompt, 10) for prompt in prompts([30, 31, 37, 39, 40, 41, 0])] + [Request([1, 2], 0)]
    found = generated(ours, requests)
    assert [len(completion.ids) for completion in found] == [10, 9, 3, 1, 0, 0, 0, 0]
    assert all(completion.truncated for completion in found)
    assert found[4] == Completion([], [], True)
    assert engine(randomised(FUSED["qwen3"]()), max_length=10**6).max_length == 2048
    assert list(ours.generate([])) == []


@pytest.mark.parametrize(("name", "tied"), [("fused", True), ("fused", False), ("cached", True)])
def test_sync_replaces_the_weights(name: str, tied: bool) -> None:
    requests = [Request(prompt, 12, temperature=i / 2, seed=i) for i, prompt in enumerate(prompts([4, 20, 9]))]
    old, new = tiny.model(seed=1, tied=tied), tiny.model(seed=2, tied=tied)
    ours = engine(old, fused=name == "fused")
    before = generated(ours, requests)
    ours.sync(new.state_dict().items())  # names both tensors of a tied pair
    after = generated(ours, requests)
    assert after == generated(engine(tiny.model(seed=2, tied=tied), fused=name == "fused"), requests)
    assert all(a.ids != b.ids for a, b in zip(before, after, strict=True))
    ours.sync((name, weight.double()) for name, weight in tiny.model(seed=1, tied=tied).named_parameters())
    assert generated(ours, requests) == before


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package in the place of vLLM; the options that its engine was made with."""
    told: dict[str, Any] = {}
    package = SimpleNamespace(LLM=lambda path, **options: told.update(options), SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", SimpleNamespace(StructuredOutputsParams=SimpleNamespace))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("VLLM_LOGGING_LEVEL", None)
    return told


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("guidance", "parser", "enforced", "budgets"),
    [
        ("from the start", "", True, [None, None]),
        ("after thinking", "qwen3", True, [500, 10_000 - 2048]),  # a long answer has enough in 2048 tokens
        ("never", "", False, [None, None]),
    ],
)
def test_a_schema_leaves_vllm_its_thinking(
    vllm: dict[str, Any], guidance: Any, parser: str, enforced: bool, budgets: list[int | None]
) -> None:
    """Without a parser the first token already is the schema's, and thinking that is open could never end."""
    ours = VllmEngine("unread", SETTINGS, eos_ids=[7], max_length=20_000, device="cpu", guidance=guidance)
    assert vllm["reasoning_parser"] == parser
    for limit, budget in zip((1000, 10_000), budgets, strict=True):
        asked = ours._parameters(Request([1], limit, schema=SCHEMA), limit)
        assert (asked.structured_outputs.json if asked.structured_outputs else None) == (SCHEMA if enforced else None)
        assert asked.thinking_token_budget == budget
    free = ours._parameters(Request([1], 1000), 1000)
    assert free.structured_outputs is free.thinking_token_budget is None


@pytest.mark.parametrize(("temperature", "mode"), [(1.0, "raw_logprobs"), (0.7, "processed_logprobs")])
def test_vllm_reports_at_the_temperature_of_rollouts(vllm: dict[str, Any], temperature: float, mode: str) -> None:
    VllmEngine("unread", SETTINGS, eos_ids=[7], max_length=100, device="cpu", temperature=temperature)
    assert vllm["logprobs_mode"] == mode


@pytest.mark.parametrize(("rank", "level"), [(0, "WARNING"), (1, "ERROR")])
def test_one_process_says_what_vllm_warns_of(
    vllm: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rank: int, level: str
) -> None:
    monkeypatch.setattr(dist, "rank", lambda: rank)
    VllmEngine("unread", SETTINGS, eos_ids=[7], max_length=100, device="cpu")
    assert os.environ["VLLM_LOGGING_LEVEL"] == level
    os.environ["VLLM_LOGGING_LEVEL"] = "DEBUG"  # of one's own
    VllmEngine("unread", SETTINGS, eos_ids=[7], max_length=100, device="cpu")
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_a_sync_that_leaves_old_keys_and_values_is_an_error() -> None:
    asked: list[str] = []
    ours = VllmEngine.__new__(VllmEngine)
    ours.asleep = True
    ours.llm = SimpleNamespace(
        wake_up=lambda tags: asked.extend(tags),
        collective_rpc=lambda name, args: asked.append(name),
        reset_prefix_cache=lambda: len(asked) == 3,
    )
    ours.sync([])
    assert (asked, ours.asleep) == (["weights", "load_full_tensors", "kv_cache"], False)
    with pytest.raises(RuntimeError, match="keys and values of the old weights"):
        ours.sync([])


def test_sync_refuses_what_would_leave_the_weights_mixed() -> None:
    ours = engine(tiny.model())
    weights = dict(tiny.model(seed=2).named_parameters())
    norm = "model.layers.0.self_attn.q_norm.weight"
    with pytest.raises(ValueError, match=r"unchanged.*q_norm"):
        ours.sync((name, weight) for name, weight in weights.items() if name != norm)
    with pytest.raises(ValueError, match=r"q_norm.*\(1,\)"):
        ours.sync({**weights, norm: torch.ones(1)}.items())
    with pytest.raises(ValueError, match="no weight of that name"):
        ours.sync({**weights, "model.layers.9.weight": torch.ones(1)}.items())


def test_bfloat16_is_as_exact_as_hugging_face() -> None:
    exact, model = randomised(FUSED["qwen3"]()), randomised(FUSED["qwen3"]())
    ours = engine(model, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.get_submodule("model.rotary_emb").inv_freq.dtype == torch.float32
    errors, theirs = [], []
    for prompt in prompts([5, 300, 40]):
        [completion] = generated(ours, [Request(prompt, 30, seed=3)])
        expected_T = forward_logprobs(exact, prompt, completion, 1.0)
        errors.append((torch.tensor(completion.logprobs) - expected_T).abs())
        theirs.append((forward_logprobs(model, prompt, completion, 1.0).float() - expected_T).abs())
    assert 0 < torch.cat(errors).mean() < 1.3 * torch.cat(theirs).mean() < 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [True, False])
def test_logprobs_on_a_gpu_equal_those_on_a_cpu(fused: bool) -> None:
    exact = randomised(FUSED["qwen3"]())
    ours = engine(randomised(FUSED["qwen3"]()), max_batch=2, device="cuda", fused=fused)
    asked = prompts([5, 300, 40])
    for prompt, completion in zip(asked, generated(ours, [Request(p, 30, top_p=0.9) for p in asked]), strict=True):
        logprobs_T = torch.tensor(completion.logprobs)
        torch.testing.assert_close(logprobs_T, forward_logprobs(exact, prompt, completion, 1.0), atol=1e-3, rtol=0)


def test_the_consumer_runs_outside_of_inference_mode() -> None:
    for _ in engine(tiny.model()).generate([Request([1, 2, 3], 2), Request([4], 4)]):
        assert not torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()


class CountingDecoder:
    """Continues with the row's length so far; knows what it was asked to do."""

    def __init__(self, rows: int) -> None:
        self.rows, self.work, self.prefills, self.lengths = rows, 0, list[int](), list[int]()

    @property
    def room(self) -> int:
        return self.rows - len(self.lengths)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.prefills.append(len(prompts))
        self.lengths += [len(prompt) for prompt in prompts]
        assert len(self.lengths) <= self.rows
        return torch.nn.functional.one_hot(torch.tensor(self.lengths[-len(prompts) :]), 100) * 100.0

    def step(self, ids_B: Tensor) -> Tensor:
        assert ids_B.tolist() == self.lengths
        self.work += len(ids_B)
        self.lengths = [length + 1 for length in self.lengths]
        return torch.nn.functional.one_hot(torch.tensor(self.lengths), 100) * 100.0

    def keep(self, order: Sequence[int]) -> None:
        assert all(old in (row, *range(len(order), len(self.lengths))) for row, old in enumerate(order))
        self.lengths = [self.lengths[old] for old in order]


def test_finished_rows_cost_nothing_and_places_are_refilled() -> None:
    requests = [Request([0] * (1 + i % 3), 1 + (7 * i) % 20) for i in range(50)]
    decoder = CountingDecoder(rows=16)
    found = dict(decode(decoder, requests, 90, eos_ids=[]))
    for i, request in enumerate(requests):
        first = len(request.prompt_ids)
        assert found[i].ids == list(range(first, first + request.max_tokens))
    assert decoder.work == sum(request.max_tokens - 1 for request in requests)
    assert decoder.prefills[0] == 16
    assert all(count >= 2 for count in decoder.prefills[:-1])  # one place in eight, so that prefills are shared
    assert decoder.lengths == []
