"""Loading, sharding by groups, and offloading: the values are those of the file, whoever holds them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from test_learner import HARDWARE
from test_train import SMALL, command, environment, finish, metrics, of_kind, run, same_end, weights
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from resd.config import CONF
from resd.model.build import blank, build_copy, build_student
from resd.model.hidden import Policy
from resd.model.shard import full_tensors, layout, local_tensors
from resd.settings import HardwareSettings, LoraSettings, ModelSettings
from resd.types import UserError

STEADY = [*SMALL, "rollout.top_p=1.0", "evaluation.before=false", "evaluation.limit=1"]


def settings(path: Path) -> ModelSettings:
    nano = yaml.safe_load((CONF / "model" / "nano.yaml").read_text())["model"]
    return ModelSettings(**nano | {"path": str(path)})


def hardware(**changes: Any) -> HardwareSettings:
    return HARDWARE.model_copy(update=changes)


def world(size: int, *runs: list[str]) -> None:
    """Train with `size` processes, once for each list of arguments."""
    words = [word for arguments in runs for word in ("--", *STEADY, *arguments)]
    command = [sys.executable, str(Path(__file__).parent / "world.py"), str(size), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr


def alone(model: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    """The same with this process alone."""
    return run(model, run_dir, *STEADY, *overrides)


def same(policy: Policy, expected: Any) -> bool:
    found = dict(full_tensors(policy))
    return found.keys() == dict(expected.named_parameters()).keys() and all(
        torch.equal(found[name], whole) for name, whole in expected.named_parameters()
    )


@pytest.mark.parametrize("offload", [None, "teacher", "all"])
@pytest.mark.parametrize("tied", [True, False])
def test_models_have_the_values_of_the_file(mesh: DeviceMesh, tmp_path: Path, tied: bool, offload: Any) -> None:
    model, place = settings(tiny.save(tmp_path, tied=tied)), hardware(offload=offload)
    student = build_student(model, place, mesh)
    copy = build_copy(model, place, mesh, student)
    expected = tiny.model(tied=tied)
    assert same(student, expected)
    assert same(copy, expected)
    own, other = ({t.data_ptr() for t in local_tensors(policy.parameters())} for policy in (student, copy))
    assert own.isdisjoint(other)
    engine = blank(model, student, "cpu", torch.bfloat16)
    for lm in (student.lm, copy.lm, engine):
        assert (lm.lm_head.weight is lm.model.embed_tokens.weight) == tied
        for (name, buffer), (same_name, other) in zip(lm.named_buffers(), expected.named_buffers(), strict=True):
            assert name == same_name
            assert buffer.dtype == torch.float32
            assert torch.equal(buffer, other)


def test_a_mixture_of_experts_has_the_values_of_its_file(mesh: DeviceMesh, tmp_path: Path) -> None:
    """Reading one fuses its experts."""
    config = Qwen3MoeConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    model = settings(tmp_path)
    assert same(build_student(model, hardware(), mesh), expected)
    pytest.importorskip("peft")
    attention, experts = (
        model.model_copy(update={"lora": LoraSettings(rank=2, alpha=4, targets=targets)})
        for targets in (["q_proj", "o_proj"], ["q_proj", "gate_proj", "up_proj", "down_proj"])
    )
    assert same(build_student(attention, hardware(), mesh), expected)
    with pytest.raises(UserError, match="experts too, which is no linear module"):
        build_student(experts, hardware(), mesh)


def test_a_run_reads_the_weights_once(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda path, **options: (read.append(path), whole(path, **options))[1]
    )
    alone(tiny_model, tmp_path, "steps=1")
    assert read == [str(tiny_model)]


def test_loading_holds_one_whole_model(mesh: DeviceMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the shards that are filled already, the first process holds only what is still to be given away."""
    model, held = settings(tiny.save(tmp_path)), []
    whole = sum(p.numel() for p in tiny.model().parameters())
    from resd.model import shard

    loaded: list[Any] = []
    monkeypatch.setattr("resd.model.build.load_model", lambda s: loaded.append(tiny.model()) or loaded[0])
    distribute = shard.distribute_tensor

    def watched(*arguments: Any) -> Tensor:
        held.append(sum(p.numel() for p in loaded[0].parameters()))
        return distribute(*arguments)

    monkeypatch.setattr(shard, "distribute_tensor", watched)
    build_student(model, hardware(), mesh)
    assert held[0] == whole
    assert held == sorted(held, reverse=True)
    assert held[-1] <= 32  # the last norm
    assert all(p.numel() == 0 for p in loaded[0].parameters())


def test_weights_that_cannot_be_read_are_one_sentence(mesh: DeviceMesh, tmp_path: Path) -> None:
    (tiny.save(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        build_student(settings(tmp_path), hardware(), mesh)


def test_weights_that_are_not_those_of_the_configuration_are_one_sentence(mesh: DeviceMesh, tmp_path: Path) -> None:
    file = tiny.save(tmp_path, tied=False) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"does not describe.*lm_head\.weight.*correct tie_word_embeddings"):
        build_student(settings(tmp_path), hardware(), mesh)


def test_groups_must_fill_the_world(mesh: DeviceMesh) -> None:
    assert layout(mesh, None) is layout(mesh, 1) is mesh
    with pytest.raises(UserError, match=r"hardware\.shard_processes=3 does not divide the 1 processes"):
        layout(mesh, 3)


def test_offloading_changes_nothing(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    for offload in ("null", "teacher", "all"):
        alone(tiny_model, tmp_path / offload, "steps=2", f"hardware.offload={offload}")
    same_end(tmp_path / "null", tmp_path / "teacher", 2)
    same_end(tmp_path / "null", tmp_path / "all", 2)
    alone(tiny_model, tmp_path / "null", "steps=3", "hardware.offload=all")  # goes on elsewhere
    alone(tiny_model, tmp_path / "all", "steps=3")
    same_end(tmp_path / "null", tmp_path / "all", 3)


def test_two_groups_of_two_processes_equal_one_and_resume(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    whole, parts, one = tmp_path / "whole", tmp_path / "parts", tmp_path / "one"
    common = [f"model.path={tiny_model}", "hardware.shard_processes=2"]
    continued = [[*common, f"run_dir={parts}", f"steps={steps}"] for steps in (2, 3)]
    world(4, [*common, f"run_dir={whole}", "steps=3"], *continued)
    same_end(whole, parts, 3)
    alone(tiny_model, one, "steps=2")
    for left, right in zip(of_kind(metrics(one), "train"), of_kind(metrics(whole), "train"), strict=False):
        for name in ("loss", "grad_norm", "topk_mass", "response/length"):
            assert left[name] == pytest.approx(right[name], rel=1e-4), name
    a, b = weights(one, 2), weights(parts, 2)
    assert max((a[name] - b[name]).abs().max() for name in a) < 1e-4
    rows = alone(tiny_model, parts, "steps=4", f"resume={parts}/checkpoints/step_000003")  # by one process
    assert [row["step"] for row in of_kind(rows, "train")] == [1, 2, 3, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("extra", ["", "hardware.offload=teacher", "hardware.offload=all", "lora"])
def test_a_gpu_trains_and_resumes(tiny_model: Path, tmp_path: Path, extra: str) -> None:
    adapter = "model.lora={rank: 3, alpha: 6, targets: [q_proj, down_proj]}"
    for steps in (2, 3):
        arguments = ["hardware=gpu1", "hardware.dtype=float32", f"steps={steps}", adapter if extra == "lora" else extra]
        finish(command(tiny_model, tmp_path, *STEADY, *filter(None, arguments)))
    rows = of_kind(metrics(tmp_path), "train")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["loss"] > 0 and row["skipped_steps"] == 0 and row["mismatch_kl"] < 1e-3 for row in rows)
