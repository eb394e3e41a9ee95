"""Learning rates: against transformers' schedules, and in runs that are resumed, lengthened and rolled back."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from test_learner import OPTIMIZER, make, samples
from test_train import of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.learn.schedule import rate
from resd.settings import OptimizerSettings


def settings(**changes: object) -> OptimizerSettings:
    return OptimizerSettings(**{**OPTIMIZER.model_dump(), **changes})


def theirs(name: str, warmup: int, steps: int, **more: object) -> list[float]:
    """Factors of transformers' schedule for its steps 1 to `steps`, of one more in all."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    made = getattr(transformers, name)(optimizer, num_warmup_steps=warmup, num_training_steps=steps + 1, **more)
    return [made.lr_lambdas[0](step) for step in range(1, steps + 1)]


@pytest.mark.parametrize(("warmup", "steps"), [(1, 7), (3, 20), (10, 100)])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_shapes_are_those_of_transformers(warmup: int, steps: int, floor: float) -> None:
    def ours(name: str, **more: float) -> list[float]:
        chosen = settings(schedule=name, warmup=warmup, min_lr_ratio=floor, **more)
        return [rate(chosen, step, steps) for step in range(1, steps + 1)]

    cosine = theirs("get_cosine_with_min_lr_schedule_with_warmup", warmup, steps, min_lr_rate=floor)
    assert ours("cosine") == pytest.approx(cosine)
    linear = theirs("get_linear_schedule_with_warmup", warmup, steps)
    linear[warmup - 1 :] = [floor + (1 - floor) * factor for factor in linear[warmup - 1 :]]
    assert ours("linear") == pytest.approx(linear)
    last = max(1, steps // 5)
    wsd = theirs("get_wsd_schedule", warmup, steps, num_decay_steps=last, decay_type="linear", min_lr_ratio=floor)
    after = slice(warmup - 1, None)  # theirs warms up from the floor
    assert ours("wsd", decay=last / steps)[after] == pytest.approx(wsd[after])


@given(
    st.sampled_from(["linear", "cosine", "wsd"]),
    st.integers(0, 30),
    st.integers(1, 60),
    st.floats(0, 1),
    st.floats(0.01, 1),
)
def test_rates_rise_then_fall_and_are_never_zero(
    name: str, warmup: int, steps: int, floor: float, decay: float
) -> None:
    chosen = settings(schedule=name, warmup=warmup, min_lr_ratio=floor, decay=decay)
    rates = [rate(chosen, step, steps) for step in range(1, steps + 1)]
    top = min(max(1, warmup), steps)
    assert rates[top - 1] == min(1.0, steps / max(1, warmup))
    assert all(0 < a < b for a, b in pairwise(rates[:top]))
    assert all(a >= b >= floor - 1e-12 for a, b in pairwise(rates[top - 1 :]))
    assert all(value > 0 for value in rates)


@given(st.integers(0, 30), st.integers(1, 60), st.integers(1, 60))
def test_constant_is_what_it_was_to_the_last_digit(warmup: int, step: int, steps: int) -> None:
    assert rate(settings(warmup=warmup), step, steps) == min(1.0, step / max(1, warmup))


def test_an_update_has_the_rate_of_its_number(mesh: DeviceMesh) -> None:
    learner = make(mesh, warmup=2, schedule="linear", min_lr_ratio=0.5)
    learner.steps = 4
    rates = [learner.update(samples(2), step)["lr"] for step in (1, 2, 3, 4, 2)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3 * (1 - 0.5 / 3), 1e-3 * (1 - 1 / 3), 1e-3])


def test_a_run_that_is_resumed_and_lengthened(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed run has the rates of a whole one; more `steps` are announced and move the end of the schedule."""
    few = ["batch_size=2", "evaluation.every=0", "evaluation.limit=1", "evaluation.before=false"]
    few += ["optimizer.schedule=linear", "optimizer.warmup=0", "checkpoints.keep=9"]
    rows = run(tiny_model, tmp_path, *few, "steps=3")
    assert [row["lr"] for row in of_kind(rows, "train")] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])
    capsys.readouterr()
    rows = run(tiny_model, tmp_path, *few, "steps=5", f"resume={tmp_path}/checkpoints/step_000001")
    said = capsys.readouterr().out
    assert "steps: 3 -> 5" in said
    assert [row["lr"] for row in of_kind(rows, "train")] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
