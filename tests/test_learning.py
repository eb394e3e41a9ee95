"""Does an update move a real model where its samples point? A random tiny model, one step at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from scripted import World, model_settings
from test_learner import CLIP, LOSS, gradients, logits, make, samples, weights
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from resd.learn.learner import Learner, Objective
from resd.model.chat import Chat
from resd.model.hidden import Policy
from resd.model.shard import shard
from resd.model.teacher import Teacher
from resd.objectives.distill import Distillation
from resd.observe.run import Run
from resd.types import Sample

REINFORCE = Objective(LOSS, 1.0, None, CLIP)
STEP = 1e-3


def plain(policy: Policy) -> Any:
    """An unsharded model with the same weights."""
    lm = tiny.model()
    lm.load_state_dict(weights(policy), strict=False)  # a tied head has no name of its own
    return lm


def divergence_to_teacher(learner: Learner, sample: Sample) -> float:
    """KL(teacher || student) in nats a token, over the whole vocabulary."""
    assert learner.teacher is not None
    with torch.no_grad():
        p_T_V = logits(plain(learner.policy), sample.prompt_ids, sample.response_ids).log_softmax(-1)
        q_T_V = logits(plain(learner.teacher.policy), sample.teacher_prompt_ids, sample.response_ids).log_softmax(-1)
        return float((q_T_V.exp() * (q_T_V - p_T_V)).sum(-1).mean())


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "jeffreys", "squared_hellinger"])
@pytest.mark.parametrize("select", ["student", "teacher"])
def test_a_step_brings_the_student_to_the_teacher(mesh: DeviceMesh, divergence: str, select: Any) -> None:
    distillation = Distillation(divergence=divergence, top_k=200, select=select, ratio_min=None)
    learner = make(mesh, kind="frozen", lr=STEP, objective=Objective(LOSS, 1.0, distillation, None))
    batch = samples(3)
    before = [divergence_to_teacher(learner, sample) for sample in batch]
    learner.update(batch, 1)
    after = [divergence_to_teacher(learner, sample) for sample in batch]
    assert sum(after) < sum(before)
    assert min(after) > 0


@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1), (-1, 1)])
def test_what_is_rewarded_becomes_likelier_and_what_is_punished_less_so(mesh: DeviceMesh, signs: tuple) -> None:
    learner = make(mesh, kind="frozen", lr=STEP, objective=REINFORCE)
    batch = [replace(s, advantage=float(sign)) for s, sign in zip(samples(2, teacher=False), signs, strict=True)]
    before = [sum(logprobs) for logprobs in learner.logprobs(batch)]
    learner.update(batch, 1)
    after = [sum(logprobs) for logprobs in learner.logprobs(batch)]
    assert [1 if a > b else -1 for a, b in zip(after, before, strict=True)] == list(signs)


def same(found: dict[str, Tensor], expected: dict[str, Tensor], times: float) -> None:
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], times * gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("teacher", [True, False])
def test_a_weight_scales_the_gradient(mesh: DeviceMesh, teacher: bool) -> None:
    objective = None if teacher else REINFORCE
    batch = samples(3, teacher=teacher, advantage=not teacher)
    loss, once = gradients(make(mesh, objective=objective), batch)
    heavier = [replace(s, weight=3 * s.weight) for s in batch]
    thrice_loss, thrice = gradients(make(mesh, objective=objective), heavier)
    assert thrice_loss == pytest.approx(3 * loss, rel=1e-5)
    same(thrice, once, 3.0)
    _, none = gradients(make(mesh, objective=objective), [replace(s, weight=0.0) for s in batch])
    assert all(gradient.abs().max() == 0 for gradient in none.values())


@pytest.mark.parametrize("pull", [0.0, 0.25, 3.0])
def test_a_pull_scales_the_divergence_and_nothing_else(mesh: DeviceMesh, pull: float) -> None:
    """Loss and gradient are those of the advantages and `pull` times those of the divergence."""
    objective = Objective(LOSS, 1.0, Distillation(divergence="jsd", top_k=20), CLIP)
    both = samples(3, advantage=True)
    parts = [
        both,
        [replace(s, teacher_prompt_ids=None) for s in both],
        [replace(s, pull=pull) for s in both],
        [replace(s, pull=[pull] * len(s.response_ids)) for s in both],
    ]
    (loss, whole), (rest, reward), *pulled = [gradients(make(mesh, objective=objective), part) for part in parts]
    for found, gradient in pulled:
        assert found == pytest.approx(rest + pull * (loss - rest), rel=1e-5)
        same(gradient, {name: reward[name] + pull * (whole[name] - reward[name]) for name in whole}, 1.0)
    assert abs(loss - rest) > 1e-3
    told = [[s.token_loss for s in part] for part in parts]
    assert told[0] == told[2] == told[3]  # nats before any weight


def test_a_pull_of_a_token_is_that_token_s(mesh: DeviceMesh) -> None:
    """Pulling at some tokens, and at the others, adds up to pulling at all."""
    batch = samples(3)
    halves = [
        [replace(s, pull=[float(t % 2 == side) for t in range(len(s.response_ids))]) for s in batch] for side in (0, 1)
    ]
    (loss, whole), (even, one), (odd, other) = [gradients(make(mesh), part) for part in (batch, *halves)]
    assert even + odd == pytest.approx(loss, rel=1e-5)
    assert min(even, odd) > 0.1 * loss
    same({name: one[name] + other[name] for name in whole}, whole, 1.0)


@pytest.mark.parametrize("teacher", [True, False])
def test_masks_part_the_gradient(mesh: DeviceMesh, teacher: bool) -> None:
    """A sample's loss is the mean over its masked tokens, so the means of two parts make the mean of the whole."""
    objective = None if teacher else REINFORCE
    [sample] = samples(4, teacher=teacher, advantage=not teacher)[3:]
    length = len(sample.response_ids)
    mask = [t % 3 == 0 for t in range(length)]
    _, whole = gradients(make(mesh, objective=objective), [sample])
    _, part = gradients(make(mesh, objective=objective), [replace(sample, mask=mask)])
    _, rest = gradients(make(mesh, objective=objective), [replace(sample, mask=[not on for on in mask])])
    share = sum(mask) / length
    same({name: share * part[name] + (1 - share) * rest[name] for name in whole}, whole, 1.0)
    assert max(float((part[name] - whole[name]).abs().max()) for name in whole) > 1e-4


class Mute:
    """An engine that only takes weights."""

    replica, replicas = 0, 1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.weights: dict[str, Tensor] = {}

    def sleep(self) -> None:
        self.calls.append("sleep")

    def sync(self, weights: Any) -> None:
        self.calls.append("sync")
        self.weights = {name: weight.clone() for name, weight in weights}


def test_after_an_update_the_engine_has_the_student_s_weights(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    chat = Chat(model_settings(str(tiny_model)))
    learner = make(mesh, kind="frozen", lr=STEP, objective=REINFORCE, warmup=4)
    run = World(tmp_path, chat, "grpo", {}, learner=learner).run
    mute: Any = Mute()
    run.speech.engine = mute
    run.journal.step = 2
    before = weights(learner.policy)
    metrics = Run.learn(run, samples(2, teacher=False, advantage=True))
    assert mute.calls == ["sleep", "sync"]
    after = weights(learner.policy)
    assert mute.weights.keys() == after.keys()
    assert all(torch.equal(mute.weights[name], weight) for name, weight in after.items())
    assert not all(torch.equal(before[name], weight) for name, weight in after.items())
    assert metrics["lr"] == STEP * 2 / 4  # the run's step sets it
    assert metrics["perf/tokens_per_s"] > 0
    assert run.clock.seconds["update"] > 0
    assert run.clock.seconds["sync"] > 0


@pytest.mark.parametrize(("name", "teacher"), [("resd", True), ("sdpo", True), ("grpo", False)])
def test_a_scripted_update_moves_the_student_where_its_samples_point(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, name: str, teacher: bool
) -> None:
    """The teacher has the student's weights: all that it can teach is what it reads."""
    distillation = Distillation(divergence="reverse_kl", top_k=200, ratio_min=None) if teacher else None
    objective = Objective(LOSS, 1.0, distillation, None if teacher else CLIP)
    learner = make(mesh, kind="frozen", lr=STEP, objective=objective)
    learner.teacher = Teacher(shard(Policy(tiny.model(0)), mesh, torch.float32), "frozen", 0.0)
    script: Any = {"one": ["wrong", "right"], "two": "bad", "reflect": "lesson: try again", "curate": "add err: a b"}
    world = World(tmp_path, Chat(model_settings(str(tiny_model))), name, script, learner=learner, group=2)
    reference = make(mesh, kind="frozen", objective=objective)
    attempts = world.update("one", "two")
    spoken = [sample for sample in world.learned if sample.speaks]
    assert world.metrics["loss"] != 0
    assert world.metrics["grad_norm"] > 1e-3
    if teacher:
        reference.teacher = learner.teacher  # the student before its step, the same teacher
        before = [divergence_to_teacher(reference, s) for s in spoken]
        after = [divergence_to_teacher(learner, s) for s in spoken]
        assert sum(after) < sum(before)
        assert all(s.token_loss is not None and max(s.token_loss) > 1e-3 for s in spoken)
    else:
        before = [sum(logprobs) for logprobs in reference.logprobs(spoken)]
        after = [sum(logprobs) for logprobs in learner.logprobs(spoken)]
        moved = {a.response: y - x for a, x, y in zip(attempts, before, after, strict=False)}
        assert moved["wrong"] < moved["right"]
        assert len(spoken) == 2
