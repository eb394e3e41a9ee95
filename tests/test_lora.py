"""LoRA: gradients reach the adapter alone, the teacher averages it, and what others see is whole weights."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hydra import compose, initialize_config_dir
from test_learner import DISTIL, HARDWARE, LOSS, OPTIMIZER, samples
from test_shard import alone, settings, world
from test_train import environment, metrics, of_kind, same_end, weights
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM

from resd.config import CONF, validate
from resd.learn.learner import Learner, Objective
from resd.model import lora
from resd.model.build import build_student
from resd.model.hidden import Policy
from resd.model.pack import pack
from resd.model.shard import full_tensors, shard, whole_or_local
from resd.model.teacher import Teacher
from resd.settings import LoraSettings
from resd.types import UserError

peft = pytest.importorskip("peft")

EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = LoraSettings(rank=3, alpha=6, targets=EVERYWHERE)
RUN = ["model.lora={rank: 3, alpha: 6, targets: [q_proj, v_proj, down_proj]}", "algorithm.teacher.rate=0.1"]


def adapted(seed: int = 0) -> Any:
    """A tiny model whose adapters are not zero any more."""
    lm = lora.adapt(tiny.model(), LORA, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for owner in ("student", "teacher"):
        for parameter in lora.weights(lm, owner).values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return lm


def make(
    folder: Path, mesh: DeviceMesh, kind: Any = "ema", rate: float = 0.25, to: list[str] = EVERYWHERE, **changes: Any
) -> Learner:
    model = settings(folder).model_copy(update={"lora": LORA.model_copy(update={"targets": to})})
    student = build_student(model, HARDWARE.model_copy(update=changes), mesh)
    teacher = Teacher(student, kind, rate)
    return Learner(student, teacher, Objective(LOSS, 1.0, DISTIL, None), OPTIMIZER, HARDWARE, pad_id=0)


def whole(parameters: dict[str, Any]) -> dict[str, Tensor]:
    return {name: whole_or_local(p, whole=True).clone() for name, p in parameters.items()}


def test_both_begin_as_the_base(mesh: DeviceMesh, tiny_model: Path) -> None:
    learner = make(tiny_model, mesh)
    found, expected = dict(full_tensors(learner.policy)), dict(tiny.model().named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    rows = pack([[5, 6, 7]], [[8, 9]], pad_id=0, packed=True)
    assert learner.teacher is not None
    with torch.no_grad():
        student = learner.policy(rows)
    assert torch.equal(learner.teacher.hidden(rows), student)
    torch.testing.assert_close(student, Policy(tiny.model())(rows))


def test_only_the_students_adapter_learns(mesh: DeviceMesh, tiny_model: Path) -> None:
    learner = make(tiny_model, mesh)
    policy = learner.policy
    before = whole(dict(policy.named_parameters()))
    touched: set[str] = set()

    def note(*_: Any) -> None:
        touched.update(name for name, p in policy.named_parameters() if p.grad is not None)

    learner.optimizer.register_step_pre_hook(note)
    for step in (1, 2):
        assert learner.update(samples(), step)["skipped_steps"] == 0
    own = lora.weights(policy, "student")
    assert touched == own.keys()
    assert len(own) == 2 * len(EVERYWHERE) * 2
    assert sum(len(group["params"]) for group in learner.optimizer.param_groups) == len(own)
    after = whole(dict(policy.named_parameters()))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {*own, *lora.weights(policy, "teacher")}


def test_the_teacher_is_the_average_of_the_adapter(mesh: DeviceMesh, tiny_model: Path) -> None:
    learner = make(tiny_model, mesh, rate=0.25)
    expected = list(whole(lora.weights(learner.policy, "teacher")).values())
    for step in (1, 2, 3):
        learner.update(samples(), step)
        student = whole(lora.weights(learner.policy, "student")).values()
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, student, strict=True)]
        found = whole(lora.weights(learner.policy, "teacher")).values()
        for right, left in zip(expected, found, strict=True):
            torch.testing.assert_close(left, right)
    rows = pack([[5, 6, 7]], [[8, 9]], pad_id=0, packed=True)
    assert learner.teacher is not None
    with torch.no_grad():
        assert not torch.allclose(learner.teacher.hidden(rows), learner.policy(rows))


def test_a_frozen_teacher_is_the_base_and_a_live_one_the_student(mesh: DeviceMesh, tiny_model: Path) -> None:
    rows = pack([[5, 6, 7]], [[8, 9]], pad_id=0, packed=True)
    frozen, live = (make(tiny_model, mesh, kind=kind) for kind in ("frozen", "live"))
    for learner in (frozen, live):
        learner.update(samples(), 1)
    assert frozen.teacher is not None
    assert live.teacher is not None
    assert live.teacher.weights() == {}
    torch.testing.assert_close(frozen.teacher.hidden(rows), Policy(tiny.model())(rows))
    with torch.no_grad():
        assert torch.equal(live.teacher.hidden(rows), live.policy(rows))


def test_a_step_equals_one_by_plain_autograd_on_merged_weights(mesh: DeviceMesh, tiny_model: Path) -> None:
    """dL/dB = scale dL/dW A', with dL/dW of a model whose weights are all trained; A does not move while B is zero."""
    from test_learner import gradients
    from test_learner import make as make_whole

    learner = make(tiny_model, mesh, kind="live")
    caught: dict[str, Tensor] = {}
    own = lora.weights(learner.policy.lm, "student")
    learner.optimizer.register_step_pre_hook(
        lambda *_: caught.update({name: p.grad.full_tensor().clone() for name, p in own.items()})
    )
    learner.settings = learner.settings.model_copy(update={"grad_clip": 1e9})
    down = whole(own)
    loss = learner.update(samples(), 1)["loss"]
    expected_loss, expected = gradients(make_whole(mesh, kind="live"), samples())
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, gradient in caught.items():
        if ".lora_A." in name:
            assert not gradient.any()
        else:
            d_weight = expected[name.replace(".lora_B.student", "")]
            torch.testing.assert_close(
                gradient, 2 * d_weight @ down[name.replace("lora_B", "lora_A")].T, rtol=1e-4, atol=1e-6
            )


def test_learning_brings_the_student_to_the_teacher(mesh: DeviceMesh, tiny_model: Path) -> None:
    learner = make(tiny_model, mesh, kind="frozen")
    learner.settings = learner.settings.model_copy(update={"lr": 1e-2})
    losses = [learner.update(samples(), step)["loss"] for step in range(1, 31)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("offload", [None, "all"])
def test_activation_checkpointing_and_offload_change_nothing(
    mesh: DeviceMesh, tiny_model: Path, offload: str | None
) -> None:
    plain, thrifty = make(tiny_model, mesh), make(tiny_model, mesh, activation_checkpointing=True, offload=offload)
    losses = [[learner.update(samples(), step)["loss"] for step in (1, 2)] for learner in (plain, thrifty)]
    assert losses[0] == losses[1]


def test_merged_weights_are_pefts_own(mesh: DeviceMesh) -> None:
    reference = peft.get_peft_model(
        tiny.model(), peft.LoraConfig(r=3, lora_alpha=6, target_modules=EVERYWHERE), "student"
    )
    own = lora.weights(adapted(), "student")
    for name, parameter in reference.base_model.model.named_parameters():
        if ".lora_" in name:
            parameter.data.copy_(own[name])
    merged = dict(reference.merge_and_unload().named_parameters())
    found = dict(full_tensors(shard(Policy(adapted()), mesh, torch.float32)))
    assert found.keys() == merged.keys()
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    assert not torch.equal(merged["model.layers.0.mlp.up_proj.weight"], tiny.model().model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_our_body_computes_what_the_model_does(owner: Any) -> None:
    prompts, responses = [[1, 2, 3], [4], [5, 6, 7, 8, 9]], [[7, 8], [9, 10, 11, 12], [13]]
    ours, theirs = Policy(adapted()), adapted()
    assert ours.adopted
    with lora.speaking(ours.lm, owner), lora.speaking(theirs, owner):
        found_T_D = ours(pack(prompts, responses, pad_id=0, packed=True))
        parts = []
        for prompt, response in zip(prompts, responses, strict=True):
            hidden = theirs.model(input_ids=torch.tensor([[*prompt, *response[:-1]]]), use_cache=False)
            parts.append(hidden.last_hidden_state[0, len(prompt) - 1 :])
    expected_T_D = torch.cat(parts)
    torch.testing.assert_close(found_T_D, expected_T_D, rtol=1e-5, atol=1e-5)
    weight = torch.randn(expected_T_D.shape, generator=torch.Generator().manual_seed(1))
    for hidden_T_D in (found_T_D, expected_T_D):
        if owner == "student":
            (hidden_T_D * weight).sum().backward()
    for found, expected in zip(ours.lm.parameters(), theirs.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None)
        if found.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "says"),
    [(["nothing_like_it"], "does not fit the model"), (["q_proj", "lm_head"], "means lm_head too, which is no linear")],
)
def test_targets_that_do_not_fit_are_one_sentence(targets: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        lora.adapt(tiny.model(tied=False), LoraSettings(rank=2, alpha=2, targets=targets), 0)


def test_a_run_saves_merged_weights_and_a_small_state(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    rows = alone(tiny_model, tmp_path, *RUN, "steps=2")
    assert all(row["skipped_steps"] == 0 and row["loss"] > 0 for row in of_kind(rows, "train"))
    assert 0 <= of_kind(rows, "train")[1]["mismatch_kl"] < 1e-6  # the engine has the merged weights
    base, after = dict(tiny.model().named_parameters()), weights(tmp_path, 2)
    assert after.keys() == base.keys()
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], after[name])}
    assert changed == {"q_proj", "v_proj", "down_proj"}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "best" / "model").num_parameters() == sum(
        p.numel() for p in base.values()
    )
    saved = FileSystemReader(tmp_path / "checkpoints/step_000002/state").read_metadata().state_dict_metadata
    tensors = {name: meta for name, meta in saved.items() if hasattr(meta, "size") and len(meta.size)}
    assert {name.split(".")[0] for name in tensors} == {"student", "optimizer", "teacher"}
    assert [name for name in tensors if ".lora_" not in name] == []
    assert len(tensors) == 4 * 2 * 3 * 2  # adapter, two moments and teacher; A and B of three modules in two layers
    for other in ([], [RUN[0].replace("rank: 3", "rank: 4")]):
        with pytest.raises(UserError, match=r"cannot be resumed|model\.lora"):
            alone(tiny_model, tmp_path, *other, "steps=3")


def test_two_processes_equal_one_and_resume_to_the_bit(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    whole_run, parts, one = tmp_path / "whole", tmp_path / "parts", tmp_path / "one"
    common = [f"model.path={tiny_model}", *RUN]
    continued = [[*common, f"run_dir={parts}", f"steps={steps}"] for steps in (2, 3)]
    world(2, [*common, f"run_dir={whole_run}", "steps=3"], *continued)
    same_end(whole_run, parts, 3)
    alone(tiny_model, one, *RUN, "steps=3")
    for left, right in zip(of_kind(metrics(one), "train"), of_kind(metrics(parts), "train"), strict=True):
        for name in ("loss", "grad_norm", "topk_mass", "response/length"):
            assert left[name] == pytest.approx(right[name], rel=1e-4), name
    a, b = weights(one, 3), weights(parts, 3)
    assert max((a[name] - b[name]).abs().max() for name in a) < 1e-4


def test_nano_learns_with_adapters_by_the_real_command(tmp_path: Path) -> None:
    overrides = ["model.lora={rank: 4, alpha: 8, targets: [q_proj, v_proj, up_proj]}", "optimizer.lr=3e-3"]
    small = ["batch_size=4", "evaluation.before=false", "evaluation.limit=2", "evaluation.samples=1", "steps=2"]
    command = [sys.executable, "-m", "resd.train", "model=nano", f"run_dir={tmp_path}", *overrides, *small]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    rows = of_kind(metrics(tmp_path), "train")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["loss"] > 0 and row["grad_norm"] > 0 and 0 <= row["mismatch_kl"] < 1e-5 for row in rows)


def test_the_shipped_preset_composes() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole, adapted = (
            validate(compose("config", [f"model={name}"])) for name in ("qwen3_4b_thinking", "qwen3_4b_lora")
        )
    assert adapted.model.lora is not None
    assert adapted.model.model_copy(update={"lora": None}) == whole.model
    assert adapted.rollout == whole.rollout
    assert adapted.optimizer.lr == pytest.approx(10 * whole.optimizer.lr)
