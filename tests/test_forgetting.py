"""The second task during training: what is measured when, its interval, resuming; and judges that test themselves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import parse
from test_train import of_kind, run
from torch.distributed.device_mesh import DeviceMesh

from resd import envs
from resd.envs.manufactoria import task as manufactoria
from resd.measure.evaluation import scores, summarise
from resd.measure.forgetting import difference
from resd.report.html import write_report
from resd.task import SelfTesting
from resd.types import Attempt, Problem, UserError, Verdict

SECOND = ["task@forgetting.task=custom", "forgetting.task.name=verifier_tasks:Echo", "forgetting.samples=3"]


# -------------------------------------------------------------------------------------------------- difference


def test_equal_changes_have_no_interval() -> None:
    base = {"a": 0.0, "b": 0.5, "c": 0.75}
    assert difference(base, {name: value + 0.25 for name, value in base.items()}) == (0.25, 0.25, 0.25)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_interval_lies_among_the_changes_and_turns_with_its_sign(pairs: list[tuple[float, float]]) -> None:
    base, now = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    change, low, high = difference(base, now)
    assert change == pytest.approx(sum(now.values()) / len(pairs) - sum(base.values()) / len(pairs), abs=1e-12)
    changes = [now[id] - base[id] for id in base]
    assert min(changes) - 1e-12 <= low <= high <= max(changes) + 1e-12
    assert difference(now, base) == pytest.approx((-change, -high, -low), abs=1e-9)


def test_the_interval_is_that_of_the_paired_mean() -> None:
    random = np.random.default_rng(0)
    level, noise = random.uniform(0, 1, 400), random.normal(0, 0.1, 400)
    base, now = ({str(i): float(v) for i, v in enumerate(values)} for values in (level, level + noise))
    change, low, high = difference(base, now)
    half = 1.96 * float(noise.std()) / math.sqrt(400)
    assert (high - change, change - low) == pytest.approx((half, half), rel=0.1)
    assert high - low < 0.3 * 2 * 1.96 * float(level.std()) * math.sqrt(2 / 400)  # unpaired


# ----------------------------------------------------------------------------------------------------- scores


def attempt(id: str, verdict: Verdict | None, cases: int = 4) -> Attempt:
    problem = Problem(id, "", cases=[0] * cases)
    return Attempt(id, problem, [], "", [], [1], [0.0], "", False, verdict)


def test_further_scores_and_pooled_cases_are_reported() -> None:
    attempts = [
        attempt("a", Verdict(1.0, True, 4, 4, scores={"per_task_loose": 1.0})),
        attempt("a", Verdict(0.5, False, 2, 4, scores={"per_task_loose": 1.0})),
        attempt("b", Verdict(0.0, False, 0, 1, scores={"per_task_loose": 0.0}), 1),
        attempt("b", None, 1),
    ]
    found = summarise(attempts, 2, "forgetting")
    expected = {"per_task/mean@2": 0.25, "per_task/best@2": 0.5, "per_case/mean@2": 0.375, "per_case/best@2": 0.5}
    expected |= {"per_task_loose/mean@2": 0.5, "per_task_loose/best@2": 0.5, "per_case/pooled": 0.6, "lost": 1}
    assert {name: found[f"forgetting/{name}"] for name in expected} == expected
    assert scores(attempts)["per_task_loose"] == {"a": [1.0, 1.0], "b": [0.0, 0.0]}


# ------------------------------------------------------------------------------------------------- whole runs


def test_the_second_task_is_measured_before_between_and_after(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path
) -> None:
    rows = run(tiny_model, tmp_path / "run", *SECOND, "forgetting.every=2", "forgetting.limit=5", "steps=3")
    plain = run(tiny_model, tmp_path / "plain", "steps=3")
    found = of_kind(rows, "forgetting")
    assert [row["step"] for row in found] == [0, 2, 3]
    both = {f"forgetting/{k}/{s}@3" for k in ("per_task", "per_case") for s in ("mean", "best")}
    changes = {
        f"forgetting/{k}/{c}"
        for k in ("per_task", "per_case", "reward")
        for c in ("change", "change_low", "change_high")
    }
    assert both <= found[0].keys()
    assert not changes & found[0].keys()
    assert both | changes <= found[1].keys()
    for row in found[1:]:
        moved = row["forgetting/per_case/mean@3"] - found[0]["forgetting/per_case/mean@3"]
        assert row["forgetting/per_case/change"] == pytest.approx(moved, abs=1e-12)
    base = json.loads((tmp_path / "run/checkpoints/step_000003/state/run.json").read_text())["forgetting"]
    assert {name: len(by_problem) for name, by_problem in base.items()} == {"per_task": 5, "per_case": 5, "reward": 5}
    for with_it, without in zip(of_kind(rows, "train"), of_kind(plain, "train"), strict=True):
        assert with_it["loss"] == without["loss"]  # measuring changes nothing
    assert write_report([tmp_path / "run"], tmp_path / "report.html") > 0
    [shown] = parse(tmp_path / "report.html")["data"]["runs"]
    assert "forgetting/per_task/mean@3" in shown["timeline"]["columns"]


def test_a_resumed_run_keeps_its_base(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    second = [*SECOND, "forgetting.every=1"]
    whole = run(tiny_model, tmp_path / "whole", *second, "steps=3")
    run(tiny_model, tmp_path / "parts", *second, "steps=2")
    parts = run(tiny_model, tmp_path / "parts", *second, "steps=3")
    assert of_kind(parts, "forgetting") == of_kind(whole, "forgetting")
    with pytest.raises(UserError, match=r"forgetting\.samples=3, not 2"):
        run(tiny_model, tmp_path / "parts", *second, "steps=3", "forgetting.samples=2")
    run(tiny_model, tmp_path / "late", *SECOND)
    with pytest.raises(UserError, match="began without it"):
        run(tiny_model, tmp_path / "late", *second, "steps=3")


def test_the_alarm_hears_what_became_of_the_second_task(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[dict[str, float]] = []
    monkeypatch.setattr("resd.alarm.Alarm.note", lambda self, metrics: heard.append(dict(metrics)))
    rows = of_kind(run(tiny_model, tmp_path / "run", *SECOND, "forgetting.every=1"), "forgetting")
    told = [{name: row[name] for name in row if name.endswith("change_high")} for row in rows[1:]]
    assert len(told) == 2
    assert [{name: each[name] for name in each if name.endswith("change_high")} for each in heard] == told


def test_a_task_is_a_group_here_too(mesh: DeviceMesh, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"write task@forgetting\.task=ifeval"):
        run(tiny_model, tmp_path, "forgetting.task=ifeval", "forgetting.every=1")


# --------------------------------------------------------------------------------------------------- self-tests


def test_manufactorias_judge_tests_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"evaluator": "strict"}, {"feedback": "compact", "reward": "dense"}):
        task = envs.load("manufactoria", **options)
        assert isinstance(task, SelfTesting)
        task.self_test()
    for passed in (True, False):
        monkeypatch.setattr(manufactoria, "grade", lambda *_, passed=passed, **__: Verdict(0.0, passed, 0, 1))
        with pytest.raises(UserError, match="passes this" if passed else "fails this"):
            envs.load("manufactoria").self_test()


@pytest.mark.parametrize(
    "overrides",
    [
        ["task.name=verifier_tasks:Broken"],
        ["task@forgetting.task=custom", "forgetting.task.name=verifier_tasks:Broken", "forgetting.every=1"],
    ],
)
def test_a_run_does_not_start_with_a_broken_judge(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, overrides: list[str]
) -> None:
    with pytest.raises(UserError, match="judge of broken"):
        run(tiny_model, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()
