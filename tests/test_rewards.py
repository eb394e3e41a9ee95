"""Graded rewards, everywhere: metrics, console, tables, ranking, report; and nothing of them where they say nothing."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import local, rows, train
from test_report import attempt, report
from torch.distributed.device_mesh import DeviceMesh

from resd.measure.evaluation import summarise
from resd.observe.run import outcome
from resd.report.groups import group_runs
from resd.report.log import Log
from resd.report.markdown import curves, scores
from resd.report.ranking import METRICS, best_step
from resd.report.read import read_runs
from resd.report.rewards import REWARD, graded, ranked
from resd.types import Attempt, Verdict

Marks = Sequence[Sequence[float]]  # of each sample: the reward of all judges, then of each


def judged(marks: Marks) -> list[Attempt]:
    """Two samples of each problem."""
    found = []
    for i, (reward, *of) in enumerate(marks):
        each = attempt(1, f"p{i // 2}", False, "x")
        parts = {f"reward/{name}": mark for name, mark in zip(("exact", "short"), of, strict=False)}
        each.verdict = Verdict(reward, reward == 1, int(reward == 1), 1, "", scores=parts)
        found.append(each)
    return found


GRADED = judged([(0.25, 0, 0.5), (0.5, 0, 1), (1, 1, 1), (0.0, 0, 0)])
BINARY = judged([(0.0,), (1.0,), (1.0,), (1.0,)])


def test_mean_and_best_of_the_reward_and_of_each_judge() -> None:
    found = summarise(GRADED, 2)
    assert {name: value for name, value in found.items() if "@" in name} == {
        "eval/per_task/mean@2": 0.25,
        "eval/per_task/best@2": 0.5,
        "eval/per_case/mean@2": 0.25,
        "eval/per_case/best@2": 0.5,
        "eval/reward/mean@2": (0.375 + 0.5) / 2,
        "eval/reward/best@2": 0.75,
        "eval/reward/exact/mean@2": 0.25,
        "eval/reward/exact/best@2": 0.5,
        "eval/reward/short/mean@2": (0.75 + 0.5) / 2,
        "eval/reward/short/best@2": 1.0,
    }
    GRADED[0].verdict, kept = None, GRADED[0].verdict
    lost = summarise(GRADED, 2)
    GRADED[0].verdict = kept
    assert lost["eval/reward/mean@2"] == (0.25 + 0.5) / 2


def test_training_has_the_reward_of_each_judge() -> None:
    found = outcome(GRADED)
    assert (found["train/reward"], found["train/reward/exact"], found["train/reward/short"]) == (0.4375, 0.25, 0.625)
    assert [name for name in outcome(BINARY) if "reward" in name] == ["train/reward"]


def test_rewards_are_graded_unless_they_are_passed_or_not() -> None:
    assert graded(summarise(GRADED, 2))
    assert graded(outcome(GRADED))
    assert not graded(summarise(BINARY, 2))
    assert not graded(outcome(BINARY))
    assert not graded({"eval/per_task/mean@2": 0.5, "loss": 1.0})
    assert not graded({"eval/per_task/mean@2": 0.5, "eval/reward/mean@2": None})
    assert not graded({"eval/per_task/mean@2": 0.5, "eval/reward/mean@2": 0.5, "eval/reward/a/mean@2": 0.1})


def told(capsys: pytest.CaptureFixture[str], attempts: list[Attempt]) -> str:
    log = Log(None, talks=True)
    log.update(1, 2, outcome(attempts))
    log.evaluation(1, summarise(attempts, 2))
    log.forgetting(1, "second", summarise(attempts, 2, "forgetting"))
    log.accuracy({1: summarise(attempts, 2)}, 1)
    return capsys.readouterr().out


def test_the_console_shows_graded_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, GRADED)
    assert "passed 25.0%  cases 25.0%  reward 43.8%  length" in said
    assert "case/best@2 50.0%  reward/mean@2 43.8%  reward/best@2 75.0%  reward/exact/mean@2 25.0%" in said
    assert "case 25.0%  reward 43.8%" in said
    assert re.search(r"reward/mean@2 +│ +43\.75 ", said)
    assert re.search(r"reward/short/best@2 +│ +100\.00 ", said)


def test_the_console_of_a_binary_task_is_silent_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "reward" not in told(capsys, BINARY)


# ------------------------------------------------------------------------------------------------------- ranking


def evaluation(task: float, case: float, reward: float | None = None) -> dict[str, float]:
    found = {METRICS[0]: task, METRICS[1]: task, METRICS[2]: case, METRICS[3]: case}
    found |= {} if reward is None else dict.fromkeys(REWARD, reward)
    return {name.format(n=4): value for name, value in found.items()}


def test_a_graded_reward_ranks_where_nothing_passes() -> None:
    assert best_step({4: evaluation(0, 0), 8: evaluation(0, 0), 12: evaluation(0, 0)}) == 4
    assert best_step({4: evaluation(0, 0, 0.1), 8: evaluation(0, 0, 0.3), 12: evaluation(0, 0, 0.2)}) == 8


def test_rewards_that_say_nothing_new_leave_the_papers_rule() -> None:
    """The reward would outvote the others here, if the share of cases or of tasks counted twice."""
    for task, case in ((0, 1), (1, 0)):
        rows = {4: (0.1, 0.2), 8: (0.2, 0.1)}
        with_reward = {step: evaluation(*both, both[1]) for step, both in rows.items()}
        assert best_step(with_reward) == best_step({step: evaluation(*both) for step, both in rows.items()}) == 4
        assert not ranked(evaluation(task, case, case))
        assert not ranked(evaluation(task, case, task))
    assert ranked(evaluation(0, 1, 0.5))


def test_evaluations_from_before_have_no_reward() -> None:
    assert best_step({4: evaluation(0, 0), 8: evaluation(0, 0, 0.3)}) == 4


# -------------------------------------------------------------------------------------------------------- report


def run_of(folder: Path, steps: Sequence[list[Attempt]], seed: int = 0) -> Path:
    folder.mkdir()
    config = {"seed": seed, "algorithm": {"name": "method"}, "task": {"name": "toy"}}
    (folder / "config.yaml").write_text(json.dumps(config))
    log = Log(folder, talks=False)
    for step, attempts in enumerate(steps):
        log.metrics(step, "train", {**outcome(attempts), "interactions": 4 * step})
        log.metrics(step, "eval", summarise(attempts, 2))
    log.close()
    return folder


def heads(page: Mapping[str, Any]) -> list[str]:
    return page["tables"][0][0][4:]


def test_the_report_shows_graded_rewards(tmp_path: Path) -> None:
    better = judged([(0.75, 0.5, 1), (0.75, 0.5, 1), (1, 1, 1), (0.0, 0, 0)])
    run = run_of(tmp_path / "graded", [GRADED, GRADED, better, GRADED])
    page = report(tmp_path, run)
    assert heads(page) == ["Per task", "Per case", "Reward", "Reward: exact", "Reward: short"]
    assert page["tables"][0][1] == ["mean@2", "best@2"] * 5
    [best] = [row for row in page["tables"][0] if "best" in row[:2]]
    assert best[-6:-4] == ["62.5", "87.5"]
    assert best[-10:-6] == ["25.0", "50.0", "25.0", "50.0"]
    assert best[1] == "2"
    assert page["data"]["graded"] is True
    assert "over the reward where" in (tmp_path / "report.html").read_text()
    groups = group_runs(read_runs([run]))
    assert "| reward/mean@2 | reward/best@2 | reward/exact/mean@2 |" in scores(groups)
    assert "| per task, mean@n | reward, mean@n |" in curves(groups)
    assert "| 2 | 8 | 0 | 25.0 | 62.5 |" in curves(groups)


def test_a_run_without_judges_beside_one_with(tmp_path: Path) -> None:
    page = report(tmp_path, run_of(tmp_path / "a", [GRADED, GRADED]), run_of(tmp_path / "b", [BINARY, BINARY], 1))
    assert heads(page)[2:] == ["Reward", "Reward: exact", "Reward: short"]


def test_the_report_of_a_binary_task_has_four_columns(tmp_path: Path) -> None:
    run = run_of(tmp_path / "binary", [BINARY, BINARY])
    page = report(tmp_path, run)
    assert heads(page) == ["Per task", "Per case"]
    assert page["data"]["graded"] is False
    assert "over the reward where" not in (tmp_path / "report.html").read_text()
    assert "reward" not in scores(group_runs(read_runs([run]))) + curves(group_runs(read_runs([run])))


# --------------------------------------------------------------------------------------------------------- a run


def test_a_run_with_several_judges(
    mesh: DeviceMesh, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    several = "{even: judges:plain, quarter: {function: judges:number, weight: 3}}"
    words = [word for word in local(tmp_path, ["", ""]) if "verifier" not in word]
    words += [f"task.options.verifier={several}", "steps=1", "algorithm=sdpo", "on_empty=warn"]
    done = train(capfd, *words, f"model.path={tiny_model}", f"run_dir={run}")
    assert done.status == 0, done.err
    learned, measured = rows(run)
    for row, name in ((learned, "train/reward{}"), (measured, "eval/reward{}/mean@1")):
        even = row[name.format("/even")]
        assert row[name.format("/quarter")] == 0.25
        assert row[name.format("")] == pytest.approx((even + 0.75) / 4)
    assert re.search(r"update 1/1 .*  reward \d+\.\d%", done.out)
    assert re.search(r"test after update 1 .*  reward/mean@1 \d.*  reward/quarter/mean@1 25\.0%", done.out)
    kept = json.loads((run / "attempts/step_000001.jsonl").read_text().splitlines()[0])["verdict"]
    assert kept["scores"]["reward/quarter"] == 0.25
    assert "quarter: a quarter" in kept["feedback"]
