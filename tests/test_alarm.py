"""The alarm: it is silent on noise and on learning, rings for each kind of collapse, and what a run does about it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_train import environment, metrics, of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd.alarm import QUANTITIES, Alarm
from resd.settings import AlarmSettings
from resd.storage.rundir import RunDir
from resd.types import UserError

SETTINGS = AlarmSettings(reference=8, rollbacks=2, lr_factor=0.5)
Series = dict[str, "np.ndarray[Any, Any]"]


def healthy(seed: int, updates: int = 200) -> Series:
    """Stationary noise, wider than even small batches make it; one step in a thousand is skipped."""
    draw = np.random.default_rng(seed)
    return {
        "response/length": draw.lognormal(4.0, 0.2, updates),
        "response/truncated": draw.binomial(32, 0.15, updates) / 32,
        "response/end_logprob": -draw.gamma(4, 0.1, updates),
        "response/entropy": draw.lognormal(-1.0, 0.2, updates),
        "topk_mass": 1 - draw.beta(2, 60, updates),
        "update/not_finite": (draw.random(updates) < 0.001).astype(float),
    }


def listen(series: Series, alarm: Alarm | None = None, start: int = 0) -> dict[str, int]:
    """By quantity, the first update that rang."""
    alarm = alarm or Alarm(SETTINGS)
    rang: dict[str, int] = {}
    for i in range(start, len(next(iter(series.values())))):
        for ring in alarm.watch(i + 1, {name: float(values[i]) for name, values in series.items()}):
            rang.setdefault(ring.what, i + 1)
    return rang


def test_stationary_noise_never_rings() -> None:
    assert [rang for seed in range(300) if (rang := listen(healthy(seed)))] == []


def test_words_of_doubt_that_disappear_ring_only_while_a_second_task_suffers() -> None:
    draw = np.random.default_rng(0)
    series = {"style/markers": np.concatenate([draw.lognormal(2.0, 0.05, 20), draw.lognormal(0.5, 0.05, 20)])}
    below = {"forgetting/per_task/change_high": -0.01, "forgetting/per_task/change": -0.1}
    assert listen(series) == {}
    alarm = Alarm(SETTINGS)
    alarm.note(below | {"forgetting/per_task/change_high": 0.02})
    assert listen(series, alarm) == {}
    alarm.note(below)
    assert listen(series, alarm, start=30) == {"markers": 32}
    again = Alarm(SETTINGS)
    again.restore(json.loads(json.dumps(alarm.state())))
    assert listen(series, again, start=38) == {"markers": 39}  # still lasts
    again.note(below | {"forgetting/per_task/change_high": 0.0})
    assert [again.watch(41, {"style/markers": 1.0}), again.metrics["alarm/markers"]] == [[], 0.0]
    risen = {"style/markers": series["style/markers"][::-1]}
    loud = Alarm(SETTINGS)
    loud.note(below)
    assert listen(risen, loud) == {}


def test_learning_never_rings() -> None:
    """What a run that goes well does: surer by a factor of seven, a third shorter, fewer cut off."""
    for seed in range(50):
        series = healthy(seed, 60)
        time = np.linspace(0, 1, 60)
        series["response/entropy"] = 0.045 * 7**-time * np.exp(np.random.default_rng(seed).normal(0, 0.1, 60))
        series["response/length"] = series["response/length"] * 0.66**time
        series["response/truncated"] = series["response/truncated"] * (1 - time)
        assert listen(series) == {}


COLLAPSES: dict[str, tuple[str, Callable[[float], float]]] = {
    "answers of a few tokens": ("length", lambda _: 3.0),
    "answers without an end": ("length", lambda value: 30 * value),
    "all cut off": ("truncated", lambda _: 1.0),
    "an end that is never wanted": ("end", lambda value: value - 8),
    "noise": ("entropy", lambda _: 6.0),
    "always the same": ("entropy", lambda _: 0.0),
    "not a number": ("entropy", lambda _: float("nan")),
    "mass elsewhere": ("topk_mass", lambda _: 0.3),
    "no steps": ("skipped", lambda _: 1.0),
}


@pytest.mark.parametrize("kind", COLLAPSES)
def test_every_collapse_rings_in_its_second_update(kind: str) -> None:
    what, change = COLLAPSES[kind]
    for seed in range(20):
        series = healthy(seed, 40)
        values = series[QUANTITIES[what].metric]
        values[30:] = [change(value) for value in values[30:]]
        assert listen(series) == {what: 32}


def test_an_outlier_does_not_ring_and_does_not_spoil_the_reference() -> None:
    series = healthy(1, 40)
    series["response/length"][[3, 20]] = 5000
    assert listen(series) == {}
    series["response/length"][30:] = 5000
    assert listen(series) == {"length": 32}


def test_it_rings_once_until_the_range_is_reached_again() -> None:
    alarm, rang = Alarm(SETTINGS), []
    lengths = [50.0, 52, 48, 51, 49, 50, 52, 48, 3, 3, 3, 50, 3, 3]
    for step, length in enumerate(lengths, 1):
        rang += [(step, str(ring)) for ring in alarm.watch(step, {"response/length": length})]
        assert alarm.metrics["alarm/length"] == (step in (10, 11, 14))
        assert alarm.before == {9: 8, 10: 8, 11: 8, 13: 12, 14: 12}.get(step)
    assert [step for step, _ in rang] == [10, 14]
    assert rang[0][1] == "response/length is 3 since update 9, 50 at first: answers shrink to nothing"


@pytest.mark.parametrize("cut", [5, 20, 31])
def test_its_state_survives_a_resumption(cut: int) -> None:
    """Before the reference is complete, after it, and between the two updates of a change."""
    series = healthy(3, 40)
    series["response/length"][30:] = 2.0
    whole = Alarm(SETTINGS)
    listen({name: values[:cut] for name, values in series.items()}, whole)
    again = Alarm(SETTINGS)
    again.restore(json.loads(json.dumps(whole.state())))
    assert listen(series, again, cut) == {"length": 32}
    again.restore(None)
    assert listen(series, again, 30) == {}  # without a reference it is the new normal


def test_what_still_rings_rings_again_after_a_resumption() -> None:
    series = healthy(3, 40)
    series["response/length"][30:] = 2.0
    alarm = Alarm(SETTINGS)
    listen({name: values[:35] for name, values in series.items()}, alarm)
    alarm.restore(json.loads(json.dumps(alarm.state())))
    assert listen(series, alarm, 35) == {"length": 36}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """From update 5 on answers are short if the learning rate is above `bearable`."""
    watch, script = Alarm.watch, {"bearable": 0.6e-3}

    def told(self: Alarm, step: int, values: dict[str, float]) -> Any:
        short = step >= 5 and values["lr"] > script["bearable"]
        return watch(self, step, {"response/length": 3.0 if short else 50.0})

    monkeypatch.setattr(Alarm, "watch", told)
    return script


RUN = [
    *("algorithm=sdpo", "steps=7", "epochs=2", "rollout.max_response=6", "evaluation.before=false"),
    *("evaluation.every=0", "evaluation.limit=1", "alarm.reference=4", "optimizer.warmup=1", "checkpoints.keep=1"),
]


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").iterdir())


def test_a_run_goes_back_and_goes_on_at_a_lower_rate(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, scripted: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = of_kind(run(tiny_model, tmp_path, *RUN, "on_alarm=rollback"), "train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["lr"] for row in rows] == [1e-3] * 4 + [5e-4] * 3
    assert all(row["alarm/length"] == 0 for row in rows)
    gone = tmp_path / "abandoned/after_step_000004"
    assert checkpoints(gone) == [5]  # update 6, in which it rang, was not saved
    assert [row["alarm/length"] for row in of_kind(metrics(gone), "train")] == [0, 0, 0, 0, 0, 1]
    assert checkpoints(tmp_path) == [7]
    said = capsys.readouterr().out
    assert "alarm in update 6: response/length is 3 since update 5, 50 at first" in said
    assert "the learning rate is 0.5 times optimizer.lr=0.001" in said
    rows = of_kind(run(tiny_model, tmp_path, *RUN, "on_alarm=rollback", "steps=8"), "train")
    assert rows[-1]["lr"] == 5e-4  # a later process knows
    assert "this run went back after an alarm" in capsys.readouterr().out


def test_it_goes_back_so_often_and_then_ends_with_what_is_whole(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, scripted: dict[str, float]
) -> None:
    scripted["bearable"] = 0.0
    with pytest.raises(
        UserError, match=r"alarm in update 6.*went back 2 times.*step_000006.jsonl.*resume=.*step_000004"
    ):
        run(tiny_model, tmp_path, *RUN, "on_alarm=rollback")
    assert [row["lr"] for row in metrics(tmp_path)] == [1e-3] * 4 + [2.5e-4] * 2
    assert checkpoints(tmp_path) == [4, 6]  # the last good one stays although keep=1
    with pytest.raises(UserError, match="alarm in update 7"):  # the same command does not sneak past it
        run(tiny_model, tmp_path, *RUN, "on_alarm=stop")


def test_a_kill_while_going_back_is_made_up_for(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: dict[str, float]
) -> None:
    def killed(self: RunDir, to: int, lr_scale: float) -> None:
        add(self, to, lr_scale)
        raise KeyboardInterrupt

    add = RunDir.add_rollback
    monkeypatch.setattr(RunDir, "add_rollback", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, *RUN, "on_alarm=rollback")
    monkeypatch.setattr(RunDir, "add_rollback", add)
    assert checkpoints(tmp_path) == [4, 5]
    rows = of_kind(run(tiny_model, tmp_path, *RUN, "on_alarm=rollback"), "train")
    assert [row["lr"] for row in rows] == [1e-3] * 4 + [5e-4] * 3
    assert checkpoints(tmp_path / "abandoned/after_step_000004") == [5]


def test_without_an_older_checkpoint_it_ends(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, scripted: dict[str, float]
) -> None:
    with pytest.raises(UserError, match="there is no older checkpoint"):
        run(tiny_model, tmp_path, *RUN, "on_alarm=rollback", "checkpoints.every=10")
    assert checkpoints(tmp_path) == [6]


@pytest.mark.slow
def test_a_far_too_high_learning_rate_rings(tmp_path: Path) -> None:
    """The real command with the shipped model: it ends with a sentence and status 2, and its last update is saved."""
    nano = Path(__file__).parent.parent / "resd/model/nano"
    settings = ["task=manufactoria", "algorithm=sdpo", "batch_size=8", "rollout.max_prompt=1000", "checkpoints.every=2"]
    settings += ["rollout.max_response=40", "evaluation.before=false", "evaluation.every=0", "evaluation.limit=1"]
    settings += ["optimizer.lr=0.4", "optimizer.warmup=100", "alarm.reference=4", "on_alarm=stop", "steps=30"]
    command = [sys.executable, "-m", "resd.train", f"model.path={nano}", f"run_dir={tmp_path / 'run'}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "error: alarm in update" in done.stderr
    last = of_kind(metrics(tmp_path / "run"), "train")[-1]
    assert any(last[f"alarm/{what}"] for what in QUANTITIES)
    assert checkpoints(tmp_path / "run")[-1] == last["step"]
